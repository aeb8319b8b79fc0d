"""Driver of test_train_kills: trainings that kill themselves (SIGKILL) at a chosen call to the file system.

It imports torch once and computes nothing itself, so that each attempt is a cheap fork of it. Every call that changes
files during a training is numbered; an attempt is told the number at which one of its ranks ends.
"""

import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from scripts.artifact.digest import hash_files, payload_files
from scripts.recipe.train import TrainSpec
from scripts.train import tensorfile, worker
from scripts.train.handover import Task, flatten

_WATCHED = {"fsync": os, "rename": os, "replace": os, "rmtree": shutil, "tensor_digest": tensorfile}
"""Calls around which an attempt can end; `tensor_digest` follows each tensor's write."""


class Places:
    """Counts the watched calls of this process, and ends it before call number `deadly`."""

    def __init__(self, deadly: int | None) -> None:
        self.deadly, self.seen = deadly, list[str]()

    def watch(self) -> None:
        """Wrap the watched functions of this process."""
        for name, module in _WATCHED.items():
            setattr(module, name, self._wrapped(name, getattr(module, name)))

    def _wrapped(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            target = arguments[0]
            # A handle is known by the path behind it, a tensor by its name.
            path = os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else str(target)
            if len(self.seen) == self.deadly:
                os.kill(os.getpid(), signal.SIGKILL)
            self.seen.append(f"{name} {getattr(target, 'name', Path(path).name)}")
            return function(*arguments, **named)

        return call


def rank_main(rank: int, world: int, spec: TrainSpec, places: dict[str, str], deadly: int | None) -> None:
    """Be one rank of one attempt."""
    root, out = Path(places["root"]), Path(places["out"])
    work = root / "work"
    store = dist.FileStore(str(out) + ".store", world)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=timedelta(seconds=60))
    mesh = init_device_mesh("cpu", (world,))
    worker.join = lambda _launch: mesh
    worker.stop_watch = lambda: lambda: False
    watched = Places(deadly)
    watched.watch()
    task = Task(spec, Path(places["base"]), Path(places["pack"]), out, work, flatten(spec.identity(), "spec"), work)
    worker.train(task)
    if rank == 0:
        Path(f"{out}.seen").write_text(json.dumps(watched.seen))
    dist.destroy_process_group()


def attempt(spec: TrainSpec, places: dict[str, str], kill: tuple[int, int] | None) -> bool:
    """Train once with `spec.launch.processes` ranks; return whether it came to its end.

    Args:
        spec: the training.
        places: paths by name: base, pack, root (its `work` is kept between attempts), out.
        kill: (rank, number of its watched call) where that rank kills itself; the others are then killed too, as the
            launcher does.
    """
    Path(places["out"]).mkdir(parents=True)
    (Path(places["root"]) / "work").mkdir(parents=True, exist_ok=True)
    world, children = spec.launch.processes, list[int]()
    for rank in range(world):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                rank_main(rank, world, spec, places, kill[1] if kill and kill[0] == rank else None)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
        children.append(child)
    good = True
    while children:
        child, status = os.wait()
        children.remove(child)
        good = good and status == 0
        if status and kill is None:
            raise SystemExit(f"an attempt that nobody killed ended with status {status}")
        for other in children if status else []:
            os.kill(other, signal.SIGKILL)
    return good


def chosen(seen: list[str]) -> list[int]:
    """Return the calls to die at: all but the tensors, and of each file's tensors the first, middle and last."""
    numbers, run = [], list[int]()
    for number, label in enumerate([*seen, "end"]):
        if label.startswith("tensor_digest"):
            run.append(number)
            continue
        numbers += sorted({run[0], run[len(run) // 2], run[-1]}) if run else []
        run = []
        numbers += [number] if number < len(seen) else []
    return numbers


def main(arguments: dict[str, Any]) -> None:
    """Train undisturbed, then once for each kill place and again after it; print one JSON line for each.

    `every` thins the places of rank 0 out; the last rank dies once, in the middle of its first file.
    """
    spec, top = TrainSpec.model_validate(arguments["spec"]), Path(arguments["root"])
    paths = {name: arguments[name] for name in ("base", "pack")}

    def train(name: str, turn: str, kill: tuple[int, int] | None) -> tuple[bool, Path]:
        out = top / name / turn
        return attempt(spec, {**paths, "root": str(top / name), "out": str(out)}, kill), out

    def digests(out: Path) -> dict[str, str]:
        return hash_files(out, payload_files(out))

    _, out = train("whole", "out", None)
    whole, seen = digests(out), json.loads(Path(f"{out}.seen").read_text())
    print(json.dumps({"seen": seen}), flush=True)
    kills = [(0, number) for number in chosen(seen)[:: arguments["every"]]]
    kills += [(spec.launch.processes - 1, 3)] if spec.launch.processes > 1 else []
    for rank, number in kills:
        name = f"kill-{rank}-{number}"
        finished, _ = train(name, "one", (rank, number))
        left = sorted(p.name for p in (top / name / "work" / "checkpoints").glob("*"))
        _, out = train(name, "two", None)
        line = {"place": seen[number], "number": number, "rank": rank, "killed": not finished, "left": left}
        print(json.dumps({**line, "equal": digests(out) == whole}), flush=True)
        shutil.rmtree(top / name)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
