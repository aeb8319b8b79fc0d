"""`python -m tests.bench bench_scorer`: items a second beside lm-eval's HFLM, same model, items, precision, threads.

Each leg runs in its own process, one thread, the two in turns; the model is a random Llama (4 layers, 384 wide) with
the Llama-2 tokenizer of ATELIER_REAL_DATA. `precision` says how far both are from float64. `gpu` runs a 7B-shaped model
in bfloat16 on the GPU instead, and `gpu toy` the same legs in small on the CPU, so that they can be tested anywhere.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests import benchmark_prompts
from tests.benchmark_prompts import REAL, Prompts

ITEMS = {"arc": 8, "sat_en": 8, "hellaswag_shaped": 12, "mmlu": 24}
GPU_ITEMS = {"arc": 200, "sat_en": 206, "hellaswag_shaped": 300, "mmlu": 100}
SHAPES: dict[str, dict[str, int]] = {
    "small": {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 4, "num_attention_heads": 6},
    "7b": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32},
    "toy": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2},
}
BATCH = 4


def write_model(folder: Path, shape: str, dtype: str) -> None:
    """Write a random Llama of one of SHAPES with the tokenizer, its weights large enough to tell choices apart."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from scripts.recipe.tokenizer_files import write_tokenizer_files

    folder.mkdir()
    write_tokenizer_files((REAL / "llama2_tokenizer.model").read_bytes(), folder, 4096)
    config = LlamaConfig(
        vocab_size=32000, max_position_embeddings=4096, bos_token_id=1, eos_token_id=2, **SHAPES[shape]
    )
    torch.manual_seed(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.device(device):
        model = LlamaForCausalLM(config).to(getattr(torch, dtype))
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(0, 0.05 if parameter.shape[0] == 32000 else parameter.shape[1] ** -0.5)
    model.save_pretrained(folder)


def leg(kind: str, folder: str, dtype: str, task: str, count: str) -> None:
    """Score one task with `hflm` or `shared`; print seconds, scores and peak memory as JSON."""
    import torch
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    from scripts.benchmark.model import Model

    torch.set_num_threads(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    made = {"shared": Model, "hflm": HFLM}[kind]
    model = made(
        pretrained=folder, backend="causal", device=device, dtype=dtype, softmax_dtype="float32", batch_size=BATCH,
        max_length=4096, add_bos_token=True,
    )  # fmt: skip
    prompts: Prompts = getattr(benchmark_prompts, task)(int(count))
    requests = [
        Instance("loglikelihood", {}, pair, n, (task, number, 1))
        for number, item in enumerate(prompts)
        for n, pair in enumerate(item)
    ]
    base_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model.loglikelihood(requests[:1], disable_tqdm=True)  # the first call starts kernels
    started = time.perf_counter()
    scores = [ll for ll, _ in model.loglikelihood(requests, disable_tqdm=True)]
    seconds = time.perf_counter() - started
    peak = (
        torch.cuda.max_memory_allocated()
        if device == "cuda"
        else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    )
    found = {"seconds": seconds, "scores": scores, "peak_mib": peak / 2**20, "base_mib": base_kib / 1024}
    print(json.dumps({**found, "sizes": [len(item) for item in prompts]}))


def run_leg(kind: str, folder: Path, dtype: str, task: str, count: int) -> dict[str, Any]:
    """Return what `leg` prints in a process of its own."""
    line = [sys.executable, "-m", "tests.bench.bench_scorer", "leg", kind, str(folder), dtype, task, str(count)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(line, check=True, capture_output=True, text=True, env=env)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def picks(found: dict[str, Any]) -> list[int]:
    """Return the index of each item's largest score."""
    chosen, begin = [], 0
    for size in found["sizes"]:
        values = found["scores"][begin : begin + size]
        chosen.append(values.index(max(values)))
        begin += size
    return chosen


def compare(shape: str, dtype: str, items: dict[str, int]) -> dict[str, dict[str, float]]:
    """Print and return, for each task, items a second of both, their ratio and what differs."""
    rows = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        write_model(folder, shape, dtype)
        print("task              items   hflm /s shared /s  ratio picks   max |d|    MiB, both")
        for task, count in items.items():
            peer, ours = (run_leg(kind, folder, dtype, task, count) for kind in ("hflm", "shared"))
            different = sum(a != b for a, b in zip(picks(peer), picks(ours), strict=True))
            furthest = max(abs(a - b) for a, b in zip(peer["scores"], ours["scores"], strict=True))
            memory = f"{peer['peak_mib']:6.0f} {ours['peak_mib']:5.0f}"
            rows[task] = {"ratio": peer["seconds"] / ours["seconds"], "different": different, "furthest": furthest}
            print(
                f"{task:17} {count:5} {count / peer['seconds']:9.3f} {count / ours['seconds']:9.3f} "
                f"{rows[task]['ratio']:6.2f} {different:5} {furthest:9.1e} {memory}",
                flush=True,
            )
    return rows


def precision(items: int = 2) -> None:
    """Print the largest difference, in nats, between ours, HFLM and float64, for two sizes of the head's weights."""
    import torch
    from lm_eval.models.huggingface import HFLM

    from scripts.benchmark.model import Model

    torch.set_num_threads(1)
    settings = {"backend": "causal", "device": "cpu", "dtype": "float32", "softmax_dtype": "float32"}
    settings |= {"batch_size": BATCH, "max_length": 4096, "add_bos_token": True}
    print("task    head   nats          ours - HFLM   ours - float64   HFLM - float64")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        write_model(folder, "small", "float32")
        for task in ("arc", "sat_en"):
            prompts: Prompts = getattr(benchmark_prompts, task)(items)
            for scale in (1, 4):
                found = {}
                for name, made, dtype in (
                    ("ours", Model, "float32"),
                    ("HFLM", HFLM, "float32"),
                    ("64", HFLM, "float64"),
                ):
                    model = made(pretrained=str(folder), **{**settings, "dtype": dtype, "softmax_dtype": dtype})
                    model.model.get_output_embeddings().weight.data.mul_(scale)
                    found[name] = _likelihoods(model, prompts)
                gaps = [
                    max(abs(a - b) for a, b in zip(found[one], found[other], strict=True))
                    for one, other in (("ours", "HFLM"), ("ours", "64"), ("HFLM", "64"))
                ]
                nats = f"{-max(found['64']):.0f} to {-min(found['64']):.0f}"
                print(f"{task:7} x{scale}   {nats:11} {gaps[0]:13.1e} {gaps[1]:16.1e} {gaps[2]:16.1e}", flush=True)


def _likelihoods(model: Any, prompts: Prompts) -> list[float]:
    from lm_eval.api.instance import Instance

    asked = [
        Instance("loglikelihood", {}, pair, n, ("precision", number, 1))
        for number, item in enumerate(prompts)
        for n, pair in enumerate(item)
    ]
    return [ll for ll, _ in model.loglikelihood(asked, disable_tqdm=True)]


def main(arguments: list[str]) -> None:
    """Run the legs named on the command line."""
    if arguments[:1] == ["leg"]:
        leg(*arguments[1:])
        return
    if not (REAL / "llama2_tokenizer.model").is_file():
        sys.exit(f"{REAL}: holds no llama2_tokenizer.model; set ATELIER_REAL_DATA")
    if arguments == ["gpu", "toy"]:
        compare("toy", "float32", dict.fromkeys(GPU_ITEMS, 2))
    elif arguments == ["precision"]:
        precision()
    elif arguments == ["gpu"]:
        import torch

        if torch.cuda.is_available():
            compare("7b", "bfloat16", GPU_ITEMS)
        else:
            print(
                "no GPU on this machine, nothing is measured: the same legs at toy size on the CPU follow", flush=True
            )
            main(["gpu", "toy"])
    else:
        compare("small", "float32", ITEMS)


if __name__ == "__main__":
    main(sys.argv[1:])
