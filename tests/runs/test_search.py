"""The search on a budget: its cost estimates, its stages, and real searches of real models."""

import json
import shutil
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from time import monotonic
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from conftest import Command
from hypothesis import given
from hypothesis import strategies as st

from dsmi_zoo._util.errors import InputError
from dsmi_zoo.data_catalog.datasets.registry import open_dataset
from dsmi_zoo.data_catalog.datasets.subset import select_subset
from dsmi_zoo.data_catalog.models.registry import load_models
from dsmi_zoo.jobs.runs.search import Halving, Prices, part_of_plan, stages_of
from dsmi_zoo.pipeline.config.run import resolve_config
from dsmi_zoo.pipeline.measures.core.hits import pack_hits
from dsmi_zoo.pipeline.plan.cost import (
    MEASURE_FIXED_S,
    MEASURE_N,
    MEASURE_S,
    RESNET18_THROUGHPUT,
    Cost,
    affordable,
    corrected,
    estimate,
    resnet18_rate,
    wall_seconds,
)
from dsmi_zoo.pipeline.plan.order import search_order
from dsmi_zoo.pipeline.plan.plan import Job, make_plan
from dsmi_zoo.pipeline.store.record import SearchHistory
from dsmi_zoo.pipeline.store.run_folder import read_results, read_run
from dsmi_zoo.pipeline.store.subset_file import read_subset
from dsmi_zoo.pipeline.weights.waves import within_download


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """Return a job of the digits zoo, whose weights and view do not exist yet."""
    cache = tmp_path_factory.mktemp("empty")
    return make_plan(
        resolve_config({"models": ["test_vit.100x3"], "compute": {"cache": cache}})
    ).jobs[0]


def published(job: Job, name: str, catalog: str = "imagenet-2025") -> Job:
    return replace(job, entry=load_models(catalog, [name])[0])


def test_an_entrys_cost_follows_its_published_throughput_or_its_multiply_adds(job: Job) -> None:
    resnet = estimate(published(job, "resnet18.a1_in1k@224"), resnet18_rate=100)
    assert resnet.image == pytest.approx(0.01)
    fast, slow = (
        published(job, name) for name in ("resnet50.a1_in1k@224", "resnet152.a1_in1k@224")
    )
    assert resnet.image < estimate(fast, 100).image < estimate(slow, 100).image
    throughput = slow.entry.extras["throughput"]
    assert throughput is not None
    assert estimate(slow, 100).image == pytest.approx(RESNET18_THROUGHPUT / throughput / 100)
    unpublished = replace(
        slow, entry=slow.entry.model_copy(update={"extras": {"gmacs": slow.entry.extras["gmacs"]}})
    )
    assert 0.3 < estimate(unpublished, 100).image / estimate(slow, 100).image < 3
    bare = replace(slow, entry=slow.entry.model_copy(update={"extras": {}}))
    assert 0.1 < estimate(bare, 100).image / estimate(slow, 100).image < 3
    assert estimate(job, 100).build > estimate(published(job, "test_vit.r160_in1k"), 100).build, (
        "training costs"
    )


def test_a_row_corrects_the_estimate_so_that_it_repeats_what_was_measured(job: Job) -> None:
    row = {"n_samples": 300, "seconds_build": 2.0, "seconds_embed": 6.0, "seconds_measure": 9.0}
    cost = corrected(estimate(job, 100, download=10), row)
    measures = Cost(build=0, image=0)  # most of the 9 s is imports, so the estimate stays
    assert cost.seconds(300) == pytest.approx(8.0 + measures.seconds(300))
    assert cost.seconds(3000) == pytest.approx(62.0 + measures.seconds(3000))
    assert cost.download == 0


@given(
    st.lists(
        st.tuples(st.floats(0, 10), st.floats(0, 1), st.integers(0, 10**9)), min_size=1, max_size=20
    ),
    st.integers(1, 4),
    st.floats(0, 200),
)
def test_what_is_affordable_fits_and_one_more_would_not(
    costs: list[tuple[float, float, int]], workers: int, seconds: float
) -> None:
    jobs = [
        (SimpleNamespace(view=Path(f"/nowhere/{i % 3}")), Cost(b, s, download=d))
        for i, (b, s, d) in enumerate(costs)
    ]
    taken = affordable(jobs, 50, 50, workers, seconds)  # type: ignore[arg-type]
    assert taken == jobs[: len(taken)]
    if taken:
        assert wall_seconds(taken, 50, 50, workers) <= seconds
    if len(taken) < len(jobs):
        assert wall_seconds(jobs[: len(taken) + 1], 50, 50, workers) > seconds  # type: ignore[arg-type]


@pytest.mark.long
def test_a_workers_speed_is_measured_with_a_real_network() -> None:
    assert 1 < resnet18_rate() < 1e6
    expected = 1 + 0.1 * MEASURE_N + MEASURE_FIXED_S + MEASURE_S
    assert Cost(1, 0.1).seconds(MEASURE_N) == pytest.approx(expected)


def test_the_stages_grow_threefold_up_to_all_images() -> None:
    subset = select_subset(open_dataset("digits"))
    stages, sizes = stages_of(subset), subset.class_sizes
    assert [str(s.sample) for s in stages] == ["1/3", "None"]
    assert [s.images for s in stages] == [149, 447]
    balanced = stages_of(subset, "balanced_accuracy")
    assert [str(s.sample) for s in balanced] == [str(sizes.min() // 3), "None"]
    assert [s.images for s in balanced] == [sizes.min() // 3 * 10, 447]
    few = select_subset(open_dataset("digits"), images_per_class=9)
    assert [s.sample for s in stages_of(few)] == [None]


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy"])
def test_a_stage_keeps_what_may_be_the_best_and_notes_what_its_caution_costs(
    metric: str, tmp_path: Path
) -> None:
    compute = {"cache": tmp_path / "cache", "budget": "5m"}
    given_settings = {"models": ["test_resnet.*", "test_vit.*"], "out": tmp_path / "out"}
    plan = make_plan(resolve_config({**given_settings, "metric": metric, "compute": compute}))
    stages = stages_of(plan.subset, plan.config.metric)
    stage, jobs = stages[0], list(plan.jobs)
    assert stage.sample is not None
    part = part_of_plan(plan, stage, jobs)
    assert len(part.subset.labels) == stage.images
    shares = [0.5, 0.97, 0.95, 0.9, 0.3]
    rng, order = np.random.default_rng(0), np.random.default_rng(1).permutation(stage.images)
    timed = {
        "n_samples": stage.images,
        "seconds_build": 0.1,
        "seconds_embed": 0.1,
        "seconds_measure": 1.0,
    }
    rows = pd.DataFrame(
        [
            {"model": job.entry.model, "img_size": job.entry.img_size, "status": "ok", **timed,
             "probe_hits": pack_hits((order < share * stage.images) ^ (rng.random(stage.images) < 0.02))}
            for job, share in zip(jobs, shares, strict=False)
        ]
    )  # fmt: skip
    prices = Prices({job.slug: Cost(0.1, 0.001) for job in jobs}, 1, 1)
    halving = Halving(plan, prices, stages, jobs, monotonic() + 300, SearchHistory(budget_s=300))
    assert halving.level == 0.05
    del halving.stages[0]
    record = halving.note.stage(stage.images)
    halving._choose(part.subset, stage.sample, rows, record)
    kept = [job.entry.model for job in halving.candidates]
    assert kept[0] == jobs[1].entry.model, "the most accurate first"
    assert {job.entry.model for job in jobs[1:3]} <= set(kept)
    reasons = {entry.model: entry.reason for entry in record.dropped}
    assert reasons[str(jobs[0].entry)] == reasons[str(jobs[4].entry)] == "clearly worse"
    assert reasons[str(jobs[5].entry)] == "failed or not measured in time"
    assert record.contenders == len(kept)
    assert record.contenders_alone is not None
    assert 2 <= record.contenders_alone <= record.contenders


@given(st.lists(st.one_of(st.none(), st.integers(0, 100)), max_size=12), st.integers(0, 300))
def test_the_downloads_chosen_fit_the_limit_and_no_smaller_one_is_left_out(
    sizes: list[int | None], most: int
) -> None:
    files = {f"owner/{i}": size for i, size in enumerate(sizes)}
    jobs = [
        SimpleNamespace(entry=SimpleNamespace(checkpoint=None, recipe=None, weights=name))
        for name in files
    ]
    cached = SimpleNamespace(
        entry=SimpleNamespace(checkpoint=None, recipe=None, weights="owner/cached")
    )
    chosen = within_download([*jobs, cached], files, most)
    assert cached in chosen
    taken = [files[j.entry.weights] for j in chosen if j is not cached]
    left = [files[j.entry.weights] for j in jobs if j not in chosen]
    assert None not in taken
    total = sum(size or 0 for size in taken)
    assert total <= most
    assert all(size is None or total + size > most for size in left)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("45m", 2700), ("1h30m", 5400), ("1.5h", 5400), ("2 min", 120), (60, 60)],
)
def test_a_budget_is_written_as_people_write_times(text: object, seconds: float) -> None:
    assert resolve_config({"compute": {"budget": text}}).compute.budget == seconds


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"budget": "soon"}, "a time such as 90s, 45m or 1h30m"),
        ({"budget": "-1h"}, "a time such as"),
        ({"budget": "0s"}, "greater than 0"),
        ({"max_download": "20"}, "a size such as 500MB or 20GB"),
        ({"budget": "1h", "budget_gb": 3}, "give one"),
    ],
)
def test_wrong_limits_are_refused_in_one_line(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message) as refusal:
        resolve_config({"compute": settings})
    assert "\n" not in str(refusal.value)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory, small_run: Path, cache: Path) -> Path:
    """Return a catalogue of two well-trained and two hardly trained models, whose GMACs suggest hours of work."""
    plan = make_plan(
        resolve_config({"models": ["test_resnet.*", "test_vit.*"], "compute": {"cache": cache}})
    )
    lines = ["model,architecture,checkpoint,model_kwargs,img_size,gmacs"]
    for job in plan.jobs:
        if not job.entry.model.endswith("900x2"):
            arguments = json.dumps(job.entry.model_kwargs).replace('"', '""')
            name = job.entry.model.replace(".100x3", ".hardly")
            lines.append(f'{name},{job.entry.architecture},{job.weights},"{arguments}",32,1e6')
    path = tmp_path_factory.mktemp("catalog") / "mine.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def cut_short(
    catalog: Path, tmp_path_factory: pytest.TempPathFactory, cli: Command
) -> tuple[Path, str]:
    """Return the folder and output of a search with a budget of 1 s; tests that continue it copy the folder."""
    out = tmp_path_factory.mktemp("search") / "out"
    done = cli("run", "--catalog", catalog, "--out", out, "--budget", "1s", report=True)
    return out, done.stdout


def _note(out: Path) -> SearchHistory:
    note = read_run(out).search
    assert note is not None
    return note


def test_a_search_drops_the_clearly_worse_on_few_images_and_measures_the_rest_on_all(
    catalog: Path, tmp_path: Path, cli: Command
) -> None:
    out = tmp_path / "out"
    arguments = ["run", "--catalog", catalog, "--out", out, "--budget", "5m"]
    done = cli(*arguments, report=True)
    assert "budget 5 min: first 4 models on 149 images" in done.stdout
    assert "to download" in done.stdout
    assert "now on 447 images" in done.stdout
    rows = read_results(out)
    assert (rows["n_samples"] == 447).all()
    note = _note(out)
    assert [stage.images for stage in note.stages] == [149, 447]
    dropped = {entry.model: entry for entry in note.stages[0].dropped}
    assert dropped
    assert {entry.reason for entry in dropped.values()} == {"clearly worse"}
    assert len(rows) + len(dropped) == 4
    assert "test_resnet.900x5" in set(rows["model"])
    best = rows["probe_accuracy"].max()
    for entry in dropped.values():
        assert entry.low is not None
        assert entry.accuracy is not None
        assert entry.high is not None
        assert entry.low <= entry.accuracy <= entry.high
        assert entry.accuracy < best
    assert (note.metric, note.error_rate) == ("accuracy", 5)
    assert note.stages[0].contenders == len(rows)
    page = (out / "report" / "index.html").read_text()
    assert "How the search went" in page
    assert "by accuracy, was dropped as clearly worse is at most 5%, over all stages" in page
    assert all(name in page for name in dropped)
    again = cli(*arguments)
    assert "4 of 4 models are done already" in again.stdout
    assert set(read_results(out)["finished_at"]) == set(rows["finished_at"])


def test_a_search_without_time_measures_the_cheapest_model_and_names_the_others(
    cut_short: tuple[Path, str],
) -> None:
    out, said = cut_short
    assert "1 model: 1 ok" in said
    assert len(read_results(out)) == 1
    assert len(_note(out).left_out) == 3
    page = (out / "report" / "index.html").read_text()
    assert "The budget was too short to say which model suits best: 3 of 4 were not tried." in page


def test_a_short_budget_goes_to_models_that_no_cheaper_one_beats() -> None:
    seconds, accuracies = [1.0, 2.0, 3.0, 4.0, 5.0], [60.0, 50.0, 80.0, None, 90.0]
    assert search_order(seconds, accuracies) == [0, 2, 4, 1, 3]
    assert search_order([3.0, 1.0, 2.0], [None, None, None]) == [1, 2, 0], (
        "the cheapest first, where nothing is known"
    )


@given(st.lists(st.tuples(st.floats(0.1, 100), st.floats(1, 99)), min_size=1, max_size=20))
def test_no_model_comes_before_one_that_is_cheaper_and_better(
    models: list[tuple[float, float]],
) -> None:
    order = search_order([cost for cost, _ in models], [accuracy for _, accuracy in models])
    assert sorted(order) == list(range(len(models)))
    for earlier, later in combinations(order, 2):
        (cost, accuracy), (later_cost, later_accuracy) = models[earlier], models[later]
        assert not (later_cost < cost and later_accuracy > accuracy)


def test_a_search_that_cannot_use_its_folder_is_refused_before_anything_else(
    catalog: Path, cut_short: tuple[Path, str], tmp_path: Path, cli: Command
) -> None:
    out = Path(shutil.copytree(cut_short[0], tmp_path / "out"))
    before = {path for path in out.rglob("*") if path.is_file()}
    for more in (("--plan",), ()):
        refused = cli(
            "run", "--catalog", catalog, "--out", out, "--budget", "5m", "--sigma", 2, *more, code=2
        )
        assert (
            "belongs to another configuration: measures.sigma = sqrt(d), not 2.0" in refused.stderr
        )
        assert "stage" not in refused.stdout
    assert {path for path in out.rglob("*") if path.is_file()} == before
    cli("run", "--catalog", catalog, "--out", out, "--budget", "5m", report=True)
    note = _note(out)
    assert note.budget_s == 301
    assert [stage.models for stage in note.stages] == [4, len(read_results(out))]
    page = (out / "report" / "index.html").read_text()
    for model in read_results(out)["model"]:
        assert f"{model}@32</th><td>149</td>" not in page, "measured on all images, so not dropped"


def test_a_search_of_which_no_model_can_be_measured_says_so_and_fails(
    catalog: Path, tmp_path: Path, cli: Command
) -> None:
    (tmp_path / "cut.safetensors").write_bytes(b"not weights")
    mine = tmp_path / "broken.csv"
    mine.write_text(
        "model,architecture,checkpoint,img_size,gmacs\ncut,test_vit,cut.safetensors,32,1e6\n"
    )
    done = cli("run", "--catalog", mine, "--out", tmp_path / "out", "--budget", "5m", code=1)
    assert "none of 1 model could be measured: dsmi-zoo status --out" in done.stdout
    assert "unfinished search" in cli("report", "--out", tmp_path / "out", code=2).stderr


@pytest.fixture(scope="module")
def skewed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return folders of real digits: many ones, fewer sevens and nines, three twos."""
    root, images = tmp_path_factory.mktemp("skewed") / "photos", open_dataset("digits")
    for label, count in {1: 44, 7: 20, 9: 15, 2: 3}.items():
        (root / str(label)).mkdir(parents=True)
        for number in np.flatnonzero(images.labels == label)[:count]:
            images.image(int(number)).save(root / str(label) / f"{number}.png")
    return root


@pytest.mark.parametrize(
    ("metric", "images"),
    [
        pytest.param("accuracy", [15, 14, 2], marks=pytest.mark.slow),
        ("balanced_accuracy", [8, 8, 3]),
    ],
)
def test_a_search_samples_skewed_classes_for_what_it_ranks_by(
    metric: str, images: list[int], catalog: Path, skewed: Path, tmp_path: Path, cli: Command
) -> None:
    out = tmp_path / "out"
    options = ["--catalog", catalog, "--data-root", skewed, "--out", out, "--metric", metric]
    cli("run", *options, "--budget", "5m", report=True)
    note, record = _note(out), read_run(out)
    assert (note.metric, record.config.metric, note.error_rate) == (metric, metric, 5)
    assert [stage.images for stage in note.stages][-1] == 82
    first = note.stages[0]
    assert first.contenders is not None
    stage = next((out / "stages").iterdir())
    taken = read_run(stage).subset
    assert taken.n_images == first.images < 41
    sizes = read_subset(stage)["label"].value_counts()
    assert sizes.min() == images[-1], "of the smallest class"
    summary = json.loads((out / "report" / "summary.json").read_text())
    assert summary["metric"] == metric
    page = " ".join((out / "report" / "index.html").read_text().split())
    baseline = "53.7" if metric == "accuracy" else "25.0"
    head = "Probe" if metric == "accuracy" else "Balanced probe"
    assert f"{head} (%; largest class: {baseline})" in page
    assert "at most 5%, over all stages" in page
