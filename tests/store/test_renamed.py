"""Files that use the former name of a column or a setting are still read."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dsmi_zoo._util.errors import InputError
from dsmi_zoo.data_catalog.datasets.labels_file import list_labels_file
from dsmi_zoo.data_catalog.models.csv_catalog import read_catalog
from dsmi_zoo.data_catalog.models.filters import Filters
from dsmi_zoo.pipeline.store.release import read_published
from dsmi_zoo.pipeline.store.run_folder import DIGEST, _digest, read_row_file, write_row_file

BOARD = Path(__file__).parents[2] / "docs" / "boards" / "digits"


def test_a_board_that_says_licence_is_read() -> None:
    assert "licence" in pq.read_schema(BOARD / "rows.parquet").names
    published = read_published(BOARD)
    assert "license" in published.rows
    assert "licence" not in published.rows
    assert published.record.config.filters.license == ()


def test_a_row_that_says_licence_is_read_and_still_held_against_its_hash(tmp_path: Path) -> None:
    path = tmp_path / "row.parquet"
    write_row_file(path, {"model": "m", "status": "ok", "row_id": "r", "license": "mit"})
    table = pq.read_table(path)
    former = table.rename_columns(
        ["licence" if name == "license" else name for name in table.column_names]
    )
    pq.write_table(former.replace_schema_metadata({DIGEST: _digest(former)}), path)
    assert read_row_file(path)["license"] == "mit"

    place = former.column_names.index("licence")
    changed = former.set_column(place, "licence", pa.array(["gpl"]))
    pq.write_table(changed.replace_schema_metadata({DIGEST: _digest(former)}), path)
    with pytest.raises(ValueError, match="damaged"):
        read_row_file(path)


def test_a_catalogue_may_say_licence_or_license_but_not_both(tmp_path: Path) -> None:
    catalogue = tmp_path / "mine.csv"
    for name in ("licence", "license"):
        catalogue.write_text(f"model,{name}\nresnet18,mit\n")
        assert read_catalog(catalogue)[0].license == "mit"
    catalogue.write_text("model,licence,license\nresnet18,mit,gpl\n")
    with pytest.raises(InputError, match="2 columns are named"):
        read_catalog(catalogue)


def test_a_table_of_labels_may_have_both_columns(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text("image,label,licence,license\na.png,cat,mit,gpl\n")
    names, *_ = list_labels_file(tmp_path)
    assert list(names) == ["a.png"]


def test_a_setting_by_its_former_name_is_read() -> None:
    assert Filters.model_validate({"licence": ["mit"]}).license == ("mit",)
