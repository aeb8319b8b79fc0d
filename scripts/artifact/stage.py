"""The door between Snakemake and a stage: verified inputs in, one published artifact out.

A stage is `build(job)`; everything that all stages share happens here, once.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from scripts.artifact.code import module_digests, stage_code
from scripts.artifact.digest import (
    FACTS,
    RECORD,
    SUMS,
    ArtifactError,
    format_sums,
    hash_files,
    payload_files,
    sha256_bytes,
)
from scripts.artifact.environment import check_environment, lock_path, pins, stage_lock
from scripts.artifact.places import WORK, results_root
from scripts.artifact.publish import draft_folder, publish, sweep_drafts
from scripts.artifact.record import FORMAT, key_of, read_record, write_record
from scripts.artifact.shelf import Shelf
from scripts.artifact.tensors import digest_safetensors
from scripts.artifact.verify import require_sound
from scripts.recipe.base import Spec
from scripts.recipe.checkpoints import in_checkpoint

S = TypeVar("S", bound=Spec)
REBUILD = "ATELIER_REBUILD"


class StageError(Exception):
    """Bad input of a stage; the message says what, where, what was found, what is allowed and how to mend it."""


@dataclass
class Job(Generic[S]):
    """What a stage gets and what it fills in."""

    spec: S
    inputs: Mapping[str, Path]
    """Verified artifact folders by `stage/name`, in the order of the recipe."""
    out: Path
    """Empty folder for the payload."""
    work: Path
    """Folder that survives a killed attempt (not created yet); named by the key, so never by another job's."""
    threads: int
    counts: dict[str, Any] = field(default_factory=dict)
    """Deterministic facts for `artifact.json`."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Volatile facts for `provenance.json`."""
    digests: dict[str, str] = field(default_factory=dict)
    """SHA-256 of payload files that were hashed while they were written: they are not read again."""
    tensors: dict[str, str] = field(default_factory=dict)
    """Digest of each tensor that was hashed while it was written (see `scripts.artifact.tensors`)."""

    @property
    def compiled(self) -> Path:
        """Folder for machine code that the jobs of a recipe share (`scripts.recipe.compiled`)."""
        return self.work.parents[1] / "compiled"

    def named(self, name: str) -> Path:
        """Return the only input called `name`, whatever its stage."""
        found = [path for key, path in self.inputs.items() if key.split("/", 1)[-1] == name]
        if len(found) != 1:
            raise StageError(f"needs exactly one input named {name!r}; found {list(self.inputs)}")
        return found[0]

    def of_stage(self, stage: str) -> dict[str, Path]:
        """Return the inputs made by `stage`, by name."""
        return {k.split("/", 1)[-1]: p for k, p in self.inputs.items() if k.split("/", 1)[0] == stage}


def run_stage(stage: str, spec_type: type[S], build: Callable[[Job[S]], None]) -> None:
    """Parse the command line, verify the inputs, build, hash and publish. Exits 1 with one message on bad input."""
    args = _arguments(stage)
    try:
        _run(stage, spec_type.model_validate_json(args.spec), build, args)
    except ValidationError as error:
        sys.exit(f"{stage}: --spec: {error}")
    except (StageError, ArtifactError) as error:
        sys.exit(f"{stage}: {error}")
    except OSError as error:
        sys.exit(f"{stage}: {error.strerror or error}: {error.filename or ''}; nothing was published")


def _arguments(stage: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m scripts.{stage}")
    parser.add_argument("--spec", required=True, help="the job's part of the recipe, as JSON")
    parser.add_argument("--inputs", nargs="*", type=Path, default=[], help="SHA256SUMS files of the inputs, in order")
    parser.add_argument("--output", required=True, type=Path, help="SHA256SUMS file of the artifact to make")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def _run(stage: str, spec: S, build: Callable[[Job[S]], None], args: argparse.Namespace) -> None:
    started = time.time()
    unpinned = check_environment(stage)
    target = args.output.parent.absolute()
    verify_s = time.perf_counter()
    inputs = [sums.parent.absolute() for sums in args.inputs]
    folders = {folder.relative_to(results_root(folder)).as_posix(): folder for folder in inputs}
    values = dict(zip(folders, require_sound(list(folders.values()), args.threads), strict=True))
    verify_s = time.perf_counter() - verify_s
    fields = {
        "format": FORMAT,
        "stage": stage,
        "spec": spec.identity(),
        "code": stage_code(stage),
        "lock": stage_lock(stage),
        "inputs": [[name, value] for name, value in values.items()],
    }
    key = key_of(fields)
    shelf = Shelf.of_environment(fields, args.threads)
    sweep_drafts(target)  # before a kept artifact too: a writer may have died between its rename and its tidying up
    if os.environ.get(REBUILD) != "1" and _keep(target, key, args.threads):
        print(f"{target}: kept: same key {key[:16]}, same bytes; {REBUILD}=1 builds it again")
        shelf.give(target)
        return
    draft = draft_folder(target)
    try:
        job = Job(spec, folders, draft, results_root(target) / WORK / stage / key, args.threads)
        name = target.relative_to(results_root(target)).as_posix()
        record = None if os.environ.get(REBUILD) == "1" else shelf.take(draft, name)
        if record is None:
            build_s = time.perf_counter()
            build(job)
            record = _write_records(job, {**fields, "name": name, "key": key}, build_s, verify_s, started, unpinned)
            shelf.refuse_conflict(draft, target)
        publish(draft, target)
        shelf.give(target)
        shutil.rmtree(job.work, ignore_errors=True)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    print(f"{name}: value {record['value'][:16]}, {record['bytes']:,} bytes, {json.dumps(record['counts'])[:300]}")


def _write_records(
    job: Job[S], record: dict[str, Any], build_s: float, verify_s: float, started: float, unpinned: dict[str, str]
) -> dict[str, Any]:
    """Hash the payload and write the three small files beside it; return the record."""
    now = time.perf_counter()
    sums_text = _hash_payload(job)
    seconds = {"verify_s": verify_s, "build_s": now - build_s, "hash_s": time.perf_counter() - now}
    record |= {"value": sha256_bytes(sums_text.encode()), "counts": job.counts}
    # Not part of the key: with them `explain` can say which file or package has changed since.
    record |= {"modules": module_digests(record["stage"]), "packages": pins(lock_path(record["stage"]))}
    record["bytes"] = sum((job.out / f).stat().st_size for f in payload_files(job.out))
    write_record(job.out / RECORD, {**record, "tensors": job.tensors})
    write_record(job.out / FACTS, {**_environment_facts(started, unpinned), **seconds, **job.facts})
    (job.out / SUMS).write_text(sums_text, encoding="utf-8")
    return record


def _keep(target: Path, key: str, threads: int) -> bool:
    """Restore the SHA256SUMS of an artifact that was already made from this key, if all its bytes are still there.

    Snakemake removes declared outputs before a job, also when only its own records were lost: a day of training
    must not be repeated for that.
    """
    try:
        record = read_record(target / RECORD)
        read_record(target / FACTS)
        if record["key"] != key:
            return False
        sums_text = format_sums(hash_files(target, payload_files(target), threads))
    except (ArtifactError, OSError):
        return False
    if sha256_bytes(sums_text.encode()) != record["value"]:
        return False
    draft = target.parent / f".{target.name}.tmp.{uuid.uuid4().hex}"
    draft.write_text(sums_text, encoding="utf-8")
    os.replace(draft, target / SUMS)
    return True


def _hash_payload(job: Job[S]) -> str:
    """Hash what was not hashed while writing; tensors of safetensors files get their own digests in the same read."""
    todo = [name for name in payload_files(job.out) if name not in job.digests]
    if not job.tensors:
        for name in [n for n in todo if n.endswith(".safetensors") and not in_checkpoint(n)]:
            job.digests[name], tensors = digest_safetensors(job.out / name)
            job.tensors.update(tensors)
    job.digests.update(hash_files(job.out, [n for n in todo if n not in job.digests], job.threads))
    return format_sums({name: job.digests[name] for name in payload_files(job.out)})


def _environment_facts(started: float, unpinned: dict[str, str]) -> dict[str, Any]:
    """Return what differs from run to run and machine to machine."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    # ru_maxrss keeps the parent's peak across fork and exec; the kernel's own mark of this process doesn't.
    status = Path("/proc/self/status")
    marks = (
        [line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        if status.exists()
        else []
    )
    own_kib = int(marks[0]) if marks else usage[0].ru_maxrss
    return {
        "started_unix": started,
        "seconds": time.time() - started,
        "cpu_seconds": sum(u.ru_utime + u.ru_stime for u in usage),
        "peak_rss_bytes": own_kib * 1024,
        "children_peak_rss_bytes": usage[1].ru_maxrss * 1024,
        "host": platform.node(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "cpus": os.cpu_count() or 0,
        "unpinned": unpinned,
        # Slurm's accounting knows what the job asked for and used: `python -m scripts.report efficiency`.
        "slurm_job_id": os.environ.get("SLURM_JOB_ID", ""),
        "argv": sys.argv[1:],
    }
