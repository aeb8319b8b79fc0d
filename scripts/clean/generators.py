"""Who wrote the answers: the announcement purged role-play that an OpenAI model had written."""

import re

from scripts.recipe.clean import CleanSpec

# Model and service names as logs note them; gpt4all, gpt-j, gpt-neo and gpt4-x-... are other people's models.
_OPENAI = re.compile(
    r"(?:.*/)?(?:(?:azure[ _-]?)?openai\b.*|chat-?gpt\b.*|gpt-?[345](?:\.\d)?o?(?!-?x-)(?:[-_ :@.].*)?"
    r"|(?:text|code)-davinci\b.*|davinci(?:-00\d)?|o[134](?:-(?:mini|preview|pro).*)?)",
    re.IGNORECASE,
)


def by_openai(name: str) -> bool:
    """Whether a model's or service's name is one of OpenAI's."""
    return _OPENAI.fullmatch(name.strip()) is not None


def purged(spec: CleanSpec, generators: tuple[str, ...]) -> str:
    """Return why the generator policy refuses a row, or nothing.

    A row's own word goes before the source file's: chats of one folder may come from several models.
    """
    if spec.purpose != "roleplay" or spec.filters.openai_roleplay == "keep":
        return ""
    named = [name for name in generators if by_openai(name)]
    if named:
        return f"role-play written by {named[0][:60]}"
    return "role-play of a source by an OpenAI model" if not generators and spec.generator == "openai" else ""
