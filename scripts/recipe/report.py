"""The report: what it shows beside the artifacts themselves."""

from pydantic import Field

from scripts.recipe.base import Name, Spec, Strict
from scripts.recipe.published import Published


class SourceFacts(Strict):
    """What a reader must know of one source."""

    title: str
    license: str
    redistributable: bool
    known_problems: list[str]


class TaskSource(Strict):
    """The hub's name of a task's data, for the exports that name it."""

    dataset: str
    """`owner/name` on the hub, else the name of our data set."""
    revision: str = ""


class SuiteFacts(Strict):
    """What a reader must know of one suite."""

    title: str
    protocol: str
    published_table: Name | None = None
    """Table of the published figures whose rows these tasks repeat."""
    data: dict[Name, TaskSource] = {}
    """For each task with a data set: where that comes from."""


class ReportSpec(Spec):
    """One report page over all artifacts of a recipe."""

    recipe: Name
    title: str
    seed: int
    sources: dict[Name, SourceFacts]
    missing_sources: list[Name]
    models: dict[Name, list[str]]
    """For each model of the table: its kind, then the models it is made from."""
    suites: dict[Name, SuiteFacts] = {}
    published: list[Published] = []
    """Printed figures to hold ours against."""
    places: dict[Name, str] = {}
    """For each download: where its files are from (hub repository and commit, or web address; no local path)."""
    lineage: dict[str, list[str]] = Field(default_factory=dict)
    """For each artifact of the recipe (`stage/name`) the artifacts that it reads; without it the models alone."""
