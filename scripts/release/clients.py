"""Presets for chat clients: what stands around each turn, as SillyTavern and KoboldCpp write it down.

Without them a client guesses from the chat template, and takes Metharme for another format.
"""

import json
from typing import Any

from scripts.recipe.prompt_format import FORMATS, FormatName

# A card's texts in the order in which training saw them; SillyTavern fills in what a character has.
_STORY = (
    "{{#if system}}{{system}}\n{{/if}}{{#if wiBefore}}{{wiBefore}}\n{{/if}}{{#if description}}{{description}}\n{{/if}}"
    "{{#if personality}}{{personality}}\n{{/if}}{{#if scenario}}{{scenario}}\n{{/if}}"
    "{{#if wiAfter}}{{wiAfter}}\n{{/if}}{{#if persona}}{{persona}}{{/if}}{{trim}}"
)


def client_files(name: FormatName, model: str, eos: str) -> dict[str, str]:
    """Return {path: text} of all presets.

    Args:
        name: prompt format of the model.
        model: name that the client shows.
        eos: text of the end token, which clients' backends read as that token.
    """
    return {
        "sillytavern/context.json": _json(_context(model)),
        "sillytavern/instruct.json": _json(_instruct(name, model, eos)),
        "sillytavern/sampler.json": _json(_SAMPLER),
        "koboldcpp/adapter.json": _json(_adapter(name, eos)),
    }


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _context(model: str) -> dict[str, Any]:
    return {
        "story_string": _STORY,
        "example_separator": "",
        "chat_start": "",
        "use_stop_strings": False,
        "names_as_stop_strings": True,
        "always_force_name2": False,
        "trim_sentences": False,
        "single_line": False,
        "name": model,
    }


def _instruct(name: FormatName, model: str, eos: str) -> dict[str, Any]:
    form = FORMATS[name]
    return {
        "input_sequence": form.user[0],
        "input_suffix": form.user[1],
        "output_sequence": form.model[0],
        "output_suffix": form.model[1] + eos + form.between,
        "system_sequence": form.system[0],
        "system_suffix": form.system[1],
        "story_string_prefix": form.system[0],
        "story_string_suffix": form.system[1],
        "first_input_sequence": "",
        "last_input_sequence": "",
        "first_output_sequence": "",
        "last_output_sequence": "",
        "last_system_sequence": "",
        "stop_sequence": (form.model[1] or eos),
        "sequences_as_stop_strings": True,
        "user_alignment_message": "",
        "system_same_as_user": False,
        "skip_examples": False,
        "wrap": False,  # a line break around each turn would be text that training never saw
        "macro": True,
        "names_behavior": "none",
        "activation_regex": "",
        "name": model,
    }


def _adapter(name: FormatName, eos: str) -> dict[str, str]:
    form = FORMATS[name]
    return {
        "system_start": form.system[0],
        "system_end": form.system[1],
        "user_start": form.user[0],
        "user_end": form.user[1],
        "assistant_start": form.model[0],
        "assistant_end": form.model[1] + eos + form.between,
    }


# Nothing is cut but what the model itself finds 20 times less likely than its best guess: no figure here was tuned.
_SAMPLER: dict[str, Any] = {
    "temp": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.05,
    "typical_p": 1.0,
    "tfs": 1.0,
    "rep_pen": 1.0,
    "rep_pen_range": 0,
    "mirostat_mode": 0,
    "temperature_last": True,
    "add_bos_token": True,
    "ban_eos_token": False,
    "skip_special_tokens": True,
}
