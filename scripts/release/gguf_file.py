"""GGUF for llama.cpp and its clients, written with the `gguf` library, one tensor in memory at a time."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from scripts.artifact.digest import ArtifactError
from scripts.artifact.stage import StageError
from scripts.artifact.tensors import TensorEntry, model_files, read_header
from scripts.recipe.release import GgufType, ReleaseSettings
from scripts.recipe.tokenizer import SentencePieceTokenizer, TokenizerError

_ARCH = "llama"
_QUANT = {"f16": gguf.GGMLQuantizationType.F16, "q8_0": gguf.GGMLQuantizationType.Q8_0}
_FILE_TYPE = {"f16": gguf.LlamaFileType.MOSTLY_F16, "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0}
_F16_MAX = float(np.finfo(np.float16).max)
# Q8_0 stores 32 values of a row with one scale.
_BLOCK = 32


@dataclass(frozen=True)
class _Tensor:
    """One tensor of the file to write."""

    name: str
    """GGUF's name."""
    path: Path
    entry: TensorEntry
    heads: int
    """Heads whose rows are reordered; 0: none."""
    type: gguf.GGMLQuantizationType


def write_gguf(model: Path, out: Path, kind: GgufType, name: str, licence: ReleaseSettings) -> None:
    """Write a Llama model as GGUF.

    Args:
        model: folder with config.json, safetensors and tokenizer.model.
        out: the file to write.
        kind: `f16`, or `q8_0`: 8 bits with one scale for 32 weights. Norms stay fp32 in both.
        name: what clients call the model.
        licence: settings with the licence, written as on the model card.

    Raises:
        StageError: another architecture, rope scaling or tokenizer than GGUF is written for, or a weight that is
            NaN, infinite or too large for fp16.
    """
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    if config.get("model_type") != "llama":
        raise StageError(f"{model}: GGUF is written for model_type llama, found {config.get('model_type')!r}; {_OFF}")
    if config.get("attention_bias") or config.get("mlp_bias"):
        raise StageError(f"{model}: GGUF is written for Llama without biases, found attention_bias or mlp_bias; {_OFF}")
    writer = gguf.GGUFWriter(out, _ARCH)
    writer.add_file_type(_FILE_TYPE[kind])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_name(name)
    writer.add_license(licence.license)
    if licence.license_name:
        writer.add_license_name(licence.license_name)
    if licence.license_link:
        writer.add_license_link(licence.license_link)
    _add_shape(writer, config, model)
    _add_tokenizer(writer, config, model)
    try:
        tensors = list(_tensors(model, config, kind))
        for tensor in tensors:
            shape, size = tensor.entry.shape, _bytes(tensor)
            writer.add_tensor_info(tensor.name, shape, np.dtype(np.float32), size, raw_dtype=tensor.type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for tensor in tensors:
            writer.write_tensor_data(_converted(tensor))
    except ArtifactError as error:
        raise StageError(str(error)) from None
    finally:
        writer.close()


_OFF = "set `release.gguf: []` to release it without"


def _add_shape(writer: gguf.GGUFWriter, config: dict[str, Any], model: Path) -> None:
    heads = config["num_attention_heads"]
    # transformers 5 writes rope_parameters, earlier ones rope_theta and rope_scaling.
    rope = {**(config.get("rope_scaling") or {}), **(config.get("rope_parameters") or {})}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in {"default", "linear"}:
        raise StageError(f"{model}: rope scaling {kind!r}; GGUF is written for default and linear; {_OFF}")
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(rope.get("rope_theta") or config.get("rope_theta") or 10000.0)
    if kind == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(rope["factor"]))


def _add_tokenizer(writer: gguf.GGUFWriter, config: dict[str, Any], model: Path) -> None:
    """Add the pieces of tokenizer.model. The markers of prompt formats are plain text in training, so also here."""
    try:
        tokenizer = SentencePieceTokenizer((model / "tokenizer.model").read_bytes(), memo=False)
    except TokenizerError as error:
        raise StageError(f"{model / 'tokenizer.model'}: {error}; {_OFF}") from None
    processor, size = tokenizer.processor, tokenizer.vocab_size
    pieces, scores, types = [], [], []
    for index in range(size):
        pieces.append(processor.id_to_piece(index).encode())
        scores.append(float(processor.get_score(index)))
        types.append(_piece_type(processor, index))
    # Rows of the embedding behind the last piece: padding to a round number, or tokens added later.
    added = _added_tokens(model)
    for index in range(size, config["vocab_size"]):
        text, special = added.get(index, (f"[PAD{index}]", None))
        pieces.append(text.encode())
        scores.append(-1000.0)
        kinds = {None: gguf.TokenType.UNUSED, True: gguf.TokenType.CONTROL, False: gguf.TokenType.USER_DEFINED}
        types.append(kinds[special])
    writer.add_tokenizer_model("llama")
    writer.add_token_list(pieces)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_bos_token_id(tokenizer.bos_id)
    writer.add_eos_token_id(tokenizer.eos_id)
    writer.add_unk_token_id(processor.unk_id())
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(bool(tokenizer.prefix))
    template = model / "chat_template.jinja"
    if template.is_file():
        writer.add_chat_template(template.read_text(encoding="utf-8"))


def _piece_type(processor: Any, index: int) -> gguf.TokenType:
    if processor.is_unknown(index):
        return gguf.TokenType.UNKNOWN
    if processor.is_control(index):
        return gguf.TokenType.CONTROL
    if processor.is_byte(index):
        return gguf.TokenType.BYTE
    return gguf.TokenType.UNUSED if processor.is_unused(index) else gguf.TokenType.NORMAL


def _added_tokens(model: Path) -> dict[int, tuple[str, bool]]:
    """Return {id: (text, special)} of tokens that stand in tokenizer.json only."""
    path = model / "tokenizer.json"
    if not path.is_file():
        return {}
    content = json.loads(path.read_text(encoding="utf-8"))
    return {token["id"]: (token["content"], bool(token["special"])) for token in content.get("added_tokens", [])}


def _tensors(model: Path, config: dict[str, Any], kind: GgufType) -> Iterator[_Tensor]:
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    heads = {"q_proj": config["num_attention_heads"]}
    heads["k_proj"] = config.get("num_key_value_heads") or heads["q_proj"]
    for path in model_files(model):
        for entry in read_header(path):
            if entry.name.endswith("rotary_emb.inv_freq"):  # transformers below 4.32 wrote what the config decides
                continue
            if entry.name == "lm_head.weight" and config.get("tie_word_embeddings"):
                continue
            name = names.get_name(entry.name, try_suffixes=(".weight",))
            if name is None:
                raise StageError(f"{path}: GGUF has no name for the tensor {entry.name}; {_OFF}")
            type_ = gguf.GGMLQuantizationType.F32 if len(entry.shape) == 1 else _QUANT[kind]
            if type_ == gguf.GGMLQuantizationType.Q8_0 and entry.shape[-1] % _BLOCK:
                type_ = gguf.GGMLQuantizationType.F16
            yield _Tensor(name, path, entry, heads.get(entry.name.split(".")[-2], 0), type_)


def _bytes(tensor: _Tensor) -> int:
    block, size = gguf.GGML_QUANT_SIZES[tensor.type]
    return int(np.prod(tensor.entry.shape)) // block * size


def _converted(tensor: _Tensor) -> NDArray[Any]:
    """Return a tensor's bytes in its GGUF type.

    Raises:
        StageError: a value that is no number, or that fp16 can't hold.
    """
    values = read_tensor(tensor.path, tensor.entry)
    if tensor.heads:
        values = interleaved(values, tensor.heads)
    # Of NaN every comparison is false, so the largest value is asked for finiteness first; in every type, since a NaN
    # in 8 bits spoils its whole block.
    largest = float(np.abs(values).max(initial=0.0))
    if not math.isfinite(largest):
        raise StageError(f"{tensor.path}: {tensor.entry.name} holds {largest:g}, which is no weight; {_OFF}")
    if tensor.type == gguf.GGMLQuantizationType.F16 and largest > _F16_MAX:
        raise StageError(f"{tensor.path}: {tensor.entry.name} holds {largest:g}, fp16 ends at {_F16_MAX:g}; {_OFF}")
    return np.ascontiguousarray(gguf.quants.quantize(values, tensor.type))


def interleaved(values: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Return rows of a query or key matrix `[heads * width, hidden]` in the order of llama.cpp's rotation.

    transformers rotates dimension i of a head with i + width / 2, llama.cpp dimension 2 i with 2 i + 1.
    """
    rows, hidden = values.shape
    halves = values.reshape(heads, 2, rows // heads // 2, hidden)
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(rows, hidden)


def read_tensor(path: Path, entry: TensorEntry) -> NDArray[np.float32]:
    """Return a tensor of a safetensors file as fp32, exactly."""
    stored = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}.get(entry.dtype)
    if stored is None:
        raise StageError(f"{path}: {entry.name} is {entry.dtype}; GGUF is written from F32, F16 and BF16; {_OFF}")
    count = int(np.prod(entry.shape))
    raw = np.fromfile(path, dtype=np.dtype(stored).newbyteorder("<"), count=count, offset=entry.start)
    if entry.dtype == "BF16":  # the upper half of an fp32
        return (raw.astype(np.uint32) << 16).view(np.float32).reshape(entry.shape)
    return raw.astype(np.float32).reshape(entry.shape)
