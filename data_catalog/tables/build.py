"""Derive ``data_catalog/tables/*.csv`` from timm's published results.

Run as ``python -m dsmi_zoo.data_catalog.tables.build FOLDER``.

FOLDER holds the published files under the names that ``tables/README.md`` lists. The same files and the same version
of timm give the same bytes. The catalogues need neither this script nor FOLDER.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import logit
from scipy.stats import linregress

from dsmi_zoo._util.errors import InputError

from ..models.registry import DEFAULT_MODELS, TABLES
from ..models.taxonomy import kind_of, pretraining_images
from ..models.timm_registry import family_of, input_of, timm_config, weights_of

# Published names that are others today. timm 1.0 spells module and names of SelecSLS in lower case. The TNT-S weights
# of 2023 were replaced; they live on under a name of their own, which the number of parameters tells: 23.76 million,
# not 23.77. (timm still builds the old name, with the new weights.)
ALIASES = {
    "SelecSls42b.in1k": "selecsls42b.in1k",
    "SelecSls60.in1k": "selecsls60.in1k",
    "SelecSls60b.in1k": "selecsls60b.in1k",
    "tnt_s_patch16_224": "tnt_s_legacy_patch16_224.in1k",
}

# Each table's files by the prefix of the columns that their accuracies become; the one without a prefix gives the rows.
TABLE_FILES: dict[str, dict[str, str]] = {
    "imagenet-2023": {
        "": "timm-2023-05-24-imagenet.csv",
        "real_": "timm-2023-05-24-imagenet-real.csv",
    },
    "imagenet-2025": {
        "": "timm-2025-10-30-imagenet.csv",
        "real_": "timm-2025-10-30-imagenet-real.csv",
        "v2_": "timm-2025-10-30-imagenetv2-matched-frequency.csv",
        "sketch_": "timm-2025-10-30-sketch.csv",
        "a_": "timm-2025-10-30-imagenet-a.csv",
        "r_": "timm-2025-10-30-imagenet-r.csv",
    },
}
# Accuracies on clean images of the classes of a shifted test set, by the prefix of that set's columns.
CLEAN_FILES: dict[str, dict[str, str]] = {
    "imagenet-2025": {
        "a_": "timm-2025-10-30-imagenet-a-clean.csv",
        "r_": "timm-2025-10-30-imagenet-r-clean.csv",
    },
}
BENCHMARK = "timm-2025-10-30-benchmark-infer.csv"
CPU_BENCHMARKS = {"imagenet-2025": "timm-benchmark-infer-cpu-i7_12700h.csv"}

Rows = dict[tuple[str, int], Mapping[str, str]]
Speeds = dict[str, dict[int, Mapping[str, str]]]


def build_table(folder: Path, files: Mapping[str, str]) -> pd.DataFrame:
    """One table of text cells, sorted by model and image size; ``files`` is an item of ``TABLE_FILES``."""
    results = {prefix: read_results(folder / name) for prefix, name in files.items()}
    speeds = read_speeds(folder / BENCHMARK)
    return pd.DataFrame([_row(key, results, speeds) for key in sorted(results[""])])


def read_results(path: Path) -> Rows:
    """A file's rows by today's name of the model and the image size."""
    rows: Rows = {}
    for row in _records(path):
        key = (ALIASES.get(row["model"], row["model"]), int(row["img_size"]))
        if key in rows:
            raise InputError(f"{path}: {key[0]} at {key[1]} pixels stands there twice")
        rows[key] = row
    return rows


def read_speeds(path: Path) -> Speeds:
    """The rows of the inference benchmark by network (it knows no tags) and image size."""
    speeds: Speeds = {}
    for row in _records(path):
        speeds.setdefault(row["model"], {})[int(row["infer_img_size"])] = row
    return speeds


def speed(speeds: Speeds, model: str, img_size: int) -> dict[str, str]:
    """A model's GMACs and images per second, from the benchmark of the nearest size.

    Both are taken to go with the number of pixels; that is exact for convolutions, and too few GMACs for attention
    at a larger size. Numbers of another size are rounded to four digits. Empty cells if there is no benchmark.
    """
    measured = speeds.get(model.partition(".")[0])
    if not measured:
        return {"gmacs": "", "throughput": ""}
    nearest = min(measured, key=lambda size: (abs(size - img_size), size))
    gmacs, throughput = (
        measured[nearest][name] for name in ("infer_gmacs", "infer_samples_per_sec")
    )
    if nearest == img_size:
        return {"gmacs": gmacs, "throughput": throughput}
    ratio = (img_size / nearest) ** 2
    return {
        "gmacs": f"{float(gmacs) * ratio:.4g}",
        "throughput": f"{float(throughput) / ratio:.4g}",
    }


def add_cpu_throughput(table: pd.DataFrame, speeds: Speeds) -> None:
    """Add a column of images per second on a CPU to a table, as ``speed`` finds them, beside those on a GPU."""
    keys = zip(table["model"], table["img_size"].astype(int), strict=True)
    cells = [speed(speeds, model, img_size)["throughput"] for model, img_size in keys]
    table.insert(list(table.columns).index("throughput") + 1, "cpu_throughput", cells)


def add_effective_robustness(table: pd.DataFrame, prefix: str, clean: Rows) -> str:
    """Add a shifted test set's clean accuracies and its effective robustness to a table; return the fit in words.

    Effective robustness is the residual, in logits, of the least-squares line of logit(shifted top-1) on
    logit(clean top-1). The line is that of all models, each at its smallest image size, at which it was trained; the
    residual of every row is its distance from it. An accuracy of 0 or 100%, or none, has no logit: its row takes no
    part in the fit, and its residual is empty.

    Parameters
    ----------
    table
        As of ``build_table``; the columns ``{prefix}clean_top1`` and ``{prefix}effective_robustness`` are added.
    prefix
        Of the columns of the shifted test set.
    clean
        Accuracies on clean images of the same classes.

    References
    ----------
    Taori et al. (2020), Measuring Robustness to Natural Distribution Shifts in Image Classification,
    arXiv:2007.00644. Their line is that of models trained on ImageNet alone; here it is that of the whole table, so
    that the residual is uncorrelated with the clean accuracy.
    """
    sizes = table["img_size"].astype(int)
    keys = zip(table["model"], sizes, strict=True)
    table[f"{prefix}clean_top1"] = [clean[key]["top1"] if key in clean else "" for key in keys]
    x = _logits(table[f"{prefix}clean_top1"])
    y = _logits(table[f"{prefix}top1"])
    smallest = sizes == sizes.groupby(table["model"]).transform("min")
    in_fit = smallest & np.isfinite(x) & np.isfinite(y)
    line = linregress(x[in_fit], y[in_fit])
    residuals = y - (line.intercept + line.slope * x)
    cells = ["" if np.isnan(value) else f"{value:.4f}" for value in residuals]
    table[f"{prefix}effective_robustness"] = cells
    equation = (
        f"logit({prefix}top1) = {line.intercept:.4f} + {line.slope:.4f} logit({prefix}clean_top1)"
    )
    return f"{equation}, n = {in_fit.sum()}, R2 = {line.rvalue**2:.4f}"


def _logits(percent: pd.Series) -> pd.Series:
    """Cells of percents as logits; NaN for 0, 100 and empty cells."""
    share = pd.to_numeric(percent) / 100
    return logit(share.where((share > 0) & (share < 1)))


def _row(key: tuple[str, int], results: Mapping[str, Rows], speeds: Speeds) -> dict[str, str]:
    model, img_size = key
    published = results[""][key]
    config = timm_config(model)
    weights = weights_of(config)
    preprocessing = input_of(config)["preprocessing"]
    family = family_of(model)
    return {
        "model": model,
        "img_size": str(img_size),
        "architecture": model,
        "published_name": published["model"] if published["model"] != model else "",
        "family": family,
        "kind": kind_of(family, model) or "",
        "pretraining": weights["pretraining"] or "",
        "extra_data": {True: "1", False: "0", None: ""}[weights["extra_data"]],
        "pretraining_images": str(pretraining_images(model) or ""),
        "license": weights["license"] or "",
        "weights": weights["weights"] or "",
        "params_m": published["param_count"].replace(",", ""),
        **speed(speeds, model, img_size),
        "crop_pct": published["crop_pct"],
        "interpolation": published["interpolation"],
        "crop_mode": preprocessing.crop_mode,
        "mean": " ".join(map(str, preprocessing.mean)),
        "std": " ".join(map(str, preprocessing.std)),
        **{
            f"{prefix}{name}": rows[key][name] if key in rows else ""
            for prefix, rows in results.items()
            for name in ("top1", "top5")
        },
    }


def _records(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise InputError(f"{path} is missing; data_catalog/tables/README.md says where to get it")
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    return [
        dict(zip(table.columns, values, strict=True))
        for values in table.itertuples(index=False, name=None)
    ]


def write_tables(source: Path, target: Path = TABLES) -> None:
    """Write every table of ``TABLE_FILES``."""
    for name, files in TABLE_FILES.items():
        table = build_table(source, files)
        if name in CPU_BENCHMARKS:
            add_cpu_throughput(table, read_speeds(source / CPU_BENCHMARKS[name]))
        for prefix, file in CLEAN_FILES.get(name, {}).items():
            print(add_effective_robustness(table, prefix, read_results(source / file)))
        table.to_csv(target / f"{name}.csv", index=False, lineterminator="\n")
        print(f"{name}: {len(table)} rows")


def write_default_models(target: Path = TABLES) -> None:
    """Write which model timm means by each network's name alone, for the networks of the tables."""
    models = {row["model"] for name in TABLE_FILES for row in _records(target / f"{name}.csv")}
    networks = sorted({model.partition(".")[0] for model in models})
    tags = {network: timm_config(network).tag for network in networks}
    table = pd.DataFrame(
        [{"network": name, "model": f"{name}.{tag}"} for name, tag in tags.items() if tag]
    )
    table.to_csv(target / DEFAULT_MODELS.name, index=False, lineterminator="\n")
    print(f"{DEFAULT_MODELS.name}: {len(table)} networks")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m dsmi_zoo.data_catalog.tables.build SOURCE_FOLDER")
    try:
        write_tables(Path(sys.argv[1]))
        write_default_models()
    except InputError as error:
        sys.exit(str(error))
