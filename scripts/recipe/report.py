"""The report: what it shows beside the artifacts themselves."""

from pydantic import Field

from scripts.recipe.base import Name, Spec, Strict


class SourceFacts(Strict):
    """What a reader must know of one source."""

    title: str
    license: str
    redistributable: bool
    known_problems: list[str]


class ReportSpec(Spec):
    """One report page over all artifacts of a recipe."""

    recipe: Name
    title: str
    seed: int
    sources: dict[Name, SourceFacts]
    missing_sources: list[Name]
    models: dict[Name, list[str]]
    """For each model of the table: its kind, then the models it is made from."""
    published: Name | None
    lineage: dict[str, list[str]] = Field(default_factory=dict)
    """For each artifact of the recipe (`stage/name`) the artifacts that it reads; without it the models alone."""
