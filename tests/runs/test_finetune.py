"""Fine-tuning of a run's best models: what is computed, kept, repeated and reported."""

import json
import shutil
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.forkserver import child_process
from dsmi_zoo.jobs.progress import SILENT
from dsmi_zoo.jobs.runs import finalists as command
from dsmi_zoo.jobs.runs.run import with_compute_changes
from dsmi_zoo.jobs.runs.status import status
from dsmi_zoo.pipeline.config.finetuning import FineTuning
from dsmi_zoo.pipeline.config.run import RunConfig
from dsmi_zoo.pipeline.embedding import finetune as tuning
from dsmi_zoo.pipeline.engine.finetune import KIND, FineTuneTask
from dsmi_zoo.pipeline.engine.workers import Workers
from dsmi_zoo.pipeline.measures.core.hits import pack_hits, unpack_hits
from dsmi_zoo.pipeline.store.finetuned import read_finetuned
from dsmi_zoo.pipeline.store.run_folder import read_results, read_run
from dsmi_zoo.pipeline.store.subset_file import write_subset
from dsmi_zoo.reports.page.build import write_report
from dsmi_zoo.reports.page.finetuned import tuned_answer
from dsmi_zoo.reports.statistics.finetuned import after_tuning
from dsmi_zoo.reports.statistics.ranking import Quantity

pytestmark = pytest.mark.long

QUICK = FineTuning(epochs=1, min_steps=4, folds=3)


@pytest.fixture
def out(small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of a finished run, and shorten the recipe to four steps."""
    monkeypatch.setattr(command, "RECIPE", QUICK)
    shutil.copytree(small_run, tmp_path / "out")
    return tmp_path / "out"


def settings(out: Path, top: int, **compute: Any) -> RunConfig:
    config = with_compute_changes(read_run(out).config, {"finetune": top, **compute})
    return config.model_copy(update={"out": out})


def tune(out: Path, thread_workers: Workers, top: int = 1, **compute: Any) -> int:
    """Fine-tune on a worker thread, which the command itself would refuse."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(command, "open_workers", lambda *_, **__: nullcontext(thread_workers))
        return command.fine_tune_best(settings(out, top, **compute), SILENT, lambda: None)


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that receives the number of training images of each training in this process."""
    seen: list[int] = []
    really = tuning.fine_tune

    def counted(model: Any, inputs: Any, labels: Any, train: np.ndarray, *others: Any) -> None:
        seen.append(len(train))
        really(model, inputs, labels, train, *others)

    monkeypatch.setattr(tuning, "fine_tune", counted)
    return seen


@pytest.mark.usefixtures("without_drawing")
def test_the_best_and_the_static_choice_are_tuned_once_and_the_page_says_who_wins(
    out: Path, thread_workers: Workers, trainings: list[int]
) -> None:
    images = read_run(out).subset.n_images
    assert tune(out, thread_workers) == 0
    rows = read_finetuned(out)
    assert len(trainings) == 3 * len(rows)
    assert (rows["status"] == "ok").all()
    assert rows["trainings"].eq(3).all()
    assert rows["held_out"].map(lambda text: unpack_hits(text).sum()).eq(images).all(), (
        "each image once"
    )
    shares = [100 * unpack_hits(text).mean() for text in rows["finetuned_hits"]]
    np.testing.assert_allclose(rows["finetuned_accuracy"], shares)
    assert rows["finetuned_spread"].notna().all()
    assert (rows["minutes"] > 0).all()
    assert (rows["peak_memory_gb"] > 0.05).all()

    assert tune(out, thread_workers) == 0
    assert len(trainings) == 3 * len(rows), "nothing is repeated"
    assert not (out / "attempts").exists()

    page = write_report(out)
    summary = json.loads(page.with_name("summary.json").read_text())["finetuned"]
    assert len(summary["models"]) == len(rows)
    text = " ".join(page.read_text().split())
    assert '<h2 id="finetuned">After fine-tuning</h2>' in text
    opening = text.split('id="finetuned"')[1].split("<table")[0]
    assert len(opening.split()) < 100


def test_kept_weights_are_of_one_more_training_on_all_images(
    out: Path, thread_workers: Workers, trainings: list[int]
) -> None:
    tune(out, thread_workers)
    before, trained = read_finetuned(out), len(trainings)
    tune(out, thread_workers, keep_checkpoints=True)
    assert trainings[trained:] == [read_run(out).subset.n_images] * len(before)
    after = read_finetuned(out)
    pd.testing.assert_series_equal(after["finetuned_hits"], before["finetuned_hits"])
    files = list((out / "finetuned" / "checkpoints").glob("*.safetensors"))
    assert len(files) == len(before)
    assert all(len(safetensors.numpy.load_file(path)) > 10 for path in files)


def test_a_kill_in_the_middle_costs_the_training_at_work_and_no_other(
    out: Path, trainings: list[int], server: None
) -> None:
    config = settings(out, 1)
    plan = command._plan(config, command_finalists(out))
    job = plan.jobs[0]
    parts = dict.fromkeys(("subset_hash", "orders", "images"))
    task = FineTuneTask(
        job,
        plan.config,
        None,
        **parts,
        recipe=QUICK,
        keep_checkpoint=False,  # type: ignore[arg-type]
    )
    first = out / "attempts" / f"{job.slug}.{KIND}-0.json"
    child = child_process(task.compute, job.weights)
    while not first.exists() and child.poll() is None:
        time.sleep(0.002)
    child.kill()
    child.wait()
    assert first.exists()
    done = len(list(first.parent.glob(f"{job.slug}.{KIND}-*.json")))
    outcome = task.run(job.weights)
    assert outcome.ok, outcome.message
    assert len(trainings) == 3 - done
    assert not list(first.parent.glob(f"{job.slug}.{KIND}-*.json"))


def command_finalists(out: Path) -> Any:
    from dsmi_zoo.reports.statistics.finetuned import finalists

    return finalists(read_results(out), Quantity(), 1)


def test_what_cannot_be_tuned_says_why_in_one_line_and_is_tried_again(
    out: Path,
    thread_workers: Workers,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with monkeypatch.context() as patched:

        def too_large(*_: Any) -> None:
            raise MemoryError("fine-tuning does not fit")

        patched.setattr(tuning, "fine_tune", too_large)
        assert tune(out, thread_workers) == len(read_finetuned(out))
    reasons = read_finetuned(out)["error_message"].tolist()
    assert reasons == ["fine-tuning does not fit"] * len(reasons)
    status(out)
    printed = capsys.readouterr().out
    assert f"fine-tuned: 0 ok, {len(reasons)} failed" in printed
    assert "MemoryError: fine-tuning does not fit" in printed
    assert tune(out, thread_workers) == 0
    assert (read_finetuned(out)["status"] == "ok").all()


def test_runs_without_a_choice_are_refused_in_one_line(
    out: Path, tmp_path: Path, refused: Callable[[str, Path], str]
) -> None:
    assert "name the run's directory once" in refused("finetune --top 2", tmp_path)
    assert "is not a run" in refused("finetune --out nothing", tmp_path)
    assert "leave one out" in refused("run --random-weights --finetune 2", tmp_path)
    assert "dsmi-zoo finetune" in refused("run --share 1/2 --finetune 2", tmp_path)
    (out / "release.json").write_text("{}")
    assert "is a published folder" in refused(f"finetune {out}", tmp_path)
    (out / "release.json").unlink()
    record = json.loads((out / "run.json").read_text())
    record["subset"]["n_classes"] = 1
    (out / "run.json").write_text(json.dumps(record))
    assert "of one class" in refused(f"finetune {out}", tmp_path)


def test_a_class_of_a_single_image_is_announced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = pd.DataFrame({"image": ["a", "a", "b", "c"], "label": [0, 0, 1, 1]})
    write_subset(tmp_path, images.assign(number=0, repeat=0, input_cluster=0))
    command._warn_of_single_images(tmp_path)
    assert "1 class of a single image" in caplog.text


def test_no_ranked_model_is_a_warning_of_a_run_and_an_error_of_the_command(
    out: Path, thread_workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = read_results(out).assign(probe_hits=None)
    monkeypatch.setattr(command, "read_results", lambda _: rows)
    with pytest.raises(InputError, match="no model is ranked, because none has a probe accuracy"):
        tune(out, thread_workers)


def rows_of(hits: dict[str, int], n: int = 200) -> pd.DataFrame:
    """Return one row per model, each right on its first ``hits[model]`` of ``n`` images."""
    table = pd.DataFrame(
        {"model": list(hits), "img_size": 32, "status": "ok", "row_id": list(hits)}
    )
    table["probe_hits"] = [pack_hits(np.arange(n) < right) for right in hits.values()]
    table["embedding_dim"] = [8.0, *[4.0] * (len(hits) - 1)]
    return table


def tuned(hits: dict[str, int], n: int = 200) -> dict[str, dict[str, Any]]:
    facts = {"status": "ok", "held_out": pack_hits(np.ones(n, dtype=bool)), "trainings": 5}
    facts |= {"finetuned_spread": 1.0, "minutes": 1.0, "peak_memory_gb": 1.0}
    return {
        name: facts | {"finetuned_hits": pack_hits(np.arange(n) < right)}
        for name, right in hits.items()
    }


@pytest.mark.parametrize(
    ("after", "said"),
    [
        ({"a": 190, "b": 150}, "by more than chance (p < 0.001). The ranking had it first, too."),
        ({"a": 150, "b": 190}, "The ranking had a@32 first, which is 20.0 points behind; that is more than chance."),
        ({"a": 189, "b": 190}, "0.5 points above a@32; not shown to be better than a@32. The ranking had a@32 first"),
        ({"a": 60, "b": 62}, "which is not shown to be better than always naming the largest class (30.0%)."),
    ],
)  # fmt: skip
def test_the_answer_says_by_how_much_and_whether_the_ranking_had_said_so(
    after: dict[str, int], said: str
) -> None:
    quantity = Quantity(baseline=30.0)
    found = after_tuning(rows_of({"a": 160, "b": 150}), tuned(after), quantity)
    assert found is not None
    assert said in tuned_answer(found, quantity)
