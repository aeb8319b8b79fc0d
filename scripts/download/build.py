"""Download: exactly the named files of one pinned place, each checked before it has its name."""

import errno
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from scripts.artifact.code import ROOT
from scripts.artifact.foreign import foreign_code
from scripts.artifact.stage import Job, StageError
from scripts.download import hub
from scripts.download.part import BLOCK, Expected, PartFile, WrongBytesError
from scripts.download.stream import RefusedError, receive
from scripts.recipe.fetch import DownloadSpec, Fetch

Fill = Callable[[str, PartFile], None]
"""Appends the missing bytes of the file of that name."""


def build(job: Job[DownloadSpec], sleep: Callable[[float], object] = time.sleep) -> None:
    """Fill `job.out` with the files of `job.spec.fetch`.

    Finished and half-received files wait in `job.work` and are used by the next attempt.

    Raises:
        StageError: refused, missing, wrong or short files, no space, an unset variable, a second running download,
            a model that brings foreign code.
    """
    fetch = job.spec.fetch
    if fetch.unconfirmed is not None and not fetch.pinned:
        raise StageError(
            f"{job.spec.name}: not pinned, so nothing is downloaded: {fetch.unconfirmed}. Write a commit into `hub` "
            "or a sha256 for each of `files` (`python -m scripts.recipe pin FOLDER FILE...` prints those of your copy)"
        )
    with _only_writer(job.work):
        expected = {path: _expected(fetch, path) for path in sorted(fetch.files)}
        _check_space(job.work, expected)
        fill = _local(fetch) if fetch.folder is not None else _remote(fetch, sleep)
        kept = 0
        for path, known in expected.items():
            part = _fetch_one(job, path, known, fill)
            kept += part.kept
            if part.weights is not None:
                job.tensors.update(part.weights.tensors)
        # Asked before anything is published; what was received stays for a recipe that leaves the bad file out.
        if "config.json" in expected and (refused := foreign_code(job.work / "files")):
            raise StageError(refused)
        for path in expected:
            (job.out / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.move(job.work / "files" / path, job.out / path)
    if job.tensors and any(p.endswith(".safetensors") and known.bytes is None for p, known in expected.items()):
        job.tensors.clear()  # tensor digests of all weights or none: the door then reads them
    if not job.tensors:
        for path in [p for p in expected if p.endswith(".safetensors")]:
            del job.digests[path]
    job.counts.update(files=len(expected), bytes=sum((job.out / path).stat().st_size for path in expected))
    job.facts["bytes_kept_from_earlier_attempts"] = kept


def _fetch_one(job: Job[DownloadSpec], path: str, known: Expected, fill: Fill) -> PartFile:
    """Receive one file into the work folder; a wrong one that went on from old bytes gets one fresh start."""
    while True:
        part = PartFile(job.work, path, known)
        try:
            fill(path, part)
            job.digests[path] = part.finish()
            return part
        except WrongBytesError:
            if not part.kept:
                raise
        finally:
            part.close()


def _expected(fetch: Fetch, path: str) -> Expected:
    pin = fetch.files[path]
    if fetch.hub is not None:
        return hub.look_up(fetch, path, pin)
    if pin is None:
        raise StageError(f"{path}: has no sha256 in the recipe")
    return Expected(sha256=pin.sha256, bytes=pin.bytes)


def _remote(fetch: Fetch, sleep: Callable[[float], object]) -> Fill:
    from huggingface_hub import get_session

    # The token goes to the hub only, never to the host of a plain address.
    headers = hub.headers() if fetch.hub is not None else {}

    def fill(path: str, part: PartFile) -> None:
        url = hub.address(fetch, path) if fetch.hub is not None else f"{(fetch.url or '').rstrip('/')}/{path}"
        try:
            receive(get_session(), url, headers, part, sleep)
        except RefusedError as refused:
            if fetch.hub is not None:
                raise hub.explain(refused, fetch, path) from None
            page = f" (access: {fetch.gated})" if fetch.gated else ""
            raise StageError(
                f"{path}: {url}: the server refuses ({refused}){page}; correct the address, or download the file "
                "by hand and name its place by `folder` instead of `url`"
            ) from None

    return fill


def _local(fetch: Fetch) -> Fill:
    try:
        folder = ROOT / fetch.folder_path()
    except ValueError as error:
        raise StageError(str(error)) from None

    def fill(path: str, part: PartFile) -> None:
        part.restart()
        try:
            with (folder / path).open("rb", buffering=0) as source:
                while block := source.read(BLOCK):
                    part.write(block)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError) as error:
            raise StageError(
                f"{path}: can't be read in the folder {fetch.folder} ({error.strerror}); put the file there, "
                "or correct `folder` in the recipe"
            ) from None

    return fill


def _check_space(work: Path, expected: dict[str, Expected]) -> None:
    """Stop before the first byte if what is missing can't fit."""
    have = sum(p.stat().st_size for p in work.rglob("*") if p.is_file())
    missing = sum(known.bytes or 0 for known in expected.values()) - have
    free = shutil.disk_usage(work).free
    if missing > free:
        raise StageError(
            f"{missing:,} bytes are still to come, {free:,} are free in {work}; make room and run snakemake again"
        )


@contextmanager
def _only_writer(work: Path) -> Iterator[None]:
    """Hold the work folder: an orphan of a killed run may still be writing there."""
    work.mkdir(parents=True, exist_ok=True)
    lock = os.open(work / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except OSError as error:
        if error.errno not in {errno.EAGAIN, errno.EACCES}:
            raise
        raise StageError(
            f"another download of the same files is running (it holds {work}); wait for it or end it"
        ) from None
    finally:
        os.close(lock)
