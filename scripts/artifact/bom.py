"""CycloneDX 1.6 ML-BOM of a model: its files, all that it was made from, licences and scores.

Every `hashes` field is the SHA-256 of a file that the same component names by its path below `results/<recipe>`, so all
of them can be checked: none is copied from a hub or typed by hand. No time and no machine stands in it.
"""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scripts.artifact.digest import RECORD, SUMS, ArtifactError, read_sums
from scripts.artifact.lineage import Origin, lineage
from scripts.artifact.places import results_root
from scripts.artifact.record import read_record
from scripts.recipe.load import Loaded

_MODELS = frozenset({"create", "train", "merge", "release"})
Entity = dict[str, Any]


def bom(model: Path, loaded: Loaded | None = None) -> Entity:
    """Return the bill of materials of the artifact of a model.

    Args:
        model: folder of a release or of another artifact that holds a model.
        loaded: the recipe, for licences and titles of sources.

    Raises:
        ArtifactError: no such artifact, or something that it was made from is gone or has changed since.
    """
    root = results_root(model)
    origins = lineage(model, loaded)
    for origin in origins:
        if origin.found != "same":
            raise ArtifactError(f"{root / origin.artifact}: {origin.found}; its digests could not be checked")
    own, *others = origins
    record = read_record(model / RECORD)
    component = _component(root, own, loaded)
    component["components"] = [*_files(own.artifact, {**read_sums(model), SUMS: own.value})]
    component["modelCard"] = _card(root, model, record, [o.artifact for o in others])
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, record['key'] + record['value'])}",
        "version": 1,
        "metadata": {"component": component},
        "components": [_component(root, origin, loaded) for origin in others],
        "dependencies": [
            {"ref": o.artifact, "dependsOn": [name for name, _ in read_record(root / o.artifact / RECORD)["inputs"]]}
            for o in origins
        ],
    }


def _component(root: Path, origin: Origin, loaded: Loaded | None) -> Entity:
    """Return one artifact: a model by its weights, else data; its SHA256SUMS is the file that can be checked."""
    stage, _, name = origin.artifact.partition("/")
    weights = any(file.endswith(".safetensors") for file in read_sums(root / origin.artifact))
    kind = "machine-learning-model" if weights or stage in _MODELS else "data"
    found: Entity = {"type": kind, "bom-ref": origin.artifact, "name": name or stage, "version": origin.value[:16]}
    found["components"] = [*_files(origin.artifact, {SUMS: origin.value})]
    source = loaded.sources.get(name) if loaded is not None and stage == "download" else None
    if source is not None:
        found["licenses"] = [{"license": {"name": source.license}}]
        found["description"] = source.title
    return found


def _files(artifact: str, digests: dict[str, str]) -> Iterator[Entity]:
    for name, digest in digests.items():
        path = f"{artifact}/{name}"
        hashes = [{"alg": "SHA-256", "content": digest}]
        yield {"type": "file", "bom-ref": path, "name": path, "hashes": hashes}


def _card(root: Path, model: Path, record: Entity, made_from: list[str]) -> Entity:
    """Return architecture, training data and scores."""
    parameters: Entity = {"task": "text-generation"}
    if (model / "config.json").is_file():
        config = json.loads((model / "config.json").read_text(encoding="utf-8"))
        parameters["architectureFamily"] = str(config.get("model_type", "unknown"))
        parameters["modelArchitecture"] = ", ".join(config.get("architectures") or ["unknown"])
    parameters["datasets"] = [{"ref": name} for name in made_from if name.startswith(("clean/", "mix/"))]
    scores = [*_scores(root, [str(name) for name, _ in record["inputs"]])]
    return {"modelParameters": parameters, "quantitativeAnalysis": {"performanceMetrics": scores}}


def _scores(root: Path, inputs: list[str]) -> Iterator[Entity]:
    """Yield what the benchmarks among the inputs of a release measured."""
    for name in inputs:
        path = root / name / "results.json"
        if not name.startswith("benchmark/") or not path.is_file():
            continue
        results = json.loads(path.read_text(encoding="utf-8"))
        for task, scored in results["tasks"].items():
            for metric, figure in scored["metrics"].items():
                yield {"type": metric, "value": str(figure["value"]), "slice": f"{results['suite']}/{task}"}
