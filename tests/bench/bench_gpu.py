"""`make bench-gpu`: the training loop on one GPU at 7B shape, beside HF Trainer on the same card in the same run.

    python -m tests.bench.bench_gpu [--output results/bench-gpu.json]

Random weights, documents of 4,096 tokens packed to lines, bf16 compute with fp32 master state, all levers. Three runs
of ours: twice with the deterministic switches (same digest of all weights?) and once without (what they cost). A card
that can't hold 32 layers at 16 bytes a parameter gets as many as fit, and the result says so. Without a GPU, or with
`--toy`, the same code runs at toy size on the CPU, where its figures mean nothing and are kept only if `--output` says
where: so that it is known to work before a GPU is at hand.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.bench.train_inputs import random_rows, write_pack

_7B: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 32_000,
    "hidden_size": 4096,
    "intermediate_size": 11_008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10_000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_TOY = {"vocab_size": 500, "hidden_size": 64, "intermediate_size": 160, "num_attention_heads": 4}
_TOY |= {"num_hidden_layers": 2, "num_key_value_heads": 4}
_LAYER_PARAMETERS, _OTHER_PARAMETERS = 4 * 4096**2 + 3 * 4096 * 11_008 + 2 * 4096, 2 * 32_000 * 4096 + 4096
# Gathered bf16 weights, activations, logits and the allocator's loss.
_RESERVED_BYTES = 26e9


def main() -> None:
    """Run all contenders, print and write the result."""
    args = _arguments()
    if args.child:
        print(json.dumps(_ours(json.loads(args.child))))
        return
    import torch

    if not args.toy and not torch.cuda.is_available():
        print("bench-gpu: no GPU on this machine, nothing is measured: a trial of the script at toy size follows")
        args.toy = True
    config = {**_7B, **(_TOY if args.toy else {"num_hidden_layers": args.layers or _layers_that_fit()})}
    document = 64 if args.toy else 4096
    with tempfile.TemporaryDirectory(prefix="bench-gpu-") as temporary:
        root = Path(temporary)
        capacity = document * args.documents
        rows = random_rows(capacity * args.accumulation * (args.steps + args.warm), document, config["vocab_size"])
        bins = write_pack(root / "pack", rows, capacity, 1, config["vocab_size"], args.accumulation)
        task: dict[str, Any] = {"config": config, "pack": str(root / "pack"), "warm": args.warm, "toy": args.toy}
        task |= {"kernel": "sdpa" if args.toy else args.kernel, "compile": not (args.toy or args.no_compile)}
        task |= {"policy": args.policy, "loss_chunk": args.loss_chunk, "deterministic": True}
        first, again = run_child(task), run_child(task)
        free = run_child({**task, "deterministic": False})
        peer = _peer(root, task, [[rows[r] for r in line] for line in bins], args)
        result = _result(args, config, document, {"ours": first, "again": again, "free": free, "hf_trainer": peer})
    print(json.dumps(result, indent=1))
    output = args.output or (None if args.toy else Path("results/bench-gpu.json"))
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(result, indent=1) + "\n")
    if failed := [f"{name}: {run['failed']}" for name, run in result["runs"].items() if "failed" in run]:
        sys.exit(f"bench-gpu: {'; '.join(failed)}")
    if args.toy:
        print("bench-gpu: the script works here; its times mean nothing")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="default: results/bench-gpu.json, and none of a toy")
    parser.add_argument("--toy", action="store_true", help="toy size on a CPU")
    parser.add_argument("--layers", type=int, default=0, help="0: 32, or as many as fit")
    parser.add_argument("--documents", type=int, default=2, help="documents of 4,096 tokens a line")
    parser.add_argument("--accumulation", type=int, default=4, help="lines a step")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--warm", type=int, default=3, help="steps before the clock starts")
    parser.add_argument("--kernel", default="torch_varlen")
    parser.add_argument("--policy", choices=["none", "full", "selective"], default="selective")
    parser.add_argument("--loss-chunk", type=int, default=8192)
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


def _layers_that_fit() -> int:
    import torch

    memory = torch.cuda.get_device_properties(0).total_memory - _RESERVED_BYTES
    return min(32, int((memory / 16 - _OTHER_PARAMETERS) / _LAYER_PARAMETERS))


def run_child(task: dict[str, Any]) -> dict[str, Any]:
    """Take the steps of a packed schedule in a process of its own; return its speed, losses and digest of weights."""
    from scripts.recipe.hardware import GPU_ENV

    environment = {k: v for k, v in os.environ.items() if k not in GPU_ENV} | {"HF_HUB_OFFLINE": "1"}
    environment |= GPU_ENV if task["deterministic"] else {}
    command = [sys.executable, "-m", "tests.bench.bench_gpu", "--child", json.dumps(task)]
    return _run(command, environment)


def _run(command: list[str], environment: dict[str, str]) -> dict[str, Any]:
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        return {"failed": _reason(done.stderr) or f"exit status {done.returncode}"}
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _reason(stderr: str) -> str:
    """Return the exception's line: libraries print warnings after it."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"(\[rank\d+\]: )?[\w.]*(Error|Exception)\b", line)]
    return (errors or lines or [""])[-1][:300]


def _peer(root: Path, task: dict[str, Any], lines: list[list[list[int]]], args: argparse.Namespace) -> dict[str, Any]:
    """Run HF Trainer with flash attention by position_ids, which transformers takes from a package; else sdpa."""
    from importlib.util import find_spec

    flash = find_spec("flash_attn") is not None and not args.toy
    content = {"config": task["config"], "out": str(root / "peer"), "lines": lines, "accumulation": args.accumulation}
    content |= {"attention": "flash_attention_2" if flash else "sdpa", "bf16": True, "checkpointing": True}
    content |= {"device": "cpu" if args.toy else "cuda", "threads": 1, "capacity": 0}
    (root / "task.json").write_text(json.dumps(content))
    script = Path(__file__).with_name("train_peers.py")
    found = _run(
        [sys.executable, str(script), "trainer", str(root / "task.json")], {**os.environ, "HF_HUB_OFFLINE": "1"}
    )
    if "seconds" not in found:
        return found
    seconds = statistics.median(found["seconds"][args.warm :])
    tokens = sum(map(len, lines[0])) * args.accumulation
    facts = {"seconds_per_step": seconds, "tokens_per_s": tokens / seconds, "attention": content["attention"]}
    return facts | {"peak_gpu_bytes": found["peak_gpu_bytes"], "first_loss": found["losses"][0]}


def _ours(task: dict[str, Any]) -> dict[str, Any]:
    """Take the schedule's steps with the stage's own loop in this process; weights are random and never saved."""
    import torch
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh

    from scripts.train import model as model_module

    device = "cpu" if task["toy"] else "cuda"
    torch.set_float32_matmul_precision("high")
    torch.use_deterministic_algorithms(task["deterministic"])
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    backend = "gloo" if task["toy"] else "nccl"
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    # Random weights instead of a file: 7B in fp32 would be written and read for nothing.
    model_module._load = _random_weights
    training = _training(task, init_device_mesh(device, (1,)))
    seconds, losses = [], []
    flops, tokens = 0.0, 0
    for step in range(training.facts["steps"]):
        _wait(device)
        begun = time.perf_counter()
        line, flops = training.step(step)
        _wait(device)
        seconds.append(time.perf_counter() - begun)
        losses.append(line["loss"])
        tokens = line["tokens"]
    found = statistics.median(seconds[task["warm"] :])
    result = {"seconds_per_step": found, "tokens_per_s": tokens / found, "flops_per_step": flops, "losses": losses}
    result["peak_gpu_bytes"] = 0 if task["toy"] else torch.cuda.max_memory_allocated()
    result["digest"] = _digest(training.model)
    dist.destroy_process_group()
    return result


def _training(task: dict[str, Any], mesh: Any) -> Any:
    from scripts.recipe.train import Cadence, Launch, Levers, Numerics, Optimizer, TrainSpec
    from scripts.train.loop import Training
    from scripts.train.model import build_model
    from scripts.train.optimizer import build_optimizer
    from scripts.train.reader import PackedRows
    from scripts.train.trackers import Trackers

    levers = Levers(
        loss_chunk=task["loss_chunk"],
        compile_layers=task["compile"],
        checkpoint_policy="full" if task["policy"] == "none" else task["policy"],
    )
    spec = TrainSpec(
        model="bench",
        base="base",
        optimizer=Optimizer(learning_rate=1e-4, warmup_steps=0),
        numerics=Numerics(
            attention=task["kernel"], gradient_checkpointing=task["policy"] != "none", **task.get("numerics", {})
        ),
        cadence=Cadence(),
        levers=levers,
        launch=Launch(device=mesh.device_type, processes_per_node=1),
        trackers=[],
        seed=1,
    )
    pack = Path(task["pack"])
    facts = json.loads((pack / "pack.json").read_text())
    model = build_model(pack, task["config"], spec.numerics, mesh, levers)
    rows, validation = (PackedRows(pack, s, keep_boundary=False, bos_id=1) for s in ("train", "validation"))
    trackers = Trackers([], pack, "bench")
    return Training(
        spec, facts, pack, model, build_optimizer(model, spec.optimizer), mesh, rows, validation,
        None, None, lambda: False, trackers,  # type: ignore[arg-type]
    )  # fmt: skip


def _random_weights(model: Any, _base: Path, mesh: Any) -> None:
    import torch

    from scripts.train.model import shard_of

    generator = torch.Generator(mesh.device_type).manual_seed(3)
    with torch.no_grad():
        for _, parameter in sorted(model.named_parameters()):
            shard = shard_of(parameter)
            if parameter.dim() > 1:
                shard.normal_(0.0, 0.02, generator=generator)
            else:
                shard.fill_(1.0)


def _digest(model: Any) -> str:
    """Return a digest of every bit of the weights: two sums of their words, one weighted by place, for each tensor."""
    import hashlib

    import torch

    from scripts.train.model import shard_of

    whole = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        words = shard_of(parameter).detach().contiguous().view(torch.int32).flatten().split(1 << 24)
        for part in words:
            wide = part.long()
            place = torch.arange(len(wide), device=wide.device) * 2_654_435_761 + 1
            whole.update(f"{name} {int(wide.sum())} {int((wide * place).sum())}".encode())
    return whole.hexdigest()


def _wait(device: str) -> None:
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def _result(args: Any, config: dict[str, Any], document: int, runs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    import platform

    import torch
    import transformers

    from scripts.train.metrics import _PEAKS

    gpu = torch.cuda.get_device_name() if not args.toy else ""
    peak = next((p for name, p in _PEAKS.items() if name in gpu), None)
    flops = runs["ours"].get("flops_per_step")
    for run in runs.values():
        if peak and flops and "seconds_per_step" in run:
            run["mfu"] = flops / run["seconds_per_step"] / peak
    ours, free, peer = (runs[name].get("seconds_per_step") for name in ("ours", "free", "hf_trainer"))
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    settings = {name: getattr(args, name) for name in ("documents", "accumulation", "kernel", "policy", "loss_chunk")}
    return {
        "hardware": gpu or platform.machine(),
        "dense_bf16_peak_flops": peak,
        **versions,
        "toy": args.toy,
        "layers": config["num_hidden_layers"],
        "document_tokens": document,
        "settings": settings
        | {"compile": not (args.toy or args.no_compile), "kernel": "sdpa" if args.toy else args.kernel},
        "bitwise_rerun": "digest" in runs["ours"] and runs["ours"]["digest"] == runs["again"].get("digest"),
        "deterministic_costs": ours / free - 1 if ours and free else None,
        "times_hf_trainer": peer / ours if ours and peer else None,
        "runs": runs,
    }


if __name__ == "__main__":
    main()
