"""Comparison of two search orders in a short time: cheapest first, or first those that no cheaper one beats.

    python benchmarks/search_order.py

Uses the published table of 2025. GMACs stand for the time, top-1 accuracy for prior knowledge, and the accuracy on
ImageNet-Sketch, -R and -A for that on one's own images. A line has a time limit, as a share of the time of all models,
and for each order the best accuracy among the models that fit into it, in points below the best of all.
"""

import numpy as np

from dsmi_zoo.data_catalog.models.registry import load_models
from dsmi_zoo.pipeline.plan.order import search_order

TARGETS = ("sketch_top1", "r_top1", "a_top1")
SHARES = (0.002, 0.01, 0.05, 0.2)


def main() -> None:
    """Print a Markdown table."""
    entries = [entry for entry in load_models("imagenet-2025") if entry.extras["gmacs"]]
    costs = np.array([entry.extras["gmacs"] for entry in entries], dtype=float)
    orders = {
        "cheapest first": np.argsort(costs, kind="stable"),
        "most promising first": np.array(
            search_order(list(costs), [entry.top1 for entry in entries])
        ),
    }
    print(f"| time | target | {' | '.join(orders)} |")
    print(f"| ---: | --- | {' | '.join('---:' for _ in orders)} |")
    for share in SHARES:
        for target in TARGETS:
            accuracy = np.array([entry.extras[target] or np.nan for entry in entries], dtype=float)
            lost = []
            for order in orders.values():
                taken = order[costs[order].cumsum() <= share * costs.sum()]
                lost.append(
                    f"{np.nanmax(accuracy) - np.nanmax(accuracy[taken]):.1f} ({len(taken)} models)"
                )
            print(f"| {share:.1%} | {target} | {' | '.join(lost)} |")


if __name__ == "__main__":
    main()
