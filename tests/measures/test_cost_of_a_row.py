"""The cost of a default row: no column takes much longer than the paper's measures."""

import time

import numpy as np

from dsmi_zoo.pipeline.measures import measure
from dsmi_zoo.pipeline.measures.catalog import COSTLY, ROW_MEASURES
from dsmi_zoo.pipeline.measures.core.context import MeasureContext
from dsmi_zoo.pipeline.measures.core.registry import COMPUTATIONS
from dsmi_zoo.pipeline.measures.core.settings import MeasureSettings
from dsmi_zoo.pipeline.measures.core.threads import one_blas_thread


def test_no_column_of_a_default_row_costs_four_times_what_dse_costs() -> None:
    generator = np.random.default_rng(0)
    labels = np.arange(1500) % 10
    Z = generator.normal(size=(1500, 64)) + generator.normal(size=(10, 64))[labels]
    clusters = generator.integers(0, 10, 1500)
    measure(Z[:1200], labels[:1200], input_clusters=clusters[:1200])  # imports on first use
    context = MeasureContext(Z, labels, None, clusters, MeasureSettings())
    spent = {}
    with one_blas_thread():
        for one in (one for one in ROW_MEASURES if one.name not in COSTLY):
            begun = time.process_time()
            COMPUTATIONS[one.name].result(context)
            spent[one.name] = time.process_time() - begun
    of_entropy = spent["saturated"]  # the first column that needs the entropy
    dear = {name: cost / of_entropy for name, cost in spent.items() if cost > 4 * of_entropy}
    assert not dear
