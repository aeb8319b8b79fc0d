"""Trainings through the door with two real processes: sharding, bits, signals, kill -9."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers.models.auto.modeling_auto import AutoModelForCausalLM
from transformers.models.llama.configuration_llama import LlamaConfig

from scripts.artifact.stage import Job, StageError
from scripts.artifact.tensors import digest_safetensors
from scripts.recipe.train import Launch, TrainSpec
from scripts.train import node
from scripts.train.handover import Task
from scripts.train.launch import check_nodes, claim_path, start_command, take_claims
from scripts.train.model import PackedLlama, require_sharded
from scripts.train.ranks import roll_call
from tests.conftest import ROOT
from tests.unit.test_train_alone import reference
from tests.unit.train_fixtures import CONFIG, alone, make_base, make_pack, make_spec, payload, read_metrics, train

STEPS = 12
DOOR = """
import json, sys
from pathlib import Path
from scripts.artifact.stage import Job
from scripts.recipe.train import TrainSpec
from scripts.train.build import build
spec, base, pack, out, work = json.loads(sys.argv[1])
Path(out).mkdir(parents=True, exist_ok=True)
inputs = {"create/base": Path(base), "pack/tuned": Path(pack)}
build(Job(TrainSpec.model_validate(spec), inputs, Path(out), Path(work), 2))
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base") / "base")


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pack(tmp_path_factory.mktemp("pack") / "pack", steps=STEPS)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, base: Path, pack: Path) -> Job[TrainSpec]:
    """One training without interruption."""
    return train(tmp_path_factory.mktemp("whole"), make_spec(), base, pack)


def test_two_processes_train_what_one_would_on_all_their_rows(whole: Job[TrainSpec], base: Path, pack: Path) -> None:
    lines = read_metrics(whole.out)
    steps = [line for line in lines if "loss" in line]
    losses, weights = reference(base, pack, whole.spec, entries=4, mean="token")
    assert [line["loss"] for line in steps] == pytest.approx(losses, rel=5e-4)
    saved, start = load_file(whole.out / "model.safetensors"), load_file(base / "model.safetensors")
    for name, value in weights.items():
        assert (saved[name] - value).norm() < 0.02 * (value - start[name]).norm(), name
    assert [line["step"] for line in lines if "eval_loss" in line] == [0, 4, 8, 12]


def test_the_payload_is_a_model_folder_with_its_metrics(whole: Job[TrainSpec], base: Path) -> None:
    names = {p.name for p in whole.out.iterdir()}
    assert names == {p.name for p in base.iterdir()} - {"SHA256SUMS"} | {"metrics.jsonl", "train.json"}
    facts = json.loads((whole.out / "train.json").read_text())
    assert facts["last_eval_loss"] < facts["first_eval_loss"] - 0.5
    assert (facts["steps"], facts["processes"], facts["published_step"]) == (STEPS, 2, STEPS)
    assert facts["settings"] == whole.spec.identity()
    assert whole.counts["parameters"] == sum(t.numel() for t in load_file(base / "model.safetensors").values())
    # Hashed while written: the door need not read the weights again.
    digest, tensors = digest_safetensors(whole.out / "model.safetensors")
    assert (whole.digests["model.safetensors"], whole.tensors) == (digest, tensors)
    assert whole.facts["tokens_per_s"] > 0
    kinds = {name: whole.facts["asserted"][name] for name in ("world_size", "weights", "gradients", "optimizer_state")}
    kind = "float32"
    assert kinds == {"world_size": 2, "weights": kind, "gradients": kind, "optimizer_state": kind}
    assert whole.facts["loss_spikes"] == []
    loaded, info = AutoModelForCausalLM.from_pretrained(whole.out, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    written = load_file(whole.out / "model.safetensors")
    assert all(torch.equal(written[name], value) for name, value in loaded.state_dict().items())
    with safe_open(whole.out / "model.safetensors", "pt") as shard:
        assert shard.metadata() == {"format": "pt"}
    line = next(line for line in read_metrics(whole.out) if "loss" in line)
    assert list(line) == ["step", "epoch", "loss", "learning_rate", "grad_norm", "tokens", "rows_digest"]


def _start(spec: TrainSpec, base: Path, pack: Path, out: Path, work: Path) -> "subprocess.Popen[str]":
    places = [str(p) for p in (base, pack, out, work)]
    arguments = json.dumps([spec.model_dump(mode="json"), *places])
    # Surroundings that must not change a bit.
    odd = {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2", "PYTHONHASHSEED": "5", "TZ": "Asia/Tokyo", "LC_ALL": "C"}
    environment = {**os.environ, **odd, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-c", DOOR, arguments], env=environment, stderr=subprocess.PIPE, text=True)


def _wait_for_step(work: Path, step: int, door: "subprocess.Popen[str]") -> None:
    """Wait until the metrics hold a training step."""
    for _ in range(6000):
        path = work / "metrics.jsonl"
        if path.is_file() and f'"step": {step}, "epoch"' in path.read_text():
            return
        assert door.poll() is None, door.stderr and door.stderr.read()
        time.sleep(0.01)
    raise AssertionError(f"step {step} was never reached")


def _workers(work: Path) -> list[int]:
    """Return the training processes whose command names the work folder."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_text().split("\0") if entry.name.isdigit() else []
        except OSError:
            continue
        if "scripts.train.worker" in command and "accelerate.commands.launch" not in command:
            found += [int(entry.name)] if any(part.startswith(str(work)) for part in command) else []
    return found


SRUN = """
import os, subprocess, sys, threading
# What srun does, on this machine: one task a node, its place in the environment, standard input to all.
count = int(next(a for a in sys.argv if a.startswith("--nodes=")).split("=")[1])
command = sys.argv[1 + next(i for i, a in enumerate(sys.argv[1:]) if not a.startswith("--")):]
told = {"SLURM_STEP_NUM_NODES": str(count), "SLURM_LAUNCH_NODE_IPADDR": "127.0.0.1"}
places = [{**os.environ, **told, "SLURM_NODEID": str(n)} for n in range(count)]
tasks = [subprocess.Popen(command, stdin=subprocess.PIPE, env=place) for place in places]

def pass_end_of_input():
    sys.stdin.read()
    for task in tasks:
        task.stdin.close()

threading.Thread(target=pass_end_of_input, daemon=True).start()
sys.exit(max(abs(task.wait()) for task in tasks))
"""


@pytest.fixture
def srun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program `srun` that starts its tasks on this machine, inside a Slurm job of its own words."""
    path = tmp_path / "bin" / "srun"
    path.parent.mkdir()
    path.write_text(f"#!{sys.executable}\n{SRUN}")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", str(os.getpid()))
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    return path


TWO_NODES = {"nodes": 2, "processes_per_node": 1}


@pytest.mark.slow
def test_two_nodes_of_one_process_train_the_bytes_of_one_node_of_two(
    whole: Job[TrainSpec], base: Path, pack: Path, srun: Path, tmp_path: Path
) -> None:
    job = train(tmp_path / "nodes", make_spec(launch=TWO_NODES, trackers=["tensorboard"]), base, pack)
    found, wanted = payload(job), payload(whole)
    # train.json names the launch, which differs.
    assert {n for n in wanted if found[n] != wanted[n]} == {"train.json"}
    assert job.facts["asserted"]["nodes"] == 2
    assert list((job.work / "tensorboard" / "tuned").glob("events.*"))
    assert list(job.work.glob("task-*")) == []


def test_a_node_that_is_started_twice_is_named(
    base: Path, pack: Path, srun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = tmp_path / "task-1.json"
    spec = make_spec(launch=TWO_NODES)
    Task(spec, base, pack, tmp_path, tmp_path, {}, tmp_path).write(task)
    claim_path(task, 1).touch()
    told = {"SLURM_STEP_NUM_NODES": "2", "SLURM_LAUNCH_NODE_IPADDR": "127.0.0.1", "SLURM_NODEID": "1"}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StageError, match="node 1 of 2 was started twice for task-1.json: the training was launched"):
        node.main(task)
    assert take_claims(task, 2) == [0]
    assert take_claims(task, 2) == [0, 1]


def test_several_nodes_need_slurm_and_its_number_of_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    launch = make_spec(launch=TWO_NODES).launch
    with pytest.raises(StageError, match="launch.nodes is 2, .* found no SLURM_JOB_ID; .* or set nodes: 1"):
        check_nodes(launch, {"PATH": ""})
    with pytest.raises(StageError, match="found no srun"):
        check_nodes(launch, {"PATH": "", "SLURM_JOB_ID": "5"})
    told = {"SLURM_NODEID": "1", "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.1", "SLURM_JOB_ID": "70001"}
    assert node.place(launch, {**told, "SLURM_STEP_NUM_NODES": "2"}) == (1, "10.0.0.1", 30_001)
    with pytest.raises(StageError, match=r"srun started 3 nodes, launch\.nodes is 2"):
        node.place(launch, {**told, "SLURM_STEP_NUM_NODES": "3"})
    with pytest.raises(StageError, match="SLURM_STEP_NUM_NODES is not set"):
        node.place(launch, told)
    command = start_command(Launch(device="cuda", nodes=2, processes_per_node=8), Path("t.json"))
    assert command[:3] == ["srun", "--nodes=2", "--ntasks=2"] and "--gpus-per-node=8" in command


def test_a_rank_that_comes_twice_or_not_at_all_is_named() -> None:
    from torch.distributed import HashStore

    store = HashStore()
    with pytest.raises(StageError, match="of 3 processes these ranks did not join within 0 s: 1, 2"):
        roll_call(store, 0, 3, 0.0)
    with pytest.raises(StageError, match="rank 0 of 3 joined twice: the training was launched twice"):
        roll_call(store, 0, 3, 0.0)


@pytest.mark.slow
def test_sigusr1_writes_a_checkpoint_and_makes_the_job_be_retried(base: Path, pack: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    door = _start(make_spec(), base, pack, tmp_path / "out", work)
    _wait_for_step(work, 1, door)
    door.send_signal(signal.SIGUSR1)
    assert door.wait(60) == 128 + signal.SIGUSR1, door.stderr and door.stderr.read()
    assert list((work / "checkpoints").glob("step-*/state.json"))
    assert _workers(work) == []


@pytest.mark.slow
def test_sigterm_then_kill_9_then_a_damaged_checkpoint_and_still_the_same_bytes(
    whole: Job[TrainSpec], base: Path, pack: Path, tmp_path: Path
) -> None:
    spec, work = whole.spec, tmp_path / "work"
    # 1. SIGTERM: a checkpoint at the next step, and an exit status that makes the job be retried.
    door = _start(spec, base, pack, tmp_path / "one", work)
    _wait_for_step(work, 1, door)
    door.send_signal(signal.SIGTERM)
    assert door.wait(60) == 128 + signal.SIGTERM, door.stderr and door.stderr.read()
    saved = sorted(p.name for p in (work / "checkpoints").iterdir())
    assert saved and saved[-1] != f"step-{STEPS:08d}"
    stopped_at = int(saved[-1].removeprefix("step-"))
    assert _workers(work) == []
    # 2. kill -9 of every training process, past the next regular checkpoint.
    door = _start(spec, base, pack, tmp_path / "two", work)
    _wait_for_step(work, 9, door)
    for worker in _workers(work):
        os.kill(worker, signal.SIGKILL)
    assert door.wait(60) == 1
    assert door.stderr is not None and "run the same command again to go on" in door.stderr.read()
    newest = max((work / "checkpoints").glob("step-*"))
    assert newest.name == "step-00000008"
    # 3. One bit of the newest checkpoint flips; the one before is used.
    weights = newest / "rank-00001.safetensors"
    halves, start = (
        [load_file(newest / f"rank-{r:05d}.safetensors") for r in (0, 1)],
        load_file(base / "model.safetensors"),
    )
    for name, value in start.items():
        assert [half[f"weight.{name}"].shape[0] * 2 for half in halves] == [value.shape[0]] * 2
    assert {name.split(".")[0] for name in halves[0]} == {"weight", "exp_avg", "exp_avg_sq"}
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 4
    weights.write_bytes(content)
    door = _start(spec, base, pack, tmp_path / "three", work)
    messages = door.communicate(timeout=120)[1]
    assert door.returncode == 0, messages
    assert "passing over the checkpoint of step 8: rank-00001.safetensors has another SHA-256" in messages
    assert stopped_at < 8
    resumed = Job(spec, whole.inputs, tmp_path / "three", work, 2)
    assert payload(resumed) == payload(whole)


@pytest.mark.slow
def test_workers_end_with_a_checkpoint_when_their_door_is_killed(base: Path, pack: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    door = _start(make_spec(), base, pack, tmp_path / "out", work)
    _wait_for_step(work, 1, door)
    door.kill()
    deadline = time.time() + 60
    while _workers(work) and time.time() < deadline:
        time.sleep(0.1)
    assert _workers(work) == []
    assert list((work / "checkpoints").glob("step-*/state.json"))
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_weights_that_are_not_sharded_are_an_error() -> None:
    # The workers of `whole` asserted DTensors of half size; here, what they would say without FSDP.

    with alone() as mesh, pytest.raises(StageError, match="is not sharded over the 1 processes"):
        require_sharded(PackedLlama(LlamaConfig(**CONFIG)), mesh, torch.float32)
