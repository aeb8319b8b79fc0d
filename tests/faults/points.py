"""One fault at one point of a run, then the one documented command, then the same digests."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from scripts.recipe.base import keyed_hash
from tests.faults.shim import Shim
from tests.pipeline.bench import Bench, Run, kill_session

STAGES = ("download", "clean", "mix", "create", "pack", "train", "merge", "benchmark", "report")
ACTIONS = ("kill all", "kill main", "kill job", "no space", "I/O error")
DONE = {"no space": "enospc", "I/O error": "eio"}


@dataclass(frozen=True)
class Point:
    """What goes wrong, and where."""

    stage: str
    """The stage whose artifacts are built again; `.snakemake` for Snakemake's own records."""
    at: int
    """Number of the write, rename, fsync, unlink or mkdir of that stage, from 1."""
    action: str

    @property
    def root(self) -> str:
        """Folder of the stage's events: what Python caches beside the code is no part of them."""
        return ".snakemake" if self.stage == ".snakemake" else "results"

    @property
    def match(self) -> str:
        """Text that the paths of the stage's events hold; the report is its stage's only artifact and has no folder."""
        return self.stage if self.stage in {"report", ".snakemake"} else f"/{self.stage}/"


def draw(events: Counter[str], number: int, seed: int) -> list[Point]:
    """Return `number` points by keyed hash: each stage once a round, in an order of its own; an event and an action.

    Actions go round too, so that any five points that follow one another hold all of them.
    """
    stages = [stage for stage, count in events.items() if count]
    points = []
    for i in range(number):
        turn, place = divmod(i, len(stages))
        stage = sorted(stages, key=lambda name: keyed_hash(seed, "order", turn, name))[place]
        at = 1 + keyed_hash(seed, "event", i) % events[stage]
        first = keyed_hash(seed, "action", i // len(ACTIONS)) % len(ACTIONS)
        points.append(Point(stage, at, ACTIONS[(first + i) % len(ACTIONS)]))
    return points


def count_events(shim: Shim) -> Counter[str]:
    """Return the number of events of each stage in a whole run that was logged."""
    found: Counter[str] = Counter()
    points = [Point(stage, 1, ACTIONS[0]) for stage in (*STAGES, ".snakemake")]
    for _, _, path in shim.events():
        for point in points:
            found[point.stage] += path.startswith(f"{point.root}/") and point.match in path
    found[".snakemake"] //= (
        6  # a run that makes `clean` alone again writes at least this share of a whole run's records
    )
    return found


def resume(bench: Bench) -> Run:
    """`make resume` as the Makefile writes it: guard, unlock, go on."""
    guard = bench.python("-m", "scripts.artifact", "guard", ".")
    if guard.returncode:
        return Run(guard.returncode, guard.stderr)
    unlocked = bench.run("--unlock")
    return bench.run("--rerun-incomplete") if unlocked.code == 0 else unlocked


def forget(bench: Bench, stage: str) -> None:
    """Remove the artifacts of a stage, so that the next run builds them."""
    root = bench.folder / "results"
    for folder in root.glob("*/clean" if stage == ".snakemake" else f"*/{stage}"):
        shutil.rmtree(folder)


def strike(bench: Bench, point: Point, folder: Path, timeout: float = 900) -> tuple[str, str]:
    """Run Snakemake until the point, let the fault happen, and return (what happened, the event's kind and path)."""
    shim = Shim(folder, bench.folder / point.root, point.match, at=point.at, do=DONE.get(point.action, "stop"))
    forget(bench, point.stage)
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(
            bench.command(),
            cwd=bench.folder,
            env=bench.environment(**shim.environment()),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        end = time.monotonic() + timeout
        while process.poll() is None and shim.fired() is None and time.monotonic() < end:
            time.sleep(0.005)
        fired = shim.fired()
        if fired is None:
            process.wait(timeout=1)
            return _ended_by_itself(shim, point, process.returncode)
        pid, kind, path = fired
        _kill(point.action, process, pid)
        return f"{point.action}: process stopped and killed", f"{kind} {_plain(path)}"
    finally:
        kill_session(process.pid)
        process.wait()


def _ended_by_itself(shim: Shim, point: Point, code: int) -> tuple[str, str]:
    events = shim.events()
    if point.action not in DONE or len(events) < point.at:
        return f"not reached: the run had {len(events)} events", ""
    _, kind, path = events[point.at - 1]
    return f"{point.action}: run ended with status {code}", f"{kind} {_plain(path)}"


def _kill(action: str, main: "subprocess.Popen[bytes]", pid: int) -> None:
    if action == "kill all" or pid == main.pid:
        kill_session(main.pid)
    elif action == "kill main":
        main.kill()  # the stopped job lives on as an orphan, and ends when it has done its work
        main.wait()
        os.kill(pid, signal.SIGCONT)
    else:
        os.kill(pid, signal.SIGKILL)
        main.wait(timeout=600)


def wait_for_orphans(bench: Bench, timeout: float = 300) -> bool:
    """Return whether the guard ever refused, once it no longer does."""
    refused, end = False, time.monotonic() + timeout
    while bench.python("-m", "scripts.artifact", "guard", ".").returncode and time.monotonic() < end:
        refused = True
        time.sleep(0.5)
    return refused


def faults_after(bench: Bench, wanted: dict[str, str]) -> list[str]:
    """Return what is not as it must be after a resumed run."""
    found = bench.sums()
    bad = [f"{name}: other digests" for name in wanted if found.get(name) != wanted[name]]
    bad += [f"{name}: should not be there" for name in found if name not in wanted]
    bad += [f"{p.relative_to(bench.folder)}: left behind" for p in bench.folder.glob("results/**/.*.tmp.*")]
    verified = bench.python("-m", "scripts.artifact", "verify", *map(str, bench.folder.glob("results/*")))
    return bad if verified.returncode == 0 else [*bad, verified.stdout[-500:]]


def try_point(built: Bench, point: Point, folder: Path) -> dict[str, object]:
    """Strike a copy of a finished run at a point and resume it; return a row of the result table."""
    folder.mkdir(parents=True)
    start = time.monotonic()
    bench = built.copy(folder / "atelier")
    happened, event = strike(bench, point, folder)
    refused = wait_for_orphans(bench)
    run = resume(bench)
    bad = faults_after(bench, built.sums()) if run.code == 0 else [run.output[-1500:]]
    with contextlib.suppress(OSError):
        shutil.rmtree(folder)
    return {
        "stage": point.stage,
        "at": point.at,
        "action": point.action,
        "event": event,
        "happened": happened,
        "guard_refused": refused,
        "ended": "same digests" if not bad else "; ".join(bad),
        "seconds": round(time.monotonic() - start, 1),
    }


def _plain(path: str) -> str:
    return re.sub(r"[0-9a-f]{32,64}", "*", path)
