"""`artifact.json` (deterministic) and `provenance.json` (volatile): canonical JSON, each guarding its own bytes."""

import json
from pathlib import Path
from typing import Any

from scripts.artifact.digest import ArtifactError, sha256_bytes
from scripts.recipe.base import canonical_json

FORMAT = 1


def key_of(fields: dict[str, Any]) -> str:
    """Return an artifact's KEY: the SHA-256 of what it was made from."""
    return sha256_bytes(canonical_json(fields).encode())


def write_record(path: Path, content: dict[str, Any]) -> None:
    """Write `content` as readable JSON with a digest of itself under `self`."""
    digest = sha256_bytes(canonical_json(content).encode())
    text = json.dumps({**content, "self": digest}, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def read_record(path: Path) -> dict[str, Any]:
    """Return the content of a record file.

    Raises:
        ArtifactError: missing, not JSON, or not the bytes that were written.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        claimed = content.pop("self")
        found = sha256_bytes(canonical_json(content).encode())
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise ArtifactError(f"{path}: cannot be read ({error}); rebuild the artifact") from None
    if found != claimed:
        raise ArtifactError(f"{path}: content has digest {found}, its record says {claimed}; rebuild the artifact")
    return dict(content)
