"""Workflow Run RO-Crate of a recipe's results: JSON-LD for the root of the checkout, made from the records alone.

Profiles: https://w3id.org/ro/wfrun/process/0.5, https://w3id.org/ro/wfrun/workflow/0.5 and
https://w3id.org/workflowhub/workflow-ro-crate/1.0. `runcrate report FOLDER` reads it.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scripts.artifact.digest import FACTS, RECORD, SUMS, ArtifactError, read_sums, sha256_file
from scripts.artifact.places import artifact_folders
from scripts.artifact.record import read_record

METADATA = "ro-crate-metadata.json"
_BASE = "https://w3id.org/ro"
_PROFILES = (
    f"{_BASE}/wfrun/process/0.5",
    f"{_BASE}/wfrun/workflow/0.5",
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0",
)
_CONTEXT = [f"{_BASE}/crate/1.1/context", {"sha256": f"{_BASE}/terms/workflow-run#sha256"}]
Entity = dict[str, Any]


def crate(results: Path, recipe: Sequence[Path]) -> Entity:
    """Return the content of `ro-crate-metadata.json`.

    Args:
        results: `results/<recipe>`; the folder two above it is the crate's root and holds the Snakefile.
        recipe: the recipe's files, inside that root.

    Raises:
        ArtifactError: no artifacts, records that can't be read, or files outside of the root.
    """
    root = results.parent.parent
    if not (root / "Snakefile").is_file():
        raise ArtifactError(f"{root}: holds no Snakefile; a crate's root holds the workflow and its results")
    folders = artifact_folders(results)
    if not folders:
        raise ArtifactError(f"{results}: holds no artifact; build it first")
    runs = [(folder, read_record(folder / RECORD), read_record(folder / FACTS)) for folder in folders]
    files = [_file(root, path) for path in recipe]
    jobs = [entity for run in runs for entity in _job(root, results, *run)]
    stages = {record["stage"] for _, record, _ in runs}
    datasets = [{"@id": _id(root, folder) + "/"} for folder in folders]
    ended = max(_time(facts["started_unix"] + facts["seconds"]) for _, _, facts in runs)
    main = {
        "@id": "#run",
        "@type": "CreateAction",
        "name": f"Run of recipe {results.name}",
        "instrument": {"@id": "Snakefile"},
        "object": [{"@id": file["@id"]} for file in files],
        "result": datasets,
        "startTime": min(_time(facts["started_unix"]) for _, _, facts in runs),
        "endTime": ended,
    }
    actions = [main, *(entity for entity in jobs if entity["@type"] == "CreateAction")]
    top = {
        "@id": "./",
        "@type": "Dataset",
        "name": f"Atelier: results of recipe {results.name}",
        "description": "A language model from raw chat logs to weights, with every stage that made it.",
        "datePublished": ended,
        "license": "Workflow: Apache-2.0. Data and weights: the licences that the recipe and the model cards name.",
        "conformsTo": [{"@id": profile} for profile in _PROFILES],
        "mainEntity": {"@id": "Snakefile"},
        "hasPart": [{"@id": "Snakefile"}, *({"@id": file["@id"]} for file in files), *datasets],
        "mentions": [{"@id": action["@id"]} for action in actions],
    }
    return {"@context": _CONTEXT, "@graph": [*_fixed(), top, main, *files, *map(_program, sorted(stages)), *jobs]}


def _fixed() -> Iterator[Entity]:
    about: Entity = {"@id": METADATA, "@type": "CreativeWork", "about": {"@id": "./"}}
    yield about | {"conformsTo": [{"@id": f"{_BASE}/crate/1.1"}, {"@id": _PROFILES[2]}]}
    for profile in _PROFILES:
        yield {"@id": profile, "@type": "CreativeWork", "name": profile.split("/ro/")[-1], "version": profile[-3:]}
    yield {
        "@id": "Snakefile",
        "@type": ["File", "SoftwareSourceCode", "ComputationalWorkflow"],
        "name": "Atelier",
        "programmingLanguage": {"@id": "#snakemake"},
        "input": [{"@id": "#recipe"}],
    }
    language = {"@type": "ComputerLanguage", "name": "Snakemake", "url": "https://snakemake.readthedocs.io"}
    yield {"@id": "#snakemake", **language}
    yield {"@id": "#recipe", "@type": "FormalParameter", "additionalType": "File", "name": "recipe"}


def _job(root: Path, results: Path, folder: Path, record: Entity, facts: Entity) -> Iterator[Entity]:
    """Yield one job as an action, its artifact as a data set, and the files of the artifact."""
    own = _id(root, folder)
    sums = {**read_sums(folder), SUMS: record["value"], RECORD: sha256_file(folder / RECORD)}
    parts = [
        {"@id": f"{own}/{name}", "@type": "File", "sha256": digest, "contentSize": (folder / name).stat().st_size}
        for name, digest in sums.items()
    ]
    yield {
        "@id": f"{own}/",
        "@type": "Dataset",
        "name": record["name"],
        "identifier": f"sha256:{record['value']}",
        "hasPart": [{"@id": part["@id"]} for part in parts],
    }
    yield from parts
    yield {
        "@id": f"#job/{record['name']}",
        "@type": "CreateAction",
        "name": record["name"],
        "identifier": f"key:{record['key']}",
        "instrument": {"@id": f"#stage/{record['stage']}"},
        "object": [{"@id": f"{_id(root, results)}/{name}/"} for name, _ in record["inputs"]],
        "result": [{"@id": f"{own}/"}],
        "startTime": _time(facts["started_unix"]),
        "endTime": _time(facts["started_unix"] + facts["seconds"]),
    }


def _program(stage: str) -> Entity:
    return {"@id": f"#stage/{stage}", "@type": "SoftwareApplication", "name": f"python -m scripts.{stage}"}


def _file(root: Path, path: Path) -> Entity:
    entity = {"@id": _id(root, path.absolute()), "@type": "File", "exampleOfWork": {"@id": "#recipe"}}
    return {**entity, "sha256": sha256_file(path), "contentSize": path.stat().st_size}


def _id(root: Path, path: Path) -> str:
    if not path.is_relative_to(root):
        raise ArtifactError(f"{path}: lies outside of the crate's root {root}; copy it there and name the copy")
    return path.relative_to(root).as_posix()


def _time(unix: float) -> str:
    return datetime.fromtimestamp(unix, UTC).isoformat(timespec="seconds")
