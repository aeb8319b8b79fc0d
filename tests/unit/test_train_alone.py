"""Whole trainings in this process, one rank: the mathematics, the switches, checkpoints and refusals."""

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, safe_open
from torch.nn import functional
from transformers.models.llama.modeling_llama import LlamaForCausalLM

from scripts.artifact.digest import hash_files
from scripts.artifact.stage import StageError
from scripts.train.checkpoint import Checkpoints, State
from scripts.train.handover import CollectiveError
from scripts.train.metrics import Metrics
from scripts.train.reader import IGNORE, PackedRows
from scripts.train.trackers import Trackers
from tests.unit.train_fixtures import alone, make_base, make_pack, make_spec, read_metrics, train_alone

ONE = {"launch": {"processes_per_node": 1, "portable_cpu": False}}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base") / "base")


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pack(tmp_path_factory.mktemp("pack") / "pack", processes=1, steps=8)


def reference(base: Path, pack: Path, spec: Any, *, entries: int, mean: str) -> tuple[list[float], dict[str, Any]]:
    """Train with stock Llama, row by row without packing, and plain torch; return (losses, weights).

    `entries` micro-batches make a step, whoever computes them: the ranks' shares must add up to the same.
    """
    model = LlamaForCausalLM.from_pretrained(base, use_safetensors=True, trust_remote_code=False)
    settings, rows = spec.optimizer, PackedRows(pack, "train", keep_boundary=False, bos_id=1)
    matrices = [p for p in model.parameters() if p.dim() > 1]
    norms = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": norms, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=settings.adam_eps)
    losses, steps = [], rows.entries // entries
    for step in range(steps):
        sums, counts = [], []
        for entry in range(step * entries, (step + 1) * entries):
            line = rows.line(entry)
            total = torch.zeros(())
            for ids, targets in zip(
                line.input_ids_T.split(line.lengths), line.targets_T.split(line.lengths), strict=True
            ):
                logits = model(input_ids=ids[None], use_cache=False).logits[0]
                total = total + functional.cross_entropy(logits, targets, ignore_index=IGNORE, reduction="sum")
            sums.append(total)
            counts.append(line.labelled)
        if mean == "token":
            loss = sum(sums) / sum(counts)
        else:
            loss = sum(s / c for s, c in zip(sums, counts, strict=True) if c) / len(sums)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
        warm = settings.warmup_steps
        curve = (1 + math.cos(math.pi * (step - warm) / (steps - warm))) / 2
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * ((step / warm) ** 2 if step < warm else curve)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses, {name: p.detach() for name, p in model.named_parameters()}


@pytest.mark.parametrize("mean", ["token", "rank"])
def test_training_is_that_of_plain_torch_on_unpacked_rows(
    mean: str, base: Path, pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec(optimizer={"loss_mean": mean}, **ONE)
    out = train_alone(tmp_path, spec, base, pack, monkeypatch)
    losses, weights = reference(base, pack, spec, entries=2, mean=mean)
    found = [line["loss"] for line in read_metrics(out) if "loss" in line]
    assert found == pytest.approx(losses, rel=2e-4)
    assert found[-1] < found[0] - 0.3
    saved = load_file(out / "model.safetensors")
    start = load_file(base / "model.safetensors")
    for name, value in weights.items():
        moved = (value - start[name]).norm()
        assert (saved[name] - value).norm() < 0.01 * moved, name


def test_checkpointing_and_bf16_switches_train_and_say_their_types(
    base: Path, pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = train_alone(tmp_path / "plain", make_spec(**ONE), base, pack, monkeypatch)
    again = train_alone(
        tmp_path / "again", make_spec(numerics={"gradient_checkpointing": True}, **ONE), base, pack, monkeypatch
    )
    names = ["model.safetensors", "metrics.jsonl"]
    assert hash_files(plain, names) == hash_files(again, names)
    half = train_alone(
        tmp_path / "half", make_spec(numerics={"precision": "pure_bf16"}, **ONE), base, pack, monkeypatch
    )
    mixed = {"precision": "fp32_master", "out_dtype": "bfloat16"}
    master = train_alone(
        tmp_path / "master", make_spec(numerics=mixed, max_shard_bytes=100_000, **ONE), base, pack, monkeypatch
    )
    for folder in (half, master):
        assert json.loads((folder / "config.json").read_text())["torch_dtype"] == "bfloat16"
        lines = [line for line in read_metrics(folder) if "loss" in line]
        assert lines[-1]["loss"] < lines[0]["loss"]
    index = json.loads((master / "model.safetensors.index.json").read_text())
    shards = sorted(set(index["weight_map"].values()))
    assert len(shards) > 2
    for shard in shards:
        with safe_open(master / shard, framework="pt") as tensors:
            assert tensors.metadata() == {"format": "pt"}
            assert {tensors.get_tensor(name).dtype for name in tensors.keys()} == {torch.bfloat16}  # noqa: SIM118
    # What was published loads with the library, from its own shards and config.
    loaded = LlamaForCausalLM.from_pretrained(master, use_safetensors=True, trust_remote_code=False)
    assert loaded.dtype == torch.bfloat16


def test_a_damaged_newest_checkpoint_is_passed_over_and_nothing_differs(
    base: Path, pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    spec = make_spec(cadence={"eval_steps": 3, "save_steps": 3}, **ONE)
    work = tmp_path / "work"
    first = train_alone(tmp_path / "first", spec, base, pack, monkeypatch, work)
    folders = sorted((work / "checkpoints").iterdir())
    assert [f.name for f in folders] == ["step-00000003", "step-00000006", "step-00000008"]
    weights = folders[2] / "rank-00000.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    (folders[1] / "state.json").write_text((folders[1] / "state.json").read_text().replace("6", "7", 1))
    (work / "checkpoints" / ".draft-00000007").mkdir()
    (work / "metrics.jsonl").open("a").write('{"step": 99}\n')
    capfd.readouterr()
    second = train_alone(tmp_path / "second", spec, base, pack, monkeypatch, work)
    warnings = [line for line in capfd.readouterr().err.splitlines() if "warning: passing over" in line]
    assert ["step 8" in warnings[0], "step 6" in warnings[1], len(warnings)] == [True, True, 2]
    names = sorted(p.name for p in first.iterdir())
    assert hash_files(first, names) == hash_files(second, names)
    assert sorted(p.name for p in (work / "checkpoints").iterdir()) == [f.name for f in folders]


def test_a_checkpoint_of_another_training_is_refused_by_the_fields_name(
    base: Path, pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    train_alone(tmp_path / "a", make_spec(**ONE), base, pack, monkeypatch, work)
    other = make_spec(optimizer={"adam_beta2": 0.99}, **ONE)
    with pytest.raises(CollectiveError, match=r"spec\.optimizer\.adam_beta2 was 0\.95, is 0\.99"):
        train_alone(tmp_path / "b", other, base, pack, monkeypatch, work)


@pytest.mark.parametrize("field", ["base", "pack", "world_size", "spec.optimizer.adam_eps"])
def test_each_field_of_the_fingerprint_is_named_when_it_differs(field: str, tmp_path: Path) -> None:
    """Model, data, number of processes and preset, by the names that `build` gives them."""
    saved = {"base": "a" * 64, "pack": "b" * 64, "world_size": 2, "spec.optimizer.adam_eps": 1e-9}
    state = State(4, {**saved, field: "other"}, 0, "", [])
    with alone() as mesh:
        checkpoints = Checkpoints(tmp_path, saved, mesh, Metrics(tmp_path, 0, Trackers([], tmp_path, "tuned")))
        with pytest.raises(CollectiveError, match=rf"another training: {re.escape(field)} was 'other', is "):
            checkpoints._require_same(state)


def test_best_evaluation_is_published_and_its_checkpoint_outlives_rotation(
    base: Path, pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A rate that wrecks the model after the first steps, so that the best checkpoint isn't the last.
    cadence = {"eval_steps": 1, "save_steps": 1, "save_total_limit": 2}
    hot = {"learning_rate": 0.05, "warmup_steps": 4}
    outs = {
        kind: train_alone(
            tmp_path / kind,
            make_spec(cadence={**cadence, "final_ckpt": kind}, optimizer=hot, **ONE),
            base,
            pack,
            monkeypatch,
        )
        for kind in ("best_eval", "last")
    }
    facts = {kind: json.loads((out / "train.json").read_text()) for kind, out in outs.items()}
    best = facts["best_eval"]
    assert best["published_step"] == best["best_eval_step"] < 6
    assert facts["last"]["published_step"] == best["steps"] == 8
    kept = sorted(p.name for p in (tmp_path / "best_eval" / "work" / "checkpoints").iterdir())
    assert kept == [f"step-{best['published_step']:08d}", "step-00000007", "step-00000008"]
    published = load_file(outs["best_eval"] / "model.safetensors")
    saved = load_file(tmp_path / "best_eval" / "work" / "checkpoints" / kept[0] / "rank-00000.safetensors")
    assert all(torch.equal(value, saved[f"weight.{name}"]) for name, value in published.items())


def test_a_loss_that_is_no_number_names_step_rank_and_rows(
    base: Path, pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hot = {"learning_rate": 1e30, "warmup_steps": 2, "max_grad_norm": 1e9}
    with pytest.raises(CollectiveError, match=r"step \d of 8: .*rows: train-\d+"):
        train_alone(tmp_path, make_spec(optimizer=hot, cadence={"eval_steps": 50}, **ONE), base, pack, monkeypatch)


def test_training_without_held_out_rows_has_no_evaluation(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = make_pack(tmp_path / "pack", processes=1, steps=4)
    np.save(pack / "validation_offsets.npy", np.zeros(1, np.int64))
    np.save(pack / "validation_schedule.npy", np.zeros(0, np.int32))
    out = train_alone(tmp_path, make_spec(**ONE), base, pack, monkeypatch)
    facts = json.loads((out / "train.json").read_text())
    assert [facts[k] for k in ("first_eval_loss", "best_eval_loss", "best_eval_step")] == [None, None, None]
    assert len(read_metrics(out)) == 4


def test_a_group_of_another_size_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from scripts.train.ranks import join

    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(StageError, match="started no group of processes; the recipe's launch has 2"):
        join(make_spec().launch)
