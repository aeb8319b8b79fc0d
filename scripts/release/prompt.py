"""The card's example of the prompt format, rendered by the chat template itself, so that the two can't part."""

from jinja2.sandbox import ImmutableSandboxedEnvironment

from scripts.recipe.prompt_format import FORMATS, FormatName

# Two exchanges: what stands between turns differs behind a user's and behind the model's.
_CONVERSATION = (
    ("system", "who you are"),
    ("user", "a question"),
    ("assistant", "an answer"),
    ("user", "another question"),
    ("assistant", "another answer"),
)


def prompt_section(name: FormatName, eos: str) -> list[str]:
    """Return the card's lines about the prompt format.

    Args:
        name: prompt format of the model.
        eos: text of its end token, shown where the template writes that token.
    """
    messages = [{"role": role, "content": text} for role, text in _CONVERSATION]
    template = ImmutableSandboxedEnvironment().from_string(FORMATS[name].chat_template())
    shown = template.render(messages=messages, bos_token="", eos_token=eos, add_generation_prompt=False)
    return [
        "## Prompt format",
        f"{FORMATS[name].title}; `chat_template.jinja` writes it, `sillytavern/` and `koboldcpp/` hold presets for",
        "these clients. Behind the begin token, with the end token behind each answer:",
        "",
        *(f"    {line}" for line in shown.split("\n")),
        "",
    ]
