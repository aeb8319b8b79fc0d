"""Text repair that every source gets, and the escaping of the prompt format's own marks."""

import re
import unicodedata

# C1 code points are nearly always bytes of Windows-1252 read as Latin-1: 0x91 is a quote, not a control.
_C1 = {i: bytes([i]).decode("cp1252", "ignore") for i in range(0x80, 0xA0)}
_C0 = dict.fromkeys([*(i for i in range(0x20) if chr(i) not in "\t\n"), 0x7F, 0xFEFF])
_REPAIRS = {**_C0, **_C1, **dict.fromkeys(range(0xD800, 0xE000), "\ufffd")}
_CONTROLS = bytes(i for i in _C0 if i < 0x80)
_C1_RANGE = re.compile("[\x80-\x9f]")
_SURROGATE_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")

_MARKS = re.compile(r"<(?=(?:/?s|unk|\|(?:system|user|model|im_start|im_end|endoftext)\|)>)")

_MOJIBAKE = re.compile("[\u00c2\u00c3\u00e2][\u0080-\u00bf\u20ac\u201a-\u201e\u0192\u02c6\u2018-\u2026]")
# Windows-1252 has no character for five bytes; readers of such files keep them as C1 code points.
_CP1252_GAPS = frozenset("\x81\x8d\x8f\x90\x9d")


def repair_text(text: str) -> str:
    """Return `text` in NFC with LF line ends and without BOM, NUL, other controls or lone surrogates.

    Surrogate pairs become the character they mean, lone ones U+FFFD. Idempotent.
    """
    if _damaged(text):
        text = _SURROGATE_PAIR.sub(lambda m: m[0].encode("utf-16", "surrogatepass").decode("utf-16"), text)
        text = text.replace("\r\n", "\n").replace("\r", "\n").translate(_REPAIRS)
    return text if text.isascii() or unicodedata.is_normalized("NFC", text) else unicodedata.normalize("NFC", text)


def _damaged(text: str) -> bool:
    """Whether anything but the normal form needs repair; over bytes, which is far faster than a regex."""
    try:
        raw = text.encode()
    except UnicodeEncodeError:
        return True
    if len(raw.translate(None, _CONTROLS)) != len(raw):
        return True
    return not text.isascii() and ("\ufeff" in text or (b"\xc2" in raw and _C1_RANGE.search(text) is not None))


def fault_in(text: str) -> str:
    """Return what no repair can mend ("a NUL character", "a lone surrogate"), or nothing."""
    if "\0" in text:
        return "a NUL character"
    if undecoded(text) and undecoded(_SURROGATE_PAIR.sub("", text)):
        return "a lone surrogate"
    return ""


def undecoded(text: str) -> bool:
    """Whether text that was read with `surrogateescape` holds bytes that are not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def escape_marks(text: str) -> str:
    """Put a space behind the `<` of `<s>`, `</s>`, `<unk>`, `<|system|>`, `<|user|>`, `<|model|>` and ChatML's marks.

    Training text is one string in which these marks divide the roles and end the row, so a row that spells one
    out could speak in another role. A space stays visible to readers, survives NFC and stripping, and only
    lengthens the text, so that no new mark can arise. Must follow every replacement of text. Idempotent.
    """
    return _MARKS.sub("< ", text) if "<" in text else text


def repair_mojibake(text: str) -> str:
    """Return text whose UTF-8 was once read as Windows-1252 as it was meant; anything doubtful stays as it is."""
    if not _MOJIBAKE.search(text):
        return text
    try:
        raw = b"".join(c.encode("latin-1" if c in _CP1252_GAPS else "cp1252") for c in text)
        return raw.decode("utf-8")
    except UnicodeError:
        return text
