"""What a training tells while it runs: spikes, trackers, types in memory; nothing of it changes what is hashed."""

import json
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from scripts.artifact.digest import hash_files
from scripts.artifact.stage import StageError
from scripts.train.facts import require_types
from scripts.train.metrics import Metrics, is_spike, thinned
from scripts.train.model import build_model
from scripts.train.optimizer import build_optimizer
from scripts.train.trackers import check_trackers
from tests.unit.test_train_attention import ROWS, line_of
from tests.unit.train_fixtures import CONFIG, alone, make_base, make_pack, make_spec, read_metrics, train_alone

ONE = {"processes_per_node": 1, "portable_cpu": False}


def test_a_spike_stands_six_deviations_above_the_losses_before_it() -> None:
    before = [2.0, 2.2] * 8  # mean 2.1, deviation 0.1
    assert is_spike(2.71, before)
    assert not is_spike(2.69, before)
    assert not is_spike(99.0, before[:15])  # too few to say


def test_a_resumed_training_notes_the_same_spikes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    losses = [2.0, 2.2] * 10 + [5.0] + [2.1] * 3
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
    first = Metrics(whole, 0)
    for step, loss in enumerate(losses, start=1):
        first.write({"step": step, "loss": loss, "rows_digest": "d"})
    assert first.spikes == [21]
    assert "note: loss 5.0000 at step 21 is a spike" in capsys.readouterr().err
    again = Metrics(parts, 0)
    for step, loss in enumerate(losses[:18], start=1):
        again.write({"step": step, "loss": loss, "rows_digest": "d"})
    resumed = Metrics(parts, 0)
    resumed.truncate(resumed.flushed()[0])
    for step, loss in enumerate(losses[18:], start=19):
        resumed.write({"step": step, "loss": loss, "rows_digest": "d"})
    assert hash_files(whole, ["metrics.jsonl"]) == hash_files(parts, ["metrics.jsonl"])
    assert resumed.spikes == [21]


def test_tensorboard_draws_what_the_metrics_say_and_the_payload_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, pack = make_base(tmp_path / "base"), make_pack(tmp_path / "pack", processes=1, steps=4)
    plain = train_alone(tmp_path / "plain", make_spec(launch=ONE), base, pack, monkeypatch)
    spec = make_spec(launch=ONE, trackers=["tensorboard"])
    drawn = train_alone(tmp_path / "drawn", spec, base, pack, monkeypatch)
    names = sorted(p.name for p in plain.iterdir())
    assert hash_files(plain, names) == hash_files(drawn, names)
    curves = EventAccumulator(str(tmp_path / "drawn" / "work" / "tensorboard" / "tuned")).Reload()
    losses = {line["step"]: line["loss"] for line in read_metrics(drawn) if "loss" in line}
    assert {e.step: e.value for e in curves.Scalars("loss")} == pytest.approx(losses)
    tags = set(curves.Tags()["scalars"])
    assert {"eval_loss", "eval_loss_by_source/stories", "tokens_per_s", "learning_rate", "grad_norm"} <= tags
    assert [e.step for e in curves.Scalars("eval_loss")] == [0, 4]


def test_a_tracker_that_is_not_installed_is_refused_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scripts.train.trackers.find_spec", lambda name: None if name == "wandb" else object())
    check_trackers(["tensorboard"])
    with pytest.raises(StageError, match=r"package wandb is not installed; install it, or remove it from .*trackers"):
        check_trackers(["tensorboard", "wandb"])


def test_trackers_are_no_part_of_the_key() -> None:
    assert make_spec(trackers=["tensorboard"]).identity() == make_spec(trackers=[]).identity()


def test_types_in_memory_are_asserted_after_a_step(tmp_path: Path) -> None:
    base, spec = make_base(tmp_path / "base"), make_spec(launch=ONE)
    with alone() as mesh:
        model = build_model(base, CONFIG, spec.numerics, mesh)
        optimizer = build_optimizer(model, spec.optimizer)
        model(line_of(ROWS)).backward()
        optimizer.step()
        facts = require_types(spec, model, optimizer, mesh)
        kinds = [facts[name] for name in ("world_size", "weights", "gradients", "optimizer_state")]
        assert kinds == [1, "float32", "float32", "float32"]
        state = optimizer.state[model.lm_head.weight]
        state["exp_avg"] = state["exp_avg"].bfloat16()
        with pytest.raises(StageError, match="its exp_avg is a DTensor of torch.bfloat16, not a DTensor"):
            require_types(spec, model, optimizer, mesh)
        state["exp_avg"] = torch.zeros_like(model.lm_head.weight.to_local())
        with pytest.raises(StageError, match="its exp_avg is a Tensor of torch.float32"):
            require_types(spec, model, optimizer, mesh)


def test_the_speed_series_is_short_and_forgives_a_killed_attempt(tmp_path: Path) -> None:
    path = tmp_path / "speed.jsonl"
    assert thinned(path) == []
    lines = [{"step": n, "seconds": 0.5 if n % 2 else 1.5, "tokens_per_s": 100.0 + n % 2 * 300} for n in range(1, 1001)]
    again = [{"step": n, "seconds": 9.0, "tokens_per_s": 1.0} for n in range(901, 951)]  # ran again after a resume
    text = "".join(json.dumps(line) + "\n" for line in [*again, *lines[:500]])
    path.write_text(
        text + '{"step": 501, "seco' + json.dumps(lines[500]) + "\n" + "\n".join(map(json.dumps, lines[501:]))
    )
    points = thinned(path, limit=100)
    assert len(points) == 100
    assert [point["step"] for point in points[:2]] == [10, 20]
    assert sum(point["seconds"] for point in points) == pytest.approx(999.5), "all but the torn line"
    assert points[0]["tokens_per_s"] == pytest.approx((5 * 0.5 * 400 + 5 * 1.5 * 100) / 10), "tokens over seconds"
    assert thinned(path, limit=5000) == thinned(path, limit=1000) != points
