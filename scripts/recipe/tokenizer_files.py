"""The Hugging Face files of a tokenizer, made from `tokenizer.model` by our own conversion and checked against it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts.recipe.prompt_format import FORMATS
from scripts.recipe.tokenizer import SPACE, SentencePieceTokenizer, TokenizerError

if TYPE_CHECKING:
    import tokenizers

# A new model gets the announcement's format; training puts that of its mixture in its place.
CHAT_TEMPLATE = FORMATS["metharme"].chat_template()
# What conversions get wrong: runs of spaces, bytes, marks outside the vocabulary, control tokens as plain text.
_HOSTILE = (
    *(" " * n + "x" + " " * n for n in range(40)),
    *("a" * n + " " + "=" * n for n in (1, 2, 3, 5, 7, 31, 100)),
    "a  b   c    d\n\n\n\t\te \r\n f ",
    "\x00\x01\x7f \ufeff\u200b\u3000\u00a0 \ufffd",
    "\u2581\u2581a\u2581 \u2581b",
    "<s></s><unk><0x41><|system|><|user|><|model|></s",
    "\u4e2d\u6587\u5b57 \u0e44\u0e17\u0e22 \U0001f469\u200d\U0001f680 e\u0301 \ufdfd \U00010400",
)


def write_tokenizer_files(model: bytes, out: Path, model_max_length: int) -> SentencePieceTokenizer:
    """Write `tokenizer.model` and what `AutoTokenizer` needs to give sentencepiece's own ids, begin token first.

    Args:
        model: bytes of `tokenizer.model`, a sentencepiece BPE with byte fallback.
        out: model folder.
        model_max_length: longest context, in tokens.

    Raises:
        TokenizerError: not such a model, or one that `tokenizers` can't reproduce.
    """
    tokenizer = SentencePieceTokenizer(model)
    names = _control_tokens(tokenizer)
    config = {
        **names,
        "add_bos_token": True,
        "add_eos_token": False,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "model_max_length": model_max_length,
        # Not LlamaTokenizer: transformers 5 would rebuild the pipeline instead of loading tokenizer.json as it is.
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    (out / "tokenizer.model").write_bytes(model)
    (out / "tokenizer.json").write_text(converted(tokenizer).to_str(pretty=True) + "\n", encoding="utf-8")
    (out / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    for name, content in (("tokenizer_config.json", config), ("special_tokens_map.json", names)):
        write_json(out / name, content)
    return tokenizer


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a small JSON file: sorted keys, two spaces, LF."""
    path.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def converted(tokenizer: SentencePieceTokenizer) -> "tokenizers.Tokenizer":
    """Return the same tokenizer for the `tokenizers` library, after checking it on every piece and hostile texts.

    Raises:
        TokenizerError: a text on which the two differ.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors

    processor, names = tokenizer.processor, _control_tokens(tokenizer)
    ids = range(tokenizer.vocab_size)
    vocab = {processor.id_to_piece(i): i for i in ids}
    model = models.BPE(
        vocab=vocab, merges=_merges(tokenizer), unk_token=names["unk_token"], fuse_unk=True, byte_fallback=True
    )
    made = Tokenizer(model)
    prepend = [normalizers.Prepend(tokenizer.prefix)] if tokenizer.prefix else []
    made.normalizer = normalizers.Sequence([*prepend, normalizers.Replace(" ", SPACE)])
    strip = [decoders.Strip(" ", 1, 0)] if tokenizer.prefix else []
    made.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    control = [processor.id_to_piece(i) for i in ids if processor.is_control(i) or processor.is_unknown(i)]
    made.add_special_tokens([AddedToken(piece, normalized=False, special=True) for piece in control])
    bos = names["bos_token"]
    made.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, tokenizer.bos_id)]
    )
    _require_equal(made, tokenizer)
    return made


def _control_tokens(tokenizer: SentencePieceTokenizer) -> dict[str, str]:
    """Return the names transformers asks for; padding is the end token, as in the original run."""
    processor = tokenizer.processor
    bos, eos, unk = (processor.id_to_piece(i) for i in (tokenizer.bos_id, tokenizer.eos_id, processor.unk_id()))
    return {"bos_token": bos, "eos_token": eos, "pad_token": eos, "unk_token": unk}


def _merges(tokenizer: SentencePieceTokenizer) -> list[tuple[str, str]]:
    """Return the merges in the order in which sentencepiece prefers them: by the score of the piece they make.

    The id of a piece is no substitute: Llama-2's runs of spaces have low ids and the lowest score, -1e9.
    """
    processor = tokenizer.processor
    scores = {}
    for index in range(tokenizer.vocab_size):
        if not (processor.is_control(index) or processor.is_unknown(index) or processor.is_byte(index)):
            scores[processor.id_to_piece(index)] = processor.get_score(index)
    # Equal scores: sentencepiece takes the leftmost pair, which has the longer left part in runs.
    found = sorted(
        (-score, -cut, piece[:cut], piece[cut:])
        for piece, score in scores.items()
        for cut in range(1, len(piece))
        if piece[:cut] in scores and piece[cut:] in scores
    )
    return [(left, right) for _, _, left, right in found]


def _require_equal(made: "tokenizers.Tokenizer", tokenizer: SentencePieceTokenizer) -> None:
    """Compare with sentencepiece, control tokens taken as plain text."""
    processor = tokenizer.processor
    pieces = [processor.id_to_piece(i).replace(SPACE, " ") for i in range(tokenizer.vocab_size)]
    texts = [*_HOSTILE, *pieces]
    made.encode_special_tokens = True
    for text, found in zip(texts, made.encode_batch(texts, add_special_tokens=False), strict=True):
        if found.ids != processor.encode(text):
            raise TokenizerError(
                f"tokenizer.json would differ from tokenizer.model on {text!r}: {found.ids[:12]} instead of "
                f"{processor.encode(text)[:12]}; only BPE models with byte fallback can be converted"
            )
    made.encode_special_tokens = False
