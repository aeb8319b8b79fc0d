"""README.md of a release: the model card that the hub shows."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.artifact.digest import value_of
from scripts.recipe.card import inert
from scripts.recipe.exports import Row, as_yaml, model_index
from scripts.recipe.footnotes import Footnotes, metric_remarks, task_remarks
from scripts.recipe.release import ReleaseSettings, ReleaseSpec, TrainingFacts
from scripts.release.datacard import source_table
from scripts.release.prompt import prompt_section
from scripts.release.results import Curve

RELATION = {"train": "finetune", "merge": "merge"}
# What the original run did without saying so, by (section, key): the value, and what it means.
QUIRKS: dict[tuple[str, str], tuple[object, str]] = {
    ("pack", "packing"): ("consecutive", "rows fill one line a GPU in shuffled order"),
    ("pack", "tokenization"): ("halves", "only the last model turn is cut off, and begins with a space"),
    ("pack", "eos_count"): (3, "three ends of sequence after each row"),
    ("pack", "boundary_label"): ("keep", "a row's end learns to predict the next row's start"),
    ("pack", "epoch_len"): ("rule_0.99", "at least 1 % of each epoch is dropped"),
    ("optimizer", "decay_norms"): (True, "weight decay on norm weights too"),
    ("optimizer", "loss_mean"): ("rank", "mean of the ranks' means"),
    ("numerics", "precision"): ("pure_bf16", "weights, gradients and moments in bf16, no fp32 copy"),
    ("cadence", "final_ckpt"): ("best_eval", "the checkpoint of lowest held-out loss is published"),
}


def card(
    spec: ReleaseSpec, inputs: Mapping[str, Path], rows: Sequence[Row], curves: Sequence[Curve], eos: str = ""
) -> str:
    """Return the text of README.md.

    Args:
        spec: the release.
        inputs: verified artifact folders by `stage/name`.
        rows: benchmark results.
        curves: losses of the trainings of the lineage.
        eos: text of the end token, for the example of the prompt format.
    """
    about = spec.settings.description.strip()
    lines = [
        "---",
        as_yaml(front_matter(spec, rows)).rstrip(),
        "---",
        "",
        f"# {inert(spec.model)}",
        "",
        *([about, ""] if about else []),
        f"{_licence(spec.settings)} {_made_from(spec)}",
        "",
        *(prompt_section(spec.format, eos) if spec.format else []),
        "## Data",
        *source_table(spec),
        "",
        "Composition and known problems: [DATASETS.md](DATASETS.md).",
        *_missing(spec),
        "",
        *(line for training in spec.trainings for line in _training(training, curves)),
        *_benchmarks(spec, rows),
        *_lineage(spec, inputs),
        *_verify(spec),
    ]
    return "\n".join(lines) + "\n"


def front_matter(spec: ReleaseSpec, rows: Sequence[Row]) -> dict[str, Any]:
    """Return the metadata that the hub reads, in the order in which people read it."""
    suites = {name: suite.model_dump() for name, suite in spec.suites.items()}
    hub = [source.hub for name, source in spec.sources.items() if source.hub and name not in spec.missing_sources]
    bases = _hub_bases(spec)
    found: dict[str, Any] = {"license": spec.settings.license}
    found |= {key: said for key in ("license_name", "license_link") if (said := getattr(spec.settings, key))}
    if bases:
        found["base_model"] = bases
        found["base_model_relation"] = RELATION.get(spec.kind, "finetune")
    if hub:
        found["datasets"] = list(dict.fromkeys(hub))
    tags = ["atelier", *(["merge"] if spec.kind == "merge" else []), *([spec.format] if spec.format else [])]
    found |= {"library_name": "transformers", "pipeline_tag": "text-generation", "tags": tags}
    if rows:
        found["model-index"] = [model_index(spec.model, rows, suites)]
    return found


def _licence(settings: ReleaseSettings) -> str:
    said = ", ".join(inert(s) for s in (settings.license_name or settings.license, settings.license_link) if s)
    return f"Licence: {said}." + (f" {inert(settings.notice_text)}" if settings.notice_text else "")


def _hub_bases(spec: ReleaseSpec) -> list[str]:
    """Return the bases that the metadata name; none rather than half of a merge, which would look like all of it."""
    bases = list(dict.fromkeys(base for names in spec.hub_bases.values() for base in names))
    whole = all(spec.hub_bases.values()) and (spec.kind != "merge" or len(bases) > 1)
    return bases if whole else []


def _made_from(spec: ReleaseSpec) -> str:
    parents = " and ".join(map(inert, spec.base_models))
    how = {"train": "A fine-tune of", "merge": "A merge of"}.get(spec.kind)
    if not how:
        return "Made by this recipe." if spec.kind == "create" else "Published weights."
    said = [f"{how} {parents}."]
    if not _hub_bases(spec):
        said.append("The metadata name no base model, since the hub does not have all that it was made from.")
    else:
        for parent, names in spec.hub_bases.items():
            if names != [parent]:
                said.append(f"For {inert(parent)}, which was made here, the metadata name {inert(', '.join(names))}.")
    return " ".join(said)


def _missing(spec: ReleaseSpec) -> list[str]:
    names = ", ".join(map(inert, spec.missing_sources))
    return [f"Not obtainable, and so not read: {names}. This is not the original mixture."] if names else []


def _training(training: TrainingFacts, curves: Sequence[Curve]) -> list[str]:
    settings = training.model_dump(mode="json")
    curve = next(curve for curve in curves if curve.model == training.model)
    quirks = [
        f"- `{section}.{key}: {value}`: {meaning}"
        for (section, key), (value, meaning) in QUIRKS.items()
        if settings[section][key] == value
    ]
    keys = [f"{k} {v}" for section in ("pack", "optimizer", "numerics") for k, v in settings[section].items()]
    world = training.launch.processes
    return [
        f"## Training of {inert(training.model)}",
        f"Base {inert(training.base)}, mixture {inert(training.mixture)}, preset `{training.preset}`, {world} "
        "processes;"
        f" the weights are those of step {curve.published_step}.",
        "",
        f"![loss by step]({training.model}-loss.svg)",
        "",
        f"{inert(', '.join(keys))}.",
        "",
        *(["Quirks of the original stack that were kept:", "", *quirks, ""] if quirks else []),
    ]


def _benchmarks(spec: ReleaseSpec, rows: Sequence[Row]) -> list[str]:
    if not rows:
        return ["## Benchmarks", "None were run.", ""]
    lines, notes = ["## Benchmarks", "| suite | task | metric | value | standard error | chance | items |"], Footnotes()
    lines.append("|---|---|---|--:|--:|--:|--:|")
    for row in rows:
        task = inert(row["task"]) + notes.marks(task_remarks(row))
        metric = inert(row["metric"]) + notes.marks(metric_remarks(row))
        figures = [f"{row['value']:.4f}", *("" if row[k] is None else f"{row[k]:.4f}" for k in ("stderr", "chance"))]
        items = "" if row["items"] is None else f"{row['items']:,}"
        lines.append("| " + " | ".join([inert(row["suite"]), task, metric, *figures, items]) + " |")
    return [*lines, *notes.lines(), ""]


def _lineage(spec: ReleaseSpec, inputs: Mapping[str, Path]) -> list[str]:
    lines = ["## Where it is from", "| artifact | made from | digest |", "|---|---|---|"]
    for name, parents in spec.lineage.items():
        lines.append(f"| {inert(name)} | {inert(', '.join(parents))} | {value_of(inputs[name])} |")
    return [*lines, "", "A digest is the SHA-256 of an artifact's `SHA256SUMS`, which names each of its files.", ""]


def _verify(spec: ReleaseSpec) -> list[str]:
    return [
        "## Check it",
        "    sha256sum -c SHA256SUMS",
        "",
        "To build it again with Atelier and compare every step with the digests above:",
        "",
        "    snakemake --cores 8 --configfile recipe.yaml",
        f"    python -m scripts.artifact compare --listed results/{spec.recipe} recipe.lock",
    ]
