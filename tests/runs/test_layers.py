"""``run --layers``: rows for further layers of each network, from one forward pass."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dsmi_zoo._util.errors import InputError
from dsmi_zoo.jobs.runs.forecast import RESNET18_A_CORE, Fleet, estimate_run
from dsmi_zoo.jobs.runs.run import jobs_to_compute
from dsmi_zoo.jobs.runs.state import open_out
from dsmi_zoo.pipeline.config.run import RunConfig, resolve_config
from dsmi_zoo.pipeline.embedding import embed
from dsmi_zoo.pipeline.engine.graph import run_entries
from dsmi_zoo.pipeline.engine.workers import Workers
from dsmi_zoo.pipeline.plan.cost import Speed
from dsmi_zoo.pipeline.plan.job import Outcome
from dsmi_zoo.pipeline.plan.order import balanced, by_network
from dsmi_zoo.pipeline.plan.plan import Plan, make_plan
from dsmi_zoo.pipeline.store.run_folder import read_results, row_path

TIMES = ("seconds_build", "seconds_embed", "seconds_measure", "finished_at", "embedding_file")
NETS = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 8, 3)
        self.blocks = torch.nn.Sequential(*(
            torch.nn.Sequential(torch.nn.Conv2d(8, 8, 1), torch.nn.ReLU(inplace=True), torch.nn.Conv2d(8, 8, 1))
            for _ in range(3)
        ))
        self.head = torch.nn.Linear(8, 10)

    def forward(self, images):
        return self.head(self.blocks(self.stem(images)).mean((2, 3)))

def net():
    return Net()

def linear():
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 10))
"""
Planned = Callable[..., Plan]


@pytest.fixture
def planned(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Planned:
    """Return a function that plans a run of a catalogue, whose networks' module is in the current directory."""
    name = f"nets_{tmp_path.name}"
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / f"{name}.py").write_text(NETS)

    def plan(*lines: str, out: str = "out", layers: Any = (), **settings: Any) -> Plan:
        (tmp_path / "mine.csv").write_text(
            "\n".join(["model,builder,layer,img_size,architecture", *lines]).replace("NETS", name)
            + "\n"
        )
        images = {"images_per_class": 3}
        compute = {"cache": cache, "batch_size": 8}
        given: dict[str, Any] = {"catalog": "mine.csv", "out": tmp_path / out, "layers": layers}
        return make_plan(resolve_config(given | {"subset": images, "compute": compute} | settings))

    return plan


def done(plan: Plan, thread_workers: Workers) -> list[Outcome]:
    open_out(plan)
    todo = jobs_to_compute(plan, retry_failed=False)
    return list(run_entries(thread_workers, plan, todo)) if todo else []


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that receives the number of layers of each pass over the images."""
    counted: list[int] = []
    real = embed.embed_inputs

    def counting(*arguments: Any, **named: Any) -> Any:
        counted.append(1 + len(named.get("also", ())))
        return real(*arguments, **named)

    monkeypatch.setattr(embed, "embed_inputs", counting)
    return counted


def test_rows_of_layers_equal_those_of_a_catalogue_that_names_them_from_one_pass(
    planned: Planned, thread_workers: Workers, passes: list[int]
) -> None:
    together = planned("net,NETS:net,,32,net", layers=["blocks"])
    assert [str(one.ok) for one in done(together, thread_workers)] == ["True"] * 4
    assert passes == [4]
    alone = planned(
        "net,NETS:net,,32,net",
        *(f"net:blocks.{i},NETS:net,blocks.{i},32,net" for i in range(3)),
        out="b",
    )
    for job in alone.jobs:  # each as the only job of a plan
        assert all(one.ok for one in done(Plan(alone.config, alone.subset, (job,)), thread_workers))
    assert passes == [4, 1, 1, 1, 1]
    rows, others = (read_results(plan.config.folder) for plan in (together, alone))
    pd.testing.assert_frame_equal(
        rows.drop(columns=list(TIMES)), others.drop(columns=list(TIMES)), check_exact=True
    )
    assert rows["layer"].fillna("").tolist() == ["", "blocks.0", "blocks.1", "blocks.2"]
    assert rows["network_id"].nunique() == 1
    depth = rows["layer_depth"].to_numpy()
    assert np.isnan(depth[0])
    assert (np.diff(depth[1:]) > 0).all()
    shas = rows["embedding_sha256"].tolist()
    assert shas[0] == shas[3], "the classifier takes the mean of the last block"
    assert len(set(shas)) == 3


def test_runs_with_layers_and_catalogues_that_name_them_resume_each_other(
    planned: Planned, thread_workers: Workers, passes: list[int]
) -> None:
    done(planned("net,NETS:net,,32,net", "net:blocks.1,NETS:net,blocks.1,32,net"), thread_workers)
    assert passes == [2], "a catalogue's own layers share a pass, too"
    plan = planned("net,NETS:net,,32,net", layers=["blocks"])
    before = {job.slug: row_path(plan.config.folder, job.slug) for job in plan.jobs}
    marks = {slug: path.stat().st_mtime_ns for slug, path in before.items() if path.exists()}
    assert len(marks) == 2
    assert len(done(plan, thread_workers)) == 2
    assert passes == [2, 2]
    assert {slug: before[slug].stat().st_mtime_ns for slug in marks} == marks


def test_a_run_that_is_stopped_within_a_network_keeps_its_rows_and_its_pass(
    planned: Planned, thread_workers: Workers, passes: list[int]
) -> None:
    plan = planned("net,NETS:net,,32,net", layers=["blocks"])
    open_out(plan)
    running = run_entries(thread_workers, plan, plan.jobs)
    first = next(running)
    running.close()
    kept = row_path(plan.config.folder, first.slug)
    mark = kept.stat().st_mtime_ns
    assert all(one.ok for one in done(plan, thread_workers))
    assert kept.stat().st_mtime_ns == mark
    # A row that was being measured when the run stopped may be embedded again.
    assert passes in ([4], [4, 1])
    assert len(read_results(plan.config.folder)) == 4
    assert not (plan.config.folder / "attempts").exists()


def test_a_layer_that_fails_fails_alone(planned: Planned, thread_workers: Workers) -> None:
    plan = planned(
        "net,NETS:net,,32,net", "good,NETS:net,blocks.0,32,net", "wrong,NETS:net,blocks.7,32,net"
    )
    outcomes = {one.name: one.message for one in done(plan, thread_workers)}
    assert [name for name, message in outcomes.items() if message] == ["wrong@32"]
    assert "the model has no layer 'blocks.7'; did you mean" in outcomes["wrong@32"]


def test_a_layer_of_the_catalogue_stays_the_models_own_and_others_are_added(
    planned: Planned,
) -> None:
    plan = planned("net,NETS:net,blocks.1,32,net", layers=["blocks"])
    assert [(job.entry.model, job.entry.layer) for job in plan.jobs] == [
        ("net", "blocks.1"),
        ("net:blocks.0", "blocks.0"),
        ("net:blocks.2", "blocks.2"),
    ]


def test_layers_are_chosen_by_name_pattern_or_kind_in_the_order_of_the_network(
    planned: Planned,
) -> None:
    def of(layers: Any) -> list[str | None]:
        return [job.entry.layer for job in planned("net,NETS:net,,32,net", layers=layers).jobs[1:]]

    assert of("all") == ["stem", "blocks.0", "blocks.1", "blocks.2"]
    assert of(["blocks.1, stem"]) == ["stem", "blocks.1"]
    assert of(["blocks.?"]) == ["blocks.0", "blocks.1", "blocks.2"]
    assert of(()) == []


def test_identities_of_a_networks_own_row_do_not_depend_on_layers(planned: Planned) -> None:
    (own,) = planned("net,NETS:net,,32,net").jobs
    first, *others = planned("net,NETS:net,,32,net", layers="blocks").jobs
    assert (first.embedding_id, first.row_id, first.slug) == (
        own.embedding_id,
        own.row_id,
        own.slug,
    )
    assert {job.network_id for job in others} == {own.embedding_id}


@pytest.mark.parametrize(
    ("line", "layers", "words"),
    [
        ("net,NETS:net,,32,net", "block.1", "net@32 has no layer 'block.1'; did you mean blocks.1"),
        (
            "net,NETS:linear,,32,net",
            "blocks",
            "net@32 has no repeated blocks; name layers, such as 0",
        ),
        (
            "net,NETS:gone,,32,net",
            "blocks",
            "layers of net@32 cannot be listed: BuilderError.*no function",
        ),
    ],
)
def test_layers_that_no_network_has_are_refused_in_one_line(
    planned: Planned, line: str, layers: str, words: str
) -> None:
    with pytest.raises(InputError, match=words) as refused:
        planned(line, layers=layers)
    assert "\n" not in str(refused.value)


def test_networks_without_a_layer_that_others_have_are_counted(
    planned: Planned, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "dsmi_zoo")
    plan = planned("net,NETS:net,,32,net", "line,NETS:linear,,32,net", layers="stem")
    assert [job.name for job in plan.jobs] == ["net@32", "net:stem@32", "line@32"]
    assert "1 of 2 networks has no layer 'stem', such as line@32" in caplog.text


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ("all,stem", "--layers: must be all or blocks alone"),
        ("stem,", "--layers: must be all, blocks, or names"),
    ],
)
def test_lists_of_layers_that_mean_nothing_are_refused(
    refused: Callable[[str, Path], str], tmp_path: Path, layers: str, words: str
) -> None:
    assert words in refused(f"run --layers {layers}", tmp_path)


def test_a_search_within_a_budget_takes_no_layers(
    refused: Callable[[str, Path], str], tmp_path: Path
) -> None:
    said = refused("run --layers blocks --budget 1h", tmp_path)
    assert "--layers with --budget: a search compares models by one layer each" in said


def test_names_of_timms_layers_are_kept_in_the_cache(
    planned: Planned, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"models": ("test_resnet.100x3",), "layers": "blocks"}
    config = resolve_config({"out": tmp_path / "out", "compute": {"cache": cache}, **settings})
    first = make_plan(config)
    monkeypatch.setattr("dsmi_zoo.pipeline.plan.layers._ask", None)
    assert [job.name for job in make_plan(config).jobs] == [job.name for job in first.jobs]
    assert [job.entry.layer for job in first.jobs] == [None, *(f"layer{i}.0" for i in range(1, 5))]


def test_layers_of_a_network_stay_together_in_order_and_shares(planned: Planned) -> None:
    plan = planned("a,NETS:net,,32,net", "b,NETS:net,,64,net", layers="blocks")
    mixed = sorted(plan.jobs, key=lambda job: str(job.entry.layer))
    assert [len(group) for group in by_network(mixed)] == [4, 4]
    shares = balanced(plan.jobs, 2, 30)
    assert [{job.network_id for job in share} for share in shares] == [
        {share[0].network_id} for share in shares
    ]


def test_layers_are_no_part_of_a_runs_identity() -> None:
    assert RunConfig(layers="blocks").identity() == RunConfig().identity()


def test_a_forecast_counts_one_forward_pass_for_all_layers_of_a_network(planned: Planned) -> None:
    one, more = (planned("net,NETS:net,,32,net", layers=layers) for layers in ((), "blocks"))
    speed = Speed(RESNET18_A_CORE, on_cpu=True)
    fleet = Fleet(1, 0, "1 core")
    few, many = (estimate_run(plan, fleet, 0, speed) for plan in (one, more))
    assert many.forward == pytest.approx(few.forward)
    assert many.others > few.others, "each row has its measures"
