"""The task that adds scores to a row: it reports the row's outcome even if an earlier attempt wrote the row."""

from pathlib import Path

from run_records import record_of

from dsmi_zoo.pipeline.engine.row_content import RemeasureJob
from dsmi_zoo.pipeline.engine.task import OwnScoresTask
from dsmi_zoo.pipeline.store.run_folder import read_row, row_mark, write_row

IDENTITY = "mine:f:0123"
ROW = {
    "model": "net",
    "img_size": 32,
    "row_id": "r",
    "embedding_id": "e",
    "status": "ok",
    "own_measures": "",
}


def test_a_row_that_an_earlier_attempt_left_without_a_value_is_no_success(tmp_path: Path) -> None:
    write_row(tmp_path, "net", ROW)
    row = read_row(tmp_path, "net")
    assert row is not None
    config = record_of().config.model_copy(update={"out": tmp_path})
    job = RemeasureJob(row, "net", "r", tmp_path / "embeddings" / "net.npy")
    task = OwnScoresTask(job, config, row_mark(tmp_path, "net"), (IDENTITY,))
    first = task.fail(RuntimeError("it died"))  # its answer may be lost with its worker
    assert (first.ok, first.message) == (False, "f: it died")
    again = task.run()
    assert (again.ok, again.message) == (False, "f: it died")
    written = read_row(tmp_path, "net")
    assert written is not None
    assert written == row | {
        "f": None, "own_measures": "f", "own_measures_code": IDENTITY, "undefined_scores": "f: it died"
    }  # fmt: skip
