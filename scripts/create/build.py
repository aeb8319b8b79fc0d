"""Create: a seed and a tokenizer -> a Hugging Face Llama folder, the same bytes on every machine."""

from typing import Any

from scripts.artifact.stage import Job, StageError
from scripts.create.tokenizer import downloaded_tokenizer, trained_tokenizer
from scripts.create.weights import llama_shapes, write_weights
from scripts.recipe.create import CreateSpec
from scripts.recipe.tokenizer import SentencePieceTokenizer, TokenizerError
from scripts.recipe.tokenizer_files import write_json, write_tokenizer_files


def build(job: Job[CreateSpec]) -> None:
    """Write the model folder: weights, configs and all tokenizer files.

    Raises:
        StageError: shapes that don't fit one another, or a tokenizer that can't be made, read or converted.
    """
    spec = job.spec
    _check_shape(spec)
    choice = spec.tokenizer
    if (choice.mixture is None) == (choice.download is None):
        raise StageError(f"{spec.model}: tokenizer needs exactly one of mixture, download; found {choice!r}")
    if choice.mixture is not None:
        model = trained_tokenizer(job.named(choice.mixture) / "train.parquet", choice.vocab_size)
    else:
        model = downloaded_tokenizer(job.named(choice.download or ""))
    try:
        tokenizer = write_tokenizer_files(model, job.out, spec.architecture.max_position_embeddings)
    except TokenizerError as error:
        raise StageError(f"{spec.model}: tokenizer: {error}") from None
    write_json(job.out / "config.json", llama_config(spec, tokenizer))
    write_json(job.out / "generation_config.json", _token_ids(tokenizer))
    shapes = llama_shapes(spec.architecture, tokenizer.vocab_size)
    parameters = write_weights(job.out / "model.safetensors", shapes, spec)
    job.counts.update(parameters=parameters, tensors=len(shapes), vocab_size=tokenizer.vocab_size)


def llama_config(spec: CreateSpec, tokenizer: SentencePieceTokenizer) -> dict[str, Any]:
    """Return `config.json`: what Llama 2 publishes, with the seed's own shape.

    Both `dtype` (transformers 5) and `torch_dtype` (before) are there, and so are `rope_parameters` and `rope_theta`.
    """
    shape = spec.architecture
    return {
        **shape.model_dump(mode="json"),
        **_token_ids(tokenizer),
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "dtype": spec.dtype,
        "head_dim": shape.hidden_size // shape.num_attention_heads,
        "hidden_act": "silu",
        "mlp_bias": False,
        "model_type": "llama",
        "pretraining_tp": 1,
        "rope_parameters": {"rope_theta": shape.rope_theta, "rope_type": "default"},
        "tie_word_embeddings": False,
        "torch_dtype": spec.dtype,
        "use_cache": True,
        "vocab_size": tokenizer.vocab_size,
    }


def _token_ids(tokenizer: SentencePieceTokenizer) -> dict[str, Any]:
    # No pad_token_id: as an embedding's padding_idx it would stop </s> from being learned.
    return {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id}


def _check_shape(spec: CreateSpec) -> None:
    shape = spec.architecture
    heads, groups = shape.num_attention_heads, shape.num_key_value_heads
    if shape.hidden_size % heads or (shape.hidden_size // heads) % 2:
        raise StageError(
            f"{spec.model}: hidden_size {shape.hidden_size} over num_attention_heads {heads} must give an even whole "
            f"number (rotary embeddings turn pairs); change one of the two in the recipe's create.architecture"
        )
    if heads % groups:
        raise StageError(
            f"{spec.model}: num_attention_heads {heads} must be a multiple of num_key_value_heads {groups}; "
            f"change one of the two in the recipe's create.architecture"
        )
