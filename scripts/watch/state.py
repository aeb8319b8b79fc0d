"""What a workflow is doing: Snakemake's log, the artifacts that lie there, and the processes of this machine."""

import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from scripts.artifact.code import ROOT
from scripts.artifact.digest import SUMS
from scripts.artifact.places import WORK
from scripts.recipe.base import STAGES
from scripts.recipe.graph import Artifact, Graph, artifact_path
from scripts.recipe.load import load_recipe
from scripts.recipe.problems import RecipeError
from scripts.watch.durations import Durations
from scripts.watch.snakelog import LogReader, Run, Work, newest_log
from scripts.watch.tail import last_lines
from scripts.watch.training import Training, TrainingReader, work_folder

SILENT_S = 600.0
"""A run elsewhere whose log is older than this may have died."""


@dataclass
class JobView:
    """One job that runs, waits for the cluster, or failed."""

    title: str
    state: str
    """`running`, `queued`, `failed`, or `unfinished` where nothing runs any more."""
    seconds: float
    external: str = ""
    attempts: int = 1
    memory_bytes: int | None = None
    """Of its processes on this machine."""
    training: Training | None = None
    said: list[str] = field(default_factory=list)
    """Last lines of its log."""
    log: Path | None = None
    left_s: float | None = None


@dataclass
class View:
    """All that one frame shows."""

    title: str
    status: str
    """`running`, `elsewhere`, `silent`, `finished`, `failed`, `stopped`, `nothing`, `killed`, `orphans`,
    `refused` or `never`."""
    host: str = ""
    seconds: float = 0.0
    """Of the run; since it ended, where it has."""
    silent_s: float = 0.0
    steps: tuple[int, int] = (0, 0)
    stages: list[tuple[str, int, int]] = field(default_factory=list)
    """(stage, artifacts that lie there, artifacts of the recipe)."""
    jobs: list[JobView] = field(default_factory=list)
    left_s: float | None = None
    at_least: bool = False
    """Whether jobs are left of which nothing is known yet."""
    problem: str = ""
    """Why the recipe can't be read."""
    results: str = ""


class Watcher:
    """Looks again and again; keeps open what it has read."""

    def __init__(self, directory: Path, recipes: Sequence[Path]) -> None:
        self._directory, self._asked = directory.resolve(), list(recipes)
        self._logs: dict[Path, LogReader] = {}
        self._trainings: dict[Path, TrainingReader] = {}
        self._recipes: list[Path] = []
        self._stamps: list[float] = []
        self._graph: Graph | None = None
        self._problem = ""
        self._durations = Durations()

    def look(self, now: float | None = None) -> View:
        """Return what there is to see now."""
        now = time.time() if now is None else now
        reader = newest_log(self._directory / ".snakemake" / "log", self._logs)
        run = reader.run if reader is not None else None
        self._load(run)
        if run is not None and self._asked and not self._is_mine(run):
            run = None  # the last run was another recipe's
        view = View(self._title(), "never", problem=self._problem)
        if self._graph is not None:
            view.results = f"results/{self._graph.recipe.name}"
            view.stages = self._stages(run)
        if run is not None:
            self._tell(view, run, now)
        return view

    # -- the recipe ---------------------------------------------------------------------------------------------------

    def _load(self, run: Run | None) -> None:
        """Read the recipe that was asked for, else the last run's, again only when a file has changed."""
        recipes = self._asked or [self._directory / path for path in (run.recipes if run is not None else [])]
        recipes = recipes or [ROOT / "config" / "demo.yaml"]
        try:
            stamps = [path.stat().st_mtime for path in recipes]
        except OSError as error:
            self._graph, self._problem = None, f"{error.filename}: {error.strerror}"
            return
        if recipes == self._recipes and stamps == self._stamps:
            return
        self._recipes, self._stamps, self._problem = recipes, stamps, ""
        self._durations = Durations()
        try:
            self._graph = Graph(load_recipe(recipes, ROOT))
        except RecipeError as error:
            self._graph, self._problem = None, error.problems[0]

    def _is_mine(self, run: Run) -> bool:
        here = {(self._directory / path).resolve() for path in run.recipes}
        demo = ROOT / "config" / "demo.yaml"
        return here == {path.resolve() for path in self._asked} or (not here and self._recipes == [demo])

    def _title(self) -> str:
        if self._graph is None:
            return self._recipes[-1].name if self._recipes else "workflow"
        return self._graph.recipe.title or self._graph.recipe.name

    # -- the run ------------------------------------------------------------------------------------------------------

    def _tell(self, view: View, run: Run, now: float) -> None:
        processes = list(_processes(self._directory))
        view.host, view.steps = run.host, run.work
        view.seconds, view.silent_s = max(0.0, now - run.began), max(0.0, now - run.heard)
        view.status = self._status(run, processes, view.silent_s)
        if run.over:
            view.seconds = max(0.0, run.heard - run.began)
        alive = view.status in ("running", "elsewhere", "silent", "orphans")
        titles = self._titles()
        for job in run.jobs.values():
            if job.state == "done" or (job.state == "running" and run.ended and not run.stopped and not run.failed):
                continue
            view.jobs.append(self._job(job, titles.get(job.title), alive, processes, now))
        if alive and self._graph is not None:
            self._estimate(view, run)

    def _status(self, run: Run, processes: Sequence[psutil.Process], silent_s: float) -> str:
        if run.over:
            ends = (("failed", run.failed), ("stopped", run.stopped), ("nothing", run.nothing and not run.jobs))
            complete = run.work[0] >= run.work[1]
            return next((name for name, true in ends if true), "finished" if complete else "failed")
        if any(_is_snakemake(process) for process in processes):
            return "running"
        if run.host and run.host != platform.node():
            return "elsewhere" if silent_s < SILENT_S else "silent"
        if not run.real:
            return "refused"
        return "orphans" if processes else "killed"

    def _titles(self) -> dict[str, Artifact]:
        return {title_of(artifact, self._graph): artifact for artifact in self._graph.jobs} if self._graph else {}

    def _job(
        self, job: Work, artifact: Artifact | None, alive: bool, processes: Sequence[psutil.Process], now: float
    ) -> JobView:
        state = job.state if job.state == "failed" or alive else "unfinished"
        end = job.ended or (now if alive else job.started)
        found = JobView(job.title, state, max(0.0, end - job.started), job.external, job.attempts)
        if artifact is None or self._graph is None:
            return found
        results = self._directory / "results" / self._graph.recipe.name
        name = artifact_path(artifact)
        found.log = Path("results") / self._graph.recipe.name / "logs" / f"{name}.log"
        try:
            begun = (self._directory / found.log).stat().st_mtime >= job.started - 5
        except OSError:
            begun = False
        if state == "running" and job.external and not begun:
            found.state = "queued"
            return found
        found.said = last_lines(self._directory / found.log, 3) if begun else []
        if artifact[0] == "train":
            found.training = self._training(results, artifact[1])
        if state == "running":
            found.memory_bytes = _memory(processes, f"{name}/{SUMS}")
        return found

    def _training(self, results: Path, model: str) -> Training | None:
        folder = work_folder(results / WORK / "train", model)
        if folder is None:
            return None
        reader = self._trainings.setdefault(folder, TrainingReader(folder, results / "pack" / model))
        return reader.read()

    # -- artifacts and time left --------------------------------------------------------------------------------------

    def _stages(self, run: Run | None) -> list[tuple[str, int, int]]:
        """Return the stages of this run's targets: those on demand only where something of them lies or runs."""
        assert self._graph is not None
        started = {job.title for job in run.jobs.values()} if run is not None else set()
        results = self._directory / "results" / self._graph.recipe.name
        rows = []
        for stage in STAGES:
            jobs = [(job.stage, job.name) for job in self._graph.of_stage(stage)]
            lying = [artifact for artifact in jobs if (results / artifact_path(artifact) / SUMS).is_file()]
            for artifact in jobs:
                self._durations.learn(results, artifact)
            asked = stage not in ("release", "blind") or lying or any(title_of(a, self._graph) in started for a in jobs)
            wanted = [a for a in jobs if a not in self._graph.on_demand or a in lying]
            if wanted and asked:
                rows.append((stage, len(lying), len(wanted)))
        return rows

    def _estimate(self, view: View, run: Run) -> None:
        """Guess the time left: what runs by its own measure, what waits by what the jobs of its stage took last."""
        assert self._graph is not None
        total, longest, known = 0.0, 0.0, True
        stage_of = {title: artifact[0] for title, artifact in self._titles().items()}
        for job in view.jobs:
            mean = self._durations.mean(stage_of.get(job.title, ""))
            job.left_s = job.training.left_s if job.training is not None else None
            if job.left_s is None and mean is not None:
                job.left_s = max(0.0, mean - (job.seconds if job.state == "running" else 0.0))
            known &= job.left_s is not None
            total, longest = total + (job.left_s or 0.0), max(longest, job.left_s or 0.0)
        for stage, waiting in self._waiting(view, run, stage_of).items():
            mean = self._durations.mean(stage)
            known &= mean is not None or not waiting
            total += waiting * (mean or 0.0)
        view.left_s = max(longest, total / run.most_at_once)
        view.at_least = not known

    def _waiting(self, view: View, run: Run, stage_of: dict[str, str]) -> dict[str, int]:
        """Return the jobs of each stage that have not begun, also those whose older artifact lies there still.

        A log without a table of jobs (`--quiet`) leaves only the artifacts that are missing.
        """
        if not run.planned:
            busy = [stage_of.get(job.title) for job in view.jobs if job.state != "failed"]
            return {stage: max(0, wanted - there - busy.count(stage)) for stage, there, wanted in view.stages}
        begun = [stage_of.get(job.title) for job in run.jobs.values()]
        waiting = {stage: max(0, run.planned_of(stage) - begun.count(stage)) for stage in STAGES}
        # The plan may have shrunk meanwhile: a job that made the bytes of before spares those behind it.
        left = max(0, run.work[1] - len(run.jobs))
        for stage in reversed(STAGES):
            waiting[stage] -= max(0, min(waiting[stage], sum(waiting.values()) - left))
        return waiting


def title_of(artifact: Artifact, graph: Graph | None) -> str:
    """Return what the rule's message says of an artifact; `rules/*.smk` have the same words."""
    stage, name = artifact
    recipe = graph.recipe.name if graph is not None else ""
    if stage == "benchmark":
        return "benchmark {} on {}".format(*name.split("/", 1))
    return {"report": f"report {recipe}", "blind": f"blind test of {recipe}"}.get(stage, f"{stage} {name}")


def _processes(directory: Path) -> Iterator[psutil.Process]:
    """Yield the processes of this machine that work in `directory`: Snakemake and its jobs."""
    for process in psutil.process_iter(["pid", "cwd", "cmdline"]):
        command = process.info["cmdline"] or []
        ours = any(part.endswith("snakemake") or part.startswith("scripts.") for part in command[:6])
        if ours and process.info["cwd"] == str(directory) and "scripts.watch" not in command:
            yield process


def _is_snakemake(process: psutil.Process) -> bool:
    return any(part.endswith("snakemake") for part in (process.info["cmdline"] or [])[:4])


def _memory(processes: Sequence[psutil.Process], output: str) -> int | None:
    """Return the resident bytes of the job that makes `output`, with its children; None if it isn't here."""
    for process in processes:
        command = process.info["cmdline"] or []
        if any(part.endswith(output) for part in command) and not _is_snakemake(process):
            try:
                family = [process, *process.children(recursive=True)]
                return sum(int(member.memory_info().rss) for member in family)
            except psutil.Error:
                return None
    return None
