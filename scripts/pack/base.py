"""What pack asks of a base model: a tokenizer whose ids fit, and a config.json that agrees with it and the recipe."""

import json
from pathlib import Path
from typing import Any

from scripts.artifact.stage import StageError
from scripts.recipe.pack import PackSpec
from scripts.recipe.tokenizer import Tokenizer, load_tokenizer


def base_tokenizer(base: Path, spec: PackSpec) -> Tokenizer:
    """Return the base's tokenizer.

    Raises:
        StageError: it can't be read, its ids don't fit, or the base's config.json has fewer embeddings than ids
            or fewer positions than `sequence_len`.
    """
    try:
        tokenizer = load_tokenizer(base)
        path = base / "config.json"
        config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise StageError(_advised(str(error), base, spec)) from None
    if tokenizer.vocab_size > 1 << 16:
        raise StageError(f"{base}: {tokenizer.vocab_size:,} token ids; packed rows are 16-bit and hold at most 65,536")
    config = config if isinstance(config, dict) else {}
    rows = config.get("vocab_size")
    if isinstance(rows, int) and rows < tokenizer.vocab_size:
        raise StageError(
            f"{base}: the tokenizer has {tokenizer.vocab_size:,} ids, but config.json says vocab_size {rows:,}: "
            f"the model has no embedding for the rest; use the tokenizer that belongs to the model"
        )
    _check_positions(base, config, spec)
    return tokenizer


def _advised(text: str, base: Path, spec: PackSpec) -> str:
    """Return why the tokenizer can't be read, with the way out where a file was left out of the download."""
    name = "tokenizer_config.json"
    if (base / "tokenizer.json").is_file() and not (base / name).is_file():
        needs = f"{base}: tokenizer.json needs {name} beside it, which names its begin and end tokens"
        return f"{needs}; name it under models.{spec.base}.download.files"
    return text


def _check_positions(base: Path, config: dict[str, Any], spec: PackSpec) -> None:
    """Refuse rows that reach beyond the positions that the base was made for: it would learn them from nothing."""
    positions, length = config.get("max_position_embeddings"), spec.settings.sequence_len
    if not isinstance(positions, int):
        return
    rope = config.get("rope_scaling") or config.get("rope_parameters")
    rope = rope if isinstance(rope, dict) else {}
    factor = rope.get("factor", 1)
    # `linear` and `dynamic` models state the positions sometimes before, sometimes after scaling; others after.
    stretched = rope.get("rope_type", rope.get("type")) in ("linear", "dynamic") and isinstance(factor, int | float)
    if positions * (max(1, factor) if stretched else 1) < length:
        raise StageError(
            f"{base}: config.json says max_position_embeddings {positions:,}, sequence_len is {length:,}: the model "
            f"has never seen the places behind; set models.{spec.model}.train.pack.sequence_len to {positions} or "
            "less, or use a base with more"
        )
