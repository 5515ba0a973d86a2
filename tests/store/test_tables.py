"""Helpers for reading rows: the display order of columns, a row by name, and the best first."""

import pandas as pd
import pytest

import dsmi_zoo
from dsmi_zoo._util.errors import InputError
from dsmi_zoo.pipeline.store.run_folder import rows_frame
from dsmi_zoo.pipeline.store.schema import in_display_order


def row(model: str, **columns: object) -> dict[str, object]:
    return {"model": model, "img_size": 32, "status": "ok", "own_measures": "mine"} | columns


@pytest.fixture
def rows() -> pd.DataFrame:
    return rows_frame(
        [
            row("a", within_over_between=2.0, dsmi_z_y=0.5, params_m=3.0, mine=1.0, top1=70.0),
            row("b", within_over_between=0.5, dsmi_z_y=0.7, params_m=9.0, mine=2.0, top1=80.0),
            row("c", within_over_between=None, dsmi_z_y=0.1, params_m=1.0, mine=3.0, img_size=None),
        ]
    )


@pytest.mark.parametrize(
    ("score", "best_first"),
    [("within_over_between", "bac"), ("dsmi_z_y", "bac"), ("params_m", "cab"), ("mine", "cba"), ("top1", "bac")],
)  # fmt: skip
def test_rank_knows_which_way_each_column_is_better(rows, score, best_first) -> None:
    ranked = dsmi_zoo.rank(rows, score)
    assert "".join(ranked["model"]) == best_first
    assert "".join(rows.loc[ranked.index, "model"]) == best_first, "the index stays"


def test_rank_refuses_a_column_without_a_better_direction_or_name(rows) -> None:
    for column in ("seed", "model", "embedding_dim"):
        with pytest.raises(InputError, match="no better direction"):
            dsmi_zoo.rank(rows, column)
    with pytest.raises(InputError, match="did you mean dsmi_z_y"):
        dsmi_zoo.rank(rows, "dsmi_zy")


def test_one_row_is_found_by_its_models_name_and_size(rows) -> None:
    named = dsmi_zoo.by_name(rows)
    assert named.loc["b@32"].dsmi_z_y == 0.7
    assert named.loc["c"].params_m == 1.0
    assert list(rows.index) == [0, 1, 2]


def test_the_model_accuracies_and_scores_are_the_first_columns_and_none_is_lost(rows) -> None:
    ordered = in_display_order(rows)
    columns = list(ordered.columns)
    assert columns[:3] == ["model", "img_size", "status"]
    assert columns.index("top1") < columns.index("dsmi_z_y") < columns.index("row_id")
    assert columns.index("within_over_between") < columns.index("params_m")
    assert sorted(columns) == sorted(rows.columns)
    pd.testing.assert_frame_equal(ordered[list(rows.columns)], rows)
