"""The release: what is written about a finished model, and in which forms it is given away."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from scripts.recipe.base import Name, Spec, Strict
from scripts.recipe.pack import PackSettings
from scripts.recipe.prompt_format import FormatName
from scripts.recipe.report import SourceFacts, SuiteFacts
from scripts.recipe.train import Cadence, Launch, Numerics, Optimizer

GgufType = Literal["f16", "q8_0"]
Owner = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=96)]
Line = Annotated[str, StringConstraints(pattern=r"^[^\r\n]*$", max_length=500)]


class ReleaseSettings(Strict):
    """What `snakemake release` builds and `snakemake publish` uploads."""

    models: list[Name] | None = None
    """Models to release; unset: every trained and every merged one."""
    license: Line = "other"
    """Licence of the released weights, as the hub writes it (`llama2`, `apache-2.0`). Who trains on a base model is
    bound by the base's licence, so there is no safe guess."""
    license_link: Line = ""
    """Where its text stands, for `other`."""
    description: str = ""
    """Paragraphs of Markdown at the head of every model card: what it is for and what it must not be used for."""
    gguf: list[GgufType] = ["f16", "q8_0"]
    """GGUF files for llama.cpp and its clients: 16 and 8 bits. Empty: none."""
    owner: Owner | None = None
    """Account or organisation on the hub that `snakemake publish` uploads to."""
    private: bool = True
    """Whether a repository that `snakemake publish` creates is private; an existing one stays as it is."""


class SourceCard(SourceFacts):
    """What a card says of one source."""

    hub: str = ""
    """`owner/name` on the hub, if it is from there."""
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
        """All but which other models are released, and where to: no byte of this release depends on it."""
        whole = self.model_dump(mode="json")
        for key in ("models", "owner", "private"):
            del whole["settings"][key]
        return whole
