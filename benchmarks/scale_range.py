"""The range of median distance over sigma within which DSMI is at least a quarter of its best.

    python benchmarks/scale_range.py            two minutes on one core

Each distribution of ``score_errors.py``, and one of nearly collapsed classes, is rescaled so that its median distance
over sigma runs from 0.1 to 10. The table has DSMI(Z;Y) minus its null, averaged over eight draws, as a share of its
greatest value over these scales, for ten classes and for these merged into two; the last line has the range in which
every share is at least a quarter. ``SENSIBLE_DISTANCES`` of ``pipeline/measures/catalog.py`` is that range, rounded.
"""

import numpy as np
import pandas as pd
import score_errors

import dsmi_zoo

RATIOS = np.geomspace(0.1, 10, 21)
DRAWS = 8
LEAST = 0.25


def nearly_collapsed(rng: np.random.Generator) -> score_errors.Draw:
    """Return classes a tenth as wide as they are apart."""
    return score_errors.mixture(rng, 0.1)


CASES = {**score_errors.CASES, nearly_collapsed.__name__: nearly_collapsed}


def shares(case: str, classes: int) -> pd.Series:
    """Return DSMI minus its null at each ratio, as a share of the greatest."""
    found = np.zeros(len(RATIOS))
    for draw in range(DRAWS):
        points, labels = CASES[case](np.random.default_rng([3, draw]))
        sample = np.random.default_rng(0).permutation(len(points))[:200]
        distances = np.linalg.norm(points[sample[:100], None] - points[sample[100:]], axis=2)
        unit = points / np.median(distances) * np.sqrt(points.shape[1])
        for place, ratio in enumerate(RATIOS):
            values = dsmi_zoo.measure(ratio * unit, labels % classes, scores="dsmi_z_y_net")
            found[place] += float(values["dsmi_z_y_net"])
    return pd.Series(found / found.max(), RATIOS.round(2), name=(case, classes))


def main() -> None:
    """Print the table."""
    table = pd.concat([shares(case, classes) for case in CASES for classes in (2, 10)], axis=1)
    print(table.T.round(2).to_string())
    enough = table.index[(table >= LEAST).all(axis=1)]
    print(f"at least {LEAST} of the best in every case: {enough.min()} to {enough.max()}")


if __name__ == "__main__":
    main()
