"""The release: what is written about a finished model, and in which forms it is given away."""

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from scripts.recipe.base import Name, Spec, Strict
from scripts.recipe.pack import PackSettings
from scripts.recipe.prompt_format import FormatName
from scripts.recipe.report import SourceFacts, SuiteFacts
from scripts.recipe.train import Cadence, Launch, Numerics, Optimizer

GgufType = Literal["f16", "q8_0"]
Owner = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=96)]
LicenseName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9.-]*$", max_length=100)]
Line = Annotated[str, StringConstraints(pattern=r"^[^\r\n]*$", max_length=500)]

NOTICES = {
    "llama2": "Llama 2 is licensed under the LLAMA 2 Community License, Copyright (c) Meta Platforms, Inc. "
    "All Rights Reserved."
}
"""Attribution lines that licences ask for, by the hub's name of the licence."""


class ReleaseSettings(Strict):
    """What `snakemake release` builds and `snakemake publish` uploads."""

    models: list[Name] | None = None
    """Models to release; unset: every trained and every merged one."""
    license: Line = "other"
    """Licence of the released weights, as the hub writes it (`llama2`, `apache-2.0`). Who trains on a base model is
    bound by the base's licence, so there is no safe guess."""
    license_name: LicenseName = ""
    """Its name, for `other`, in lower case with dashes: the hub wants name and link with `other`, and the name only
    there."""
    license_link: Line = ""
    """Where its text stands, for `other`."""
    notice: Line | None = None
    """Text of the file `NOTICE` beside the weights, for licences that ask for an attribution; unset: with `llama2` the
    line that its agreement asks for, else no such file."""
    description: str = ""
    """Paragraphs of Markdown at the head of every model card: what it is for and what it must not be used for."""
    gguf: list[GgufType] = ["f16", "q8_0"]
    """GGUF files for llama.cpp and its clients: 16 and 8 bits. Empty: none."""
    owner: Owner | None = None
    """Account or organisation on the hub that `snakemake publish` uploads to; cards name released parents there."""
    private: bool = True
    """Whether a repository that `snakemake publish` creates is private; an existing one stays as it is."""

    @property
    def notice_text(self) -> str:
        """Text of `NOTICE`; empty: none."""
        return NOTICES.get(self.license, "") if self.notice is None else self.notice

    @model_validator(mode="after")
    def _named_license(self) -> Self:
        if self.license_name and self.license != "other":
            raise ValueError(f"license_name goes with `license: other`, found {self.license!r}; remove it")
        if self.license == "other" and bool(self.license_name) != bool(self.license_link):
            found = "license_name" if self.license_name else "license_link"
            raise ValueError(f"the hub wants license_name and license_link with `other`; found {found} alone")
        return self


class SourceCard(SourceFacts):
    """What a card says of one source."""

    hub: str = ""
    """`owner/name` of a data set of the hub, if it is from there."""
    place: str = ""
    """Hub repository or web address that it was fetched from; empty for a local folder."""
    private: bool = False


class TrainingFacts(Strict):
    """One fine-tune before the release, with all that decided it."""

    model: Name
    base: Name
    mixture: Name
    preset: str
    pack: PackSettings
    optimizer: Optimizer
    numerics: Numerics
    cadence: Cadence
    launch: Launch


class ReleaseSpec(Spec):
    """One released model. Inputs: the model, all that lies before it, its benchmarks; in this order."""

    recipe: Name
    model: Name
    kind: str
    """Stage that made the model."""
    settings: ReleaseSettings = ReleaseSettings()
    format: FormatName | None = None
    """Prompt format of its chat template; none where it is a published model's."""
    base_models: list[str]
    """What it was directly made from: names on the hub where they have one."""
    hub_bases: dict[str, list[str]] = {}
    """For each of `base_models`: its name on the hub, or those of what it was made from; empty where one has none."""
    trainings: list[TrainingFacts] = []
    """Fine-tunes of the lineage, oldest first."""
    sources: dict[Name, SourceCard] = {}
    """Sources of the mixtures of the lineage, the missing ones too."""
    missing_sources: list[Name] = []
    suites: dict[Name, SuiteFacts] = {}
    lineage: dict[str, list[str]] = Field(default_factory=dict)
    """For each artifact up to the model what it is made from."""
    recipe_file: str = ""
    """YAML of a recipe that builds this model alone (`scripts.recipe.cut`). Text: a mixture's sources have an order,
    which JSON with sorted keys would lose."""

    def identity(self) -> dict[str, object]:
        """All but which other models are released, and where to: what the card takes from it is `hub_bases`."""
        whole = self.model_dump(mode="json")
        for key in ("models", "owner", "private"):
            del whole["settings"][key]
        return whole
