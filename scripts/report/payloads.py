"""The payload files that the report reads, typed: a file of another shape is one clear error, not an odd page.

Formats: docs/formats.md. Keys that the page doesn't show are ignored.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from scripts.artifact.digest import read_sums, value_of
from scripts.artifact.stage import Job, StageError
from scripts.recipe.report import ReportSpec

Scores = dict[tuple[str, str], list[float]]
"""{(task, metric): score of each item}."""
Real = Annotated[float, Field(allow_inf_nan=False)]
MINORS_GATE = "minors_gate"


class Payload(BaseModel):
    """A JSON payload: known keys are checked, others left alone."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class TaskContamination(Payload):
    """What rows of one source quote of one benchmark task."""

    items: int
    items_unchecked: int
    items_touched: int
    rows_hit: int
    rows_removed: int


class Contamination(Payload):
    """Decontamination of one source, by `suite/task`."""

    policy: str
    ngram: int
    short_words: int
    tasks: dict[str, TaskContamination]


class CleanSwitch(Payload):
    """What one of the original builder's defects (or none, or all) gives in this source."""

    rows_out: int
    chars: int
    rows_more: int = 0
    chars_more: int = 0


class Audit(Payload):
    """`clean/<source>/audit.json`: what went in, what came out, what was refused and why."""

    rows_in: int
    rows_out: int
    rejected: dict[str, int]
    turns: int
    chars: int
    chars_in: int | None = None
    rejected_chars: dict[str, int] = {}
    length_histogram: list[tuple[int, int]] = []
    """(upper end in characters, episodes), in order of length."""
    contamination: Contamination | None = None
    compat: dict[str, CleanSwitch] = {}


class Turn(Payload):
    """One turn of an episode."""

    role: str
    text: str


class Episode(Payload):
    """One cleaned conversation."""

    id: str
    label: str = "general"
    system: str = ""
    turns: list[Turn]


class Samples(Payload):
    """`clean/<source>/samples.json`: at most 5 kept episodes, at most 5 texts for each reason of refusal."""

    kept: list[Episode]
    rejected: dict[str, list[str]]


class MixSource(Payload):
    """What a mixture took of one source."""

    episodes_in: int
    rows_train: int
    rows_validation: int
    chars_train: int
    target_percent: Real | None = None


class Mix(Payload):
    """`mix/<mixture>/mix.json`."""

    mixture: str
    format: str
    missing_sources: list[str] = []
    sources: dict[str, MixSource]


class PackSource(Payload):
    """Rows and tokens of one source in the packed training set."""

    rows: int
    tokens: int


class Pack(Payload):
    """`pack/<model>/pack.json`."""

    model: str
    mixture: str
    vocab_size: int
    sequence_len: int
    micro_batch_size: int
    gradient_accumulation_steps: int
    num_epochs: int
    processes: int
    steps: int
    train_rows: int
    train_tokens: int
    validation_rows: int
    validation_tokens: int
    dropped: dict[str, int]
    too_long_by_source: dict[str, dict[str, int]] = {}
    """By split and source, rows that were longer than a bin; only where there are any."""
    efficiency: Real
    sources: dict[str, PackSource]


class TrainSummary(Payload):
    """`train/<model>/train.json`; losses in nats a token."""

    model: str
    base: str
    steps: int
    parameters: int
    train_tokens: int
    first_eval_loss: Real | None = None
    last_eval_loss: Real | None = None
    best_eval_loss: Real | None = None
    best_eval_step: int | None = None
    published_step: int
    settings: dict[str, Any] = {}


class StepLine(Payload):
    """One optimizer step of `metrics.jsonl`."""

    step: int
    loss: Real
    learning_rate: Real
    grad_norm: Real


class EvalLine(Payload):
    """One evaluation of `metrics.jsonl`; step 0 is before any training."""

    step: int
    eval_loss: Real
    eval_loss_by_source: dict[str, Real] = {}


@dataclass(frozen=True)
class Training:
    """One fine-tune: its summary and its curves, in order of the file."""

    summary: TrainSummary
    steps: list[StepLine]
    evaluations: list[EvalLine]


class Tensor(Payload):
    """How one tensor was merged; `ratio` is the share of the second model."""

    ratio: Real | None = None
    norm_c_minus_a: Real | None = None
    norm_c_minus_b: Real | None = None
    cosine_a: Real | None = None
    cosine_b: Real | None = None


class Merge(Payload):
    """`merge/<model>/merge.json`."""

    models: list[str]
    method: str = "gradient"
    """`gradient`, `linear` or `slerp`; those of older versions were straight lines between the two."""
    tensors: dict[str, Tensor]
    overflowed: int = 0
    flushed: int = 0


class Metric(Payload):
    """One figure of a task; `chance` is what guessing reaches."""

    value: Real
    stderr: Real | None = None
    chance: Real | None = None
    low: Real | None = None
    high: Real | None = None
    """Ends of the 95 % interval, where the benchmark gives one (bits per byte)."""


class TaskResult(Payload):
    """One task of a suite."""

    format: str
    items: int
    prompts_sha256: str | None = None
    metrics: dict[str, Metric]
    correct: int | None = None
    note: str | None = None
    chance_variance: Real | None = None
    shots: int = 0
    bos: bool | None = None
    upstream_bug: str = ""


class Group(Payload):
    """Means over several tasks of a suite."""

    tasks: list[str]
    items: int
    metrics: dict[str, Metric]


class Digests(Payload):
    """SHA-256 of what was measured and with what."""

    weights: str = ""
    tokenizer: str = ""
    data: dict[str, str] = {}


class Benchmark(Payload):
    """`benchmark/<model>/<suite>/results.json`."""

    model: str
    suite: str
    protocol: str = ""
    digests: Digests = Digests()
    tasks: dict[str, TaskResult]
    groups: dict[str, Group] = {}


@dataclass
class Payloads:
    """All that the report knows, each table in the recipe's order."""

    values: dict[str, str] = field(default_factory=dict)
    """VALUE of every input artifact by its path `stage/name`."""
    audits: dict[str, Audit] = field(default_factory=dict)
    samples: dict[str, Samples] = field(default_factory=dict)
    mixes: dict[str, Mix] = field(default_factory=dict)
    packs: dict[str, Pack] = field(default_factory=dict)
    trainings: dict[str, Training] = field(default_factory=dict)
    merges: dict[str, Merge] = field(default_factory=dict)
    benchmarks: dict[str, Benchmark] = field(default_factory=dict)
    files: dict[str, dict[str, str]] = field(default_factory=dict)
    """{artifact: {file: SHA-256}} of every input."""
    scores: dict[str, Scores] = field(default_factory=dict)
    """Score of every item of a benchmark, for tests between models on the same items."""


P = TypeVar("P", bound=Payload)


def read_payloads(job: Job[ReportSpec]) -> Payloads:
    """Read everything that the page shows.

    Raises:
        StageError: a payload file is missing or not of the documented form, or holds texts that the minors
            gate refused.
    """

    def each(stage: str, file: str, model: type[P]) -> dict[str, P]:
        return {name: _read(folder / file, model) for name, folder in job.of_stage(stage).items()}

    found = Payloads(
        values={name: value_of(folder) for name, folder in job.inputs.items()},
        files={name: read_sums(folder) for name, folder in job.inputs.items()},
        audits=each("clean", "audit.json", Audit),
        samples=each("clean", "samples.json", Samples),
        mixes=each("mix", "mix.json", Mix),
        packs=each("pack", "pack.json", Pack),
        merges=each("merge", "merge.json", Merge),
        benchmarks=each("benchmark", "results.json", Benchmark),
    )
    found.trainings = {name: _training(folder) for name, folder in job.of_stage("train").items()}
    found.scores = {name: _scores(folder, found.benchmarks[name]) for name, folder in job.of_stage("benchmark").items()}
    _refuse_gated_texts(found.samples, job.of_stage("clean"))
    return found


def _refuse_gated_texts(samples: Mapping[str, Samples], folders: Mapping[str, Path]) -> None:
    for name, sample in samples.items():
        if sample.rejected.get(MINORS_GATE):
            path = folders[name] / "samples.json"
            raise StageError(f"{path}: holds texts that {MINORS_GATE} refused, which may never be stored; rebuild it")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StageError(f"{path}: cannot be read ({error}); rebuild the artifact") from None


def _read(path: Path, model: type[P]) -> P:
    return _parse(_text(path), model, str(path))


def _parse(text: str, model: type[P], where: str) -> P:
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "(top level)"
        found = "" if first["type"] in {"missing", "json_invalid"} else f"; found {str(first.get('input'))[:60]!r}"
        raise StageError(
            f"{where}: {key}: {first['msg']}{found}; docs/formats.md has the form; rebuild the artifact"
        ) from None


def _scores(folder: Path, result: Benchmark) -> Scores:
    """Return the items' scores; empty where the artifact has none (no samples, or those of an older version)."""
    path = folder / "samples.parquet"
    if not path.is_file():
        return {}
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise StageError(f"{path}: cannot be read ({error}); rebuild the artifact") from None
    if "scores" not in table.column_names:
        return {}
    scores: Scores = {}
    for row in table.select(["task", "scores"]).to_pylist():
        metrics = sorted(result.tasks[row["task"]].metrics) if row["scores"] else []
        for metric, score in zip(metrics, row["scores"], strict=True):
            scores.setdefault((row["task"], metric), []).append(score)
    return scores


def _training(folder: Path) -> Training:
    steps: list[StepLine] = []
    evaluations: list[EvalLine] = []
    for where, line, keys in _lines(folder / "metrics.jsonl"):
        if "eval_loss" in keys:
            evaluations.append(_parse(line, EvalLine, where))
        else:
            steps.append(_parse(line, StepLine, where))
    return Training(_read(folder / "train.json", TrainSummary), steps, evaluations)


def _lines(path: Path) -> Iterator[tuple[str, str, set[str]]]:
    """Yield (where, line, top-level keys) of every line of a JSON-lines file."""
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            content = json.loads(line)
        except ValueError as error:
            raise StageError(f"{path}:{number}: not JSON ({error}); rebuild the artifact") from None
        yield f"{path}:{number}", line, set(content) if isinstance(content, dict) else set()
