"""Models that shared contexts would score wrongly are refused, and noise of bfloat16 isn't taken for that."""

from typing import Any

import pytest
import torch
import transformers

from scripts.artifact.stage import StageError
from scripts.benchmark.architecture import check_architecture
from scripts.benchmark.shared import SharedScorer

WORDS = 400
SIZES = {"vocab_size": WORDS, "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4}
SIZES |= {"max_position_embeddings": 256, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
HEADS = {"num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 128}
OLD = {"vocab_size": WORDS, "n_embd": 64, "n_layer": 4, "n_head": 4, "bos_token_id": 1, "eos_token_id": 2}

SOUND: dict[str, dict[str, Any]] = {
    "Llama": {**SIZES, "intermediate_size": 128},
    "Mistral": {**SIZES, **HEADS, "sliding_window": None},
    "Qwen3": {**SIZES, **HEADS},
    "Phi3": {**SIZES, "intermediate_size": 128},
    "GPTNeoX": {**SIZES, "intermediate_size": 128},
    "GPT2": {**OLD, "n_positions": 256},
}
UNSOUND: dict[str, tuple[dict[str, Any], str]] = {
    "GPTJ": ({**OLD, "n_positions": 256, "rotary_dim": 8}, "from a plain pass"),  # takes no positions
    "CodeGen": ({**OLD, "n_positions": 256, "rotary_dim": 8}, "from a plain pass"),
    "Mpt": ({"vocab_size": WORDS, "d_model": 64, "n_layers": 4, "n_heads": 4}, "from a plain pass"),  # ALiBi
    "GPTNeo": (
        {"vocab_size": WORDS, "hidden_size": 64, "num_layers": 2, "num_heads": 4, "bos_token_id": 1, "eos_token_id": 2}
        | {"attention_types": [[["global", "local"], 1]]},
        "from a plain pass",
    ),
    "Bloom": ({"vocab_size": WORDS, "hidden_size": 64, "n_layer": 4, "n_head": 4}, "takes no shared contexts"),
    "OPT": (
        {**SIZES, "ffn_dim": 128, "word_embed_proj_dim": 64},
        "takes no shared contexts",  # counts positions by its own mask; a single row would pass
    ),
    "Mamba": ({"vocab_size": WORDS, "hidden_size": 64, "num_hidden_layers": 4}, "takes no shared contexts"),
    "Gemma2": ({**SIZES, **HEADS, "sliding_window": 256}, "after lm_head"),  # a cap at 30
    "Cohere": ({**SIZES, **HEADS}, "after lm_head"),
}


def make(name: str, settings: dict[str, Any], dtype: torch.dtype = torch.float32, seed: int = 0) -> Any:
    """Return a random model whose weights are large enough to tell tokens apart."""
    torch.manual_seed(seed)
    config = getattr(transformers, f"{name}Config")(**settings)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(0, 0.3 if parameter.shape[0] == WORDS else parameter.shape[1] ** -0.5)
    return model.to(dtype)


def check(model: Any, max_length: int = 256) -> None:
    """Check a model on the CPU."""
    check_architecture(model, SharedScorer(model, torch.device("cpu")), max_length)


def disturb(model: Any, scale: float) -> None:
    """Change what every linear layer gives, otherwise in each pass: a GPU adds in another order for another shape."""
    generator = torch.Generator().manual_seed(0)

    def change(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        noise = 2 * torch.rand(output.shape, generator=generator) - 1
        return output * (1 + scale * noise).to(output.dtype)

    for module in model.base_model.modules():
        if isinstance(module, torch.nn.Linear | transformers.pytorch_utils.Conv1D):
            module.register_forward_hook(change)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", SOUND)
def test_a_sound_architecture_passes(name: str, dtype: torch.dtype) -> None:
    check(make(name, SOUND[name], dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", UNSOUND)
def test_one_that_shared_contexts_score_wrongly_is_refused(name: str, dtype: torch.dtype) -> None:
    settings, words = UNSOUND[name]
    with pytest.raises(StageError, match=words):
        check(make(name, settings, dtype))


def test_noise_is_not_taken_for_an_error_nor_an_error_for_noise() -> None:
    """The figures differ by 2 % here: in a deep model of large weights, bfloat16 leaves no more."""
    for seed in range(4):
        deep = {**SOUND["Llama"], "num_hidden_layers": 24}
        model = make("Llama", deep, torch.bfloat16, seed)
        disturb(model, 2**-8)
        check(model)
        wrong = make("GPTJ", UNSOUND["GPTJ"][0], torch.bfloat16, seed)
        disturb(wrong, 2**-8)
        with pytest.raises(StageError, match="from a plain pass"):
            check(wrong)


def test_a_window_shorter_than_the_context_is_refused() -> None:
    model = make("Mistral", {**SOUND["Mistral"], "sliding_window": 40})
    check(model, 40)
    with pytest.raises(StageError, match="only 40 tokens back"):
        check(model, 41)


def test_a_model_of_no_finite_figures_is_refused() -> None:
    model = make("Llama", SOUND["Llama"])
    model.model.layers[0].mlp.up_proj.weight.data[:] = float("nan")
    with pytest.raises(StageError, match="aren't finite.*float32"):
        check(model)
