"""Rows of all entries of imagenet-2025 with SYNTHETIC measures, for tests and benchmarks of the report only."""

import numpy as np
import pandas as pd
from run_records import record_of

from dsmi_zoo.data_catalog.models.registry import load_models
from dsmi_zoo.pipeline.engine.row_content import facts
from dsmi_zoo.pipeline.measures.catalog import COMPARISONS, MEASURES
from dsmi_zoo.pipeline.measures.core.hits import pack_hits, wilson_interval
from dsmi_zoo.pipeline.store.run_folder import rows_frame

RUN = record_of(catalog="imagenet-2025, SYNTHETIC measures")


LOADING_CODE = """import timm
model = timm.create_model({0!r}, pretrained=True).eval()
transform = timm.data.create_transform(
    input_size=(3, {1}, {1}),
    crop_pct=0.95,
    crop_mode='center',
    interpolation='bicubic',
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)"""


def synthetic_rows() -> pd.DataFrame:
    """Return 1,556 rows: the catalogue's facts, and measures made of noise, family effects and, for some, accuracy."""
    entries = load_models("imagenet-2025")
    rng = np.random.default_rng(0)
    accuracy = np.array([entry.top1 or np.nan for entry in entries])
    quality = (accuracy - np.nanmean(accuracy)) / np.nanstd(accuracy)
    family = pd.factorize(np.array([entry.family for entry in entries], dtype=object))[0]
    rows = [
        {
            **facts(entry), "status": "ok", "own_measures": "", "versions": "{}", "row_id": f"r{i}",
            "loading_code": LOADING_CODE.format(entry.architecture, entry.img_size),
            "finished_at": pd.Timestamp("2026-01-01", tz="UTC"), "saturated": bool(i % 20 == 0), "n_samples": 1000,
            "n_classes": 20, "embedding_dim": int(rng.integers(64, 2048)), "embedding_rms": float(np.exp(rng.normal())),
        }
        for i, entry in enumerate(entries)
    ]  # fmt: skip
    for number, measure in enumerate((*MEASURES, *COMPARISONS)):
        shared = rng.normal(size=family.max() + 1)[family]
        values = 0.1 * number * quality + 0.7 * shared + rng.normal(size=len(rows))
        values = values if measure.unit != "%" else np.clip(70 + 10 * values, 0, 100)
        for row, value in zip(rows, values, strict=True):
            row[measure.name] = float(value)
            row[f"{measure.name}_se"] = 0.2 if measure.unit != "%" else 1.5
    for row in rows:
        hits = rng.random(1000) < row["probe_accuracy"] / 100
        low, high = wilson_interval(int(hits.sum()), len(hits))
        row |= {
            "probe_accuracy": 100 * hits.mean(),
            "probe_low": low,
            "probe_high": high,
            "probe_hits": pack_hits(hits),
        }
    for i in (7, 300):
        rows[i] |= {"status": "failed", "error_type": "OSError", "error_message": "no such file"}
    return rows_frame(rows)
