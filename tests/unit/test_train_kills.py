"""kill -9 inside checkpoint writes, at each call to the file system: the rerun gives an undisturbed run's bytes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.unit.train_fixtures import make_base, make_pack, make_spec


def _kills(
    tmp_path: Path, world: int, every: int, keep: tuple[int, ...] = ()
) -> tuple[list[str], list[dict[str, Any]], str]:
    """Return (watched calls of an undisturbed run, what came of each kill, messages)."""
    base, pack = make_base(tmp_path / "base"), make_pack(tmp_path / "pack", processes=world, steps=4, accumulation=1)
    launch = {"processes_per_node": world}
    cadence = {"eval_steps": 2, "save_steps": 2, "save_total_limit": 1, "keep_checkpoints": list(keep)}
    spec = make_spec(launch=launch, cadence=cadence, trackers=[]).model_dump(mode="json")
    places = {"base": str(base), "pack": str(pack), "root": str(tmp_path / "runs")}
    arguments = json.dumps({"spec": spec, "every": every, **places})
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.train_kills", arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, *rest = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return first["seen"], rest, done.stderr


def _check(kills: list[dict[str, Any]]) -> None:
    for kill in kills:
        print(kill["rank"], kill["place"], kill["left"])
        assert kill["killed"], kill
        assert kill["equal"], kill


@pytest.mark.slow
def test_kill_9_at_every_call_of_a_checkpoint_write(tmp_path: Path) -> None:
    _, kills, messages = _kills(tmp_path, world=1, every=1)
    _check(kills)
    # Two checkpoints and the publication: between tensors, around each flush and rename, at the old one's removal.
    places = [kill["place"] for kill in kills]
    for call in (
        "fsync rank-00000.safetensors",
        "fsync checkpoints",
        "rename .draft-00000002",
        "rename .draft-00000004",
    ):
        assert call in places, places
    for kind in ("weight.", "exp_avg.", "exp_avg_sq.", "lm_head"):
        assert any(place.startswith(f"tensor_digest {kind}") for place in places), places
    assert any(place.startswith("replace state.json") for place in places), places
    # What a kill leaves: half a draft, a published checkpoint, both, two published, and the newer one alone.
    left = {tuple(kill["left"]) for kill in kills}
    assert {(".draft-00000002",), ("step-00000002",), (".draft-00000004", "step-00000002")} <= left, left
    assert {("step-00000002", "step-00000004"), ("step-00000004",)} <= left, left
    assert "passing over" not in messages, "a half-written checkpoint was taken for a finished one"


@pytest.mark.slow
def test_kill_9_of_one_of_two_ranks_inside_a_checkpoint_write(tmp_path: Path) -> None:
    _, kills, _ = _kills(tmp_path, world=2, every=8)
    _check(kills)
    assert {kill["rank"] for kill in kills} == {0, 1}


@pytest.mark.slow
def test_kill_9_while_a_checkpoint_that_is_kept_is_saved_or_published(tmp_path: Path) -> None:
    _, kills, messages = _kills(tmp_path, world=1, every=3, keep=(1, 2))
    _check(kills)
    left = {tuple(kill["left"]) for kill in kills}
    # Before step 2 is there; between both and the end; and after it, where rotation took neither.
    assert ("step-00000001",) in left, left
    assert {("step-00000001", "step-00000002"), ("step-00000001", "step-00000002", "step-00000004")} <= left, left
    assert "passing over" not in messages
