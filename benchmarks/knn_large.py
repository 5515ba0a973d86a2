"""Time, memory and error of DSE by nearest neighbours for many points.

python benchmarks/knn_large.py                  200,000 points of 256 dimensions in 20 overlapping classes
python benchmarks/knn_large.py --n 20000        small enough to compare with `--exact`, which takes an hour
"""

import argparse
import resource
import time

import numpy as np

from dsmi_zoo.pipeline.measures.core.distances import Points
from dsmi_zoo.pipeline.measures.core.settings import MeasureSettings
from dsmi_zoo.pipeline.measures.dse.knn import KnnEntropies


def main() -> None:
    """Print one line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=200_000)
    parser.add_argument("--d", type=int, default=256)
    parser.add_argument("--exact", action="store_true")
    arguments = parser.parse_args()
    generator = np.random.default_rng(0)
    n, d = arguments.n, arguments.d
    Z = generator.standard_normal((n, d))
    Z += generator.normal(size=(20, d))[np.arange(n) % 20] / 2
    settings = MeasureSettings(method="exact" if arguments.exact else "lanczos")
    started, used = time.perf_counter(), time.process_time()
    (found,) = KnnEntropies(Points(Z), settings).of([np.arange(n)])
    seconds, used = time.perf_counter() - started, time.process_time() - used
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"n {n:,}, d {d}: {found.value:.4f} bits, standard error {found.standard_error:.4f} ({found.method}), "
        f"{seconds:.0f} s ({used:.0f} s of CPU), {memory:.2f} GiB"
    )


if __name__ == "__main__":
    main()
