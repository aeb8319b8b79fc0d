"""Levers of speed: each gives the same training, to the bit where nothing is added up in another order."""

import gc
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from scripts.artifact.digest import hash_files
from scripts.recipe.train import Levers
from scripts.train.levers import timed_collection
from scripts.train.model import build_model
from tests.unit.test_train_attention import ROWS, line_of, slow_varlen
from tests.unit.train_fixtures import CONFIG, alone, make_base, make_pack, make_spec, read_metrics, train_alone

ONE = {"processes_per_node": 1, "portable_cpu": False}
FILES = ["model.safetensors", "metrics.jsonl"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base") / "base")


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pack(tmp_path_factory.mktemp("pack") / "pack", processes=1, steps=6)


def _train(root: Path, base: Path, pack: Path, patch: pytest.MonkeyPatch, **changed: Any) -> Path:
    return train_alone(root, make_spec(launch=ONE, **changed), base, pack, patch)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, base: Path, pack: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        return _train(tmp_path_factory.mktemp("plain"), base, pack, patch)


@pytest.mark.parametrize(
    "changed",
    [
        {"numerics": {"gradient_checkpointing": True}},
        {"numerics": {"gradient_checkpointing": True}, "levers": {"checkpoint_policy": "selective"}},
        {"levers": {"unsharded_last_layers": 1, "prefetch_layers": 2}},
        {"levers": {"gc_steps": 0}},
    ],
)
def test_levers_of_memory_and_order_change_no_bit(
    changed: dict[str, Any], plain: Path, base: Path, pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    levers = Levers(**changed.pop("levers", {}))
    out = _train(tmp_path, base, pack, monkeypatch, levers=levers, **changed)
    assert hash_files(out, FILES) == hash_files(plain, FILES)
    assert json.loads((out / "train.json").read_text())["settings"]["levers"] == levers.model_dump()


@pytest.mark.parametrize("chunk", [0, 16])
def test_chunks_of_the_loss_change_rounding_only_and_repeat_to_the_bit(
    chunk: int, plain: Path, base: Path, pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outs = [_train(tmp_path / str(i), base, pack, monkeypatch, levers=Levers(loss_chunk=chunk)) for i in range(2)]
    assert hash_files(outs[0], FILES) == hash_files(outs[1], FILES)
    found, wanted = ([line["loss"] for line in read_metrics(out) if "loss" in line] for out in (outs[0], plain))
    # The first loss is of the same weights, and later ones differ by the rounding of their gradients.
    assert found[0] == pytest.approx(wanted[0], rel=1e-6)
    assert found == pytest.approx(wanted, rel=1e-4)


def _gradients(base: Path, mesh: Any, numerics: dict[str, Any], levers: Levers) -> tuple[float, list[torch.Tensor]]:
    settings = make_spec(launch=ONE).numerics.model_copy(update=numerics)
    model = build_model(base, CONFIG, settings, mesh, levers)
    loss = model(line_of(ROWS))
    loss.backward()
    return float(loss), [p.grad.full_tensor() for _, p in sorted(model.named_parameters())]


@pytest.mark.slow
@pytest.mark.parametrize("policy", [None, "full", "selective"])
def test_compiled_layers_give_the_same_loss_and_gradients(
    policy: str | None, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not any(map(shutil.which, ("g++", "clang++", "c++"))):
        pytest.skip("torch.compile needs a C++ compiler on the CPU; this machine has none")
    # The compiler follows torch_varlen; its kernel is replaced by one that a CPU has.
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", slow_varlen)
    numerics = {"attention": "torch_varlen", "gradient_checkpointing": policy is not None}
    with alone() as mesh:
        wanted = _gradients(base, mesh, {}, Levers())
        levers = Levers(compile_layers=True, checkpoint_policy=policy or "full")  # type: ignore[arg-type]
        found = _gradients(base, mesh, numerics, levers)
        again = _gradients(base, mesh, numerics, levers)
    assert found[0] == pytest.approx(wanted[0], rel=1e-6)
    for a, b, c in zip(found[1], wanted[1], again[1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
        assert torch.equal(a, c)


def test_selective_recomputation_keeps_every_second_product(base: Path) -> None:
    from torch.utils._python_dispatch import TorchDispatchMode

    class Count(TorchDispatchMode):
        products = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.products += str(func).startswith("aten.mm.")
            return func(*args, **(kwargs or {}))

    found = {}
    with alone() as mesh:
        for policy in ("none", "selective", "full"):
            settings = make_spec(launch=ONE).numerics.model_copy(update={"gradient_checkpointing": policy != "none"})
            levers = Levers(checkpoint_policy="full" if policy == "none" else policy)  # type: ignore[arg-type]
            model = build_model(base, CONFIG, settings, mesh, levers)
            loss = model(line_of(ROWS))
            with Count() as count:
                loss.backward()
            found[policy] = count.products
    # 2 layers of 7 products: a full recomputation repeats all but the last, whose result no gradient needs.
    assert found["none"] < found["selective"] < found["full"]
    assert found["full"] - found["none"] >= 12


def test_collections_come_at_their_steps_and_the_switch_is_put_back() -> None:
    assert gc.isenabled()
    with timed_collection(2) as collect:
        assert not gc.isenabled()
        before = gc.get_stats()[1]["collections"]
        for step in (1, 2, 3, 4):
            collect(step)
        assert gc.get_stats()[1]["collections"] == before + 2
    assert gc.isenabled()
    with timed_collection(0):
        assert gc.isenabled()


def test_compiled_layers_that_would_not_be_what_was_asked_are_refused() -> None:
    compiled = Levers(compile_layers=True)
    with pytest.raises(ValidationError, match="not with portable_cpu"):
        make_spec(levers=compiled)
    selective = Levers(compile_layers=True, checkpoint_policy="selective")
    with pytest.raises(ValidationError, match="follow torch_varlen only"):
        make_spec(launch=ONE, levers=selective, numerics={"gradient_checkpointing": True})
