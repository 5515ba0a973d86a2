"""Derive ``data_catalog/tables/*.csv`` from timm's published results.

Run as ``python -m dsmi_zoo.data_catalog.tables.build FOLDER``. FOLDER holds the published files, named as in
``tables/README.md``. The same files and the same version of timm give the same bytes. Only developers need this script.
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

# Current names of renamed models. timm 1.0 writes SelecSLS in lower case. The TNT-S weights of 2023 have another name
# now (recognised by their 23.76 million parameters, not 23.77); timm builds the old name with new weights.
ALIASES = {
    "SelecSls42b.in1k": "selecsls42b.in1k",
    "SelecSls60.in1k": "selecsls60.in1k",
    "SelecSls60b.in1k": "selecsls60b.in1k",
    "tnt_s_patch16_224": "tnt_s_legacy_patch16_224.in1k",
}

# Each table's files by the prefix of their columns; the file without a prefix determines the rows.
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
# Accuracies on clean images of a shifted test set's classes, by the prefix of that set's columns.
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
    """Return a table of text, sorted by model and image size; ``files`` is a value of ``TABLE_FILES``."""
    results = {prefix: read_results(folder / name) for prefix, name in files.items()}
    speeds = read_speeds(folder / BENCHMARK)
    return pd.DataFrame([_row(key, results, speeds) for key in sorted(results[""])])


def read_results(path: Path) -> Rows:
    """Return a file's rows by the model's current name and the image size."""
    rows: Rows = {}
    for row in _records(path):
        key = (ALIASES.get(row["model"], row["model"]), int(row["img_size"]))
        if key in rows:
            raise InputError(f"{path}: {key[0]} at {key[1]} pixels occurs twice")
        rows[key] = row
    return rows


def read_speeds(path: Path) -> Speeds:
    """Return the rows of the inference benchmark by network (it has no tags) and image size."""
    speeds: Speeds = {}
    for row in _records(path):
        speeds.setdefault(row["model"], {})[int(row["infer_img_size"])] = row
    return speeds


def speed(speeds: Speeds, model: str, img_size: int) -> dict[str, str]:
    """Return a model's GMACs and images per second, from the benchmark of the nearest size; empty without one.

    For other sizes, both are scaled by the number of pixels and rounded to four digits. That is exact for convolutions;
    for attention at a larger size the GMACs are too low.
    """
    measured = speeds.get(model.partition(".")[0])
    if not measured:
        return {"gmacs": "", "throughput": ""}
    nearest = min(measured, key=lambda size: (abs(size - img_size), size))
    gmacs = measured[nearest]["infer_gmacs"]
    throughput = measured[nearest]["infer_samples_per_sec"]
    if nearest != img_size:
        ratio = (img_size / nearest) ** 2
        gmacs = f"{float(gmacs) * ratio:.4g}"
        throughput = f"{float(throughput) / ratio:.4g}"
    return {"gmacs": gmacs, "throughput": throughput}


def add_effective_robustness(table: pd.DataFrame, prefix: str, clean: Rows) -> str:
    """Add a shifted test set's clean accuracies and effective robustness to a table; return the fitted line as text.

    Effective robustness is the residual, in logits, of the least-squares line of logit(shifted top-1) on
    logit(clean top-1). The line is fitted to all models, each at its smallest image size, at which it was trained.
    Rows without an accuracy, or with 0 or 100%, have no logit: they are left out of the fit, and their residual is
    empty.

    Parameters
    ----------
    table
        From ``build_table``; gets the columns ``{prefix}clean_top1`` and ``{prefix}effective_robustness``.
    prefix
        The prefix of the shifted test set's columns.
    clean
        Accuracies on clean images of the same classes.

    References
    ----------
    Taori et al. (2020), Measuring Robustness to Natural Distribution Shifts in Image Classification,
    arXiv:2007.00644. They fit models trained on ImageNet alone. Here all models of the table are fitted, so that the
    residual is uncorrelated with the clean accuracy.
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
    right = f"{line.intercept:.4f} + {line.slope:.4f} logit({prefix}clean_top1)"
    return f"logit({prefix}top1) = {right}, n = {in_fit.sum()}, R2 = {line.rvalue**2:.4f}"


def _logits(percent: pd.Series) -> pd.Series:
    """Return percentages as logits; NaN for 0, 100 and empty cells."""
    share = pd.to_numeric(percent) / 100
    return logit(share.where((share > 0) & (share < 1)))


def _row(key: tuple[str, int], results: Mapping[str, Rows], speeds: Speeds) -> dict[str, str]:
    model, img_size = key
    published = results[""][key]
    config = timm_config(model)
    weights = weights_of(config)
    preprocessing = input_of(config)["preprocessing"]
    family = family_of(model)
    cells = {
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
    }
    for prefix, rows in results.items():
        for name in ("top1", "top5"):
            cells[f"{prefix}{name}"] = rows[key][name] if key in rows else ""
    return cells


def _records(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise InputError(f"{path} is missing; data_catalog/tables/README.md says where to get it")
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    return table.to_dict("records")  # type: ignore[return-value]


def write_tables(source: Path, target: Path = TABLES) -> None:
    """Write every table of ``TABLE_FILES``."""
    for name, files in TABLE_FILES.items():
        table = build_table(source, files)
        if name in CPU_BENCHMARKS:
            cpu_speeds = read_speeds(source / CPU_BENCHMARKS[name])
            keys = zip(table["model"], table["img_size"].astype(int), strict=True)
            cells = [speed(cpu_speeds, *key)["throughput"] for key in keys]
            table.insert(list(table.columns).index("throughput") + 1, "cpu_throughput", cells)
        for prefix, file in CLEAN_FILES.get(name, {}).items():
            print(add_effective_robustness(table, prefix, read_results(source / file)))
        table.to_csv(target / f"{name}.csv", index=False, lineterminator="\n")
        print(f"{name}: {len(table)} rows")


def write_default_models(target: Path = TABLES) -> None:
    """Write timm's default model of each network in the tables."""
    models = {row["model"] for name in TABLE_FILES for row in _records(target / f"{name}.csv")}
    networks = sorted({model.partition(".")[0] for model in models})
    tags = {network: timm_config(network).tag for network in networks}
    rows = [{"network": name, "model": f"{name}.{tag}"} for name, tag in tags.items() if tag]
    table = pd.DataFrame(rows)
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
