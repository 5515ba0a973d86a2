"""Which sigma, t, preparation and normalisation of DSMI predicts accuracy best on the digits zoo?

    python benchmarks/better_default.py [--out runs/better-default] [--figure FILE.png]

It trains and measures the digits zoo once a seed, of initialisation, order, training images and split alike (about a
minute each on two cores), computes every candidate from the kept embeddings (about six minutes), selects, and reports.
It can be stopped at any time; the same command goes on. What was settled before anything was looked at:

- The score of a candidate is Spearman's correlation with top-1 accuracy over the models of one seed, a mean over seeds.
- Selection on 8 architectures of 16, drawn with seed 0; all that is claimed is measured on the other 8.
- Selected is the *simplest* candidate (fewest departures from the paper's sigma = sqrt(d), t = 1, the embedding as it
  is, plain DSMI; then the highest) within one standard error of the highest. The highest stands beside it.
- Intervals resample whole architectures, the same ones for all seeds and scores; Student's t with 7 degrees of freedom.
- Four differences are claimed or denied, and corrected by Holm: both candidates' from the paper's choice and from the
  accuracy of 10 nearest neighbours.
"""

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from better_default_candidates import (
    CANDIDATES,
    DESCRIBED,
    FRACTIONS,
    KERNELS,
    PAPER,
    PREPARATIONS,
    TIMES,
    Array,
    Candidate,
    Kernel,
    parts,
    scores,
)
from better_default_statistics import Resampled, Zoo, halves, select, spearman
from rich.console import Console
from rich.progress import track
from statsmodels.stats.multitest import multipletests
from threadpoolctl import threadpool_limits

from dsmi_zoo._util.files import write_atomically
from dsmi_zoo.jobs.runs.run import run
from dsmi_zoo.pipeline.config.run import RunConfig
from dsmi_zoo.pipeline.store.run_folder import embedding_path, read_results, read_run
from dsmi_zoo.pipeline.store.subset_file import read_subset

mpl.use("Agg")
from matplotlib import pyplot as plt

SEEDS = (1, 2, 3, 4, 5, 6)
SPLITS = 20
ALSO = (
    "neighbour_accuracy",
    "probe_accuracy",
    "centre_accuracy",
    "logme",
    "h_score",
    "within_over_between",
)
FROM_THE_FIRST_LOOK = (("as it is", "0.5 median distance"), ("cosine", "0.5"))
CONTROLS = ("embedding_rms", "embedding_dim", "params_m")


def make_run(folder: Path, seed: int) -> Path:
    """The digits zoo of a seed by the real pipeline, its embeddings kept."""
    config = RunConfig(catalog=f"digits:{seed}", out=folder / f"digits-{seed}")
    if run(config):
        raise SystemExit(f"{config.folder}: a model failed")
    return config.folder


def compute_candidates(folder: Path, run_folder: Path, console: Console) -> None:
    """Fill in ``candidates/`` for every embedding of a run."""
    slugs = [entry.slug for entry in read_run(run_folder).entries]
    todo = [
        (run_folder, slug, kernels, path)
        for slug in slugs
        for kernels in (KERNELS, DESCRIBED)
        if not (path := stored(folder, run_folder, slug, kernels)).exists()
    ]
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        for _ in track(pool.map(_compute, todo), run_folder.name, len(todo), console=console):
            pass


def stored(folder: Path, run_folder: Path, slug: str, kernels: Sequence[Kernel] = KERNELS) -> Path:
    """Where the candidates of an embedding stand; another grid, another place."""
    grid = sha256("\n".join(map(str, (*kernels, TIMES))).encode()).hexdigest()[:8]
    return folder / "candidates" / grid / run_folder.name / f"{slug}.npy"


def _compute(job: tuple[Path, str, tuple[Kernel, ...], Path]) -> None:
    run_folder, slug, kernels, path = job
    Z = np.load(embedding_path(run_folder, slug)).astype(float)
    with threadpool_limits(1):
        found = parts(Z, read_subset(run_folder)["label"].to_numpy(), kernels)
    write_atomically(path, lambda file: np.save(file, found))


def read_zoo(folder: Path, runs: Sequence[Path]) -> Zoo:
    """What the runs and the candidates say, held against each other."""
    tables, found, described = [], [], []
    for run_folder in runs:
        labels = read_subset(run_folder)["label"].to_numpy()
        slugs = {
            (entry.model, entry.img_size): entry.slug for entry in read_run(run_folder).entries
        }
        rows = read_results(run_folder).reset_index(drop=True)
        of = [slugs[name] for name in zip(rows["model"], rows["img_size"], strict=True)]
        found.append(
            np.array([scores(np.load(stored(folder, run_folder, slug)), labels) for slug in of])
        )
        described.append(
            np.array([np.load(stored(folder, run_folder, slug, DESCRIBED))[..., 0] for slug in of])
        )
        tables.append(rows)
        worst = float(np.abs(found[-1][:, PAPER] - rows["dsmi_z_y"]).max())
        if worst > 1e-3:
            raise SystemExit(
                f"{run_folder}: the paper's DSMI differs from the rows' by {worst:.2g} bits"
            )
    first = tables[0]
    assert all((table["model"] == first["model"]).all() for table in tables)
    sign = {name: -1 if name == "within_over_between" else 1 for name in ALSO}

    def columns(name: str) -> Array:
        return np.array([table[name].to_numpy(dtype=float) for table in tables])

    return Zoo(
        first["architecture"].to_numpy(dtype=str),
        first["group"].to_numpy(dtype=str),
        columns("top1"),
        np.array(found),
        np.array(described),
        {name: sign[name] * columns(name) for name in ALSO},
        np.log10(np.stack([columns(name) for name in CONTROLS], axis=2)),
    )


def report(zoo: Zoo, folder: Path, figure: Path, console: Console) -> dict[str, Any]:
    """Select, measure on the held-out architectures, print; what was found."""
    selecting, held_out = halves(zoo.architectures, 0)
    highest, simplest = select(zoo, selecting)
    on = Resampled(zoo, held_out)
    neighbours, paper = zoo.others["neighbour_accuracy"], zoo.candidates[:, :, PAPER]
    selected = {"selected": simplest, "highest": highest}
    first_look = {
        f"first look {n}": CANDIDATES.index(_plain(*kernel))
        for n, kernel in enumerate(FROM_THE_FIRST_LOOK, start=1)
    }
    shown = {"10 nearest neighbours": neighbours, "paper": paper}
    shown |= {role: zoo.candidates[:, :, i] for role, i in (selected | first_look).items()}
    shown |= {name: zoo.others[name] for name in ALSO[1:]}
    titles = {"paper": str(CANDIDATES[PAPER])} | {
        r: str(CANDIDATES[i]) for r, i in (selected | first_look).items()
    }

    rows: list[dict[str, Any]] = []
    for role, x in shown.items():
        value, ci = on.interval(x)
        row: dict[str, Any] = {
            "role": role,
            "score": titles.get(role, role),
            "spearman": value,
            "ci": ci,
        }
        row["selecting_half"] = float(spearman(x[:, selecting, None], zoo.top1[:, selecting])[0])
        row["partial"], row["partial_ci"] = on.partial(x)
        row["within_budget"] = on.within_groups(x)
        row["over_paper"] = None if role == "paper" else on.difference(x, paper)
        row["over_neighbours"] = (
            None if role == "10 nearest neighbours" else on.difference(x, neighbours)
        )
        rows.append(row)
    claims = [
        (row, name)
        for row in rows
        if row["role"] in selected
        for name in ("over_paper", "over_neighbours")
    ]
    adjusted = multipletests([row[name][2] for row, name in claims], method="holm")[1]
    holm = {
        f"{row['role']} {name}": float(p) for (row, name), p in zip(claims, adjusted, strict=True)
    }

    stability = []
    for seed in range(1, SPLITS + 1):
        chosen, rest = halves(zoo.architectures, seed)
        by_rule = dict(zip(("highest", "selected"), select(zoo, chosen), strict=True))
        compared = {rule: zoo.candidates[:, :, i] for rule, i in by_rule.items()}
        compared |= {"paper": paper, "neighbours": neighbours}
        rho = {
            name: float(spearman(x[:, rest, None], zoo.top1[:, rest])[0])
            for name, x in compared.items()
        }
        stability.append(
            {"split": seed, **{r: str(CANDIDATES[i]) for r, i in by_rule.items()}, "rho": rho}
        )
    draw(zoo, held_out, figure)
    found = {
        "selecting": sorted(set(zoo.architectures[selecting].tolist())),
        "held_out": sorted(set(zoo.architectures[held_out].tolist())),
        "seeds": len(zoo.top1),
        "candidates": len(CANDIDATES),
        "table": rows,
        "holm": holm,
        "selected_over_paper_by_jackknife": on.jackknifed(shown["selected"], paper),
        "other_splits": stability,
    }
    table = pd.DataFrame({"candidate": map(str, CANDIDATES)})
    for name, of in (
        ("selecting", selecting),
        ("held_out", held_out),
        ("all", selecting | held_out),
    ):
        table[name] = spearman(zoo.candidates[:, of], zoo.top1[:, of])
    write_atomically(
        folder / "candidates.csv", lambda file: table.to_csv(file, index=False, float_format="%.4f")
    )
    _print(found, console)
    return found


def _plain(preparation: str, width: str, t: float = 1) -> Candidate:
    (number,) = (
        i for i, k in enumerate(KERNELS) if (k.preparation, k.width) == (preparation, width)
    )
    return Candidate(number, t, "DSMI")


def _print(found: dict[str, Any], console: Console) -> None:
    def shown(value: float, ci: Sequence[float] | None) -> str:
        return f"{value:.2f}" + (f" [{ci[0]:.2f}, {ci[1]:.2f}]" if ci else "")

    heads = (
        "score", "Spearman", "less the paper's", "less 10 neighbours'",
        "given scale, dimension, size", "within a budget", "on the selecting half",
    )  # fmt: skip
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for row in found["table"]:
        over = [row[name] for name in ("over_paper", "over_neighbours")]
        cells = [
            f"{row['role']}: {row['score']}" if row["role"] != row["score"] else row["score"],
            shown(row["spearman"], row["ci"]),
            *("" if o is None else shown(o[0], o[1]) for o in over),
            shown(row["partial"], row["partial_ci"]),
            f"{row['within_budget']:.2f}",
            f"{row['selecting_half']:.2f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    console.print("\n".join(lines), soft_wrap=True, markup=False, highlight=False)
    console.print(
        "Holm:", found["holm"], "selecting:", found["selecting"], "held out:", found["held_out"]
    )
    console.print("selected over paper by a jackknife:", found["selected_over_paper_by_jackknife"])
    splits = found["other_splits"]
    for rule in ("selected", "highest"):
        for candidate, count in Counter(split[rule] for split in splits).most_common(3):
            console.print(
                f"{count} of {len(splits)} other splits, {rule}: {candidate}",
                highlight=False,
                soft_wrap=True,
            )
    for rival in ("paper", "neighbours"):
        behind = np.array([split["rho"]["selected"] - split["rho"][rival] for split in splits])
        span, above = f"{behind.min():.2f} to {behind.max():.2f}", (behind > 0).sum()
        told = f"the rule's choice less {rival}: {span}, above 0 in {above}"
        console.print(f"held out there, {told} of {len(splits)}", highlight=False, soft_wrap=True)


def draw(zoo: Zoo, rows: np.ndarray, path: Path) -> None:
    """Spearman's rho against sigma, by its unit and the preparation, for t = 1 and t = 2, beside the rivals."""
    y = zoo.top1[:, rows]
    rho, described = (
        spearman(x[:, rows].reshape(*y.shape, -1), y) for x in (zoo.candidates, zoo.described)
    )
    described = described.reshape(len(DESCRIBED), len(TIMES))
    neighbours = float(spearman(zoo.others["neighbour_accuracy"][:, rows, None], y)[0])
    figure, both = plt.subplots(1, 2, figsize=(10, 4.5), sharey=True, layout="constrained")
    for axes, t in zip(both, (1, 2), strict=True):
        by_length = {str(k): described[i, TIMES.index(t)] for i, k in enumerate(DESCRIBED)}
        by_length |= {
            str(k): rho[CANDIDATES.index(Candidate(i, t, "DSMI"))] for i, k in enumerate(KERNELS)
        }
        line = [by_length[f"sigma = {c:g} rms sqrt(d)"] for c in FRACTIONS]
        axes.plot(
            FRACTIONS,
            line,
            marker="s",
            linewidth=2.5,
            color="tab:purple",
            label="lengths (rms sqrt(d)), as it is",
        )
        for preparation in PREPARATIONS:
            line = [
                rho[CANDIDATES.index(_plain(preparation, f"{c:g} median distance", t))]
                for c in FRACTIONS
            ]
            axes.plot(
                FRACTIONS, line, marker="o", markersize=4, label=f"median distances, {preparation}"
            )
        axes.axhline(neighbours, color="black", label="10 nearest neighbours")
        axes.axhline(
            rho[PAPER], color="black", linestyle="--", label="the paper's sigma = sqrt(d), t = 1"
        )
        axes.set(
            title=f"t = {t}", xscale="log", xticks=FRACTIONS, xticklabels=[f"{c:g}" for c in FRACTIONS],
            xlabel="sigma, in the unit of the legend",
        )  # fmt: skip
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    both[0].set_ylabel(
        "Spearman\N{RIGHT SINGLE QUOTATION MARK}s rho of DSMI(Z;Y) and top-1, held out"
    )
    both[0].legend(fontsize=8, title="sigma in", loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Make the runs, compute the candidates, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/better-default"))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--only-runs", action="store_true", help="train and measure, go no further")
    parser.add_argument("--figure", type=Path, help="where to draw (OUT/better_default.png)")
    arguments = parser.parse_args()
    console, folder = Console(), arguments.out.absolute()
    runs = [make_run(folder, seed) for seed in arguments.seeds]
    if arguments.only_runs:
        return
    for run_folder in runs:
        compute_candidates(folder, run_folder, console)
    found = report(
        read_zoo(folder, runs), folder, arguments.figure or folder / "better_default.png", console
    )
    text = json.dumps(found, indent=1)
    write_atomically(folder / "better_default.json", lambda file: file.write(text.encode()))
    console.print(f"Written: {folder / 'better_default.json'}")


if __name__ == "__main__":
    main()
