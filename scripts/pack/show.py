"""`python -m scripts.pack show FOLDER ROW`: what a packed row says, and which of it is learned."""

import argparse
import itertools
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scripts.artifact.digest import RECORD, ArtifactError
from scripts.artifact.places import results_root
from scripts.recipe.tokenizer import Ids, Tokenizer, TokenizerError, load_tokenizer

PLAIN, DIM, LEARNED, CONTROL, MARKER = "\x1b[0m", "\x1b[2m", "\x1b[32m", "\x1b[7m", "\x1b[1;36m"
_MARKERS = re.compile(r"(<\|(?:system|user|model|im_start|im_end)\|>|^### (?:Instruction|Response):)", re.MULTILINE)


def show(arguments: list[str]) -> int:
    """Print one row; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m scripts.pack show", description=__doc__)
    parser.add_argument("folder", type=Path, help="a pack artifact: results/<recipe>/pack/<model>")
    parser.add_argument("row", type=int, help="number of the row, from 0")
    parser.add_argument("--split", choices=("train", "validation"), default="train")
    parser.add_argument("--base", type=Path, help="model folder with the tokenizer (default: the artifact's own input)")
    parser.add_argument("--color", choices=("auto", "always", "never"), default="auto")
    args = parser.parse_args(arguments)
    wanted = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    color = wanted if args.color == "auto" else args.color == "always"
    try:
        tokenizer = load_tokenizer(args.base or _base(args.folder))
        print(row_text(args.folder, args.row, args.split, tokenizer, color))
    except (OSError, KeyError, ValueError, ArtifactError, TokenizerError) as error:
        print(f"pack show: {error}", file=sys.stderr)
        return 1
    return 0


def row_text(folder: Path, row: int, split: str, tokenizer: Tokenizer, color: bool) -> str:
    """Return a heading, the row's text with its roles, and a legend.

    Raises:
        ValueError: no such row.
    """
    import pyarrow.parquet as pq

    rows = np.load(folder / f"{split}_rows.npy")
    if not 0 <= row < len(rows) - 1:
        raise ValueError(f"{folder}: {split} has rows 0 to {len(rows) - 2}, not {row}")
    part = slice(int(rows[row]), int(rows[row + 1]))
    ids = np.array(np.load(folder / f"{split}_input_ids.npy", mmap_mode="r")[part])
    trained = np.array(np.load(folder / f"{split}_trained.npy", mmap_mode="r")[part])
    entry = pq.read_table(folder / f"{split}_row_ids.parquet").slice(row, 1).to_pylist()[0]
    text = _painted(ids, trained, tokenizer, color)
    paint = _painter(color)
    legend = f"{paint('learned', LEARNED)} {paint('context only', DIM)} {paint('control token', CONTROL)}"
    marks = "" if color else " (learned text stands between [ and ])"
    heading = (
        f"{split} row {row}: {entry['id']} from {entry['source']}, {len(ids)} tokens, {int(trained.sum())} learned"
    )
    return f"{heading}{_places(folder, row, split)}\n{legend}{marks}\n{text}"


def _places(folder: Path, row: int, split: str) -> str:
    """Return where the schedule reads the row, as `; read at (step, micro, rank) ...`."""
    if split != "train":
        return ""
    facts = json.loads((folder / "pack.json").read_text(encoding="utf-8"))
    offsets = np.load(folder / "schedule_offsets.npy")
    found = np.flatnonzero(np.load(folder / "schedule_rows.npy", mmap_mode="r") == row)
    batches = np.searchsorted(offsets, found, side="right") - 1
    processes, accumulation = facts["processes"], facts["gradient_accumulation_steps"]
    places = [
        (int(b) // processes // accumulation, int(b) // processes % accumulation, int(b) % processes) for b in batches
    ]
    return f"\nread at (step, micro, rank): {', '.join(map(str, places)) or 'never'}"


def _painter(color: bool) -> Callable[[str, str], str]:
    return (lambda text, code: f"{code}{text}{PLAIN}") if color else (lambda text, code: text)


def _painted(ids: Ids, trained: NDArray[np.uint8], tokenizer: Tokenizer, color: bool) -> str:
    """Return the text in runs of equal kind; a role marker begins a new line."""
    paint = _painter(color)
    names = {tokenizer.bos_id: "<s>", tokenizer.eos_id: "</s>"}
    kinds = [(names.get(int(i)), bool(t)) for i, t in zip(ids, trained, strict=True)]
    shown, start = [], 0
    for (control, learned), run in itertools.groupby(kinds):
        count = len(list(run))
        if control is not None:
            text = paint(control, CONTROL) * count
        else:
            parts = _MARKERS.split(tokenizer.decode(ids[start : start + count]))
            style = LEARNED if learned else DIM
            text = "".join("\n" + paint(p, MARKER) if _MARKERS.match(p) else paint(p, style) for p in parts if p)
        shown.append(text if color or not learned else f"[{text}]")
        start += count
    return "".join(shown)


def _base(folder: Path) -> Path:
    """Return the model folder that the artifact was packed with."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        base, names = record["spec"]["base"], [name for name, _ in record["inputs"]]
        name: str = next(name for name in names if name.split("/", 1)[-1] == base and not name.startswith("mix/"))
    except (OSError, KeyError, TypeError, StopIteration):
        raise ValueError(f"{folder}: {RECORD} names no base model; give its folder with --base") from None
    return results_root(folder.absolute()) / name
