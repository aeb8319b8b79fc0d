"""The architecture behind a model of a recipe, also where nothing has been downloaded yet."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scripts.recipe.models import Recipe


class UnknownShapeError(ValueError):
    """A model whose architecture can't be known yet; the message says how to make it known."""


@dataclass(frozen=True)
class ModelShape:
    """What a Llama's memory and arithmetic depend on; names as in config.json."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int

    @property
    def kv_size(self) -> int:
        """Width of the keys, and of the values."""
        return self.hidden_size // self.num_attention_heads * self.num_key_value_heads

    @property
    def layer_params(self) -> int:
        """Parameters of one decoder layer: four attention and three feed-forward matrices, two norms."""
        attention = 2 * self.hidden_size * (self.hidden_size + self.kv_size)
        return attention + 3 * self.hidden_size * self.intermediate_size + 2 * self.hidden_size

    @property
    def outer_params(self) -> int:
        """Parameters outside the layers: input embedding, output matrix, last norm."""
        return 2 * self.vocab_size * self.hidden_size + self.hidden_size

    @property
    def params(self) -> int:
        """All parameters."""
        return self.num_hidden_layers * self.layer_params + self.outer_params

    def config(self) -> dict[str, Any]:
        """Return the keys of a config.json that decide the shape."""
        return asdict(self)


# Facts of the published config.json files, by repository; a fine-tune has its base's shape.
_LLAMA_2_7B = ModelShape(32000, 4096, 11008, 32, 32, 32)
_LLAMA_2_13B = ModelShape(32000, 5120, 13824, 40, 40, 40)
KNOWN = {
    "meta-llama/llama-2-7b-hf": _LLAMA_2_7B,
    "meta-llama/llama-2-13b-hf": _LLAMA_2_13B,
    "gryphe/mythomax-l2-13b": _LLAMA_2_13B,
}


def shape_of(recipe: Recipe, name: str, results: Path | None = None) -> ModelShape:
    """Return the shape of model `name`: from its folder where it exists, else from the recipe or `KNOWN`.

    Args:
        recipe: the checked recipe.
        name: a model of its table.
        results: `results/<recipe>`, to look into finished artifacts; None looks nowhere.

    Raises:
        UnknownShapeError: a download that is neither there nor known, or a config.json that lacks a key.
    """
    model = recipe.models[name]
    folder = results / model.kind / name if results is not None else None
    if folder is not None and (folder / "config.json").is_file():
        return _read(folder / "config.json")
    if model.train is not None:
        return shape_of(recipe, model.train.base, results)
    if model.merge is not None:
        return shape_of(recipe, model.merge.models[0], results)
    if model.create is not None:
        made, vocabulary = model.create.architecture, model.create.tokenizer.vocab_size
        if vocabulary is None:
            raise UnknownShapeError(
                f"models.{name}: its vocabulary comes from a tokenizer that isn't here yet; build it "
                f"(`snakemake create`), or set create.tokenizer.vocab_size"
            )
        own = {key: getattr(made, key) for key in ModelShape.__dataclass_fields__ if key != "vocab_size"}
        return ModelShape(vocab_size=vocabulary, **own)
    hub = (model.download.hub if model.download is not None else None) or ""
    found = KNOWN.get(hub.split("@")[0].removeprefix("model:").lower())
    if found is None:
        raise UnknownShapeError(
            f"models.{name}: the architecture of {hub or 'this download'} is not known before it is downloaded; "
            f"download it first (`snakemake download`); known without: {', '.join(sorted(KNOWN))}"
        )
    return found


def _read(path: Path) -> ModelShape:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        config.setdefault("num_key_value_heads", config.get("num_attention_heads"))
        return ModelShape(**{key: int(config[key]) for key in ModelShape.__dataclass_fields__})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnknownShapeError(f"{path}: no Llama's config.json ({error!r}); build the model again") from None
