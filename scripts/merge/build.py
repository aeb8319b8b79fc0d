"""The merge stage: two model folders in, one out."""

import os
import shutil
from pathlib import Path
from typing import Any

from scripts.artifact.stage import Job, StageError
from scripts.merge.card import card, known_digests
from scripts.merge.chunks import Files
from scripts.merge.folder import write_folder, write_json
from scripts.merge.models import open_model
from scripts.merge.plan import Plan, make_plan
from scripts.merge.progress import Progress
from scripts.merge.shards import INDEX, index_text
from scripts.merge.stream import Blender
from scripts.merge.write import Written, begin, finished, write_shard
from scripts.recipe.compiled import keep_compiled
from scripts.recipe.merge import MergeSpec


def build(job: Job[MergeSpec]) -> None:
    """Merge the two inputs into `job.out`; finished shards of a killed attempt are used again.

    Raises:
        StageError: whatever the headers, configs, tokenizers or weights make impossible.
    """
    spec = job.spec
    keep_compiled(job.compiled)
    first, second = (open_model(name, job.named(name)) for name in spec.models)
    plan = make_plan(spec, first, second)
    facts = write_folder(first, job.out, spec.out_dtype, spec.added_tokens)
    written, resumed = _weights(job, plan)
    for shard in plan.shards:
        _place(job.work / shard.file, job.out / shard.file)
        job.digests[shard.file] = written[shard.file].sha256
        job.tensors.update(written[shard.file].tensors)
    if len(plan.shards) > 1:
        (job.out / INDEX).write_text(index_text(plan.shards), encoding="utf-8")
    summary = _summary(spec, plan, list(written.values()))
    write_json(job.out / "merge.json", summary)
    (job.out / "README.md").write_text(card(spec, job.inputs, summary), encoding="utf-8")
    job.counts.update(
        tensors=len(plan.tensors),
        parameters=sum(p.stop - p.start for t in plan.tensors.values() for p in t.pieces),
        shards=len(plan.shards),
        overflowed=summary["overflowed"],
        flushed=summary["flushed"],
        **facts,
    )
    if lineage := known_digests(job.inputs):
        job.counts["lineage"] = lineage
    if plan.dropped:
        job.counts["dropped_rotary_buffers"] = len(plan.dropped)
    job.facts["resumed_shards"] = resumed


def _weights(job: Job[MergeSpec], plan: Plan) -> tuple[dict[str, Written], int]:
    """Write or find every shard in `job.work`; return the records by file and how many were found."""
    begin(job.work)
    _check_space(job.work, plan)
    progress = Progress(f"merge {job.spec.model}", sum(shard.size for shard in plan.shards))
    written: dict[str, Written] = {}
    resumed = 0
    with Files() as files:
        blender = Blender(plan, files, job.threads)
        for shard in plan.shards:
            found = finished(job.work, shard, plan)
            if found is not None:
                resumed += 1
                progress.skip(shard.size)
            written[shard.file] = found or write_shard(job.work, shard, blender, progress.advance)
    return written, resumed


def _check_space(work: Path, plan: Plan) -> None:
    """Stop before the first byte when the disk can't hold what is still to be written."""
    present = sum(p.stat().st_size for shard in plan.shards if (p := work / shard.file).is_file())
    needed, free = sum(shard.size for shard in plan.shards) - present, shutil.disk_usage(work).free
    if needed > free:
        raise StageError(f"{work}: {needed / 1e9:.1f} GB are to be written, {free / 1e9:.1f} GB are free; make room")


def _place(source: Path, target: Path) -> None:
    """Link a shard into the draft: should this attempt die before it is published, the next one finds it still."""
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        source.rename(target)


def _summary(spec: MergeSpec, plan: Plan, written: list[Written]) -> dict[str, Any]:
    figures = {name: values for shard in written for name, values in shard.figures.items()}
    tensors = {
        name: {"ratio": float(f"{t.blend.ratio:.9g}"), "operation": t.blend.operation, **figures[name]}
        for name, t in plan.tensors.items()
    }
    return {
        "models": list(spec.models),
        "method": spec.method,
        "operations": [operation.model_dump(mode="json") for operation in spec.operations],
        "tensors": tensors,
        "overflowed": sum(shard.overflowed for shard in written),
        "flushed": sum(shard.flushed for shard in written),
    }
