"""Kinds of cluster: listening addresses, credentials, the GPU that each worker sees, and valid profiles."""

import os
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from conftest import Command
from distributed import Client

from dsmi_zoo._util.errors import InputError
from dsmi_zoo.jobs.clusters.existing import differing_versions
from dsmi_zoo.jobs.clusters.machine import BLAS_THREADS, default_per_gpu, usable_cores, visible_gpus
from dsmi_zoo.jobs.clusters.profile import EXAMPLES, load_profile
from dsmi_zoo.jobs.workers import open_workers
from dsmi_zoo.pipeline.config.run import ComputeSettings

pytestmark = pytest.mark.usefixtures("server")


def listening(process: psutil.Process) -> set[str]:
    """Return the addresses on which a process and its children listen."""
    family = [process, *process.children(recursive=True)]
    return {
        c.laddr.ip
        for p in family
        for c in p.net_connections("inet")
        if c.status == psutil.CONN_LISTEN
    }


def assert_refused(address: str) -> None:
    code = f"from distributed import Client; Client({address!r}, timeout='3s')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert re.search("OSError|TypeError|TimeoutError|ConnectionResetError", done.stderr)


def test_local_workers_listen_on_loopback_and_want_credentials(
    tmp_path: Path,
) -> None:
    with open_workers(ComputeSettings(workers=1), tmp_path) as workers:
        assert listening(psutil.Process()) == {"127.0.0.1"}
        address = workers.client.scheduler_info()["address"]
        assert address.startswith("tls://127.0.0.1:")
        assert_refused(address)
        assert_refused(address.replace("tls://", "tcp://"))
        assert workers.ask(os.getpid) != os.getpid()


def test_the_users_own_number_of_threads_comes_before_an_even_share_of_the_cores(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in BLAS_THREADS:
        monkeypatch.delenv(name, raising=False)

    def threads() -> list[str | None]:
        with open_workers(ComputeSettings(workers=1), tmp_path, modules=()) as workers:
            return [workers.ask(os.getenv, name) for name in BLAS_THREADS]

    assert BLAS_THREADS == ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    assert threads() == [str(usable_cores())] * 3
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert threads() == ["7", "7", "7"]
    monkeypatch.setenv("MKL_NUM_THREADS", "5")
    assert threads() == ["7", "5", "7"]
    assert "OPENBLAS_NUM_THREADS" not in os.environ


GPUS = ("GPU-aaaa", "GPU-bbbb")


def test_local_workers_see_no_gpu_and_the_user_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, info_log: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ", ".join(GPUS))
    with open_workers(ComputeSettings(cluster="local", workers=1), tmp_path) as workers:
        assert workers.ask(os.getenv, "CUDA_VISIBLE_DEVICES") == ""
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ", ".join(GPUS)
    assert "GPUs are not used: --cluster auto or cuda would" in info_log.messages


def test_a_gpu_has_as_many_processes_as_cores_and_memory_allow_up_to_four() -> None:
    gigabyte = 2**30
    assert default_per_gpu(16, 1, 100 * gigabyte) == 4
    assert default_per_gpu(16, 8, 1000 * gigabyte) == 2
    assert default_per_gpu(4, 8, 1000 * gigabyte) == 1
    assert default_per_gpu(64, 2, 24 * gigabyte) == 3


def test_the_workers_of_a_cuda_cluster_share_gpus_of_which_each_sees_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ", ".join(GPUS))
    # The default, auto, means cuda where GPUs are visible.
    with open_workers(ComputeSettings(per_gpu=2), tmp_path) as workers:
        workers.client.wait_for_workers(4, timeout=60)
        seen = workers.client.run(os.getenv, "CUDA_VISIBLE_DEVICES")
        names = {
            known["name"]: seen[address]
            for address, known in workers.client.scheduler_info()["workers"].items()
        }
        assert names == {
            f"gpu-{gpu}-{process}": uuid for gpu, uuid in enumerate(GPUS) for process in range(2)
        }
        assert set(workers.client.nthreads().values()) == {1}
        assert listening(psutil.Process()) == {"127.0.0.1"}
    with (
        pytest.raises(InputError, match="--workers 3: only 2 GPUs"),
        open_workers(ComputeSettings(cluster="cuda", workers=3), tmp_path),
    ):
        pass
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with (
        pytest.raises(InputError, match=r"no GPU is visible .*; --cluster local"),
        open_workers(ComputeSettings(cluster="cuda"), tmp_path),
    ):
        pass


def test_visible_gpus_are_those_of_the_driver_or_instances_of_a_partitioned_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(
        "#!/bin/sh\necho 'GPU 0: NVIDIA H100 (UUID: GPU-1)'\necho 'GPU 1: NVIDIA H100 (UUID: GPU-2)'\n"
        "echo '  MIG 1g.10gb     Device  0: (UUID: MIG-a)'\necho '  MIG 1g.10gb     Device  1: (UUID: MIG-b)'\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert visible_gpus({}) == ["GPU-1", "MIG-a", "MIG-b"]
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "1"}) == ["1"]
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": ""}) == []
    program.write_text("#!/bin/sh\nexit 9\n")
    assert visible_gpus({}) == []


def test_versions_that_differ_are_told_by_who_has_them() -> None:
    ours = {
        "python": "3.11.7.final.0",
        "dask": "1",
        "distributed": "1",
        "cloudpickle": "3",
        "msgpack": "1",
    }
    worker = {"tcp://a:1": {"packages": ours | {"python": "3.12.1.final.0", "distributed": "2"}}}
    versions = {"client": {"packages": ours}, "scheduler": {"packages": ours}, "workers": worker}
    assert list(differing_versions(versions)) == [
        "worker tcp://a:1 has python 3.12.1.final.0, this client 3.11.7.final.0; set both up alike",
        "worker tcp://a:1 has distributed 2, this client 1; set both up alike",
    ]
    patch = {"tcp://a:1": {"packages": ours | {"python": "3.11.9.final.0"}}}
    assert not list(differing_versions(versions | {"workers": patch}))


@pytest.mark.slow
def test_a_scheduler_that_is_not_there_or_an_address_that_is_none_is_one_line(
    tmp_path: Path, cli: Command
) -> None:
    done = cli(
        "run",
        "--out",
        tmp_path / "a",
        "--cluster",
        "tcp://127.0.0.1:9",
        "--models",
        "test_vit.*",
        code=2,
    )
    assert done.stderr.count("\n") == 1
    assert "--cluster tcp://127.0.0.1:9: no scheduler can be reached there" in done.stderr
    done = cli("run", "--out", tmp_path / "b", "--cluster", "kubernetes", code=2)
    assert "--cluster: must be auto, local, cuda, slurm, or a scheduler's address" in done.stderr


@pytest.mark.slow
def test_a_tls_scheduler_lets_in_a_client_with_credentials_and_refuses_one_without(
    tmp_path: Path, cli: Command, small_run: Path
) -> None:
    from distributed import LocalCluster
    from distributed.security import Security

    security = Security.temporary()
    for name, content in (
        ("ca", security.tls_ca_file), ("cert", security.tls_client_cert), ("key", security.tls_client_key),
    ):  # fmt: skip
        (tmp_path / f"{name}.pem").write_text(content)
    profile = tmp_path / "there.toml"
    profile.write_text('[tls]\nca_file = "ca.pem"\ncert = "cert.pem"\nkey = "key.pem"\n')
    options = {"host": "127.0.0.1", "protocol": "tls://", "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(n_workers=1, threads_per_worker=1, security=security, **options) as cluster:
        run = (
            "run",
            "--models",
            "test_vit.900x5",
            "--out",
            tmp_path / "out",
            "--cluster",
            cluster.scheduler_address,
        )
        refused = cli(*run, code=2).stderr
        assert "tls:// needs credentials: [tls] in a --profile" in refused
        assert refused.count("\n") == 1
        assert "1 ok, 0 failed" in cli(*run, "--profile", profile).stdout
        with Client(cluster) as client:
            assert len(client.nthreads()) == 1


def test_relative_folders_are_the_drivers_for_workers_started_elsewhere(
    tmp_path: Path, cli: Command
) -> None:
    folders = ("--out", "out", "--cache", "cache")
    cli("run", "--models", "test_vit.100x3", "--images-per-class", 5, *folders, cwd=tmp_path)
    assert len(list((tmp_path / "out" / "results").glob("*.parquet"))) == 1
    assert len(list((tmp_path / "out" / "embeddings").glob("*.npy"))) == 1
    assert len(list((tmp_path / "cache" / "weights").glob("*.safetensors"))) == 1


def test_a_plan_on_a_scheduler_that_is_there_needs_no_out_and_makes_none(
    tmp_path: Path, cli: Command
) -> None:
    run = (
        "run",
        "--models",
        "test_vit.*",
        "--images-per-class",
        5,
        "--out",
        tmp_path / "new" / "out",
    )
    assert "first 3 models on 50 images" in cli(*run, "--budget", "5m", "--plan").stdout
    assert not list(tmp_path.iterdir())


def test_every_example_profile_can_be_read_and_wrong_ones_are_told_in_one_line(
    tmp_path: Path,
) -> None:
    examples = sorted(EXAMPLES.glob("*.toml"))
    assert [example.stem for example in examples] == ["cpu", "existing", "gpu"]
    for example in examples:
        assert load_profile(example).workers > 0
    wrong = tmp_path / "wrong.toml"
    for text, info_log in {
        "gpu = 1": "gpu",
        'walltime = "soon"': "walltime: .*must be as Slurm writes it",
        'memory = "16"': 'memory: .*such as "16GB"',
        'partition = "a\\nscancel 1"': "partition: .*must be one line",
        "cpus = 0": "cpus",
        "cpus": "cannot be read as TOML",
    }.items():
        wrong.write_text(text)
        with pytest.raises(InputError, match=f"wrong.toml: .*{info_log}"):
            load_profile(wrong)
    with pytest.raises(
        InputError,
        match=r"no such profile; write one after the examples in .*\(cpu, existing, gpu\)",
    ):
        load_profile(tmp_path / "absent.toml")
