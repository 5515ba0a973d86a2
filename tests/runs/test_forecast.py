"""The estimates of ``run --plan``: time, download and memory of a run on the requested cluster."""

from pathlib import Path
from typing import Any

import pytest
from hub_server import HubServer

from dsmi_zoo._util.errors import InputError
from dsmi_zoo.jobs.runs import search as searching
from dsmi_zoo.jobs.runs.downloads import log_plan
from dsmi_zoo.jobs.runs.forecast import (
    PRECISION_SHARE,
    START_S,
    Fleet,
    estimate_run,
    fleet_of,
    forward_time,
    plan_lines,
    to_download,
)
from dsmi_zoo.pipeline.config.compute import ComputeSettings
from dsmi_zoo.pipeline.config.run import resolve_config
from dsmi_zoo.pipeline.plan.cost import (
    CPU_EAGER,
    EAGER,
    OF_A_CPU,
    RESNET18_CPU_THROUGHPUT,
    Speed,
    estimate,
    network_key,
    speed_here,
)
from dsmi_zoo.pipeline.plan.plan import Plan, make_plan


def planned(folder: Path, **settings: Any) -> Plan:
    """Return a plan of published models on the digits, with an empty cache."""
    compute = {"cache": folder / "cache", **settings.pop("compute", {})}
    config = {
        "catalog": "imagenet-2025",
        "models": ["vit_large*", "resnet50.*"],
        "subset": {"dataset": "digits"},
    }
    return make_plan(resolve_config({**config, "compute": compute, **settings}))


def test_gpus_share_the_forward_passes_and_processes_the_rest(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    one = estimate_run(plan, Fleet(100, 1, ""), 0)
    assert one.total == pytest.approx(
        START_S + max(one.forward, (one.forward + one.others) / len(plan.jobs)), rel=0.2
    )
    few = estimate_run(plan, Fleet(2, 1, ""), 0)
    assert few.total == pytest.approx(START_S + (few.forward + few.others) / 2)
    assert estimate_run(plan, Fleet(2, 0, ""), 0).forward > 20 * few.forward, "cores"
    assert estimate_run(plan, Fleet(2, 1, ""), 30e9).total == pytest.approx(few.total + 1000), (
        "30 MB a second"
    )
    assert few.memory > 2 * (1.5e9 + 4 * 300e6)


def test_the_precision_counts_as_its_arithmetic_does(tmp_path: Path) -> None:
    fleet = Fleet(4, 2, "")
    seconds = {
        name: estimate_run(planned(tmp_path, precision=name), fleet, 0).forward
        for name in PRECISION_SHARE
    }
    assert seconds["fp32"] == pytest.approx(4 * seconds["bf16"])
    published = sum(447 / job.entry.extras["throughput"] for job in planned(tmp_path).jobs)
    assert seconds["bf16"] == pytest.approx(published * EAGER), "published figures are compiled"


def test_published_figures_are_compiled_so_an_eager_run_is_planned_slower(tmp_path: Path) -> None:
    fleet = Fleet(4, 2, "")
    compute = {"cluster": "local", "workers": 1}
    eager = planned(tmp_path, precision="bf16", models=["resnet50.a*"])
    compiled = planned(
        tmp_path, precision="bf16", models=["resnet50.a*"], compute={"compile": True}
    )
    of_eager, of_compiled = estimate_run(eager, fleet, 0), estimate_run(compiled, fleet, 0)
    assert of_eager.forward == pytest.approx(EAGER * of_compiled.forward)
    assert of_compiled.others > of_eager.others + 25 * len(eager.jobs), "compiling takes a while"
    on_cores = {
        name: estimate(eager.jobs[0], 10, on_cpu=True, compiled=name).image
        for name in (False, True)
    }
    assert on_cores[False] == pytest.approx(CPU_EAGER * on_cores[True])
    gpu = Speed(1000.0, on_cpu=False)
    assert "eager: 1.69 times as long as published (1.25 to 2.24)" in forward_time(eager, gpu)
    assert "compiled as published" in forward_time(compiled, gpu)
    cores = planned(tmp_path, models=["resnet50.a*"], compute={**compute, "compile": True})
    (line,) = (one for one in plan_lines(cores) if one.startswith("  forward"))
    assert ", compiled: " in line


def test_the_cluster_that_is_asked_for_is_the_one_that_is_planned_for(tmp_path: Path) -> None:
    (tmp_path / "gpu.toml").write_text('gpus = 4\ngres = "gpu:h100:4"\ncpus = 64\nworkers = 2\n')
    slurm = fleet_of(ComputeSettings(cluster="slurm", profile=tmp_path / "gpu.toml"))
    assert slurm == Fleet(32, 8, "8 GPUs (gpu:h100:4) in 2 jobs of Slurm")
    assert fleet_of(ComputeSettings(cluster="local", workers=3)).processes == 3  # type: ignore[union-attr]
    assert fleet_of(ComputeSettings(cluster="tcp://127.0.0.1:8786")) is None
    with pytest.raises(InputError, match="no GPU is visible"):
        fleet_of(ComputeSettings(cluster="cuda", workers=1))


def test_the_plan_ends_with_the_time_in_all_the_download_and_the_memory(tmp_path: Path) -> None:
    plan = planned(tmp_path, compute={"cluster": "local", "workers": 2})
    in_all, memory = plan_lines(plan)[-2:]
    files = {job.entry.weights: 4e6 * job.entry.params_m for job in plan.jobs}
    assert to_download(plan.jobs, tmp_path / "cache") == pytest.approx(sum(files.values())), (
        "each file once"
    )
    assert in_all.startswith("in all      about ")
    assert f"to download {sum(files.values()) / 1e9:.1f} GB" in in_all
    assert "with 2 processes, fp32" in in_all
    assert memory.startswith("memory      about ")


def test_on_cores_the_published_figures_of_a_cpu_count(tmp_path: Path) -> None:
    compute = {"cluster": "local", "workers": 1}
    plan = planned(tmp_path, models=["resnet50.a*"], compute=compute)
    for job in plan.jobs:
        slower = RESNET18_CPU_THROUGHPUT / job.entry.extras["cpu_throughput"]
        assert estimate(job, 10, on_cpu=True).image == pytest.approx(slower / 10)
        assert estimate(job, 10).image != pytest.approx(slower / 10)
    (forward,) = (line for line in plan_lines(plan) if line.startswith("  forward"))
    assert forward.endswith(f": {len(plan.jobs)} by {OF_A_CPU}")
    assert "one GPU" not in forward


def own(folder: Path, *columns: str) -> Plan:
    """Return a plan of the user's own networks, which have no published figures."""
    head = "model,architecture,weights,img_size,family,crop_pct,interpolation,crop_mode,mean,std"
    known = "32,test,1,bicubic,center,0.5 0.5 0.5,0.5 0.5 0.5"
    lines = [head]
    lines += [f"{name},{name.partition('-')[0]},me/{name},{known}" for name in columns]
    (folder / "own.csv").write_text("\n".join(lines) + "\n")
    return planned(folder, catalog=str(folder / "own.csv"), models=[])


def test_a_network_without_a_published_speed_is_timed_once(tmp_path: Path) -> None:
    plan = own(tmp_path, "test_resnet-a", "test_resnet-b", "test_vit-c", "no_such_network-d")
    speed = speed_here(plan.jobs, "fp32", seconds=60, threads=1, resnet18=10.0)
    keys = [network_key(job) for job in plan.jobs]
    assert keys[0] == keys[1]
    assert set(speed.networks) == set(keys[:3]), "one that cannot be built is left out"
    assert 1 < speed.networks[keys[0]] < 1e6
    cost = estimate(plan.jobs[0], speed.resnet18, timed=speed.networks)
    assert cost.image == 1 / speed.networks[keys[0]]
    assert not speed_here(plan.jobs, "fp32", seconds=0, threads=1, resnet18=10.0).networks, (
        "time is bounded"
    )
    two = Speed.mean([speed, Speed(30.0, on_cpu=True, networks={keys[0]: 1.0})])
    assert two.resnet18 == 20
    assert two.networks[keys[0]] == (speed.networks[keys[0]] + 1) / 2


def test_a_search_is_planned_without_workers_and_without_the_hub(
    hub: HubServer,
    tmp_path: Path,
    server: None,
    monkeypatch: pytest.MonkeyPatch,
    info_log: pytest.LogCaptureFixture,
) -> None:
    def none(*_: Any, **__: Any) -> None:
        raise AssertionError("a plan starts no workers")

    monkeypatch.setattr(searching, "open_workers", none)
    settings = {
        "catalog": "imagenet-2025",
        "models": ["test_vit.*"],
        "subset": {"dataset": "digits", "images_per_class": 5},
        "out": tmp_path / "out",
    }
    compute = {"cache": tmp_path / "cache", "budget": "5m", "cluster": "local", "workers": 1}
    config = resolve_config({**settings, "compute": compute})
    assert searching.search(config, only_plan=True) == 0
    assert "budget 5 min: first " in info_log.text
    assert hub.served == []
    assert not (tmp_path / "out").exists()


def test_unknown_columns_of_a_catalogue_are_listed_in_the_plan_and_once_in_the_log(
    tmp_path: Path, info_log: pytest.LogCaptureFixture
) -> None:
    catalog = tmp_path / "mine.csv"
    catalog.write_text(
        "model,weights,family,img_size,crop_pct,mean,std,top1,acc,layers,x\n"
        "a,owner/a,vit,32,1,0 0 0,1 1 1,50,1,2,3\n"
    )
    plan = planned(tmp_path, catalog=str(catalog), models=())
    words = "3 unknown columns, kept as numbers of your own: "
    words += "acc (did you mean top1?), layers (did you mean layer?), x"
    assert f"  columns   {words}" in plan_lines(plan)
    log_plan(plan)
    assert info_log.text.count(words) == 1
    built_in = planned(tmp_path, catalog="digits", models=("test_vit.*",))
    assert "columns" not in "".join(plan_lines(built_in))
