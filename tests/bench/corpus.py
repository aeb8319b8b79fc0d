"""A synthetic corpus in four public formats, with the length mix of the real sources; every text is drawn here.

Words follow a power law over a vocabulary whose frequent part are the English words of the demo's own
grammars and whose tail is made of stems and endings, so that a memo of words meets new ones as it does in real text.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.conftest import ROOT

_VOCABULARY = 150_000
# 180,000 words hold 25,600 different ones and 1.53 tokens each; the real stories 19,600 and 1.42 (Llama-2).
_EXPONENT, _OFFSET = 1.4, 20.0
_WORDS_PER_TOKEN = 1 / 1.53
# Function words first, as in any English text: they keep the language filter as busy as real rows do.
_HEAD = (
    "the of and to a in that is was he for it with as his on be at by i this had not are but from or have an they "
    "which one you were her all she there would their we him been has when who will more no if out so said what up "
    "its about into than them can only other new some could time these two may then do first any my now such like our "
    "over man me even most made after also did many before must through years where much your way well down"
)


class Kind(NamedTuple):
    """One source: its share of tokens, mean tokens and turns of a row (log-normal, cut at 4,000), and its writer."""

    adapter: str
    file: str
    share: float
    mean_tokens: int
    exchanges: int
    write: Callable[[Path, Iterator[list[str]]], None]


class Writer:
    """Draws texts; the n-th is the same in every run."""

    def __init__(self, seed: int) -> None:
        self._draw = np.random.Generator(np.random.Philox(seed))
        words = _vocabulary()
        self._chance = np.cumsum(np.arange(_OFFSET, len(words) + _OFFSET) ** -_EXPONENT)
        self._chance /= self._chance[-1]
        self._plain = np.array(words, dtype=object)
        self._first = np.array([word.capitalize() for word in words], dtype=object)

    def text(self, words: int) -> str:
        """Return prose of about this many words, in sentences of 12 and paragraphs of 5 sentences on average."""
        picks = np.searchsorted(self._chance, self._draw.random(words))
        parts = self._plain[picks]
        ends = np.flatnonzero(self._draw.random(words) < 1 / 12)
        starts = np.concatenate([[0], ends[:-1] + 1 if len(ends) else []]).astype(np.int64)
        parts[starts] = self._first[picks[starts]]
        parts[ends] += np.where(self._draw.random(len(ends)) < 0.2, ".\n\n", ".").astype(object)
        commas = np.flatnonzero(self._draw.random(words) < 0.05)
        parts[commas] += ","
        return " ".join(parts).replace("\n\n, ", "\n\n").replace(".,", ".").replace("\n\n ", "\n\n") + "."

    def rows(self, kind: Kind, tokens: int) -> Iterator[list[str]]:
        """Yield the turns of rows until about `tokens` tokens are drawn."""
        spread = 0.8
        center = np.log(kind.mean_tokens) - spread**2 / 2
        while tokens > 0:
            length = int(np.clip(self._draw.lognormal(center, spread), 40, 4000))
            tokens -= length
            turns = 2 * max(1, int(self._draw.poisson(kind.exchanges)))
            shares = self._draw.dirichlet(np.tile([1.0, 2.5], turns // 2))
            yield [self.text(max(3, int(share * length * _WORDS_PER_TOKEN))) for share in shares]


def _vocabulary() -> list[str]:
    found: dict[str, None] = dict.fromkeys(_HEAD.split())
    for path in sorted((ROOT / "tests" / "demo_texts").glob("*.yaml")):
        found.update(dict.fromkeys(re.findall(r"\b[a-z]{3,}\b", path.read_text(encoding="utf-8"))))
    onsets = "b br c d dr f g gr h l m n p r s st t tr v w".split()  # noqa: SIM905
    codas = "l ll m n nd r rt s st t ck mp ng".split()  # noqa: SIM905
    ends = "er ing ed ly ness ful less able ment ion al ous est ish en or ity ism ance ward".split()  # noqa: SIM905
    stems = [onset + vowel + coda for onset in onsets for vowel in "aeiou" for coda in codas]
    for first in ("", "un", "re", "out", "over", "in", "under"):
        found.update(dict.fromkeys(first + stem + end for end in ends for stem in stems))
    return list(found)[:_VOCABULARY]


def _openorca(path: Path, rows: Iterator[list[str]]) -> None:
    schema = pa.schema([(name, pa.string()) for name in ("id", "system_prompt", "question", "response")])
    with pq.ParquetWriter(path, schema) as writer:
        batch = []
        for number, (question, answer) in enumerate(rows):
            prompt = "You help people and answer at length."
            batch.append({"id": f"flan.{number}", "system_prompt": prompt, "question": question, "response": answer})
            if len(batch) == 4096:
                writer.write_table(pa.Table.from_pylist(batch, schema=schema))
                batch = []
        writer.write_table(pa.Table.from_pylist(batch, schema=schema))


def _sharegpt(path: Path, rows: Iterator[list[str]]) -> None:
    with path.open("w", encoding="utf-8") as handle:
        for number, turns in enumerate(rows):
            said = [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(turns)]
            handle.write(("[" if not number else ",\n") + json.dumps({"id": f"chat-{number}", "conversations": said}))
        handle.write("]\n")


def _pippa(path: Path, rows: Iterator[list[str]]) -> None:
    with path.open("w", encoding="utf-8") as handle:
        for number, turns in enumerate(rows):
            said = [{"message": text, "is_human": not i % 2} for i, text in enumerate(turns)]
            persona = "{{char}} keeps the harbour light and speaks to {{user}} in short sentences."
            names = {"bot_id": f"bot-{number}", "bot_name": "Mira", "bot_definitions": persona, "categories": None}
            row = {"submission_timestamp": 1_670_000_000_000, **names, "bot_greeting": "", "bot_description": "Keeper"}
            handle.write(json.dumps({**row, "conversation": said}) + "\n")


def _airoboros(path: Path, rows: Iterator[list[str]]) -> None:
    with path.open("w", encoding="utf-8") as handle:
        for question, answer in rows:
            handle.write(json.dumps({"instruction": question, "response": answer}) + "\n")


KINDS = {
    # Shares and lengths: bytes a row of the published files over about 4 bytes a token; forum threads as chats.
    "orca": Kind("openorca", "orca.parquet", 0.44, 440, 0, _openorca),
    "chats": Kind("sharegpt", "chats.json", 0.36, 1800, 6, _sharegpt),
    "pippa": Kind("pippa", "pippa.jsonl", 0.12, 2800, 15, _pippa),
    "airoboros": Kind("airoboros", "airoboros.jsonl", 0.08, 350, 0, _airoboros),
}


def write_corpus(folder: Path, tokens: int) -> dict[str, Path]:
    """Write the sources below `folder/<name>/`; return their folders by name."""
    folders = {}
    for seed, (name, kind) in enumerate(KINDS.items()):
        folders[name] = folder / name
        folders[name].mkdir(parents=True)
        kind.write(folders[name] / kind.file, Writer(seed).rows(kind, int(kind.share * tokens)))
    return folders
