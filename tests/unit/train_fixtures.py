"""A tiny base model and pack artifact, made with numpy alone, and a door to train them."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save_file

from scripts.artifact.digest import SUMS, format_sums, hash_files, payload_files
from scripts.artifact.stage import Job
from scripts.recipe.train import Cadence, Launch, Numerics, Optimizer, TrainSpec
from scripts.train.build import build
from scripts.train.handover import flatten

VOCAB, HIDDEN, INNER, LAYERS, HEADS = 512, 64, 160, 2, 4
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": VOCAB,
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def model_shapes() -> dict[str, tuple[int, ...]]:
    """Return every tensor of the tiny Llama with its shape."""
    shapes: dict[str, tuple[int, ...]] = {"model.norm.weight": (HIDDEN,)}
    shapes.update(dict.fromkeys(("model.embed_tokens.weight", "lm_head.weight"), (VOCAB, HIDDEN)))
    key_value = HIDDEN // HEADS * CONFIG["num_key_value_heads"]
    sizes = {"q": HIDDEN, "k": key_value, "v": key_value, "o": HIDDEN}
    for layer in range(LAYERS):
        at = f"model.layers.{layer}"
        shapes.update({f"{at}.self_attn.{n}_proj.weight": (size, HIDDEN) for n, size in sizes.items()})
        shapes.update({f"{at}.mlp.{n}_proj.weight": (INNER, HIDDEN) for n in ("gate", "up")})
        shapes[f"{at}.mlp.down_proj.weight"] = (HIDDEN, INNER)
        shapes.update({f"{at}.{n}_layernorm.weight": (HIDDEN,) for n in ("input", "post_attention")})
    return shapes


def make_base(folder: Path, **changed: Any) -> Path:
    """Write the tiny base model; `changed` overrides keys of config.json."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(7)
    tensors = {
        name: np.ones(shape, np.float32) if len(shape) == 1 else random.normal(0, 0.05, shape).astype(np.float32)
        for name, shape in model_shapes().items()
    }
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps({**CONFIG, **changed}), encoding="utf-8")
    for name in ("generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).write_text("{}\n", encoding="utf-8")
    (folder / "chat_template.jinja").write_text("{{ messages }}\n", encoding="utf-8")
    (folder / "tokenizer.model").write_bytes(b"pieces")
    return _sealed(folder)


def make_pack(
    folder: Path, *, steps: int = 12, processes: int = 2, accumulation: int = 2, boundary: str = "ignore"
) -> Path:
    """Write a pack artifact: rows that count upwards from a random token, so that there is something to learn."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(11)
    entries = steps * accumulation * processes
    per_line = random.integers(2, 5, entries)
    per_line[-1] = 0  # an empty micro-batch is allowed
    facts = {"train": int(per_line.sum()), "validation": 9}
    for split, rows in facts.items():
        lengths = random.integers(6, 40, rows)
        bounds = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        starts = random.integers(3, VOCAB, rows)
        ids = np.concatenate([_row(int(n), int(s)) for n, s in zip(lengths, starts, strict=True)])
        trained = np.ones(len(ids), np.uint8)
        for start in bounds[:-1]:
            trained[start + 1 : start + 4] = 0
        np.save(folder / f"{split}_input_ids.npy", ids.astype(np.uint16))
        np.save(folder / f"{split}_trained.npy", trained)
        np.save(folder / f"{split}_rows.npy", bounds)
        sources = ["stories" if r % 3 else "lessons" for r in range(rows)]
        table = pa.table({"id": [f"{split}-{r}" for r in range(rows)], "source": sources})
        pq.write_table(table, folder / f"{split}_row_ids.parquet")
    np.save(folder / "schedule_offsets.npy", np.concatenate([[0], np.cumsum(per_line)]).astype(np.int64))
    np.save(folder / "schedule_rows.npy", random.permutation(facts["train"]).astype(np.int32))
    batches = -(-3 // processes) * processes
    np.save(folder / "validation_offsets.npy", np.minimum(np.arange(batches + 1) * 3, 9).astype(np.int64))
    np.save(folder / "validation_schedule.npy", np.arange(9, dtype=np.int32))
    content = {
        "model": "tuned",
        "vocab_size": VOCAB,
        "bos_id": 1,
        "eos_id": 2,
        "gradient_accumulation_steps": accumulation,
        "processes": processes,
        "steps": steps,
        "steps_per_epoch": steps,
        "train_rows": facts["train"],
        "validation_rows": facts["validation"],
        "boundary_label": boundary,
    }
    (folder / "pack.json").write_text(json.dumps(content), encoding="utf-8")
    return _sealed(folder)


def make_spec(**changed: Any) -> TrainSpec:
    """Return a spec for two CPU processes; sections are given as tables of keys."""
    sections: dict[str, Any] = {
        "optimizer": {"learning_rate": 5e-3, "warmup_steps": 2},
        "numerics": {"precision": "fp32", "tf32": False, "gradient_checkpointing": False, "attention": "sdpa"},
        "cadence": {"eval_steps": 4, "save_steps": 4},
        "launch": {"device": "cpu", "processes_per_node": 2, "portable_cpu": True},
    }
    types = {"optimizer": Optimizer, "numerics": Numerics, "cadence": Cadence, "launch": Launch}
    made = {name: types[name](**{**keys, **changed.pop(name, {})}) for name, keys in sections.items()}
    return TrainSpec(model="tuned", base="base", seed=1, **made, **{"trackers": [], **changed})


def make_job(root: Path, spec: TrainSpec, base: Path, pack: Path, work: Path | None = None) -> Job[TrainSpec]:
    """Return a job whose payload folder is `root/out`."""
    out = root / "out"
    out.mkdir(parents=True)
    return Job(spec, {"create/base": base, "pack/tuned": pack}, out, work or root / "work", 2)


def train(root: Path, spec: TrainSpec, base: Path, pack: Path, work: Path | None = None) -> Job[TrainSpec]:
    """Train through the door, with real processes, and return the finished job."""
    job = make_job(root, spec, base, pack, work)
    build(job)
    return job


def payload(job: Job[TrainSpec]) -> dict[str, str]:
    """Return the SHA-256 of each file of the payload."""
    return hash_files(job.out, payload_files(job.out))


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


@contextmanager
def alone() -> Iterator[Any]:
    """Make this process a group of one, and yield its mesh: for tests that need no launch."""
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh

    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield init_device_mesh("cpu", (1,))
    finally:
        dist.destroy_process_group()


def train_alone(
    root: Path, spec: TrainSpec, base: Path, pack: Path, monkeypatch: Any, work: Path | None = None
) -> Path:
    """Run the worker's own `train` in this process, one rank, and return the payload folder."""
    from scripts.train import worker
    from scripts.train.handover import Task

    out, work = root / "out", work or root / "work"
    out.mkdir(parents=True)
    work.mkdir(parents=True, exist_ok=True)
    fingerprint = {"base": "a" * 64, **flatten(spec.identity(), "spec")}
    task = Task(spec, base, pack, out, work, fingerprint, work / "tensorboard")
    with alone() as mesh:
        monkeypatch.setattr(worker, "join", lambda _launch: mesh)
        # Under pytest standard input is closed, which a worker takes for the end of its door.
        monkeypatch.setattr(worker, "stop_watch", lambda: lambda: False)
        worker.train(task)
    return out


def _row(length: int, start: int) -> Any:
    body = 3 + (start + np.arange(length - 2)) % (VOCAB - 3)
    return np.concatenate([[1], body, [2]])


def _sealed(folder: Path) -> Path:
    (folder / SUMS).write_text(format_sums(hash_files(folder, payload_files(folder))), encoding="utf-8")
    return folder
