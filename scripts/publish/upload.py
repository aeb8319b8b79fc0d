"""Upload of a verified release by huggingface_hub: only what the hub lacks, weights one by one, all in one commit."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.hf_api import RepoFile

from scripts.artifact.digest import FACTS, OWN_FILES, payload_files, read_sums, sha256_file, value_of
from scripts.artifact.sign import PUBLISHED_NAME, signature_path

# Files of weights go up one by one; the others are small and travel with the commit.
_WEIGHTS = (".safetensors", ".gguf")


def release_files(folder: Path) -> dict[str, Path]:
    """Return {path on the hub: file}: all but provenance.json, which names machine, paths and times.

    A signature that lies beside the release goes with it as `model.sig`.
    """
    names = [*payload_files(folder), *(n for n in sorted(OWN_FILES - {FACTS}) if (folder / n).is_file())]
    signature = signature_path(folder)
    return {name: folder / name for name in names} | ({PUBLISHED_NAME: signature} if signature.is_file() else {})


def upload(api: HfApi, folder: Path, repository: str, private: bool, say: Callable[[str], None]) -> int:
    """Bring a release to the hub; return how many files were sent.

    Weights go up first, each by itself: what arrived stays there when the connection breaks, and the next call
    sends only the rest. All files become visible in one commit at the end.

    Raises:
        HfHubHTTPError, OSError, RuntimeError, ValueError: the hub refuses or can't be reached.
    """
    api.create_repo(repository, private=private, exist_ok=True)
    there = {f.path: f for f in api.list_repo_tree(repository, recursive=True) if isinstance(f, RepoFile)}
    sums = read_sums(folder)
    todo = []
    for name, path in release_files(folder).items():
        if name in there and _same(there[name], path, sums.get(name)):
            say(f"{name}: there already")
        else:
            todo.append((name, path))
    operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=path) for name, path in todo]
    for operation, (name, path) in zip(operations, todo, strict=True):
        if name.endswith(_WEIGHTS):
            say(f"{name}: {path.stat().st_size:,} bytes ...")
            api.preupload_lfs_files(repository, additions=[operation], free_memory=False)
    foreign = sorted(set(there) - set(release_files(folder)) - {".gitattributes"})
    if foreign:
        say(f"left alone, though not part of this release: {', '.join(foreign[:10])}")
    if operations:
        message = f"Atelier release {value_of(folder)[:16]}"
        api.create_commit(repository, operations=operations, commit_message=message)
    return len(operations)


def _same(known: RepoFile, path: Path, digest: str | None) -> bool:
    """Whether the hub holds these bytes: a large file by its SHA-256, another one by its name in git."""
    if known.lfs is not None:
        return known.lfs.sha256 == (digest or sha256_file(path))
    content = path.read_bytes() if known.size == path.stat().st_size else None
    if content is None:
        return False
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest() == known.blob_id
