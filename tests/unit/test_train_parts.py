"""Pieces of the training stage, each alone: schedule, loss, reader, attention, optimizer, files, checks."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from scripts.artifact.stage import StageError
from scripts.artifact.tensors import digest_safetensors
from scripts.recipe.train import Launch, Numerics, Optimizer
from scripts.train.checks import check_settings, read_config, read_pack
from scripts.train.launch import launcher_arguments, launcher_environment
from scripts.train.loss import summed_loss, token_losses
from scripts.train.metrics import round9
from scripts.train.model import build_model, shard_rows
from scripts.train.optimizer import build_optimizer, clip, sum_of_squares
from scripts.train.reader import IGNORE, Line, PackedRows, row_table
from scripts.train.save import _split
from scripts.train.schedule import learning_rate
from scripts.train.tensorfile import Planned, planned, write_safetensors
from tests.unit.train_fixtures import CONFIG, alone, make_base, make_pack, make_spec

FP32 = Numerics(precision="fp32", tf32=False, gradient_checkpointing=False, attention="sdpa")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base") / "base")


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pack(tmp_path_factory.mktemp("pack") / "pack")


def _rows(pack: Path, split: str = "train", keep: bool = False) -> PackedRows:
    return PackedRows(pack, split, keep_boundary=keep, bos_id=1)


# --- schedule


def test_learning_rate_of_the_announced_run() -> None:
    def rate(step: int) -> float:
        return learning_rate(step, peak=1.7e-5, warmup_steps=32, total_steps=6656)

    assert rate(0) == 0.0
    assert rate(8) == pytest.approx(1.7e-5 / 16)
    assert rate(32) == 1.7e-5
    assert rate(32 + (6656 - 32) // 2) == pytest.approx(1.7e-5 / 2)
    assert 0 < rate(6655) < 1.7e-5 * 1e-6
    assert learning_rate(8, peak=1.0, warmup_steps=32, total_steps=99, quadratic=False) == 0.25


@pytest.mark.parametrize(("step", "warmup", "total"), [(10, 2, 10), (-1, 2, 10), (0, 10, 10)])
def test_learning_rate_refuses_steps_outside(step: int, warmup: int, total: int) -> None:
    with pytest.raises(ValueError, match="step"):
        learning_rate(step, peak=1.0, warmup_steps=warmup, total_steps=total)


# --- loss


@pytest.mark.parametrize("tokens", [1, 7, 23])
@pytest.mark.parametrize("chunk", [7, 1024, 0])
def test_loss_and_gradients_equal_plain_cross_entropy(tokens: int, chunk: int) -> None:
    torch.manual_seed(3)
    hidden = torch.randn(tokens, 16, requires_grad=True)
    weight = torch.randn(50, 16, requires_grad=True)
    targets = torch.randint(0, 50, (tokens,))
    targets[::3] = IGNORE
    plain = functional.cross_entropy(hidden @ weight.t(), targets, ignore_index=IGNORE, reduction="sum")
    wanted = torch.autograd.grad(plain * 0.25, (hidden, weight))
    ours = summed_loss(hidden, weight, targets, chunk)
    found = torch.autograd.grad(ours * 0.25, (hidden, weight))
    torch.testing.assert_close(ours, plain)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(token_losses(hidden, weight, targets, chunk).sum(), plain.detach())


def test_a_line_without_labels_gives_zero_loss_and_zero_gradients() -> None:
    hidden, weight = torch.randn(3, 4, requires_grad=True), torch.randn(9, 4, requires_grad=True)
    value = summed_loss(hidden, weight, torch.full((3,), IGNORE), 1024)
    value.backward()
    assert value.item() == 0.0
    assert not hidden.grad.any() and not weight.grad.any()  # type: ignore[union-attr]


# --- reader


def test_lines_follow_the_schedule_and_restart_positions(pack: Path) -> None:
    rows = _rows(pack)
    ids, bounds = np.load(pack / "train_input_ids.npy"), np.load(pack / "train_rows.npy")
    trained = np.load(pack / "train_trained.npy")
    offsets, order = np.load(pack / "schedule_offsets.npy"), np.load(pack / "schedule_rows.npy")
    for entry in range(rows.entries - 1):
        line = rows.line(entry)
        assert line.rows == order[offsets[entry] : offsets[entry + 1]].tolist()
        at = 0
        for row, length in zip(line.rows, line.lengths, strict=True):
            part = slice(bounds[row], bounds[row + 1])
            wanted = ids[part].astype(int)
            assert line.input_ids_T[at : at + length].tolist() == wanted.tolist()
            assert line.position_ids_T[at : at + length].tolist() == list(range(length))
            shifted = [int(t) if m else IGNORE for t, m in zip(wanted[1:], trained[part][1:], strict=True)]
            assert line.targets_T[at : at + length].tolist() == [*shifted, IGNORE]
            at += length
        assert line.labelled == int((line.targets_T != IGNORE).sum()) > 0


def test_boundary_label_keep_learns_the_next_first_token_where_it_is_trained(tmp_path: Path) -> None:
    pack = make_pack(tmp_path / "pack", boundary="keep")
    line = _rows(pack, keep=True).line(0)
    ends = np.cumsum(line.lengths) - 1
    assert line.targets_T[ends[:-1]].tolist() == [1] * (len(ends) - 1)
    assert line.targets_T[-1] == IGNORE
    assert _rows(pack, keep=False).line(0).targets_T[ends].tolist() == [IGNORE] * len(ends)


def test_an_empty_micro_batch_is_one_token_without_a_label(pack: Path) -> None:
    rows = _rows(pack)
    line = rows.line(rows.entries - 1)
    assert (line.rows, line.lengths, line.labelled) == ([], [1], 0)
    assert line.targets_T.tolist() == [IGNORE]


def test_row_digest_depends_on_rows_order_and_lines(tmp_path: Path) -> None:
    pack = make_pack(tmp_path / "pack")
    digests = {_rows(pack).digest(0, 4), _rows(pack).digest(4, 8), _rows(pack).digest(0, 8)}
    order = np.load(pack / "schedule_rows.npy")
    order[[0, 1]] = order[[1, 0]]
    np.save(pack / "schedule_rows.npy", order)
    digests.add(_rows(pack).digest(0, 4))
    assert len(digests) == 4
    assert row_table(pack, "train")[0][0] == "train-0"


# --- packed lines


def _packed(rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.tensor([t for row in rows for t in row])[None]
    positions = torch.cat([torch.arange(len(row)) for row in rows])[None]
    return ids, positions


def _line(rows: list[list[int]]) -> Line:
    ids, positions = _packed(rows)
    targets = torch.cat([torch.tensor([*row[1:], IGNORE]) for row in rows])
    return Line(ids[0], targets, positions[0], [len(r) for r in rows], list(range(len(rows))), 1)


ROWS = [[1, *range(20, 37), 2], [1, 7, 9, 2], [1, *range(300, 341), 2]]


# --- model and optimizer


def test_weights_are_loaded_bit_for_bit_and_sharded(base: Path) -> None:
    wanted = load_file(base / "model.safetensors")
    with alone() as mesh:
        model = build_model(base, CONFIG, FP32, mesh)
        found = {name: p.full_tensor() for name, p in model.named_parameters()}
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)
        frequencies = model.model.rotary_emb.inv_freq
    torch.testing.assert_close(frequencies, 10000.0 ** (-torch.arange(0, 16, 2) / 16))


def test_precision_switches_set_the_types_of_weights_and_moments(base: Path) -> None:
    with alone() as mesh:
        for precision, dtype in (("fp32_master", torch.float32), ("pure_bf16", torch.bfloat16)):
            model = build_model(base, CONFIG, FP32.model_copy(update={"precision": precision}), mesh)
            optimizer = build_optimizer(model, Optimizer())
            model(_line(ROWS)).backward()
            optimizer.step()
            assert {p.dtype for p in model.parameters()} == {dtype}
            assert {p.grad.dtype for p in model.parameters()} == {dtype}
            assert {s["exp_avg"].dtype for s in optimizer.state.values()} == {dtype}
            assert model.model.rotary_emb.inv_freq.dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "message"), [("drop", "lacks 1 tensors"), ("extra", "no such tensor"), ("shape", "asks for shape")]
)
def test_weights_that_do_not_fit_the_config_are_refused(tmp_path: Path, change: str, message: str) -> None:
    folder = make_base(tmp_path / "base")
    tensors = load_file(folder / "model.safetensors")
    if change == "drop":
        tensors.pop("model.norm.weight")
    elif change == "extra":
        tensors["model.other.weight"] = torch.ones(2)
    else:
        tensors["model.norm.weight"] = torch.ones(3)
    items = sorted(tensors.items())
    (folder / "model.safetensors").unlink()  # the tensors read from it are still mapped
    write_safetensors(folder / "model.safetensors", [planned(*i) for i in items], (t for _, t in items))
    with alone() as mesh, pytest.raises(StageError, match=message):
        build_model(folder, CONFIG, FP32, mesh)


def test_decay_spares_norms_unless_the_original_quirk_is_asked_for(base: Path) -> None:
    with alone() as mesh:
        model = build_model(base, CONFIG, FP32, mesh)
        kind = {id(p): p.dim() for p in model.parameters()}
        found = {
            quirk: {
                (kind[id(p)], group["weight_decay"])
                for group in build_optimizer(model, Optimizer(decay_norms=quirk)).param_groups
                for p in group["params"]
            }
            for quirk in (False, True)
        }
    assert found == {False: {(2, 0.1), (1, 0.0)}, True: {(2, 0.1), (1, 0.1)}}


def test_gradient_norm_is_exact_and_independent_of_threads() -> None:
    torch.manual_seed(5)
    grads = [torch.randn(300, 333), torch.randn(5), torch.zeros(0, 4)]
    exact = math.fsum(float(x) ** 2 for g in grads for x in g.flatten().double())
    before, sums = torch.get_num_threads(), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        sums.append(sum_of_squares(grads))
    torch.set_num_threads(before)
    assert sums[0] == sums[1] == pytest.approx(exact, rel=1e-7)
    assert math.isnan(sum_of_squares([torch.tensor([1.0, math.inf])]))


def test_clip_scales_to_the_largest_norm_and_leaves_small_gradients() -> None:
    grads = [torch.tensor([3.0, 4.0])]
    clip(grads, 5.0, 10.0)
    assert grads[0].tolist() == [3.0, 4.0]
    clip(grads, 5.0, 1.0)
    torch.testing.assert_close(grads[0], torch.tensor([0.6, 0.8]))


# --- files


def test_written_safetensors_are_read_by_the_library_with_the_digests_given(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    tensors = {"b": torch.randn(3, 5), "c": torch.zeros(0, 4), "d": torch.randn(7).to(torch.bfloat16)}
    found = write_safetensors(path, [planned(*i) for i in tensors.items()], tensors.values())
    assert found == digest_safetensors(path)
    assert all(torch.equal(value, tensors[name]) for name, value in load_file(path).items())
    header = path.read_bytes()[8:].split(b"}", 1)[0]
    assert header == b'{"__metadata__":{"format":"pt"'


def test_a_tensor_that_differs_from_its_plan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="found torch.float32"):
        write_safetensors(tmp_path / "a.safetensors", [Planned("a", "BF16", (2,))], [torch.zeros(2)])


def test_weight_files_stay_below_the_limit() -> None:
    plan = [Planned(str(i), "F32", (n,)) for i, n in enumerate((4, 4, 4, 40, 1))]
    assert [[item.name for item in shard] for shard in _split(plan, 32)] == [["0", "1"], ["2"], ["3"], ["4"]]


def test_rows_of_shards_are_those_of_torch_chunk() -> None:
    for rows in (1, 5, 8, 17):
        for world in (1, 2, 3, 8):
            parts = [torch.arange(rows)[shard_rows(rows, r, world)].tolist() for r in range(world)]
            chunks = [c.tolist() for c in torch.arange(rows).chunk(world)]
            assert parts == chunks + [[]] * (world - len(chunks))


def test_nine_digits() -> None:
    assert round9(1.66015625e-8) == 1.66015625e-8
    assert round9(2 / 3) == 0.666666667


# --- checks and launch


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"auto_map": {"AutoConfig": "x.Y"}}, "auto_map"),
        ({"_attn_implementation_internal": "someone/kernel"}, "_attn_implementation_internal"),
        ({"trust_remote_code": True}, "trust_remote_code"),
        ({"architectures": ["MistralForCausalLM"]}, "LlamaForCausalLM"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings"),
    ],
)
def test_configs_that_run_code_or_are_no_llama_are_refused(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(StageError, match=message):
        read_config(make_base(tmp_path / "base", **changed))


def test_schedules_that_do_not_fit_are_refused_with_the_way_out(tmp_path: Path, pack: Path) -> None:
    spec = make_spec()
    facts = read_pack(pack, spec, 512)
    with pytest.raises(StageError, match="pack again for 4"):
        read_pack(pack, make_spec(launch={"processes_per_node": 4}), 512)
    with pytest.raises(StageError, match="vocabulary of 512"):
        read_pack(pack, spec, 256)
    broken = make_pack(tmp_path / "pack")
    np.save(broken / "schedule_rows.npy", np.full_like(np.load(broken / "schedule_rows.npy"), 9999))
    with pytest.raises(StageError, match="names row 9999"):
        read_pack(broken, spec, 512)
    for changed, message in (
        ({"optimizer": {"warmup_steps": 12}}, "allowed: 0 to 11"),
        (
            {"numerics": {"attention": "flash_attention_2", "precision": "fp32_master"}},
            "launch.device is cpu: use sdpa",
        ),
        ({"cadence": {"final_ckpt": "best_eval", "save_steps": 6}}, "no multiple of eval_steps"),
    ):
        with pytest.raises(StageError, match=message):
            check_settings(make_spec(**changed), facts)


def test_launch_never_uses_the_option_that_starts_one_process() -> None:
    launch = Launch(device="cpu", processes_per_node=3, portable_cpu=True)
    arguments = launcher_arguments(launch, Path("task.json"), 12345)
    assert "--cpu" not in arguments
    assert arguments[arguments.index("--num_processes") + 1] == "3"
    environment = launcher_environment(launch)
    assert environment["OMP_NUM_THREADS"] == "1"
    assert environment["MKL_CBWR"] == "COMPATIBLE"
    assert "MKL_CBWR" not in launcher_environment(Launch(device="cuda", portable_cpu=True))
    assert launcher_environment(Launch(device="cuda"))["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    with pytest.raises(ValueError, match="portable_cpu needs threads_per_process 1, found"):
        Launch(device="cpu", threads_per_process=2, portable_cpu=True)
