"""Snakemake's own log, as far as it tells what runs: tested against Snakemake 9.27.1."""

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from scripts.recipe.base import STAGES
from scripts.watch.tail import Tail

_STAMP = re.compile(r"\[(\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4})\]$")
_JOB = re.compile(r"Job (\d+): (.*?)(?: \[[^\]]*\])?$")
_RULE = re.compile(r"(?:local)?(?:rule|checkpoint) ([\w-]+):$")
_FINISHED = re.compile(r"Finished jobid: (\d+)")
_STEPS = re.compile(r"(\d+) of (\d+) steps \(")
_TABLE = "Job stats:"
_COUNT = re.compile(r"([\w-]+)\s+(\d+)$")
_TARGETS = frozenset({"all", "blind-test", *STAGES})
"""Rules that only name what is wanted: Snakemake counts them among the jobs, but never says that one has ended."""
_STAGES = {"build_report": "report", "build_blind_test": "blind"}
"""Stage of a rule, where that isn't its name's first word."""
_SUBMITTED = re.compile(
    r"Job (\d+) has been submitted with SLURM jobid (\S+)|Submitted job (\d+) with external jobid '(.*)'"
)
_RESTART = re.compile(r"Trying to restart job (\d+)")
_FAILED = re.compile(r"Error in rule ([\w-]+):")
_JOBID = re.compile(r"    jobid: (\d+)$")
_HEAD = re.compile(r"  (Host|Config file\(s\)): (.*)$")
_CONFIG = re.compile(r"Path\('(.*?)'\)|Path\(\"(.*?)\"\)")
_ENDED = "Complete log(s):"
_STOPPED = "Terminating processes on user request"
_NOTHING = "Nothing to be done"
_ABORTED = "Exiting because a job execution failed"


@dataclass
class Work:
    """One job of a run."""

    title: str
    """Text of the rule's message, such as `train tiny-roleplay`."""
    started: float
    """Seconds since 1970 by the clock of Snakemake's host."""
    state: str = "running"
    """`running`, `done` or `failed`."""
    ended: float = 0.0
    external: str = ""
    """Id of the cluster's own job."""
    attempts: int = 1


@dataclass
class Run:
    """One call of Snakemake."""

    path: Path
    host: str = ""
    recipes: list[Path] = field(default_factory=list)
    began: float = 0.0
    jobs: dict[int, Work] = field(default_factory=dict)
    steps: tuple[int, int] = (0, 0)
    """(done, all), Snakemake's own count."""
    planned: dict[str, int] = field(default_factory=dict)
    """Jobs of each rule, as counted at the start."""
    most_at_once: int = 1
    ended: bool = False
    stopped: bool = False
    """By the user."""
    nothing: bool = False
    failed: bool = False
    heard: float = 0.0
    """When the log last grew."""

    @property
    def work(self) -> tuple[int, int]:
        """(done, all) of the jobs that do something."""
        targets = sum(count for rule, count in self.planned.items() if _is_target(rule))
        return self.steps[0], max(self.steps[0], self.steps[1] - targets)

    def planned_of(self, stage: str) -> int:
        """Return how many jobs of a stage were counted at the start."""
        return sum(n for rule, n in self.planned.items() if not _is_target(rule) and _stage_of(rule) == stage)

    @property
    def over(self) -> bool:
        """Whether it came to its end; a call without work says so and writes no more."""
        return self.ended or (self.nothing and not self.jobs)

    @property
    def real(self) -> bool:
        """Whether it came to plan jobs: a call that only met the lock of another one did not."""
        return self.nothing or bool(self.jobs) or self.steps[1] > 0


class LogReader:
    """Follows one log as it grows."""

    def __init__(self, path: Path) -> None:
        self.run = Run(path, began=_began(path))
        self._tail, self._now, self._error, self._table = Tail(path), self.run.began, False, False

    def read(self) -> Run:
        """Take in what was written since the last call."""
        if self._tail.restarted():
            self.__init__(self.run.path)  # type: ignore[misc]  # a log that shrank is another log
        lines = self._tail.lines()
        self._take(lines)
        self.run.heard = self._tail.changed
        return self.run

    def _take(self, lines: Iterable[str]) -> None:
        for line in lines:
            if stamp := _STAMP.match(line):
                self._now = time.mktime(time.strptime(stamp[1], "%a %b %d %H:%M:%S %Y"))
            elif found := _JOB.match(line):
                self._start(int(found[1]), found[2])
            elif self._error and (found := _JOBID.match(line)):
                self._end(int(found[1]), "failed")
            elif found := _FINISHED.match(line):
                self._end(int(found[1]), "done")
            elif found := _STEPS.match(line):
                self.run.steps = int(found[1]), int(found[2])
            elif self._table and (found := _COUNT.match(line)):
                self._counted(found[1], int(found[2]))
            elif found := _SUBMITTED.match(line):
                job = self.run.jobs.get(int(found[1] or found[3]))
                if job is not None:
                    job.external = found[2] or found[4]
            else:
                self._other(line)

    def _other(self, line: str) -> None:
        run = self.run
        if _FAILED.match(line):
            self._error = True
        elif found := _RESTART.match(line):
            job = run.jobs.get(int(found[1]))
            if job is not None:
                job.attempts += 1
        elif found := _HEAD.match(line):
            if found[1] == "Host":
                run.host = found[2]
            else:
                run.recipes = [Path(a or b) for a, b in _CONFIG.findall(found[2])]
        self._table |= line.startswith(_TABLE)
        run.ended |= line.startswith(_ENDED)
        run.stopped |= line.startswith(_STOPPED)
        run.nothing |= line.startswith(_NOTHING)
        run.failed |= line.startswith(_ABORTED)

    def _counted(self, rule: str, jobs: int) -> None:
        """Take one line of the table of jobs, which the total ends."""
        if rule == "total":
            self.run.steps, self._table = (self.run.steps[0], jobs), False
        else:
            self.run.planned[rule] = jobs

    def _start(self, number: int, title: str) -> None:
        before = self.run.jobs.pop(number, None)  # a second attempt goes to the end of the table
        attempts = before.attempts if before is not None else 1
        self.run.jobs[number] = Work(title, self._now, attempts=attempts)
        busy = sum(job.state == "running" for job in self.run.jobs.values())
        self.run.most_at_once = max(self.run.most_at_once, busy)

    def _end(self, number: int, state: str) -> None:
        self._error = False
        job = self.run.jobs.get(number)
        if job is not None:
            job.state, job.ended = state, self._now


def _is_target(rule: str) -> bool:
    return rule in _TARGETS


def _stage_of(rule: str) -> str:
    return _STAGES.get(rule, rule.split("_")[0])


def newest_log(folder: Path, known: dict[Path, LogReader], most: int = 5) -> LogReader | None:
    """Return the reader of the newest log that tells of jobs, else of the newest one; None without logs.

    Args:
        folder: `.snakemake/log`.
        known: readers of earlier calls, kept up to date.
        most: logs looked at.
    """
    paths = sorted(folder.glob("*.snakemake.log"), reverse=True)[:most]
    for path in [path for path in known if path not in paths]:
        del known[path]
    found = None
    for path in paths:
        reader = known.setdefault(path, LogReader(path))
        if reader.read().real:
            return reader
        found = found or reader
    return found


def _began(path: Path) -> float:
    """Return the time in a log's name, `2026-11-25T222255.443219.snakemake.log`; 0 if it has none."""
    try:
        return time.mktime(time.strptime(path.name[:17], "%Y-%m-%dT%H%M%S"))
    except ValueError:
        return 0.0
