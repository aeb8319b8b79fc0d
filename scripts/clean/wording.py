"""Wording that an adapter adds: which one a row gets, and templates with variants."""

import itertools
import random
import re
from collections.abc import Sequence
from functools import lru_cache

from scripts.recipe.base import keyed_hash
from scripts.recipe.compat import CleanCompat

MAX_VARIANTS = 256
"""A template gives no more than its first 256 variants."""
_ALTERNATIVES = re.compile(r"%\{([^{}]*)\}")
# The original builder's seed for everything (data reference, section 1.3, `rng`).
_ORIGINAL_SEED = 42


@lru_cache(maxsize=1024)
def expand(template: str) -> tuple[str, ...]:
    """Return all texts of a template, in which `%{a|b|c}` stands for one of a, b and c."""
    pieces = _ALTERNATIVES.split(template)
    choices = [piece.split("|") if index % 2 else [piece] for index, piece in enumerate(pieces)]
    return tuple("".join(text) for text in itertools.islice(itertools.product(*choices), MAX_VARIANTS))


class Wording:
    """Chooses by keyed hash, or as the original builder did where `compat` says so."""

    def __init__(self, seed: int, compat: CleanCompat | None = None) -> None:
        self.seed, self.compat = seed, compat or CleanCompat()
        # Not the global generator: one pass over one source draws from it, in the order of the rows.
        self._drawn = random.Random(_ORIGINAL_SEED) if self.compat.rng else None  # noqa: S311 no secret

    def pick(self, count: int, purpose: str, *key: object) -> int:
        """Return a number below `count` that depends on the seed, the purpose and the key only.

        Under `compat.rng` it depends on how many were drawn before instead.
        """
        if self._drawn is not None:
            return self._drawn.randrange(count)
        return keyed_hash(self.seed, purpose, *key) % count

    def choose(self, templates: Sequence[str], purpose: str, *key: object) -> str:
        """Return one text: first a template, then one of its variants.

        Under `compat.template_choice` evenly over all variants, so that a template with many of them wins.
        """
        if self.compat.template_choice:
            variants = [text for template in templates for text in expand(template)]
            return variants[self.pick(len(variants), purpose, *key)]
        variants = list(expand(templates[self.pick(len(templates), purpose, *key)]))
        return variants[self.pick(len(variants), f"{purpose}_variant", *key)] if len(variants) > 1 else variants[0]
