"""`compat.refusal_list`: drop what holds a substring, as the original builder did.

The original's 116 lower-case substrings are under a licence that forbids copying them here; these are our own, in their
manner: words, not patterns, with single ones such as "bias", "illegal" and "ethics" that fiction uses too (of the
original's list the data reference reports 0.9 % of human fiction dropped, none of it a refusal).
"""

SUBSTRINGS = (
    *("as an ai", "as a language model", "as an artificial", "i'm an ai", "i am an ai", "ai assistant", "ai model"),
    *("openai", "chatgpt", "my programming", "my guidelines", "content policy", "my training data", "large language"),
    *("i cannot assist", "i can't assist", "i cannot help with", "i cannot fulfill", "i'm unable to", "i am unable to"),
    *("i'm not able to", "i am not able to", "cannot provide", "can't provide", "i cannot engage", "i apologize, but"),
    *("i'm sorry, but", "i am sorry, but", "not appropriate", "inappropriate", "unethical", "ethics", "ethical"),
    *("illegal", "harmful", "bias", "stereotype", "discriminat", "offensive content", "diversity", "inclusiv"),
    *(
        "respectful",
        "responsible use",
        "morally wrong",
        "consent",
        "sensitive topic",
        "controversial",
        "misinformation",
    ),
    *("promote", "well-being", "it is important to note", "it's important to remember", "please note that"),
    *("i do not have personal", "i don't have personal", "personal opinions", "i do not have feelings"),
    *("against the law", "legal advice", "medical advice", "professional help", "safety guidelines"),
)


def substring_in(text: str) -> str | None:
    """Return the first substring of the list that a model turn holds, or None."""
    low = text.lower()
    return next((part for part in SUBSTRINGS if part in low), None)
