"""One training process of `accelerate launch --module scripts.train.worker <task.json>`."""

import atexit
import fcntl
import json
import os
import sys
import time
from pathlib import Path
from typing import IO, Any, NoReturn

import torch

from scripts.artifact.stage import StageError
from scripts.recipe.checkpoints import checkpoint_folder
from scripts.recipe.prompt_format import write_chat_template
from scripts.train.checkpoint import Checkpoints
from scripts.train.checks import read_config
from scripts.train.handover import FAILURE, RESULT, CollectiveError, Task, write_atomic
from scripts.train.loop import InterruptedTrainingError, Training, stop_watch
from scripts.train.memory import out_of_memory_text
from scripts.train.metrics import Metrics, Speed
from scripts.train.model import build_model
from scripts.train.optimizer import build_optimizer
from scripts.train.ranks import barrier, join
from scripts.train.reader import PackedRows
from scripts.train.save import save_model
from scripts.train.trackers import Trackers

_LOCK_WAIT_S = 120


class WorkFolderHeldError(StageError):
    """Another training works in this folder, or has just finished there."""


def main(path: Path) -> int:
    """Train as the task file says; return the exit status (0 also where the door is told why nothing was made)."""
    task = Task.read(path)
    try:
        train(task)
    except InterruptedTrainingError as error:
        print(f"train: {error}", file=sys.stderr, flush=True)
    except CollectiveError as error:
        # All ranks are here, so all can end in order and the message stays the last word.
        _tell(task, str(error))
    except WorkFolderHeldError as error:
        # Not into the folder: its holder's door would take the message for its own.
        print(f"train: {error}", file=sys.stderr, flush=True)
        return 1
    except torch.OutOfMemoryError as error:
        _tell(task, out_of_memory_text(task, error))
        return 1
    except (StageError, OSError) as error:
        # This rank is alone with its trouble: a status other than 0 makes the launcher end the others.
        _tell(task, str(error))
        return 1
    torch.distributed.destroy_process_group()
    return 0


def _tell(task: Task, text: str) -> None:
    """Leave the door the reason of a failure; where even that finds no room, the log alone has it."""
    try:
        write_atomic(task.work / FAILURE, text)
    except OSError as error:
        print(f"train: {text}; {FAILURE}: {error}", file=sys.stderr, flush=True)


def train(task: Task) -> None:
    """Join the other ranks, train, and publish into `task.out`."""
    stop_asked = stop_watch()
    spec = task.spec
    torch.set_num_threads(spec.launch.threads_per_process)
    _deterministic(spec.numerics.tf32)
    mesh = join(spec.launch)
    lock = _lock(task.work) if mesh.get_local_rank() == 0 else None
    barrier(mesh)
    facts: dict[str, Any] = json.loads((task.pack / "pack.json").read_text(encoding="utf-8"))
    config = read_config(task.base)
    model = build_model(task.base, config, spec.numerics, mesh, spec.levers)
    optimizer = build_optimizer(model, spec.optimizer)
    trackers = Trackers(list(spec.trackers), task.curves, spec.model)
    metrics = Metrics(task.work, mesh.get_local_rank(), trackers)
    checkpoints = Checkpoints(task.work, task.fingerprint, mesh, metrics, spec.cadence.keep_checkpoints)
    keep = facts["boundary_label"] == "keep"
    rows, validation = (
        PackedRows(task.pack, split, keep_boundary=keep, bos_id=facts["bos_id"]) for split in ("train", "validation")
    )
    training = Training(
        spec, facts, task.pack, model, optimizer, mesh, rows, validation, metrics, checkpoints, stop_asked, trackers
    )
    try:
        speed = training.run(task.work)
    finally:
        trackers.finish()
    _publish(task, training, speed)
    barrier(mesh)
    if lock is not None:
        lock.close()


def _publish(task: Task, training: Training, speed: Speed) -> None:
    """Write weights, metrics and train.json, and last the result that tells the door that all is there."""
    spec, facts, metrics, mesh = task.spec, training.facts, training.metrics, training.mesh
    step = facts["steps"]
    if spec.cadence.final_ckpt == "best_eval":
        best = training.best_saved()
        assert best is not None  # the last step is always evaluated and saved
        if best != step:
            step = best
            training.checkpoints.load(step, training.model, None)
    # Release Adam's state before whole tensors are gathered: 2 of the 4 copies a GPU holds.
    training.optimizer.state.clear()
    files, tensors = _write_model(task, training, task.out)
    for kept in spec.cadence.keep_checkpoints:
        training.checkpoints.load(kept, training.model, None)
        place = checkpoint_folder(kept)
        found, _ = _write_model(task, training, task.out / place)
        files.update({f"{place}/{name}": digest for name, digest in found.items()})
    if mesh.get_local_rank() != 0:
        return
    content = metrics.path.read_bytes()
    (task.out / "metrics.jsonl").write_bytes(content)
    losses = metrics.evaluations()
    best_step = min(losses, key=lambda s: (losses[s], s), default=None)
    entries = facts["steps"] * facts["gradient_accumulation_steps"] * training.world
    summary = {
        "model": spec.model,
        "base": spec.base,
        "steps": facts["steps"],
        "processes": training.world,
        "parameters": sum(p.numel() for p in training.model.parameters()),
        "train_tokens": training.rows.tokens(0, entries)[0],
        "first_eval_loss": losses.get(0),
        "last_eval_loss": losses.get(facts["steps"]),
        "best_eval_loss": None if best_step is None else losses[best_step],
        "best_eval_step": best_step,
        "published_step": step,
        "settings": spec.identity(),
    }
    (task.out / "train.json").write_text(json.dumps(summary, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    result = {"files": files, "tensors": tensors, "facts": {**speed.facts(), **_found(training)}, "counts": summary}
    write_atomic(task.work / RESULT, json.dumps(result))


def _write_model(task: Task, training: Training, out: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Write the model as it is now to a folder, with its chat template; return what `save_model` does."""
    first = training.rank == 0
    if first:
        out.mkdir(parents=True, exist_ok=True)
    files, tensors = save_model(
        training.model,
        training.mesh,
        task.base,
        out,
        out_dtype=task.spec.numerics.out_dtype,
        max_shard_bytes=task.spec.max_shard_bytes,
    )
    if first:
        write_chat_template(out, task.spec.format)
    return files, tensors


def _found(training: Training) -> dict[str, Any]:
    """Return what was asserted at the start, and the steps whose loss was noted as a spike."""
    return {"asserted": training.types, "loss_spikes": training.metrics.spikes}


def _deterministic(tf32: bool) -> None:
    torch.use_deterministic_algorithms(True)
    # Filling fresh memory with NaN would cost bandwidth; nothing here reads what it did not write.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.set_float32_matmul_precision("high" if tf32 else "highest")


def _lock(work: Path) -> IO[str]:
    """Take the work folder: an orphan of a killed attempt may still be writing its last checkpoint.

    Raises:
        WorkFolderHeldError: another training holds the folder for longer than a checkpoint should take, or it has
            published meanwhile, which removes the folder: to train here would begin at step 0.
    """
    handle = (work / "lock").open("w")
    for _ in range(_LOCK_WAIT_S):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(1)
            continue
        if os.fstat(handle.fileno()).st_nlink == 0:
            raise WorkFolderHeldError(f"{work}: another training has just finished here; run the same command again")
        return handle
    text = f"{work}: another training has held this folder for {_LOCK_WAIT_S} s; end it, or wait for it"
    raise WorkFolderHeldError(text)


def leave(status: int) -> NoReturn:
    """End this process without the destructors of torch's and gloo's threads.

    On a busy machine one of them aborted a rank ("terminate called without an active exception") whose training was
    published in full; seen once.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    leave(main(Path(sys.argv[1])))
