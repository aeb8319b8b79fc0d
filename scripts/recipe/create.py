"""Creating a small Llama from nothing: for the demo, the tests and dry runs of a new recipe."""

from typing import Annotated, Literal

from pydantic import Field

from scripts.recipe.base import Count, Name, Positive, Spec, Strict


class LlamaShape(Strict):
    """Shape of a LlamaForCausalLM; the vocabulary comes from the tokenizer."""

    hidden_size: Count
    """Width of the residual stream."""
    intermediate_size: Count
    """Width inside the feed-forward block."""
    num_hidden_layers: Count
    """Decoder layers."""
    num_attention_heads: Count
    """Query heads; they divide `hidden_size` into even widths."""
    num_key_value_heads: Count
    """Key and value heads; as many as query heads in Llama 2 7B and 13B."""
    max_position_embeddings: Count = 4096
    """Longest context, in tokens."""
    rms_norm_eps: Positive = 1e-5
    """Added to the mean square before its root."""
    rope_theta: Positive = 10000.0
    """Base of the rotary position frequencies."""
    initializer_range: Positive = 0.02
    """Standard deviation of the initial weights (drawn uniformly, by keyed hash of the tensor's name)."""


class TokenizerChoice(Strict):
    """Train a sentencepiece BPE on a mixture, or take a downloaded `tokenizer.model`."""

    mixture: Name | None = None
    """Train on this mixture's training rows."""
    vocab_size: Annotated[int, Field(ge=300, le=65536)] | None = None
    """Pieces, with 256 byte pieces and 3 control pieces among them; needed with `mixture`."""
    download: Name | None = None
    """Take `tokenizer.model` from this download."""


class CreateSpec(Spec):
    """One model made from a seed. Input: the mix artifact or the download that `tokenizer` names."""

    model: Name
    architecture: LlamaShape
    tokenizer: TokenizerChoice
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    seed: int
