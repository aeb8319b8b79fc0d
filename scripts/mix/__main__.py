"""Mix clean sources into one training set: `python -m scripts.mix` (see `scripts.artifact.stage`)."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.artifact.stage import Job, StageError, run_stage
from scripts.mix.card import SourceCounts, mix_json, readme
from scripts.mix.choose import Row, Split, split
from scripts.mix.episodes import Episode, episode_ids, episodes
from scripts.mix.original import cut_turns, differences, taken
from scripts.mix.render import FormatError, Rendered, render
from scripts.mix.system_prompts import system_text
from scripts.mix.write import OrderedFile
from scripts.recipe.mix import MixSpec
from scripts.recipe.prompt_format import FORMATS
from scripts.recipe.start import arrow_alone

Places = dict[str, dict[str, list[tuple[str, int, Row]]]]
"""By source and episode: (split, position in its file, row) of each row made from it."""


def build(job: Job[MixSpec]) -> None:
    """Write `train.parquet`, `validation.parquet`, `mix.json` and `README.md` (docs/formats.md).

    Raises:
        StageError: inputs that don't match the recipe's sources, a source or split without rows, or an episode
            that can't be put into the prompt format.
    """
    # The order of the inputs is the recipe's and part of the key; a table in a JSON spec has no order.
    folders = job.of_stage("clean")
    if set(folders) != set(job.spec.sources):
        raise StageError(
            f"mixture {job.spec.mixture}: needs the clean artifacts of {', '.join(sorted(job.spec.sources))}; "
            f"found {', '.join(sorted(folders)) or 'none'}; run snakemake, which passes them"
        )
    arrow_alone()
    counts, rows, more = _take_all(job, folders)
    parts = split(job.spec.seed, rows, job.spec.val_set_size, job.spec.val_split)
    _check_parts(job.spec, parts)
    _write(job, folders, parts, counts)
    if job.spec.compat.on:
        more["compat"] = differences(job.spec, folders)
    (job.out / "mix.json").write_text(mix_json(job.spec, counts, more), encoding="utf-8")
    (job.out / "README.md").write_text(readme(job.spec, counts, more), encoding="utf-8")
    job.counts.update(
        sources=len(counts),
        rows_train=len(parts.train),
        rows_validation=len(parts.validation),
        chars_train=sum(c.chars_train for c in counts.values()),
    )


def _take_all(
    job: Job[MixSpec], folders: Mapping[str, Path]
) -> tuple[dict[str, SourceCounts], dict[str, list[Row]], dict[str, Any]]:
    """Return the counts so far, the rows of each source, and what `mix.json` says beside."""
    spec, counts, rows, more = job.spec, {}, {}, {}
    usable = {}
    for source, folder in folders.items():
        usable[source], found = episode_ids(source, folder)
        counts[source] = SourceCounts(found, found - len(usable[source]), spec.sources[source].target_percent)
    if spec.near_duplicates is not None:
        more["near_duplicates"] = _without_twins(job, spec.near_duplicates, folders, usable)
    for source, folder in folders.items():
        share, ids = spec.sources[source], usable[source]
        rows[source] = taken(spec, source, folder, ids, share)
        if not rows[source]:
            dropped = more.get("near_duplicates", {}).get("dropped", {}).get(source, 0)
            near = f", of which {dropped} resemble a longer row" if dropped else ""
            raise StageError(
                f"mixture {spec.mixture}: source {source} gives no row: {counts[source].episodes_in} episodes in, "
                f"{len(ids) + dropped} with a model turn{near}, none left at weight {share.weight:g}; look into "
                f"clean/{source}/audit.json, raise the weight, or take the source out of the mixture"
            )
        named = {row.id for row in rows[source]}
        if len(named) < len(rows[source]):
            raise StageError(f"clean/{source}: an id ends in '#2' or the like, which marks repeats; rename it")
    return counts, rows, more


def _without_twins(
    job: Job[MixSpec], threshold: float, folders: Mapping[str, Path], usable: dict[str, list[str]]
) -> dict[str, Any]:
    """Take the near-duplicates among all sources out of `usable`, and write them down."""
    from scripts.mix.across import twins, write_twins  # compiled code, which takes half a second to load
    from scripts.recipe.compiled import keep_compiled

    keep_compiled(job.compiled)
    found = twins(job.spec.seed, threshold, folders, usable, job.work)
    gone = {(twin.source, twin.id) for twin in found}
    for source, ids in usable.items():
        usable[source] = [name for name in ids if (source, name) not in gone]
    return write_twins(job.out / "near_duplicates.jsonl", found, threshold)


def _check_parts(spec: MixSpec, parts: Split) -> None:
    total = len(parts.train) + len(parts.validation)
    if not parts.train:
        raise StageError(
            f"mixture {spec.mixture}: all {total} rows are held out at val_set_size {spec.val_set_size:g}, none is "
            "left to train on; lower val_set_size or add rows"
        )
    if not parts.validation and spec.val_set_size > 0:
        raise StageError(
            f"mixture {spec.mixture}: none of {total} rows is held out at val_set_size {spec.val_set_size:g}; raise "
            "val_set_size, add rows, or set it to 0 to train without evaluation"
        )


def _write(job: Job[MixSpec], folders: Mapping[str, Path], parts: Split, counts: dict[str, SourceCounts]) -> None:
    """Stream every source once and put each of its rows at its place."""
    places: Places = defaultdict(lambda: defaultdict(list))
    for part, rows in parts._asdict().items():
        for position, row in enumerate(rows):
            places[row.source][row.episode].append((part, position, row))
    with (
        OrderedFile(job.out / "train.parquet", len(parts.train), job.work, job.threads) as train,
        OrderedFile(job.out / "validation.parquet", len(parts.validation), job.work, job.threads) as validation,
    ):
        files = {"train": train, "validation": validation}
        for source, folder in folders.items():
            for episode in episodes(source, folder, job.threads):
                wanted = places[source].get(episode.id)
                if wanted is None:
                    continue
                rendered = _rendered(job.spec, source, episode)
                for part, position, row in wanted:
                    files[part].put(position, row.id, source, rendered.segments)
                    _count(counts[source], part, rendered)


def _rendered(spec: MixSpec, source: str, episode: Episode) -> Rendered:
    system, templates = episode.system, spec.sources[source].system_prompts
    turns = cut_turns(episode.turns, spec.compat)
    if templates:
        system = system_text(spec.seed, source, episode.id, templates, system, turns)
    try:
        return render(system, turns, FORMATS[spec.format])
    except FormatError as error:
        raise StageError(
            f"clean/{source}: episode {episode.id!r}: {error}; allowed are user turns and model turns with text; "
            "rebuild it"
        ) from None


def _count(counts: SourceCounts, part: str, rendered: Rendered) -> None:
    chars = sum(len(segment.text) for segment in rendered.segments)
    if part == "train":
        counts.rows_train += 1
        counts.chars_train += chars
    else:
        counts.rows_validation += 1
        counts.chars_validation += chars
    counts.user_turns_cut += rendered.user_turns_cut
    counts.markers_disarmed += rendered.markers_disarmed


if __name__ == "__main__":
    run_stage("mix", MixSpec, build)
