"""Checkpoints that a training keeps in its artifact: the same bytes whatever happened while it ran."""

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers.models.llama.modeling_llama import LlamaForCausalLM

from scripts.artifact.digest import hash_files, payload_files
from scripts.artifact.stage import StageError
from scripts.recipe.train import Cadence
from scripts.train import loop
from scripts.train.checks import check_settings, read_pack
from scripts.train.loop import InterruptedTrainingError
from tests.unit.train_fixtures import make_base, make_pack, make_spec, train, train_alone

ONE = {"launch": {"processes_per_node": 1, "portable_cpu": False}}
FOLDERS = ["checkpoints/step-00000003", "checkpoints/step-00000005"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base") / "base")


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pack(tmp_path_factory.mktemp("pack") / "pack", processes=1, steps=8)


def spec_of(**cadence: Any) -> Any:
    return make_spec(cadence={"keep_checkpoints": [3, 5], "save_total_limit": 1, **cadence}, **ONE)


def stop_after(step: int, root: Path, spec: Any, inputs: tuple[Path, Path], work: Path) -> None:
    """Train until a signal comes after `step`."""
    real = loop.Training.step

    def until(self: Any, number: int) -> Any:
        if number == step:
            self._stop(number)
        return real(self, number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Training, "step", until)
        with pytest.raises(InterruptedTrainingError):
            train_alone(root, spec, *inputs, patch, work)


def bytes_of(out: Path) -> dict[str, str]:
    return hash_files(out, payload_files(out))


@pytest.fixture(scope="module")
def whole(base: Path, pack: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """An undisturbed training that keeps two checkpoints."""
    with pytest.MonkeyPatch.context() as patch:
        out = train_alone(tmp_path_factory.mktemp("whole"), spec_of(), base, pack, patch)
    return out, bytes_of(out)


def test_each_kept_step_is_a_whole_model_and_the_trained_one_stays_as_it_was(
    whole: tuple[Path, dict[str, str]], base: Path, pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, digests = whole
    plain = train_alone(tmp_path / "plain", make_spec(**ONE), base, pack, monkeypatch)
    own = {name: digest for name, digest in digests.items() if not name.startswith("checkpoints/")}
    without = bytes_of(plain)
    # train.json tells all settings, so it alone may differ.
    assert {n: d for n, d in own.items() if n != "train.json"} == {
        n: d for n, d in without.items() if n != "train.json"
    }
    model_files = {n for n in without if n not in ("train.json", "metrics.jsonl")}
    assert {n for n in digests if n.startswith("checkpoints/")} == {f"{f}/{n}" for f in FOLDERS for n in model_files}
    state = [load_file(out / folder / "model.safetensors") for folder in (*FOLDERS, ".")]
    assert not any(torch.equal(a["lm_head.weight"], b["lm_head.weight"]) for a, b in pairwise(state))
    loaded = LlamaForCausalLM.from_pretrained(out / FOLDERS[0], use_safetensors=True, trust_remote_code=False)
    assert torch.equal(loaded.lm_head.weight, state[0]["lm_head.weight"])


def test_a_kept_checkpoint_is_what_the_optimizer_held_after_that_step(
    whole: tuple[Path, dict[str, str]], base: Path, pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, _ = whole
    spec = make_spec(cadence={"save_steps": 1, "eval_steps": 8}, **ONE)
    train_alone(tmp_path / "all", spec, base, pack, monkeypatch)
    for step in (3, 5):
        saved = load_file(tmp_path / "all" / "work" / "checkpoints" / f"step-{step:08d}" / "rank-00000.safetensors")
        kept = load_file(out / f"checkpoints/step-{step:08d}/model.safetensors")
        assert all(torch.equal(value, saved[f"weight.{name}"]) for name, value in kept.items())


@pytest.mark.parametrize("stop", [1, 3, 4, 7])
def test_a_training_stopped_at_any_point_keeps_the_same_bytes(
    stop: int,
    whole: tuple[Path, dict[str, str]],
    base: Path,
    pack: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A signal before, at, between and after the kept steps."""
    work = tmp_path / "work"
    stop_after(stop, tmp_path / "first", spec_of(), (base, pack), work)
    left = {p.name for p in (work / "checkpoints").iterdir()}
    assert {f"step-{s:08d}" for s in (3, 5) if s <= stop} <= left
    out = train_alone(tmp_path / "second", spec_of(), base, pack, monkeypatch, work)
    assert bytes_of(out) == whole[1]


@pytest.mark.parametrize("damage", ["lost", "flipped"])
def test_a_kept_checkpoint_that_is_lost_or_damaged_is_made_again(
    damage: str,
    whole: tuple[Path, dict[str, str]],
    base: Path,
    pack: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    work = tmp_path / "work"
    train_alone(tmp_path / "first", spec_of(), base, pack, monkeypatch, work)
    place = work / "checkpoints/step-00000005/rank-00000.safetensors"
    if damage == "lost":
        place.unlink()
    else:
        content = bytearray(place.read_bytes())
        content[-1] ^= 1
        place.write_bytes(content)
    capfd.readouterr()
    out = train_alone(tmp_path / "second", spec_of(), base, pack, monkeypatch, work)
    warned = [line for line in capfd.readouterr().err.splitlines() if "passing over" in line]
    assert re.search("step 8: that of step 5, which is to be kept: ", warned[0]), warned
    assert "step 5: " in warned[1] and len(warned) == 2, "goes on from step 3"
    assert bytes_of(out) == whole[1]


def test_what_best_eval_publishes_hangs_on_neither_kept_steps_nor_signals(
    base: Path, pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rate that wrecks the model makes an early step the best: saved to be kept, or by a signal, or not at all."""
    hot = {"learning_rate": 0.05, "warmup_steps": 1}
    cadence = {"eval_steps": 1, "save_steps": 4, "final_ckpt": "best_eval"}
    published = {}
    for name, kept in (("plain", []), ("kept", [1]), ("stopped", [])):
        spec, work = (
            make_spec(cadence={**cadence, "keep_checkpoints": kept}, optimizer=hot, **ONE),
            tmp_path / name / "w",
        )
        if name == "stopped":
            best = published["plain"][0]["best_eval_step"]
            stop_after(best, tmp_path / "first", spec, (base, pack), work)
        out = train_alone(tmp_path / name, spec, base, pack, monkeypatch, work)
        published[name] = (json.loads((out / "train.json").read_text()), hash_files(out, ["model.safetensors"]))
    (facts, weights), *others = published.values()
    assert facts["best_eval_step"] < 4 and facts["published_step"] in (4, 8), "else this shows nothing"
    assert all(other["published_step"] == facts["published_step"] and w == weights for other, w in others)


def test_two_ranks_keep_what_one_gathers(base: Path, tmp_path: Path) -> None:
    """Through the door, with real processes: each rank's rows come together in the file."""
    pack = make_pack(tmp_path / "pack", steps=4, accumulation=1)
    spec = make_spec(cadence={"eval_steps": 2, "save_steps": 2, "keep_checkpoints": [1, 4]}, max_shard_bytes=100_000)
    job = train(tmp_path / "two", spec, base, pack)
    digests = bytes_of(job.out)
    names = [n for n in digests if n.startswith("checkpoints/step-00000004/")]
    # The last step is the model itself, shard by shard.
    assert len([n for n in names if n.endswith(".safetensors")]) > 1
    assert all(digests[n] == digests[n.removeprefix("checkpoints/step-00000004/")] for n in names)
    assert digests["checkpoints/step-00000001/config.json"] == digests["config.json"]
    first = "checkpoints/step-00000001/model.safetensors.index.json"
    assert digests[first] == digests["model.safetensors.index.json"]
    assert {n: d for n, d in job.digests.items() if n in digests} == {n: digests[n] for n in job.digests}


def test_a_step_beyond_the_schedule_is_refused_before_anything_is_trained(base: Path, pack: Path) -> None:
    facts = read_pack(pack, spec_of(), 512)
    check_settings(spec_of(keep_checkpoints=[8]), facts)
    with pytest.raises(StageError, match=r"models\.tuned\.train\.cadence\.keep_checkpoints is \[3, 9\], but the sch"):
        check_settings(spec_of(keep_checkpoints=[3, 9]), facts)


def test_without_the_setting_nothing_in_a_spec_tells_of_it() -> None:
    """Else every training of before would get another key, and `train.json` other bytes."""
    assert "keep_checkpoints" not in json.dumps(make_spec().model_dump(mode="json"))
    assert Cadence(keep_checkpoints=[2]).model_dump(mode="json")["keep_checkpoints"] == [2]
