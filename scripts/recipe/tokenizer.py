"""Text to token ids, exactly as sentencepiece does it, several times as fast.

`tokenizer.model` is the ground truth. Tokenizers made from it by others are not: transformers 5.23's own conversion
of a bare `tokenizer.model` ranks merges by piece id and drops a leading space, so a quarter of real texts differ.
Literals such as `</s>` in a text are plain text here, never control tokens.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import sentencepiece

    from scripts.recipe.word_memo import WordMemo

Ids = NDArray[np.unsignedinteger[Any]]

SPACE = "\u2581"
"""How sentencepiece writes a space inside a piece."""
# Serialised ModelProto.normalizer_spec.add_dummy_prefix = false (fields 3 and 3). Protobuf merges repeated
# messages, the last value wins: appended to a model it switches the leading space off and nothing else.
_NO_PREFIX = b"\x1a\x02\x18\x00"
# Text that every normalisation but the identity would change: widths, ligatures, marks, spaces of all kinds.
_PROBE = "  a \t b\u3000\u00a0\ufb01\uff21 e\u0301\u200d\u2028 \u212b\u00ad\ufeff\r\n c  "
# Compiling the memo takes as long as sentencepiece for 5 MB.
_WORTH_BYTES = 1 << 22


class TokenizerError(ValueError):
    """A tokenizer that is missing, damaged or not usable for packing."""


class Tokenizer(ABC):
    """Encodes texts without adding control tokens. Made by `load_tokenizer`."""

    memo = False
    """Whether words are remembered, which makes one process faster than several."""

    def __init__(self, vocab_size: int, bos_id: int, eos_id: int) -> None:
        self.vocab_size = vocab_size
        self.bos_id = bos_id
        self.eos_id = eos_id
        self.dtype: type[np.unsignedinteger[Any]] = np.uint16 if vocab_size <= 1 << 16 else np.uint32

    @abstractmethod
    def encode(self, text: str) -> Ids:
        """Return the ids of a text `[tokens]`, with the leading space that the tokenizer puts before it, if any."""

    @abstractmethod
    def encode_continuation(self, text: str) -> Ids:
        """Return the ids of a text that goes on where another one stopped: no leading space is put before it."""

    def encode_all(self, texts: Sequence[str], continued: Sequence[bool]) -> tuple[Ids, NDArray[np.int64]]:
        """Return the ids of many texts, one after another, and how many each has.

        Args:
            texts: many at once, since that may be faster.
            continued: for each text, whether to encode it as `encode_continuation` does.
        """
        ways = (self.encode, self.encode_continuation)
        found = [ways[bool(goes_on)](text) for text, goes_on in zip(texts, continued, strict=True)]
        counts = np.fromiter(map(len, found), np.int64, len(found))
        return np.concatenate([np.zeros(0, self.dtype), *found]), counts

    @abstractmethod
    def decode(self, ids: Ids) -> str:
        """Return the text of ids in the midst of a row, to show to people; control tokens may be left out."""


class SentencePieceTokenizer(Tokenizer):
    """sentencepiece, with a memo of words where that is provably the same.

    The memo is right if no piece has a space after another character, since then no merge crosses the start of a
    word; if normalisation is the identity; and if scores are ranks (whole numbers), as in BPE. Llama's are so.
    """

    def __init__(self, model: bytes, memo: bool = True) -> None:
        import sentencepiece

        try:
            self._plain = sentencepiece.SentencePieceProcessor(model_proto=model)
            self._continued = sentencepiece.SentencePieceProcessor(model_proto=model + _NO_PREFIX)
            size, bos, eos = self._plain.vocab_size(), self._plain.bos_id(), self._plain.eos_id()
        except (RuntimeError, OSError) as error:
            raise TokenizerError(f"not a sentencepiece model: {str(error).splitlines()[0]}") from None
        if bos < 0 or eos < 0:
            raise TokenizerError(f"has no begin or end token (bos id {bos}, eos id {eos}); training needs both")
        super().__init__(size, bos, eos)
        self.prefix = SPACE if self._plain.normalize("a") == f"{SPACE}a" else ""
        self.memo = memo and self._words_are_independent()
        self._seen = 0

    @property
    def processor(self) -> "sentencepiece.SentencePieceProcessor":
        """The sentencepiece processor itself, for conversions and tests."""
        return self._plain

    @cached_property
    def _words(self) -> "WordMemo":
        from scripts.recipe.word_memo import WordMemo  # loading the compiler takes 0.3 s, and few programs want it

        line_break = self._continued.encode("\n")[0] if self._lines_are_independent() else None
        return WordMemo(self._continued.encode, self.dtype, line_break)

    def _words_are_independent(self) -> bool:
        plain = self._plain
        for index in range(self.vocab_size):
            piece = plain.id_to_piece(index)
            if SPACE in piece.lstrip(SPACE) or not float(plain.get_score(index)).is_integer():
                return False
        return bool(plain.normalize(_PROBE) == self.prefix + _PROBE.replace(" ", SPACE))

    def _lines_are_independent(self) -> bool:
        """Whether no merge crosses a line break, which is one token: in Llama's vocabulary it is a byte."""
        texts = map(self._plain.id_to_piece, range(self.vocab_size))
        return len(self._continued.encode("\n")) == 1 and all("\n" not in text or text == "\n" for text in texts)

    def encode(self, text: str) -> Ids:
        """As sentencepiece's own `encode`."""
        return self._ids(self._plain, text)

    def encode_continuation(self, text: str) -> Ids:
        """As sentencepiece's own `encode` with `add_dummy_prefix` off."""
        return self._ids(self._continued, text)

    def encode_all(self, texts: Sequence[str], continued: Sequence[bool]) -> tuple[Ids, NDArray[np.int64]]:
        """As the two above, with the memo as soon as there is enough to do."""
        self._seen += sum(map(len, texts))
        if not self.memo or self._seen < _WORTH_BYTES:
            return super().encode_all(texts, continued)
        try:
            pieces = [(text.replace(SPACE, " ") if SPACE in text else text).encode() for text in texts]
        except UnicodeEncodeError as error:
            raise _not_utf8(str(error.object)) from None
        return self._words.ids(pieces, np.array(continued, bool) if self.prefix else np.ones(len(texts), bool))

    def _ids(self, processor: "sentencepiece.SentencePieceProcessor", text: str) -> Ids:
        try:
            return np.asarray(processor.encode(text), dtype=self.dtype)
        except (RuntimeError, UnicodeEncodeError):
            raise _not_utf8(text) from None

    def decode(self, ids: Ids) -> str:
        """Return the text of ids; a leading space is kept."""
        return str(self._continued.decode(ids.tolist()))


def _not_utf8(text: str) -> TokenizerError:
    return TokenizerError(f"text can't be encoded as UTF-8: {text[:80]!r}; clean the source again")


class FastTokenizer(Tokenizer):
    """A `tokenizer.json` as it is: for base models that ship no `tokenizer.model`."""

    def __init__(self, definition: str, bos: str, eos: str) -> None:
        import tokenizers

        self._plain = tokenizers.Tokenizer.from_str(definition)
        self._continued = tokenizers.Tokenizer.from_str(_without_prefix(definition))
        for tokenizer in (self._plain, self._continued):
            tokenizer.no_truncation()
            tokenizer.no_padding()
            tokenizer.encode_special_tokens = True  # literals in a text stay text
        bos_id, eos_id = self._plain.token_to_id(bos), self._plain.token_to_id(eos)
        if bos_id is None or eos_id is None:
            raise TokenizerError(f"tokenizer.json holds no token {bos!r} or {eos!r}, which tokenizer_config.json names")
        # Ids may have gaps; what matters is the largest.
        size = max(self._plain.get_vocab(with_added_tokens=True).values()) + 1
        super().__init__(size, bos_id, eos_id)

    def encode(self, text: str) -> Ids:
        """As `tokenizers`, without the post-processor's control tokens."""
        return np.asarray(self._plain.encode(text, add_special_tokens=False).ids, dtype=self.dtype)

    def encode_continuation(self, text: str) -> Ids:
        """As `encode`, without the leading space of a Prepend or Metaspace step."""
        return np.asarray(self._continued.encode(text, add_special_tokens=False).ids, dtype=self.dtype)

    def decode(self, ids: Ids) -> str:
        """As `tokenizers`; a leading space may be lost."""
        return str(self._plain.decode(ids.tolist(), skip_special_tokens=True))


def load_tokenizer(folder: Path) -> Tokenizer:
    """Return the tokenizer of a model folder: `tokenizer.model`, else `tokenizer.json`.

    Raises:
        TokenizerError: neither is there, one is damaged, or begin and end tokens are unknown.
    """
    model, fast = folder / "tokenizer.model", folder / "tokenizer.json"
    try:
        if model.is_file():
            return SentencePieceTokenizer(model.read_bytes())
        if fast.is_file():
            config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
            bos, eos = _token(config, "bos_token"), _token(config, "eos_token")
            return FastTokenizer(fast.read_text(encoding="utf-8"), bos, eos)
    except (OSError, ValueError) as error:
        raise TokenizerError(f"{folder}: tokenizer: {error}") from None
    raise TokenizerError(f"{folder}: holds neither tokenizer.model nor tokenizer.json; download or create one of them")


def _token(config: dict[str, Any], key: str) -> str:
    """Return a token's text; transformers writes it as a string or as an object with `content`."""
    value = config.get(key)
    text = value.get("content") if isinstance(value, dict) else value
    if not isinstance(text, str):
        raise TokenizerError(f"tokenizer_config.json names no {key}")
    return text


def _without_prefix(definition: str) -> str:
    """Return a `tokenizer.json` whose normaliser and pre-tokeniser put no space before a text."""
    content = json.loads(definition)
    for part in ("normalizer", "pre_tokenizer"):
        step = content.get(part)
        steps = step.get("normalizers", step.get("pretokenizers", [step])) if step else []
        for inner in steps:
            if inner["type"] == "Metaspace":
                inner["prepend_scheme"] = "never"
                inner.pop("add_prefix_space", None)
            if inner["type"] == "Prepend":
                inner["prepend"] = ""
            if inner["type"] == "ByteLevel":
                inner["add_prefix_space"] = False
    return json.dumps(content)
