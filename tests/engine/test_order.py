"""The order of entries, their division into shares, and locks that are not waited for."""

import math
import os
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.locks import STALE_AFTER_S, LockHeldError, acquired, holder
from dsmi_zoo.data_catalog.models.entry import ModelEntry, Preprocessing
from dsmi_zoo.data_catalog.models.registry import load_models
from dsmi_zoo.jobs.runs.driver_lock import driver_lock, drivers_folder
from dsmi_zoo.pipeline.plan.cost import DECODE_S
from dsmi_zoo.pipeline.plan.order import Expectation, balanced, longest_first
from dsmi_zoo.pipeline.plan.plan import Job

SAMPLES = 1000


def job(number: int, throughput: float, view: int = 0, params_m: float = 10.0) -> Job:
    entry = ModelEntry(
        model=f"m{number}",
        architecture="resnet18",
        img_size=224,
        params_m=params_m,
        extras={"throughput": throughput},
    )
    preprocessing = Preprocessing(
        crop_pct=1, crop_mode="center", interpolation="bicubic", mean=(0, 0, 0), std=(1, 1, 1)
    )
    return Job(entry, preprocessing, None, Path(f"view-{view}.npy"), f"e{number}", f"r{number}")


jobs = st.lists(
    st.tuples(st.floats(10, 1e5), st.integers(0, 3), st.floats(0.5, 1000)), min_size=1, max_size=40
).map(lambda facts: [job(number, *fact) for number, fact in enumerate(facts)])


@settings(max_examples=60, deadline=None)
@given(jobs, st.integers(1, 8))
def test_shares_hold_every_entry_once_and_differ_by_at_most_the_longest(
    zoo: list[Job], parts: int
) -> None:
    shares = balanced(zoo, parts, SAMPLES)
    assert len(shares) == parts
    assert sorted(j.slug for share in shares for j in share) == sorted(j.slug for j in zoo)
    expectation = Expectation(SAMPLES, look=False)
    seconds = {j.slug: expectation.seconds(j) for j in zoo}
    # The time to decode a view is divided among its jobs.
    slack = max(seconds.values()) + SAMPLES * DECODE_S
    loads = [sum(seconds[j.slug] for j in share) for share in shares]
    assert max(loads) - min(loads) <= slack * 2
    assert balanced(zoo[::-1], parts, SAMPLES) == shares


@settings(max_examples=60, deadline=None)
@given(jobs)
def test_the_longest_go_first_within_a_factor_of_two_and_views_stay_together(
    zoo: list[Job],
) -> None:
    def seconds(entry: Job) -> float:
        return Expectation(SAMPLES).seconds(entry) + SAMPLES * DECODE_S  # no view exists yet

    ordered = longest_first(zoo, SAMPLES)
    assert sorted(j.slug for j in ordered) == sorted(j.slug for j in zoo)
    for first, second in pairwise(ordered):
        assert seconds(first) > seconds(second) / 2
    groups = [(math.floor(math.log2(seconds(j))), j.view) for j in ordered]
    assert len(set(groups)) == 1 + sum(a != b for a, b in pairwise(groups))


def test_shares_of_the_digits_zoo_do_not_depend_on_what_is_trained_already(tmp_path: Path) -> None:
    entries = load_models("digits")
    facts = Preprocessing(
        crop_pct=1, crop_mode="center", interpolation="bicubic", mean=(0, 0, 0), std=(1, 1, 1)
    )
    zoo = [Job(e, facts, tmp_path / e.slug, tmp_path / "v", e.slug, e.slug) for e in entries]
    before = balanced(zoo, 5, 447)
    for job_ in zoo[::2]:
        assert job_.weights is not None
        job_.weights.touch()
    assert balanced(zoo, 5, 447) == before


def test_a_claim_refuses_others_at_once_until_it_is_released_or_its_owner_is_dead(
    tmp_path: Path,
) -> None:
    lock = tmp_path / "lock"
    with acquired(lock) as claim:
        with (
            pytest.raises(LockHeldError, match=f"process {os.getpid()} on .*, heard of 0 s ago"),
            acquired(lock),
        ):
            pass
        assert not claim.is_lost()
    assert not lock.exists()
    code = "import os, sys; from pathlib import Path; from dsmi_zoo._util.locks import acquired\n"
    code += "with acquired(Path(sys.argv[1])): os._exit(0)"
    subprocess.run([sys.executable, "-c", code, str(lock)], check=True, timeout=30)
    assert lock.exists()
    with acquired(lock):
        assert holder(lock) is not None
    assert list(tmp_path.iterdir()) == []


def test_a_lock_of_another_host_is_taken_over_only_when_its_heart_has_stopped(
    tmp_path: Path,
) -> None:
    lock = tmp_path / "lock"
    theirs = lock / f"host=elsewhere,boot=b,space=1,pid=77,start=5,claim={'0' * 32}"
    lock.mkdir()
    theirs.touch()
    with pytest.raises(LockHeldError, match="process 77 on elsewhere"), acquired(lock):
        pass
    past = time.time() - 200
    os.utime(theirs, (past, past))
    with acquired(lock) as claim:
        assert not theirs.exists()
        next(lock.iterdir()).rename(theirs)
        assert claim.is_lost()
    assert theirs.exists()


def test_a_requeued_job_waits_for_the_lock_that_it_left_behind_on_another_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = drivers_folder(tmp_path) / "share-1-of-2.lock"
    theirs = lock / f"host=elsewhere,boot=b,space=1,pid=77,start=5,claim={'0' * 32}"
    lock.mkdir(parents=True)
    theirs.touch()
    killed = time.time() - STALE_AFTER_S + 2
    os.utime(theirs, (killed, killed))
    monkeypatch.setattr("dsmi_zoo.jobs.runs.driver_lock.LOOK_EVERY_S", 0.5)
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
    with pytest.raises(InputError, match="process 77 on elsewhere"), driver_lock(tmp_path, "1/2"):
        pass
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    with driver_lock(tmp_path, "1/2"):
        assert not theirs.exists()
