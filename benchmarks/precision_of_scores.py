"""Effect of a lower precision of the forward passes on each score.

Compares two runs of one zoo that differ in ``--precision`` only, and prints for each score the difference of its values
in standard errors, and Spearman's correlation of the two rankings::

    dsmi-zoo run --out runs/digits
    dsmi-zoo run --out runs/digits-bf16 --precision bf16
    python benchmarks/precision_of_scores.py runs/digits runs/digits-bf16
"""

import sys
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from dsmi_zoo.pipeline.measures.catalog import COMPARISONS, MEASURES
from dsmi_zoo.pipeline.store.run_folder import read_results

KEY = ["model", "img_size"]
NO_ERROR = 1e-9  # all halves of the images agree on this score


def main() -> None:
    """Print the table."""
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    usual, lower = (read_results(Path(out)).set_index(KEY).sort_index() for out in sys.argv[1:])
    names = [
        one.name for one in (*MEASURES, *COMPARISONS) if one.name in usual and one.name in lower
    ]
    print(f"{len(usual)} models, {usual['precision'].iloc[0]} and {lower['precision'].iloc[0]}")
    print("| score | median difference / standard error | greatest | Spearman's rho |")
    print("| --- | ---: | ---: | ---: |")
    for name in names:
        a, b = usual[name].to_numpy(float), lower[name].to_numpy(float)
        known = np.isfinite(a) & np.isfinite(b)
        if known.sum() < 3:
            continue
        error_name = f"{name}_se" if f"{name}_se" in usual else "dsmi_z_y_null_sd"
        errors = usual[error_name].to_numpy(float)
        known_error = known & (errors > NO_ERROR)
        apart = np.abs(a - b)[known_error] / errors[known_error]
        rho = spearmanr(a[known], b[known]).statistic
        print(f"| `{name}` | {np.median(apart):.3f} | {apart.max():.2f} | {rho:.4f} |")


if __name__ == "__main__":
    main()
