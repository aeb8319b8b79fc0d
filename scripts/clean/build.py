"""The stage: every row of the source goes through the gate and the filters, once, in the order of the files.

Memory holds digests, never the text of all rows: kept episodes wait on disk until all are known.
"""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.artifact.digest import payload_files
from scripts.artifact.stage import Job, StageError
from scripts.clean.adapters import read_source
from scripts.clean.audit import Audit
from scripts.clean.compare import differences
from scripts.clean.decontaminate import Decontaminator, load_decontaminator
from scripts.clean.episode import MINORS_GATE, UNREADABLE, Outcome, RawEpisode, Refused
from scripts.clean.generators import purged
from scripts.clean.identity import Ids, digests
from scripts.clean.language import foreign, known_languages
from scripts.clean.lexicon import Lexicon, folded_words, load_lexicon
from scripts.clean.refusals import refusal_in
from scripts.clean.shape import misshapen, shape
from scripts.clean.store import ADULT, GENERAL, Episode, Spill, write_episodes
from scripts.clean.substrings import substring_in
from scripts.clean.wording import Wording
from scripts.recipe.clean import CleanSpec, Filters
from scripts.recipe.compat import CleanCompat
from scripts.recipe.compiled import keep_compiled
from scripts.recipe.near import Duplicate, NearDuplicates
from scripts.recipe.start import arrow_alone


def build(job: Job[CleanSpec]) -> None:
    """Write `episodes.parquet`, `rejected.jsonl`, `audit.json` and `samples.json` of one source.

    Raises:
        StageError: the download has no file of this format, or one in which no row can be read.
    """
    keep_compiled(job.compiled)
    arrow_alone()
    clean(job, load_lexicon())


def clean(job: Job[CleanSpec], lexicon: Lexicon) -> None:
    """As `build`, with the word lists of the gate and the adult label as an argument (for tests)."""
    spec = job.spec
    _check_languages(spec.filters)
    folder, trial = job.named(spec.source), job.work / "compat"
    suites = {suite: job.named(suite) for suite in spec.benchmarks}

    def count(compat: CleanCompat) -> dict[str, Any]:
        trial.mkdir(parents=True)
        try:
            return _one_pass(spec.model_copy(update={"compat": compat}), folder, suites, trial, job.work, lexicon, {})
        finally:
            shutil.rmtree(trial)

    shutil.rmtree(trial, ignore_errors=True)  # of a killed attempt
    more = {"compat": differences(spec.compat, count)} if spec.compat.on else {}
    job.counts.update(_one_pass(spec, folder, suites, job.out, job.work, lexicon, more))


def _one_pass(
    spec: CleanSpec,
    folder: Path,
    suites: Mapping[str, Path],
    out: Path,
    work: Path,
    lexicon: Lexicon,
    more: dict[str, Any],
) -> dict[str, Any]:
    """Read the source once and write all files to `out`; return the counts. `more` goes into `audit.json`."""
    several = len(payload_files(folder)) > 1
    with Audit(out, spec.source, spec.seed, several) as audit, Spill(work) as spill:
        benchmarks = load_decontaminator(spec.decontamination, spec.benchmarks, suites) if suites else None
        chain = _Chain(spec, lexicon, audit, benchmarks)
        seen = _Seen()
        for outcome in read_source(spec.read, folder, Wording(spec.seed, spec.compat)):
            seen.row(outcome)
            episode = chain.take(outcome)
            if episode is not None:
                spill.add(episode)
        seen.check(str(folder))
        # The place in the file is only for a mix that takes the first rows of it, as the original did.
        write_episodes(out / "episodes.parquet", chain.survivors(spill, work), places=spec.compat.orca_cap)
        contamination = benchmarks.table() if benchmarks else None
        return audit.finish(seen.rows_in, chain.turns_cut, {"contamination": contamination, **more})


def _check_languages(filters: Filters) -> None:
    if filters.languages is None:
        return
    unknown = sorted(set(filters.languages) - known_languages())
    if unknown or not filters.languages:
        raise StageError(
            f"filters.languages: found {unknown[0] if unknown else 'an empty list'!r}; allowed: "
            f"{', '.join(sorted(known_languages()))}; or null, which keeps all"
        )


@dataclass
class _Tally:
    rows: int = 0
    readable: int = 0
    first: str = ""


class _Seen:
    """Counts the readable rows of each file: one without any is another format, not a file of bad rows."""

    def __init__(self) -> None:
        self._files: dict[str, _Tally] = {}

    def row(self, outcome: Outcome) -> None:
        """Count one row."""
        tally = self._files.setdefault(outcome.file, _Tally())
        tally.rows += 1
        if isinstance(outcome, RawEpisode) or outcome.reason not in UNREADABLE:
            tally.readable += 1
        elif not tally.first:
            tally.first = f"line {outcome.line}: {outcome.detail}"

    @property
    def rows_in(self) -> int:
        """Rows of all files."""
        return sum(tally.rows for tally in self._files.values())

    def check(self, folder: str) -> None:
        """Raise StageError unless every file has a readable row."""
        hint = "check the source's read.adapter and fetch.files"
        if not self._files:
            raise StageError(f"{folder}: holds no row at all; {hint}")
        for name, tally in self._files.items():
            if not tally.readable:
                raise StageError(f"{folder}/{name}: none of its {tally.rows} rows can be read; {tally.first}; {hint}")


def _filters(spec: CleanSpec) -> Filters:
    """Return the filters as the switches of `compat` leave them; the minors gate is none of them."""
    changed: dict[str, Any] = {}
    if spec.compat.orca_refusals and not spec.compat.refusal_list:
        changed["refusals"] = "keep"
    if spec.compat.dedup:
        changed |= {"exact_duplicates": True, "prefix_duplicates": False, "near_duplicates": None}
    return spec.filters.model_copy(update=changed)


class _Chain:
    """The gate and the filters, in this order.

    Gate, shape, language, refusals, generator policy, adult label, duplicates, decontamination.
    """

    def __init__(self, spec: CleanSpec, lexicon: Lexicon, audit: Audit, benchmarks: Decontaminator | None) -> None:
        self._spec, self._benchmarks = spec, benchmarks
        self._filters = _filters(spec)
        self._source = spec.source
        self._lexicon = lexicon
        self._audit = audit
        self._ids = Ids(spec.source)
        self._whole: set[bytes] = set()
        self._prefixes: set[bytes] = set()
        self._refusal_in = substring_in if spec.compat.refusal_list else refusal_in
        self.turns_cut = 0

    def take(self, outcome: Outcome) -> Episode | None:
        """Return the episode if it is kept so far, else record why not."""
        if isinstance(outcome, Refused):
            name = self._ids.next(outcome.key or f"{outcome.reason}\x1f{outcome.text}")
            self._audit.chars_in += len(outcome.text)
            gated = self._lexicon.gated(outcome.text, folded_words(outcome.text))
            self._audit.refuse(outcome, name, MINORS_GATE if gated else outcome.reason, outcome.detail, outcome.text)
            return None
        name = self._ids.next(outcome.key)
        text = "\n".join((outcome.system, outcome.context, *(turn.text for turn in outcome.turns)))
        self._audit.chars_in += len(text) - len(outcome.context)
        words = folded_words(text)
        # Before any other filter, and before anything is cut: no text of a gated row may reach the samples.
        if self._lexicon.gated(text, words):
            self._audit.refuse(outcome, name, MINORS_GATE)
            return None
        adult = outcome.adult or self._lexicon.adult(words)
        kept = self._filtered(outcome, name, adult)
        if isinstance(kept, Episode):
            return kept
        shown = "" if adult else "\n".join(turn.text for turn in outcome.turns)
        self._audit.refuse(outcome, name, *kept, shown)
        return None

    def _filtered(self, raw: RawEpisode, name: str, adult: bool) -> Episode | tuple[str, str]:
        shaped = shape(raw, greetings=self._spec.purpose == "roleplay")
        bad = misshapen(shaped, self._filters)
        if bad is not None:
            return bad
        if self._filters.languages is not None:
            language = foreign(shaped.turns, self._filters.languages, self._filters.language_min_chars)
            if language:
                return "language", language
        if self._filters.refusals == "drop":
            for index, turn in enumerate(shaped.turns):
                pattern = self._refusal_in(turn.text) if turn.role == "model" else None
                if pattern is not None:
                    return "refusal", f"turn {index + 1}: {pattern}"
        why = purged(self._spec, raw.generators)
        if why:
            return "generator", why
        if adult and self._filters.adult == "exclude":
            return "adult", "marked by the source" if raw.adult else "word list"
        prefixes, whole = digests(shaped.system, shaped.turns)
        if self._filters.exact_duplicates:
            if whole in self._whole:
                return "exact_duplicate", "an equal episode came before"
            self._whole.add(whole)
        if self._filters.prefix_duplicates:
            self._prefixes.update(prefixes)
        self.turns_cut += shaped.cut
        label = ADULT if adult else GENERAL
        return Episode(name, self._source, label, shaped.system, shaped.turns, raw.line, raw.file, whole.hex())

    def survivors(self, spill: Spill, work: Path) -> Iterator[Episode]:
        """Yield the kept episodes by id: no duplicates (which takes knowing all), none that quotes a benchmark."""
        twins = self._near_duplicates(spill, work)
        for episode in spill.by_id():
            late = self._late(episode, twins)
            if late is not None:
                shown = "" if episode.label == ADULT else "\n".join(turn.text for turn in episode.turns)
                self._audit.refuse(episode, episode.id, *late, shown)
                continue
            self._audit.keep(episode)
            yield episode

    def _late(self, episode: Episode, twins: Mapping[str, Duplicate]) -> tuple[str, str] | None:
        """Return (reason, detail) if one of the last filters refuses an episode."""
        if self._is_prefix(episode):
            return "prefix_duplicate", "a longer episode begins with it"
        twin = twins.get(episode.id)
        if twin is not None:
            return "near_duplicate", f"kept: {twin.kept}, Jaccard similarity {twin.similarity:.3f}"
        match = self._benchmarks.search(episode.text()) if self._benchmarks else None
        if match is not None and self._spec.decontamination.policy == "remove":
            return "contaminated", match.detail()
        return None

    def _is_prefix(self, episode: Episode) -> bool:
        return self._filters.prefix_duplicates and bytes.fromhex(episode.digest) in self._prefixes

    def _near_duplicates(self, spill: Spill, work: Path) -> dict[str, Duplicate]:
        """Return the near-duplicates among all episodes that no other filter has refused."""
        threshold = self._filters.near_duplicates
        if threshold is None:
            return {}
        with NearDuplicates(work / "shingles.u64", self._spec.seed, threshold) as near:
            for episode in spill.by_id():
                if not self._is_prefix(episode):
                    near.add(episode.id, episode.text())
            return near.found()
