"""Settings that ask for foreign code, however deep they lie."""

from typing import Any

import pytest

from scripts.artifact.foreign import asks_for_code


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({"auto_map": {"AutoModel": "x.Y"}}, "auto_map"),
        ({"text_config": {"auto_map": {"AutoModel": "x.Y"}}}, "auto_map"),
        ({"layers": [{"custom_generate": "me/mine"}]}, "custom_generate"),
        ({"trust_remote_code": True}, "trust_remote_code"),
        ({"model_file": "weights.bin"}, "model_file"),
        ({"attn_implementation": "owner/kernel"}, "attn_implementation"),
        ({"_attn_implementation_internal": "owner/kernel"}, "_attn_implementation_internal"),
        ({"_attn_implementation_autoset": True}, "_attn_implementation_autoset"),
        ({"experts_implementation": "owner/kernel"}, "experts_implementation"),
        ({"sub": [{"_experts_implementation": "owner/kernel"}]}, "_experts_implementation"),
    ],
)
def test_a_key_that_asks_for_code_is_named(config: dict[str, Any], key: str) -> None:
    assert asks_for_code(config) == key


@pytest.mark.parametrize("config", [{}, {"trust_remote_code": False}, {"auto_map": None}, [1, "auto_map"], "auto_map"])
def test_what_asks_for_nothing_passes(config: Any) -> None:
    assert asks_for_code(config) == ""


def test_transformers_still_pops_such_a_key_from_a_config() -> None:
    """Why the key without underscore is on the list; should this end, the list may only be longer than needed."""
    from transformers import LlamaConfig

    assert LlamaConfig.from_dict({"attn_implementation": "eager"})._attn_implementation == "eager"
