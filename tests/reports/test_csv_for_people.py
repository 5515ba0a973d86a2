"""CSV that somebody may open in a spreadsheet: nothing in it is calculated, and a program reads what was meant."""

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import safetensors.numpy
from hostile_names import FORMULAS, in_a_spreadsheet
from hypothesis import given
from hypothesis import strategies as st

from dsmi_zoo._util.tables import csv_text
from dsmi_zoo.data_catalog.models.registry import load_models
from dsmi_zoo.pipeline.studies.trajectory import Trajectory, write_catalog


@given(
    st.lists(
        st.one_of(st.sampled_from(FORMULAS), st.text(alphabet='=+-@\t\r\n,"a1 ', max_size=6)),
        min_size=1,
    )
)
def test_a_csv_for_people_holds_no_formula_and_every_text_as_it_was(texts: list[str]) -> None:
    frame = pd.DataFrame({"=head": texts, "number": -1.5})
    heads, *rows = csv.reader(io.StringIO(csv_text(frame), newline=""))
    assert heads == ["'=head", "number"]
    assert rows == [[re.sub("\r\n?", "\n", in_a_spreadsheet(text)), "-1.5"] for text in texts]


def test_tables_without_formulas_are_written_as_ever() -> None:
    frame = pd.DataFrame(
        {"a": ["x", None, 'q"r'], "b": [1, -2, 3], "c": [0.1, np.nan, -1e-9], "d": None, "e": True}
    )
    assert csv_text(frame) == frame.to_csv(index=False)
    assert csv_text(frame.iloc[:0]) == frame.iloc[:0].to_csv(index=False)


def test_a_catalogue_of_trainings_holds_no_formula_and_is_still_a_catalogue(tmp_path: Path) -> None:
    recipe = Trajectory(
        dataset="=cmd|'/C calc'!A0", train_images=1, epochs=1, batch_size=1, learning_rate=1.0, weight_decay=0.0,
        seed=0, architecture="test_vit", checkpoints=(0,),
    )  # fmt: skip
    checkpoint = recipe.checkpoint(tmp_path / "cache", 0)
    checkpoint.parent.mkdir(parents=True)
    facts = json.dumps({"epoch": 0, "family": "@SUM(1+1)", "top1": 10.0})
    safetensors.numpy.save_file({"w": np.zeros(1)}, checkpoint, metadata={"facts": facts})
    write_catalog(tmp_path / "checkpoints.csv", [recipe], tmp_path / "cache")
    with (tmp_path / "checkpoints.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["model"] == f"'{recipe.name} epoch 0"
    assert row["family"] == "'@SUM(1+1)"
    (entry,) = load_models(tmp_path / "checkpoints.csv")
    assert (entry.checkpoint, entry.top1, entry.img_size) == (checkpoint.resolve(), 10.0, 32)
