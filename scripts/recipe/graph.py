"""From a recipe to its jobs: every artifact, its spec, and the artifacts that it reads, in order of the flow."""

from dataclasses import dataclass

from scripts.recipe.base import Spec
from scripts.recipe.benchmark import BenchmarkSpec
from scripts.recipe.clean import CleanSpec
from scripts.recipe.create import CreateSpec
from scripts.recipe.fetch import DownloadSpec
from scripts.recipe.load import Loaded, references
from scripts.recipe.merge import MergeSpec
from scripts.recipe.mix import MixSpec
from scripts.recipe.models import Model
from scripts.recipe.pack import PackSpec
from scripts.recipe.report import ReportSpec, SourceFacts
from scripts.recipe.train import TrainSpec

Artifact = tuple[str, str]
"""(stage, name); the report's name is empty, a benchmark's is `model/suite`."""


@dataclass(frozen=True)
class Job:
    """One artifact to make."""

    stage: str
    name: str
    spec: Spec
    inputs: tuple[Artifact, ...]


def artifact_path(artifact: Artifact) -> str:
    """Return the artifact's folder below `results/<recipe>/`."""
    stage, name = artifact
    return f"{stage}/{name}" if name else stage


class Graph:
    """All jobs of a recipe, by (stage, name)."""

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded
        self.recipe = loaded.recipe
        self.jobs: dict[Artifact, Job] = {}
        for build in (self._data, self._models, self._benchmarks, self._report):
            build()

    def of_stage(self, stage: str) -> list[Job]:
        """Return the jobs of one stage, in the recipe's order."""
        return [job for job in self.jobs.values() if job.stage == stage]

    def width(self, stage: str) -> int:
        """Return the largest number of inputs of a job of this stage."""
        return max((len(job.inputs) for job in self.of_stage(stage)), default=0)

    def model_artifact(self, name: str) -> Artifact:
        """Return the artifact that holds model `name`."""
        return self.recipe.models[name].kind, name

    def _add(self, stage: str, name: str, spec: Spec, inputs: list[Artifact]) -> None:
        self.jobs[(stage, name)] = Job(stage, name, spec, tuple(inputs))

    def _data(self) -> None:
        seed = self.recipe.seed
        for name, source in self.loaded.sources.items():
            if source.fetch is not None:
                self._add("download", name, DownloadSpec(name=name, fetch=source.fetch), [])
                spec = CleanSpec(source=name, read=source.read, filters=source.filters, seed=seed)
                self._add("clean", name, spec, [("download", name)])
        for name, mixture in self.recipe.mixtures.items():
            present = {s: share for s, share in mixture.sources.items() if s not in self.loaded.missing_sources}
            mix = MixSpec(
                mixture=name,
                format=mixture.format,
                val_set_size=mixture.val_set_size,
                val_split=mixture.val_split,
                sources=present,
                missing_sources=[s for s in mixture.sources if s not in present],
                seed=seed,
            )
            self._add("mix", name, mix, [("clean", s) for s in present])

    def _models(self) -> None:
        for name, model in self.recipe.models.items():
            getattr(self, f"_{model.kind}")(name, model)

    def _download(self, name: str, model: Model) -> None:
        assert model.download is not None
        self._add("download", name, DownloadSpec(name=name, fetch=model.download), [])

    def _create(self, name: str, model: Model) -> None:
        assert model.create is not None
        choice = model.create.tokenizer
        source = ("mix", choice.mixture) if choice.mixture else self.model_artifact(choice.download or "")
        made = model.create
        spec = CreateSpec(
            model=name, architecture=made.architecture, tokenizer=choice, dtype=made.dtype, seed=self.recipe.seed
        )
        self._add("create", name, spec, [source])

    def _train(self, name: str, model: Model) -> None:
        assert model.train is not None
        train, seed, base = model.train, self.recipe.seed, self.model_artifact(model.train.base)
        pack = PackSpec(
            model=name,
            mixture=train.mixture,
            base=train.base,
            settings=train.pack,
            processes=train.launch.processes,
            seed=seed,
        )
        self._add("pack", name, pack, [("mix", train.mixture), base])
        spec = TrainSpec(
            model=name,
            base=train.base,
            optimizer=train.optimizer,
            numerics=train.numerics,
            cadence=train.cadence,
            launch=train.launch,
            max_shard_bytes=train.max_shard_bytes,
            format=self.recipe.mixtures[train.mixture].format,
            seed=seed,
        )
        self._add("train", name, spec, [base, ("pack", name)])

    def _merge(self, name: str, model: Model) -> None:
        assert model.merge is not None
        spec = MergeSpec(model=name, **dict(model.merge))
        self._add("merge", name, spec, [self.model_artifact(parent) for parent in model.merge.models])

    def _benchmarks(self) -> None:
        settings = self.recipe.benchmark
        shared = settings.model_dump(exclude={"suites", "models"})
        for suite_name in settings.suites:
            suite = self.loaded.suites[suite_name]
            if suite.fetch is not None:
                self._add("download", suite_name, DownloadSpec(name=suite_name, fetch=suite.fetch), [])
            held_out = any(task.format == "bits_per_byte" for task in suite.tasks.values())
            mixtures = list(self.recipe.mixtures) if held_out else []
            for model in settings.models:
                spec = BenchmarkSpec(model=model, suite=suite_name, tasks=suite.tasks, mixtures=mixtures, **shared)
                data = [("download", suite_name)] if suite.fetch is not None else []
                inputs = [self.model_artifact(model), *data, *(("mix", m) for m in mixtures)]
                self._add("benchmark", f"{model}/{suite_name}", spec, inputs)

    def _report(self) -> None:
        shown = ("clean", "mix", "create", "pack", "train", "merge", "benchmark")
        inputs = [(job.stage, job.name) for stage in shown for job in self.of_stage(stage)]
        facts = {
            name: SourceFacts(**source.model_dump(include=set(SourceFacts.model_fields)))
            for name, source in self.loaded.sources.items()
        }
        spec = ReportSpec(
            recipe=self.recipe.name,
            title=self.recipe.title or self.recipe.name,
            seed=self.recipe.seed,
            sources=facts,
            missing_sources=self.loaded.missing_sources,
            models={n: [m.kind, *(p for _, p in references(self.recipe, n))] for n, m in self.recipe.models.items()},
            published=self.recipe.published,
            lineage={artifact_path(a): [artifact_path(i) for i in job.inputs] for a, job in self.jobs.items()},
        )
        self._add("report", "", spec, inputs)
