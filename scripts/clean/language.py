"""In which language a conversation is held, judged on the beginning of its turns."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from scripts.clean.episode import Turn

HEAD_CHARS = 500
"""More text changes the verdict of hardly any conversation, and the time grows with it (2.75 MB a CPU second)."""
# Confidence is calibrated by length. On our samples in nine languages (tests/unit/test_clean_language.py) foreign
# texts of 60 characters or more have 0.6 or more; English ones that are taken for another language stay below 0.5.
CERTAIN = 0.5

# Nearly all rows are English and say so by their function words, at a twentieth of the identifier's time.
_ONLY_ENGLISH = "the and you your that this with from they which would what there were are his she their could when who"
_AND_OTHERS = "had has was for of to is it in he her i my"  # Dutch "was in", German "her"
_ENGLISH = frozenset(_ONLY_ENGLISH.split())
_COMMON = _ENGLISH.union(_AND_OTHERS.split())
_ENGLISH_SHARE = 0.15
"""Of 2,144 real English openings 94 % pass; the identifier takes none of these for another language."""


@lru_cache(maxsize=1)
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


@lru_cache(maxsize=1)
def known_languages() -> frozenset[str]:
    """Return the codes that the identifier can give."""
    return frozenset(_identifier().labels)


def head_of(turns: Sequence[Turn]) -> str:
    """Return the first 500 characters of what is said; the system text is left out, since it is often ours."""
    parts, length = [], 0
    for turn in turns:
        parts.append(turn.text[: HEAD_CHARS - length])
        length += len(parts[-1]) + 1
        if length >= HEAD_CHARS:
            break
    return "\n".join(parts)[:HEAD_CHARS]


def plainly_english(head: str) -> bool:
    """Return whether 15 % of the words are common ones, and three different ones English and nothing else."""
    words = head.lower().split()
    common = [word for word in words if word in _COMMON]
    return len(common) >= _ENGLISH_SHARE * len(words) and len(_ENGLISH.intersection(common)) >= 3


def foreign(turns: Sequence[Turn], allowed: Sequence[str], min_chars: int) -> str:
    """Return the language if it surely is none of `allowed`, else nothing.

    Args:
        turns: the conversation.
        allowed: ISO 639 codes.
        min_chars: shorter texts are never judged.
    """
    head = head_of(turns)
    if len(head) < min_chars:
        return ""
    if "en" in allowed and plainly_english(head):
        return ""
    language, confidence = _identifier().classify(head)
    # Without the confidence: the last bits of float32 may differ between processors, and must not reach a file.
    return str(language) if language not in allowed and confidence >= CERTAIN else ""
