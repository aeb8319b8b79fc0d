"""All that two models must agree on before a byte of weights is read; every error names field or tensor."""

from collections.abc import Mapping
from typing import Any

from scripts.artifact.foreign import asks_for_code
from scripts.artifact.stage import StageError
from scripts.merge.layout import HEAD, LlamaShapes, llama_tensors
from scripts.merge.models import FLOATS, ModelFolder
from scripts.recipe.problems import nearest

_NUMBERS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "vocab_size",
)
_MEANING = {
    "num_key_value_heads": "the heads would pair differently",
    "head_dim": "the heads would be cut differently",
    "rms_norm_eps": "the norms would be computed differently",
    "hidden_act": "the activations differ",
    "rope": "positions are encoded differently",
    "tie_word_embeddings": "one model has no lm_head of its own",
    "attention_bias": "one model has more tensors",
    "mlp_bias": "one model has more tensors",
}


def check_config(model: ModelFolder) -> None:
    """Check one config by itself: a plain Llama that names no code to run (rule R3).

    Raises:
        StageError: another architecture, a field that loads code, or a missing or non-integer size.
    """
    config, where = model.config, f"model {model.name!r}, config.json"
    if field := asks_for_code(dict(config)):
        raise StageError(f"{where}: field {field!r} is not allowed: it lets a config choose code; remove it")
    if config.get("architectures") != ["LlamaForCausalLM"]:
        found = config.get("architectures")
        raise StageError(f"{where}: architectures is {found!r}; only ['LlamaForCausalLM'] can be merged")
    for field in (*_NUMBERS, "num_key_value_heads", "head_dim"):
        value = config.get(field)
        if value is None and field not in _NUMBERS:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise StageError(f"{where}: {field} is {value!r}; a whole number of at least 1 is needed")


def check_tensors(model: ModelFolder) -> dict[str, tuple[int, ...]]:
    """Return {name: shape} in definition order after comparing the headers with what the config promises.

    Raises:
        StageError: a tensor that is missing, unknown, of another shape, or not a float of 16 or 32 bits.
    """
    wanted = llama_tensors(LlamaShapes.of(model.config))
    if model.config.get("tie_word_embeddings") and HEAD not in model.tensors:
        del wanted[HEAD]
    where = f"model {model.name!r}"
    missing = [name for name in wanted if name not in model.tensors]
    unknown = [name for name in model.tensors if name not in wanted]
    if unknown:
        hint = nearest(unknown[0], missing or wanted)
        raise StageError(
            f"{where}: {len(unknown)} tensors that a Llama of this config doesn't have, first {unknown[0]!r}{hint}"
        )
    if missing:
        raise StageError(f"{where}: {len(missing)} tensors of the config are missing, first {missing[0]!r}")
    for name, shape in wanted.items():
        entry = model.tensors[name].entry
        if entry.shape != shape:
            raise StageError(
                f"{where}: tensor {name!r} has shape {list(entry.shape)}, its config.json says {list(shape)}"
            )
        if entry.dtype not in FLOATS:
            raise StageError(f"{where}: tensor {name!r} is {entry.dtype}; allowed: {', '.join(FLOATS)}")
    return wanted


def check_pair(first: ModelFolder, second: ModelFolder, vocabulary: str) -> None:
    """Compare two configs field by field.

    Raises:
        StageError: with one line for each field that differs.
    """
    ours, theirs = _comparable(first.config), _comparable(second.config)
    lines = []
    for field, value in ours.items():
        other = theirs[field]
        if value == other or (field == "vocab_size" and vocabulary != "error"):
            continue
        why = _MEANING.get(field, "the tensors have other shapes")
        if field == "vocab_size":
            why = "set vocabulary: first_model_rows (rows of equal id) or by_token (rows of equal token)"
        lines.append(f"{field}: {value!r} in {first.name!r}, {other!r} in {second.name!r}; {why}")
    if lines:
        raise StageError("the models can't be merged, their config.json differ:\n  " + "\n  ".join(lines))


def _comparable(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that give weights their meaning, with transformers' defaults for a Llama."""
    heads, hidden = int(config["num_attention_heads"]), int(config["hidden_size"])
    return {
        **{field: config[field] for field in _NUMBERS},
        "num_key_value_heads": config.get("num_key_value_heads") or heads,
        "head_dim": config.get("head_dim") or hidden // heads,
        "rms_norm_eps": config.get("rms_norm_eps", 1e-6),
        "hidden_act": config.get("hidden_act", "silu"),
        "rope": _rope(config),
        "tie_word_embeddings": bool(config.get("tie_word_embeddings", False)),
        "attention_bias": bool(config.get("attention_bias", False)),
        "mlp_bias": bool(config.get("mlp_bias", False)),
    }


def _rope(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rotary settings of the old form (rope_theta, rope_scaling) or the new (rope_parameters) as one."""
    settings = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    theta = settings.pop("rope_theta", config.get("rope_theta"))
    kind = settings.pop("rope_type", settings.pop("type", "default"))
    settings.pop("type", None)
    return {"rope_theta": float(10000.0 if theta is None else theta), "rope_type": kind, **settings}
