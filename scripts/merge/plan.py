"""The whole merge as data, from headers alone: what each output tensor is made of, and which file it goes to."""

from dataclasses import dataclass
from math import prod

from scripts.artifact.digest import sha256_bytes
from scripts.artifact.stage import StageError
from scripts.artifact.tensors import ITEM_BYTES, TensorEntry
from scripts.merge.checks import check_config, check_pair, check_tensors
from scripts.merge.layout import EMBED, HEAD, gradient_keys
from scripts.merge.models import FLOATS, Located, ModelFolder
from scripts.merge.ratios import Blend, assign
from scripts.merge.shards import Shard, split
from scripts.merge.vocabulary import row_map
from scripts.recipe.base import canonical_json
from scripts.recipe.merge import MergeSettings

CODES = {name: code for code, name in FLOATS.items()}


@dataclass(frozen=True)
class Piece:
    """Elements [start, stop) of the output; `second` is the second model's first element, None for none."""

    start: int
    stop: int
    second: int | None


@dataclass(frozen=True)
class TensorPlan:
    """One output tensor."""

    name: str
    shape: tuple[int, ...]
    first: Located
    second: Located
    blend: Blend
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class Plan:
    """One merge."""

    tensors: dict[str, TensorPlan]
    """In model definition order."""
    shards: list[Shard]
    dtype: str
    """Of every output tensor, as in a header: F32, F16, BF16."""
    slerp: bool
    dropped: tuple[str, ...]
    """Rotary buffers of either model, left out."""
    digest: str
    """Of all the above: work of another plan is never resumed."""


def make_plan(settings: MergeSettings, first: ModelFolder, second: ModelFolder) -> Plan:
    """Check both models against each other and lay out the merge.

    Raises:
        StageError: by field and tensor, whatever makes the merge impossible or ambiguous.
    """
    for model in (first, second):
        check_config(model)
    check_pair(first, second, settings.vocabulary)
    shapes = check_tensors(first)
    for name in {*shapes} ^ {*check_tensors(second)}:  # tied embeddings: lm_head may be there or not
        has, lacks = (first, second) if name in shapes else (second, first)
        raise StageError(f"tensor {name!r} is in model {has.name!r} but not in {lacks.name!r}; remove or add it")
    blends = _blends(settings, first, shapes)
    rows = [(r.start, r.stop, r.second) for r in row_map(first, second, settings.vocabulary)]
    code = CODES[settings.out_dtype]
    tensors = {}
    for name, shape in shapes.items():
        size = prod(shape)
        pieces: tuple[Piece, ...] = (Piece(0, size, 0),)
        if name in (EMBED, HEAD):
            width = size // shape[0]
            pieces = tuple(Piece(a * width, b * width, None if c is None else c * width) for a, b, c in rows)
        tensors[name] = TensorPlan(name, shape, first.tensors[name], second.tensors[name], blends[name], pieces)
    entries = [(t.name, code, t.shape, prod(t.shape) * ITEM_BYTES[code]) for t in tensors.values()]
    shards = split(entries, settings.max_shard_bytes)
    slerp = settings.method == "slerp"
    dropped = tuple(sorted({*first.rotary, *second.rotary}))
    return Plan(tensors, shards, code, slerp, dropped, _digest(tensors, shards, slerp))


def _blends(settings: MergeSettings, first: ModelFolder, shapes: dict[str, tuple[int, ...]]) -> dict[str, Blend]:
    """Assign ratios; with tied embeddings lm_head counts as a key, as in a state dict, but must agree."""
    tied = bool(first.config.get("tie_word_embeddings"))
    listed = {**shapes, HEAD: shapes[EMBED]} if tied else shapes
    virtual = tied and HEAD not in shapes
    keys = gradient_keys(listed, settings.legacy_inv_freq)
    # A tied lm_head needs no operation of its own: it is embed_tokens.
    if virtual and not any(o.filter in HEAD and not o.layer_only for o in settings.operations):
        keys.remove(HEAD)
    blends = assign(settings, keys, int(first.config["num_hidden_layers"]))
    if tied and HEAD in blends and blends[HEAD].ratios != blends[EMBED].ratios:
        raise StageError(
            f"tied embeddings: {HEAD!r} and {EMBED!r} are one tensor, but their ratios are "
            f"{list(blends[HEAD].ratios)} and {list(blends[EMBED].ratios)}; give both operations the same values"
        )
    return blends


def _digest(tensors: dict[str, TensorPlan], shards: list[Shard], slerp: bool) -> str:
    def where(entry: TensorEntry, file: str) -> list[object]:
        return [file, entry.dtype, list(entry.shape), entry.start, entry.stop]

    described = [
        [
            *(t.name, list(t.blend.ratios), [[p.start, p.stop, p.second] for p in t.pieces]),
            *(where(at.entry, at.path.name) for at in (t.first, t.second)),
        ]
        for t in tensors.values()
    ]
    files = [[s.file, [[e.name, e.dtype, list(e.shape), e.start, e.stop] for e in s.entries]] for s in shards]
    return sha256_bytes(canonical_json([described, files, slerp]).encode())
