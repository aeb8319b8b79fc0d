"""The blind test: a page on which people compare the candidates' replies without knowing whose they are."""

from typing import Annotated

from pydantic import Field

from scripts.recipe.base import Count, Name, Spec, Strict
from scripts.recipe.checkpoints import Candidate
from scripts.recipe.prompt_format import FormatName


class BlindTest(Strict):
    """What `snakemake blind-test` builds. Models and suites named here alone are run for it alone."""

    models: Annotated[list[Candidate], Field(min_length=2)]
    """Candidates: any models of the table, such as a base, its fine-tunes and their merge, and `MODEL@STEP` for a
    checkpoint that its training keeps (`cadence.keep_checkpoints`)."""
    suite: Name = "role-play"
    """Suite whose first task of format `generation` gives the replies: its `limit`, `turns` and `max_new_tokens`
    decide how many conversations are answered, and how far. Its other tasks give what votes are correlated with."""
    comparisons: Count = 60
    """Most comparisons on the page; every pair of candidates gets the same number, give or take one."""
    show_private: bool = False
    """Whether testers see conversations of sources that may not be republished."""
    title: str = "Which reply is better?"
    """Headline of the page. It should name neither candidates nor bases."""
    introduction: str = "Two candidates answered the same conversation. Say which of them you would rather talk to."
    """What testers are told first."""


class BlindSpec(Spec):
    """One page for testers. Inputs: one benchmark a candidate, in the order of the candidates; then the mixtures."""

    recipe: Name
    settings: BlindTest
    task: Name
    """Task of the suite that holds the replies."""
    formats: dict[Name, FormatName]
    """Prompt format of each mixture: its markers are not shown."""
    hidden_sources: list[Name] = []
    """Sources whose conversations are not shown."""
