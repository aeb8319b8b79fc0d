"""From a recipe to its jobs: every artifact, its spec, and the artifacts that it reads, in order of the flow."""

from dataclasses import dataclass, replace

from scripts.recipe.base import Spec
from scripts.recipe.benchmark import MIX_FORMATS, BenchmarkSpec
from scripts.recipe.blind import BlindSpec
from scripts.recipe.checkpoints import parts
from scripts.recipe.clean import CleanSpec
from scripts.recipe.create import CreateSpec
from scripts.recipe.cut import cut_recipe
from scripts.recipe.fetch import DownloadSpec
from scripts.recipe.load import Loaded, references
from scripts.recipe.merge import MergeSpec
from scripts.recipe.mix import MixSpec
from scripts.recipe.models import Model, Suite
from scripts.recipe.pack import PackSpec
from scripts.recipe.prompt_format import FormatName
from scripts.recipe.release import ReleaseSpec, SourceCard, TrainingFacts
from scripts.recipe.report import ReportSpec, SourceFacts, SuiteFacts, TaskSource
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


def _origins(job: Job) -> tuple[Artifact, ...]:
    """Return what a job is made from: of a source's inputs its own download, not the benchmarks it must not quote."""
    return job.inputs[:1] if job.stage == "clean" else job.inputs


class Graph:
    """All jobs of a recipe, by (stage, name)."""

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded
        self.recipe = loaded.recipe
        self.jobs: dict[Artifact, Job] = {}
        self.released: list[str] = []
        """Models that have a release."""
        self.on_demand: set[Artifact] = set()
        """Benchmarks that nothing but the blind test asks for: no target of their stage builds them."""
        steps = (self._data, self._models, self._lineages, self._benchmarks, self._report, self._releases, self._blind)
        for build in steps:
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
        seed, compat, decontamination = self.recipe.seed, self.recipe.compat, self.recipe.decontamination
        benchmarks = self._benchmark_files()
        for name, source in self.loaded.sources.items():
            if source.fetch is not None:
                self._add("download", name, DownloadSpec(name=name, fetch=source.fetch), [])
                spec = CleanSpec(
                    source=name,
                    read=source.read,
                    filters=source.filters,
                    purpose=source.purpose,
                    generator=source.generator,
                    compat=compat.for_source(source.read.adapter),
                    decontamination=decontamination,
                    benchmarks=benchmarks,
                    seed=seed,
                )
                self._add("clean", name, spec, [("download", name), *(("download", suite) for suite in benchmarks)])
        for name, mixture in self.recipe.mixtures.items():
            present = {s: share for s, share in mixture.sources.items() if s not in self.loaded.missing_sources}
            mix = MixSpec(
                mixture=name,
                format=mixture.format,
                val_set_size=mixture.val_set_size,
                val_split=mixture.val_split,
                near_duplicates=mixture.near_duplicates,
                sources=present,
                missing_sources=[s for s in mixture.sources if s not in present],
                missing_percent={
                    s: share.target_percent
                    for s, share in mixture.sources.items()
                    if s not in present and share.target_percent is not None
                },
                compat=compat.for_mix({s: self.loaded.sources[s].read.adapter for s in present}),
                seed=seed,
            )
            self._add("mix", name, mix, [("clean", s) for s in present])

    def _benchmark_files(self) -> dict[str, dict[str, str]]:
        """Return {download: {task: file}}, sorted: what the data must not hold.

        A file of a data set that several suites share is named once. What isn't pinned can't be downloaded and must
        not keep the data from being cleaned: `python -m scripts.recipe check` names it.
        """
        found: dict[str, dict[str, str]] = {}
        for suite_name, task_name, task in self.loaded.tasks():
            fetch = self.loaded.fetch_of(suite_name, task)
            if task.file is None or fetch is None or not fetch.pinned or self.recipe.decontamination.policy == "off":
                continue
            files = found.setdefault(task.dataset or suite_name, {})
            if not task.dataset or task.file not in files.values():
                files[task_name] = task.file
        return dict(sorted(found.items()))

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
            levers=train.levers,
            launch=train.launch,
            trackers=train.trackers,
            max_shard_bytes=train.max_shard_bytes,
            format=self.recipe.mixtures[train.mixture].format,
            seed=seed,
        )
        self._add("train", name, spec, [base, ("pack", name)])

    def _merge(self, name: str, model: Model) -> None:
        assert model.merge is not None
        fetches = {parent: self.recipe.models[parent].download for parent in model.merge.models}
        hub = {parent: fetch.hub_parts()[1] for parent, fetch in fetches.items() if fetch and fetch.hub}
        spec = MergeSpec(model=name, hub=hub, **dict(model.merge))
        self._add("merge", name, spec, [self.model_artifact(parent) for parent in model.merge.models])

    def _lineages(self) -> None:
        """Tell each merge what lies before it, once all jobs are known."""
        for artifact, job in self.jobs.items():
            if isinstance(job.spec, MergeSpec):
                before = {artifact_path(a): list(map(artifact_path, _origins(self.jobs[a]))) for a in self._before(job)}
                self.jobs[artifact] = replace(job, spec=job.spec.model_copy(update={"lineage": before}))

    def _before(self, job: Job) -> list[Artifact]:
        """Return all that a job is made from, each after its own inputs."""
        found: list[Artifact] = []
        for artifact in _origins(job):
            found += [a for a in (*self._before(self.jobs[artifact]), artifact) if a not in found]
        return found

    def _benchmarks(self) -> None:
        for name in self.recipe.benchmark.suites:
            self._measure(name, self.loaded.suites[name], self.recipe.benchmark.models)

    def _measure(self, suite_name: str, suite: Suite, models: list[str]) -> None:
        """Add the jobs of one suite on some models (or checkpoints of them), and of the data that it reads."""
        shared = self.recipe.benchmark.model_dump(exclude={"suites", "models"})
        if suite.fetch is not None:
            self._add("download", suite_name, DownloadSpec(name=suite_name, fetch=suite.fetch), [])
        names = list(dict.fromkeys(task.dataset for task in suite.tasks.values() if task.dataset))
        for name in names:
            self._add("download", name, DownloadSpec(name=name, fetch=self.loaded.datasets[name].fetch), [])
        held_out = any(task.format in MIX_FORMATS for task in suite.tasks.values())
        mixtures = list(self.recipe.mixtures) if held_out else []
        for model, step in map(parts, models):
            spec = BenchmarkSpec(
                model=model,
                checkpoint=step,
                suite=suite_name,
                protocol=suite.protocol,
                tasks=suite.tasks,
                mixtures=mixtures,
                **shared,
            )
            data = [("download", name) for name in ([suite_name] if suite.fetch is not None else []) + names]
            data += [("mix", m) for m in mixtures]
            inputs = [self.model_artifact(model), *data]
            if spec.combines:
                inputs = [*self._shards(spec, inputs), *data]
            self._add("benchmark", f"{spec.subject}/{suite_name}", spec, inputs)

    def _blind(self) -> None:
        """Add the page for testers, and the benchmarks that only it needs: after all that must not see them."""
        test, suite = self.recipe.blind_test, self.loaded.blind_suite
        if test is None or suite is None:
            return
        known = set(self.jobs)
        self._measure(test.suite, suite, [m for m in test.models if ("benchmark", f"{m}/{test.suite}") not in known])
        self.on_demand = set(self.jobs) - known
        hidden = [n for n, source in self.loaded.sources.items() if not (source.redistributable or test.show_private)]
        spec = BlindSpec(
            recipe=self.recipe.name,
            settings=test,
            task=next(name for name, task in suite.tasks.items() if task.format == "generation"),
            formats={name: mixture.format for name, mixture in self.recipe.mixtures.items()},
            hidden_sources=hidden,
        )
        replies = [("benchmark", f"{model}/{test.suite}") for model in test.models]
        self._add("blind", "", spec, [*replies, *(("mix", name) for name in self.recipe.mixtures)])

    def _shards(self, spec: BenchmarkSpec, inputs: list[Artifact]) -> list[Artifact]:
        """Add the jobs of a suite's shards, and return their artifacts: `model/suite.1of4` and so on."""
        names = [f"{spec.subject}/{spec.suite}.{k + 1}of{spec.shards}" for k in range(spec.shards)]
        for shard, name in enumerate(names):
            self._add("benchmark", name, spec.model_copy(update={"shard": shard}), inputs)
        return [("benchmark", name) for name in names]

    def _report(self) -> None:
        shown = ("clean", "mix", "create", "pack", "train", "merge", "benchmark")
        whole = [job for stage in shown for job in self.of_stage(stage) if getattr(job.spec, "shard", None) is None]
        inputs = [(job.stage, job.name) for job in whole]
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
            suites={name: self._suite_facts(suite) for name, suite in self.loaded.suites.items()},
            published=self.loaded.published,
            places={
                job.name: job.spec.fetch.place
                for job in self.of_stage("download")
                if isinstance(job.spec, DownloadSpec)
            },
            lineage={artifact_path(a): [artifact_path(i) for i in job.inputs] for a, job in self.jobs.items()},
        )
        self._add("report", "", spec, inputs)

    def _releases(self) -> None:
        chosen = self.recipe.release.models
        made = [name for name, model in self.recipe.models.items() if model.kind in {"train", "merge"}]
        self.released = made if chosen is None else chosen
        for name in self.released:
            model = self.model_artifact(name)
            before = self._before(self.jobs[model])
            measured = [(job.stage, job.name) for job in self.of_stage("benchmark") if job.name.startswith(f"{name}/")]
            measured = [artifact for artifact in measured if getattr(self.jobs[artifact].spec, "shard", None) is None]
            self._add("release", name, self._release_spec(name, [*before, model]), [model, *before, *measured])

    def _release_spec(self, name: str, lineage: list[Artifact]) -> ReleaseSpec:
        recipe, (kind, _) = self.recipe, self.model_artifact(name)
        models = [n for n in recipe.models if self.model_artifact(n) in lineage]
        mixtures = [n for stage, n in lineage if stage == "mix"]
        used = dict.fromkeys(source for mixture in mixtures for source in recipe.mixtures[mixture].sources)
        return ReleaseSpec(
            recipe=recipe.name,
            model=name,
            kind=kind,
            settings=recipe.release,
            format=self._format_of(name),
            base_models=[self._hub_name(parent) for _, parent in references(recipe, name)],
            hub_bases={self._hub_name(parent): self._hub_bases(parent) for _, parent in references(recipe, name)},
            trainings=[self._training_facts(n) for stage, n in lineage if stage == "train"],
            sources={source: self._source_card(source) for source in used},
            missing_sources=[source for source in used if source in self.loaded.missing_sources],
            suites={n: self._suite_facts(suite) for n, suite in self.loaded.suites.items()},
            lineage={artifact_path(a): list(map(artifact_path, _origins(self.jobs[a]))) for a in lineage},
            recipe_file=cut_recipe(self.loaded, name, models, mixtures),
        )

    def _format_of(self, name: str) -> FormatName | None:
        """Return the format of a model's chat template: its training's, its first parent's, a new model's Metharme."""
        model = self.recipe.models[name]
        if model.create is not None:
            return "metharme"
        if model.train is not None:
            return self.recipe.mixtures[model.train.mixture].format
        return self._format_of(model.merge.models[0]) if model.merge is not None else None

    def _hub_name(self, name: str) -> str:
        fetch = self.recipe.models[name].download
        return fetch.hub_parts()[1] if fetch is not None and fetch.hub is not None else name

    def _hub_bases(self, name: str) -> list[str]:
        """Return a model's name on the hub, or those of all that it was made from; empty if one of these has none.

        A model made here has one if it is released and `release.owner` says where to.
        """
        owner, model = self.recipe.release.owner, self.recipe.models[name]
        if model.download is not None:
            return [model.download.hub_parts()[1]] if model.download.hub is not None else []
        if owner is not None and name in self.released:
            return [f"{owner}/{name}"]
        if model.create is not None:  # it may take its tokenizer from a model, which is no base
            return []
        bases = [self._hub_bases(parent) for _, parent in references(self.recipe, name)]
        return list(dict.fromkeys(base for names in bases for base in names)) if all(bases) else []

    def _training_facts(self, name: str) -> TrainingFacts:
        train = self.recipe.models[name].train
        assert train is not None
        return TrainingFacts(model=name, **{k: v for k, v in train if k in TrainingFacts.model_fields})

    def _source_card(self, name: str) -> SourceCard:
        source = self.loaded.sources[name]
        fetch = source.fetch
        hub, place = (fetch.hub_dataset, "" if fetch.folder else fetch.place) if fetch is not None else ("", "")
        facts = source.model_dump(include=set(SourceFacts.model_fields))
        return SourceCard(hub=hub, place=place, private=source.private, **facts)

    def _suite_facts(self, suite: Suite) -> SuiteFacts:
        data = {}
        for task_name, task in suite.tasks.items():
            fetch = self.loaded.datasets[task.dataset].fetch if task.dataset else None
            hub = fetch.hub_parts() if fetch is not None and fetch.hub is not None else None
            if task.dataset:
                data[task_name] = TaskSource(dataset=hub[1] if hub else task.dataset, revision=hub[2] if hub else "")
        return SuiteFacts(title=suite.title, protocol=suite.protocol, published_table=suite.published_table, data=data)
