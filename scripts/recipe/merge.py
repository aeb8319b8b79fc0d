"""Merging: gradient merges of two models with the semantics of BlockMerge_Gradient; linear and slerp by layer."""

from typing import Annotated, Literal

from pydantic import Field

from scripts.recipe.base import Count, Name, Ratio, Spec, Strict


class Operation(Strict):
    """One gradient over the tensors whose name contains `filter`."""

    operation: str = ""
    """Label, for people only."""
    filter: str
    """Substring of the tensor names, matched in model definition order; empty matches all."""
    gradient_values: Annotated[list[Ratio], Field(min_length=1)]
    """Share of the SECOND model: knots over the index of the tensor in the filtered list (`gradient`) or over the
    layer (`linear`, `slerp`)."""
    layer_only: bool = False
    """Keep only names that contain "layer"."""
    no_layers: bool = False
    """Keep only names that do not contain "layer"."""


class MergeSettings(Strict):
    """How two models become one: `out = (1 - r) * first + r * second`, fp32 sum, one rounding."""

    models: Annotated[list[Name], Field(min_length=2, max_length=2)]
    """First and second model; config and tokenizer come from the first, gradient values are shares of the second."""
    method: Literal["gradient", "linear", "slerp"] = "gradient"
    """`gradient`: by index of the tensor, operations compound. `linear`, `slerp`: by layer, the first match wins."""
    operations: Annotated[list[Operation], Field(min_length=1)]
    """In the order of the list; together they cover every tensor once."""
    out_dtype: Literal["float32", "float16", "bfloat16"] = "float16"
    """Type of the weights written; the sum is fp32."""
    vocabulary: Literal["error", "first_model_rows", "by_token"] = "error"
    """Differing vocabularies: stop; blend rows of equal id and keep the first model's surplus rows; or blend rows
    of equal token text and keep the first model's row of any token that the second lacks."""
    legacy_inv_freq: bool = False
    """Count a fifth (rotary) key per self_attn block, as transformers below 4.32 listed it."""
    uncovered: Literal["error", "first_model"] = "error"
    """Tensors that no filter matches: stop, or keep the first model's."""
    allow_compound: bool = False
    """Let filters overlap; their blends then compound in order."""
    added_tokens: Literal["error", "drop"] = "error"
    """Added tokens with an id beyond the vocabulary (they break GGUF conversion): stop, or drop them."""
    max_shard_bytes: Count = 2_097_152_000
    """Most bytes of tensors in one weight file; the original's 2000 MiB."""


class MergeSpec(Spec, MergeSettings):
    """One merge. Inputs: the two model folders."""

    model: Name
    hub: dict[Name, str] = {}
    """`owner/name` of each input that a hub has: what the model card calls it."""
    lineage: dict[str, list[str]] = {}
    """Every artifact before this one and what it is made of, for the model card."""
