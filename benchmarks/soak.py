"""Soak test: after half an hour of accidents, is every row there exactly once, and correct?

Run a small zoo repeatedly while workers and drivers are killed and suspended, the disk fills up, bits of the cache and
of rows flip, and two drivers start at the same instant; after each round let the same command finish undisturbed, and
compare every row with an undisturbed run::

    python benchmarks/soak.py --minutes 30

Each round has its own folder, on a small file system in memory if this process may mount one (as root); only there can
the disk fill up. Prints one line per round, and at the end a table of the accidents and results, also as ``soak.json``.
The exit code is 1 if any row was wrong, lost or duplicated, or a process was left running.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pandas as pd
import psutil

from dsmi_zoo.pipeline.store.run_folder import read_results, read_run

MODELS = ("test_resnet.*", "test_vit.*", "test_efficientnet.*", "test_mambaout.*")
TIMEOUT_S = 40
CHAOS_S = 75.0  # of accidents per round
ROOM_MB = 400
FULL_FOR_S = (1.0, 6.0)
SUSPENDED_FOR_S = (1.0, 20.0)
ENDS_WITHIN_S = 90.0
MEASURED = [
    "embedding_sha256",
    "dse_z",
    "dsmi_z_y",
    "dsmi_z_y_null",
    "dsmi_z_x",
    "logme",
    "top1",
    "row_id",
]
MARK = "DSMI_ZOO_SOAK"


class Round:
    """One OUT with its cache and drivers, and the accidents that happen to them."""

    def __init__(self, folder: Path, mounted: bool, rng: random.Random, done: Counter[str]) -> None:
        self.out, self.cache, self.filler = folder / "out", folder / "cache", folder / "filler"
        self.mounted, self.rng, self.done = mounted, rng, done
        self.log = folder / "log.txt"
        self.drivers: list[subprocess.Popen[bytes]] = []
        self.suspended: dict[int, float] = {}  # process: when it resumes
        self.empty_at = 0.0

    def command(self, *more: str) -> list[str]:
        """Return the command, as a user would type it."""
        program = str(Path(sys.executable).with_name("dsmi-zoo"))
        run = [
            program,
            "run",
            "--models",
            *MODELS,
            "--out",
            str(self.out),
            "--cache",
            str(self.cache),
        ]
        return [
            *run,
            "--workers",
            "2",
            "--model-timeout",
            f"{TIMEOUT_S}s",
            "--retry-failed",
            "--no-report",
            *more,
        ]

    def start(self, *more: str) -> None:
        """Start a driver."""
        with self.log.open("ab") as log:
            self.drivers.append(subprocess.Popen(self.command(*more), stdout=log, stderr=log))

    def begin(self) -> None:
        """Start one driver, two at the same instant, or two shares."""
        kind = self.rng.choice(["one driver", "two drivers", "two shares"])
        self.done[kind] += 1
        if kind == "two shares":
            self.start("--share", "1/2")
            self.start("--share", "2/2")
        else:
            for _ in range(1 + (kind == "two drivers")):
                self.start()

    def workers(self) -> list[psutil.Process]:
        """Return all descendants of the drivers."""
        found = []
        for driver in self.drivers:
            with suppress(psutil.NoSuchProcess):
                found += psutil.Process(driver.pid).children(recursive=True)
        return found

    def kill_a_worker(self) -> bool:
        """Kill a descendant of a driver."""
        workers = self.workers()
        if workers:
            with suppress(psutil.NoSuchProcess):
                self.rng.choice(workers).kill()
        return bool(workers)

    def kill_a_driver(self) -> bool:
        """Kill a driver; ``run`` starts others once all have ended."""
        running = [driver for driver in self.drivers if driver.poll() is None]
        if running:
            self.rng.choice(running).kill()
        return bool(running)

    def suspend_a_worker(self) -> bool:
        """Suspend a descendant of a driver for a while, or until the round ends."""
        workers = self.workers()
        if workers:
            chosen = self.rng.choice(workers)
            for_good = self.rng.random() < 0.2
            with suppress(psutil.NoSuchProcess):
                chosen.suspend()
                self.suspended[chosen.pid] = time.monotonic() + (
                    1e6 if for_good else self.rng.uniform(*SUSPENDED_FOR_S)
                )
        return bool(workers)

    def suspend_a_driver(self) -> bool:
        """Suspend a driver for a while."""
        running = [driver for driver in self.drivers if driver.poll() is None]
        if running:
            chosen = self.rng.choice(running)
            chosen.send_signal(signal.SIGSTOP)
            self.suspended[chosen.pid] = time.monotonic() + self.rng.uniform(*SUSPENDED_FOR_S)
        return bool(running)

    def fill_the_disk(self) -> bool:
        """Fill the disk for a few seconds."""
        if not self.mounted or self.filler.exists():
            return False
        with suppress(OSError), self.filler.open("wb") as file:
            os.posix_fallocate(
                file.fileno(), 0, max(1, shutil.disk_usage(self.filler.parent).free - 20_000)
            )
        self.empty_at = time.monotonic() + self.rng.uniform(*FULL_FOR_S)
        return True

    def flip_a_bit_of_the_cache(self) -> bool:
        """Flip one bit of a view, of trained weights or of the subset."""
        files = [*self.cache.glob("views/*.npy"), *self.cache.glob("weights/*.safetensors")]
        return self._flip([*files, *self.out.glob("subset.parquet")])

    def flip_a_bit_of_a_row(self) -> bool:
        """Flip one bit of a finished row."""
        return self._flip(list(self.out.glob("results/[!.]*.parquet")))

    def _flip(self, files: list[Path]) -> bool:
        if not files:
            return False
        with suppress(OSError), self.rng.choice(sorted(files)).open("r+b") as file:
            place = self.rng.randrange(max(1, os.fstat(file.fileno()).st_size))
            file.seek(place)
            old = file.read(1)
            file.seek(place)
            file.write(bytes([old[0] ^ 1 << self.rng.randrange(8)]) if old else b"")
        return True

    def disturb(self) -> None:
        """Cause one random accident."""
        deeds: list[Callable[[], bool]] = [
            *[self.kill_a_worker] * 3, self.kill_a_driver, *[self.suspend_a_worker] * 2, self.suspend_a_driver,
            self.fill_the_disk, *[self.flip_a_bit_of_the_cache] * 2, *[self.flip_a_bit_of_a_row] * 2,
        ]  # fmt: skip
        deed = self.rng.choice(deeds)
        if deed():
            self.done[deed.__name__.replace("_", " ")] += 1

    def end_expired_accidents(self, everything: bool = False) -> None:
        """Resume suspended processes whose time has come, and free the disk again."""
        now = time.monotonic()
        for pid in [pid for pid, until in self.suspended.items() if everything or now > until]:
            del self.suspended[pid]
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        if self.filler.exists() and (everything or now > self.empty_at):
            self.filler.unlink()

    def run(self) -> None:
        """Cause accidents until the time is over, restarting drivers when all have ended; then let the run finish."""
        end = time.monotonic() + CHAOS_S
        self.begin()
        while time.monotonic() < end:
            time.sleep(self.rng.uniform(0.3, 3.0))
            self.disturb()
            self.end_expired_accidents()
            ended = [driver.poll() for driver in self.drivers]
            if all(code is not None for code in ended):
                for code in ended:
                    self.done[f"a driver ended with {code}"] += 1
                self.drivers.clear()
                self.begin()
        self.end_expired_accidents(everything=True)
        for driver in self.drivers:
            driver.wait(timeout=600)
        self.drivers.clear()

    def finish(self) -> int:
        """Return the exit code of the same run, undisturbed; retry, as a killed driver may seem alive at first."""
        for _ in range(4):
            with self.log.open("ab") as log:
                code = subprocess.run(
                    self.command(), stdout=log, stderr=log, timeout=900, check=False
                ).returncode
            if code == 0:
                return 0
            self.done[f"an undisturbed run ended with {code}"] += 1
            time.sleep(5)
        return code


def problems(out: Path, right: pd.DataFrame) -> list[str]:
    """Return the problems of a round's rows."""
    rows = read_results(out)
    files = sorted(path.stem for path in (out / "results").glob("[!.]*"))
    found = (
        []
        if files == sorted(entry.slug for entry in read_run(out).entries)
        else ["files are not one per entry"]
    )
    names = rows["model"].tolist()
    found += [f"{name} is lost" for name in right.index if name not in names]
    found += [
        f"{name} is there {names.count(name)} times" for name in set(names) if names.count(name) > 1
    ]
    for name in set(names) & set(right.index):
        row, expected = rows.set_index("model").loc[name], right.loc[name]
        different = [column for column in MEASURED if row[column] != expected[column]]
        if different or row["status"] != "ok":
            found.append(
                f"{name}: {row['status']} {row['error_message'] or ''}, other {', '.join(different)}"
            )
    return found


def left_over(token: str) -> list[str]:
    """Return our processes that are still running after ``ENDS_WITHIN_S``."""
    deadline = time.monotonic() + ENDS_WITHIN_S
    while found := list(_ours(token)):
        if time.monotonic() > deadline:
            return found
        time.sleep(1)
    return []


def _ours(token: str) -> Iterator[str]:
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            mine = process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE
            if mine and process.environ().get(MARK) == token:
                yield f"{process.pid} {' '.join(process.cmdline())[:100]}"


@contextmanager
def round_folder(base: Path) -> Iterator[tuple[Path, bool]]:
    """Yield a folder for one round, and whether it is a separate small file system."""
    folder = Path(tempfile.mkdtemp(dir=base))
    mount = ["mount", "-t", "tmpfs", "-o", f"size={ROOM_MB}m", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    try:
        yield folder, mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], capture_output=True, check=False)
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    """Run the rounds; return 1 if there was any problem."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="of the accidents; when they come depends on the machine",
    )
    parser.add_argument("--folder", type=Path, default=Path("soak"))
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    token = os.environ[MARK] = uuid.uuid4().hex
    os.environ["HF_HUB_OFFLINE"] = "1"
    base, rng = given.folder.absolute(), random.Random(given.seed)
    done: Counter[str] = Counter()
    bad: list[str] = []
    checked = 0

    undisturbed = Round(base, False, rng, Counter())
    undisturbed.out, undisturbed.cache = base / "undisturbed", base / "cache"
    if undisturbed.finish():
        raise SystemExit(f"the undisturbed run failed; see {undisturbed.log}")
    right = read_results(undisturbed.out).set_index("model")

    end = time.monotonic() + 60 * given.minutes
    rounds = 0
    while time.monotonic() < end:
        rounds += 1
        with round_folder(base) as (folder, mounted):
            this = Round(folder, mounted, rng, done)
            shutil.copytree(undisturbed.cache, this.cache)
            this.run()
            code = this.finish()
            found = (
                problems(this.out, right)
                if code == 0
                else [f"the undisturbed run ended with {code}"]
            )
            found += [f"left: {process}" for process in left_over(token)]
            if found:
                shutil.copy(this.log, base / f"round-{rounds}.log")
        checked += len(right)
        bad += [f"round {rounds}: {problem}" for problem in found]
        print(
            f"round {rounds}: {len(right)} rows held against the undisturbed ones, {len(found)} problems",
            flush=True,
        )

    summary = {"rounds": rounds, "rows": checked, "done": dict(done.most_common()), "problems": bad}
    (base / "soak.json").write_text(json.dumps(summary, indent=2) + "\n")
    for deed, count in done.most_common():
        print(f"{count:6} {deed}")
    print(f"{rounds} rounds, {checked} rows, {len(bad)} problems")
    for problem in bad:
        print(f"  {problem}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
