"""Votes of testers and the key that says what they voted on."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

Choice = Literal["left", "right", "both", "neither", ""]
P = TypeVar("P", bound="Payload")


class VotesError(Exception):
    """What, where, what was found, what is allowed."""


class Payload(BaseModel):
    """A JSON file: nothing is converted, unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Vote(Payload):
    """One tester on one comparison; `choice` is empty where there is a comment only."""

    choice: Choice
    comment: str


class VoteFile(Payload):
    """What the page saves."""

    test: str
    tester: str
    votes: dict[str, Vote]


class Row(Payload):
    """Who stands on which side."""

    left: str
    right: str
    conversation: str


class Key(Payload):
    """`key.json` of the stage."""

    recipe: str
    test: str
    candidates: list[str]
    comparisons: dict[str, Row]


@dataclass(frozen=True)
class Judged:
    """One vote with the names put back."""

    tester: str
    comparison: str
    conversation: str
    left: str
    right: str
    choice: Choice
    comment: str

    @property
    def share(self) -> float:
        """What the left candidate gets of the win: 1, 0, or one half where neither was preferred."""
        return {"left": 1.0, "right": 0.0}.get(self.choice, 0.5)


def read_votes(paths: Sequence[Path], key: Key) -> list[Judged]:
    """Return all votes of all files, testers in the order of the files, comparisons in the order of their ids.

    A file without a name counts under its own file's name.

    Raises:
        VotesError: no file of votes, one of another page, two of one tester.
    """
    found: list[Judged] = []
    files: dict[str, Path] = {}
    for path in paths:
        file = _read(path, VoteFile)
        if file.test != key.test:
            raise VotesError(f"{path}: votes on page {file.test}; this key is of page {key.test} ({key.recipe})")
        tester = file.tester.strip() or path.stem
        if tester in files:
            raise VotesError(
                f"{path}: tester {tester!r} voted in {files[tester]} too; give the latest file of each only"
            )
        files[tester] = path
        unknown = sorted(set(file.votes) - set(key.comparisons))
        if unknown:
            raise VotesError(f"{path}: votes: found {unknown[0]!r}, which is no comparison of this page")
        for name, vote in sorted(file.votes.items()):
            row = key.comparisons[name]
            found.append(Judged(tester, name, row.conversation, row.left, row.right, vote.choice, vote.comment.strip()))
    return found


def find_key(votes: Path, keys: Sequence[Path]) -> tuple[Path, Key]:
    """Return the key of the page that a file of votes is about.

    Raises:
        VotesError: no key is of this page.
    """
    test = _read(votes, VoteFile).test
    for path in keys:
        key = _read(path, Key)
        if key.test == test:
            return path, key
    listed = ", ".join(map(str, keys)) or "none"
    raise VotesError(f"{votes}: votes on page {test}; no key of it among: {listed}; name it with --key")


def _read(path: Path, model: type[P]) -> P:
    try:
        return model.model_validate_json(path.read_bytes())
    except OSError as error:
        raise VotesError(f"{path}: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "file"
        found = json.dumps(first["input"], default=str, ensure_ascii=False)[:80]
        kind = "file of votes" if model is VoteFile else "key of a blind test"
        raise VotesError(f"{path}: no {kind}: {where}: {first['msg']}; found {found}") from None
