"""Files that `validate` keeps of its studies: damage is found and recomputed, or reported in one line."""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest

from dsmi_zoo._util.errors import DamagedFile, InputError
from dsmi_zoo._util.files import note_path
from dsmi_zoo.pipeline.monitor.file import NUMBERS, monitor_path, read_monitor, write_monitor
from dsmi_zoo.pipeline.studies.simulation import Simulation, compute_cell, is_measured, read_cells


def test_a_damaged_cell_of_the_simulated_study_is_not_believed(tmp_path: Path) -> None:
    study = Simulation(points=40, dimensions=(5,), noises=(0.1,), seeds=1, mine_steps=2)
    cell = next(cell for cell in study.cells(tmp_path) if cell.kind == "tree")
    assert not is_measured(cell)
    compute_cell(cell)
    right, content = read_cells([cell]), cell.path.read_bytes()
    cell.path.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    assert not is_measured(cell)
    with pytest.raises(DamagedFile, match="the command that made it makes it again"):
        read_cells([cell])
    compute_cell(cell)
    assert is_measured(cell)
    pd.testing.assert_frame_equal(
        read_cells([cell]).drop(columns="seconds"), right.drop(columns="seconds")
    )
    note_path(cell.path).unlink()  # as the first versions left it
    assert is_measured(cell)
    cell.path.write_bytes(b"PAR1")
    with pytest.raises(DamagedFile, match="cannot be read"):
        read_cells([cell])


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"studies": {"simulated": {}}}', "\0", "[" * 100_000]
)
def test_a_damaged_record_of_the_studies_is_told_in_one_line(
    tmp_path: Path, refused: Callable[[str, Path], str], content: str
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "validate.json").write_text(content)
    said = refused("validate --out out --study simulated --small", tmp_path)
    assert said.startswith("dsmi-zoo: ")
    assert "validate.json: is damaged; delete it" in said
    assert len(said.splitlines()) == 1


def test_no_flipped_bit_of_a_monitors_numbers_reads_back_as_another_number(tmp_path: Path) -> None:
    row = {"step": 1.0, "dse_z": 2.5}
    write_monitor(
        tmp_path, [dict.fromkeys(NUMBERS) | row | {"step": float(n)} for n in range(5)], {"n": 5}
    )
    right, facts = read_monitor(tmp_path)
    content = monitor_path(tmp_path).read_bytes()
    pages = len(content) - int.from_bytes(content[-8:-4], "little") - 8
    for bit in range(0, 8 * pages, 8 * pages // 150):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        monitor_path(tmp_path).write_bytes(changed)
        with suppress(InputError):
            pd.testing.assert_frame_equal(read_monitor(tmp_path)[0], right)
    assert json.dumps(facts) == '{"n": 5}'
