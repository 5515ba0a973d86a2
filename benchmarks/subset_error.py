"""Sampling error of DSMI(Z;Y) that comes from its random subsets, and that from the images.

    python benchmarks/subset_error.py           two minutes on one core

The table has standard deviations over 40 draws for three distributions of ``score_errors.py`` (300 points of 10
classes, scaled so that the median distance is sigma): of DSMI over seeds on the same images, and over fresh images and
seeds, with 5 and 50 repetitions; and of DSMI minus its null, which shares the subsets, beside its median stated error.
"""

import numpy as np
import pandas as pd
import score_errors

import dsmi_zoo

DRAWS = 40
NAMES = ("dsmi_z_y", "dsmi_z_y_net", "dsmi_z_y_net_se")


def scaled(case: str, draw: int) -> score_errors.Draw:
    """Return a draw whose median distance is about sqrt(d)."""
    points, labels = score_errors.CASES[case](np.random.default_rng([4, draw]))
    first, _ = score_errors.CASES[case](np.random.default_rng([4, 0]))
    order = np.random.default_rng(0).permutation(len(first))
    distances = np.linalg.norm(first[order[:150]] - first[order[150:]], axis=1)
    return points * np.sqrt(points.shape[1]) / np.median(distances), labels


def spreads(case: str) -> pd.Series:
    """Return the standard deviations, in bits."""
    found = {}
    for repetitions in (5, 50):
        same, fresh = [], []
        for draw in range(DRAWS):
            settings = {"seed": draw, "repetitions": repetitions, "scores": NAMES}
            same.append(dsmi_zoo.measure(*scaled(case, 0), **settings))
            fresh.append(dsmi_zoo.measure(*scaled(case, draw), **settings))
        for where, values in (("same images", same), ("fresh images", fresh)):
            table = pd.DataFrame(values)
            found[f"DSMI, {where}, {repetitions} repetitions"] = table["dsmi_z_y"].std()
            if repetitions == 5:
                found[f"net, {where}"] = table["dsmi_z_y_net"].std()
                found[f"net, stated, {where}"] = table["dsmi_z_y_net_se"].median()
    return pd.Series(found, name=case)


def main() -> None:
    """Print the table."""
    cases = ("separate", "rectified", "low_dimensional")
    print(pd.concat([spreads(case) for case in cases], axis=1).round(4).to_string())


if __name__ == "__main__":
    main()
