"""The two presets are complete, valid, and differ in the documented switches only."""

from pathlib import Path

import yaml

from scripts.recipe.load import PRESET_SECTIONS
from scripts.recipe.models import TrainModel

PRESETS = Path(__file__).parents[2] / "config" / "presets"
DIFFERENCE = {
    "pack.packing": ("consecutive", "best_fit"),
    "pack.tokenization": ("halves", "turns"),
    "pack.eos_count": (3, 1),
    "pack.boundary_label": ("keep", "ignore"),
    "pack.epoch_len": ("rule_0.99", "all_rows"),
    "optimizer.adam_eps": (1e-8, 1e-9),
    "optimizer.decay_norms": (True, False),
    "optimizer.loss_mean": ("rank", "token"),
    "numerics.precision": ("pure_bf16", "fp32_master"),
    "numerics.fsdp_offload_params": (True, False),
    "cadence.final_ckpt": ("best_eval", "last"),
}


def _flat(name: str) -> dict[str, object]:
    content = yaml.safe_load((PRESETS / f"{name}.yaml").read_text(encoding="utf-8"))
    TrainModel.model_validate({"base": "b", "mixture": "m", **content})
    assert set(content) == set(PRESET_SECTIONS)
    return {f"{section}.{key}": value for section, keys in content.items() for key, value in keys.items()}


def test_presets_differ_in_the_documented_switches_only() -> None:
    released, corrected = _flat("as-released"), _flat("corrected")
    assert set(released) == set(corrected)
    found = {k: (released[k], corrected[k]) for k in released if released[k] != corrected[k]}
    for key, (old, new) in found.items():
        print(f"{key}: as-released {old}, corrected {new}")
    assert found == DIFFERENCE


def test_presets_say_every_switch_and_why() -> None:
    for name in ("as-released", "corrected"):
        keys = set(_flat(name))
        model = TrainModel(base="b", mixture="m")
        every = {f"{s}.{k}" for s in PRESET_SECTIONS for k in type(getattr(model, s)).model_fields}
        # Presets leave two things to the recipe: the type of the published weights, and which others are kept.
        assert every - keys == {"numerics.out_dtype", "cadence.keep_checkpoints"}
        lines = (PRESETS / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
        assert all("#" in line for line in lines if line.startswith("  "))
