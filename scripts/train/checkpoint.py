"""Checkpoints in an own, plain format: per rank one safetensors file, and a state.json that is written last.

`<work>/checkpoints/step-00000256/`: `rank-00000.safetensors` holds the rank's rows of each weight and of Adam's
moments; `state.json` holds step, fingerprint, digests and the length of metrics.jsonl. No pickle anywhere.
"""

import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from scripts.artifact.digest import sha256_bytes, sha256_file
from scripts.recipe.base import canonical_json
from scripts.train.handover import CollectiveError, write_atomic
from scripts.train.metrics import Metrics
from scripts.train.model import shard_of
from scripts.train.optimizer import moments, set_steps_taken
from scripts.train.ranks import barrier, gather, gather_digests
from scripts.train.tensorfile import planned, write_safetensors

_STATE = "state.json"


@dataclass(frozen=True)
class State:
    """What state.json holds."""

    step: int
    """Optimizer steps taken."""
    fingerprint: dict[str, Any]
    metrics_bytes: int
    metrics_sha256: str
    files: list[str]
    """SHA-256 of the ranks' files, in order of ranks."""


class Checkpoints:
    """The checkpoints of one training; every method is called by all ranks together."""

    def __init__(
        self, work: Path, fingerprint: dict[str, Any], mesh: DeviceMesh, metrics: Metrics, kept: Sequence[int] = ()
    ) -> None:
        """Take the checkpoints below `work`; those of the steps `kept` will be published, so no rotation ends them."""
        self._root, self._kept = work / "checkpoints", kept
        self._fingerprint, self._mesh, self._metrics = fingerprint, mesh, metrics
        self._rank = mesh.get_local_rank()

    def folder(self, step: int) -> Path:
        """Return where the checkpoint of `step` lies."""
        return self._root / f"step-{step:08d}"

    def steps(self) -> list[int]:
        """Return the steps that have a finished checkpoint, oldest first."""
        return sorted(int(p.name.removeprefix("step-")) for p in self._root.glob("step-*") if (p / _STATE).is_file())

    def save(self, step: int, model: nn.Module, optimizer: torch.optim.AdamW) -> None:
        """Write the checkpoint of `step`; it exists as a whole after the rename, or not at all."""
        draft = self._root / f".draft-{step:08d}"
        if self._rank == 0:
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True)
        barrier(self._mesh)
        pairs = list(_named_tensors(model, optimizer))
        tensors = (tensor.detach().cpu() for _, tensor in pairs)
        digest, _ = write_safetensors(draft / _rank_file(self._rank), [planned(*pair) for pair in pairs], tensors)
        files = gather_digests(digest, self._mesh)
        if self._rank == 0:
            state = State(step, self._fingerprint, *self._metrics.flushed(), files)
            content = asdict(state)
            write_atomic(draft / _STATE, json.dumps({**content, "self": _digest(content)}, indent=1) + "\n")
            shutil.rmtree(self.folder(step), ignore_errors=True)
            _sync(draft)
            os.rename(draft, self.folder(step))
            _sync(self._root)
        barrier(self._mesh)

    def rotate(self, limit: int, best: int | None) -> None:
        """Remove the oldest checkpoints beyond `limit`, but never that of step `best`, nor one to keep."""
        if self._rank == 0:
            passing = [s for s in self.steps() if s not in self._kept]
            for step in [s for s in passing[:-limit] if s != best]:
                shutil.rmtree(self.folder(step))

    def resume(self, model: nn.Module, optimizer: torch.optim.AdamW) -> int:
        """Load the newest sound checkpoint, passing over damaged ones with a warning; return its step or 0.

        Raises:
            CollectiveError: a sound checkpoint comes from another base, schedule, setting or number of processes.
        """
        if self._rank == 0:
            for draft in self._root.glob(".draft-*"):
                shutil.rmtree(draft)
        barrier(self._mesh)
        for step in reversed(self.steps()):
            state, fault = self._read(step)
            fault = fault or self._fault_before(step)
            faults = gather([float(fault is not None)], self._mesh)
            if any(f for (f,) in faults):
                if fault is not None:
                    text = f"train: warning: passing over the checkpoint of step {step}: {fault}"
                    print(text, file=sys.stderr, flush=True)
                continue
            assert state is not None
            self._require_same(state)
            self.load(step, model, optimizer)
            self._forget_after(step)
            self._metrics.truncate(state.metrics_bytes)
            return step
        self._forget_after(0)
        self._metrics.truncate(0)
        return 0

    def _fault_before(self, step: int) -> str | None:
        """Return what is wrong with a checkpoint to keep before `step`: only a start before that one makes it again."""
        for earlier in [s for s in self._kept if s < step]:
            _, fault = self._read(earlier)
            if fault is not None:
                return f"that of step {earlier}, which is to be kept: {fault}"
        return None

    def _forget_after(self, step: int) -> None:
        """Remove checkpoints that were passed over: the steps after `step` are taken again."""
        barrier(self._mesh)
        if self._rank == 0:
            for later in [s for s in self.steps() if s > step]:
                shutil.rmtree(self.folder(later))
        barrier(self._mesh)

    def load(self, step: int, model: nn.Module, optimizer: torch.optim.AdamW | None) -> None:
        """Copy the weights of a checkpoint into the model, and Adam's moments where an optimizer is given."""
        with safe_open(self.folder(step) / _rank_file(self._rank), framework="pt", device="cpu") as saved:
            for name, tensor in _named_tensors(model, optimizer):
                tensor.detach().copy_(saved.get_tensor(name))
        if optimizer is not None:
            set_steps_taken(optimizer, step)

    def _read(self, step: int) -> tuple[State | None, str | None]:
        """Return (state, None) if state.json, this rank's file and the metrics are sound, else (None, reason)."""
        folder = self.folder(step)
        try:
            content = json.loads((folder / _STATE).read_text(encoding="utf-8"))
            if content.pop("self") != _digest(content):
                return None, f"{_STATE} is not what was written"
            state = State(**content)
            if state.step != step:
                return None, f"{_STATE} is of step {state.step}"
            # A change of processes is no damage: the fingerprint names it.
            if len(state.files) == self._mesh.size():
                name = _rank_file(self._rank)
                if sha256_file(folder / name) != state.files[self._rank]:
                    return None, f"{name} has another SHA-256 than when it was written"
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            return None, f"cannot be read ({error})"
        if self._rank == 0 and self._metrics.digest_of(state.metrics_bytes) != state.metrics_sha256:
            return None, "metrics.jsonl no longer holds what it held then"
        return state, None

    def _require_same(self, state: State) -> None:
        for name in sorted({*state.fingerprint, *self._fingerprint}):
            then, now = state.fingerprint.get(name), self._fingerprint.get(name)
            if then != now:
                raise CollectiveError(
                    f"{self.folder(state.step)}: checkpoint of another training: {name} was {then!r}, is {now!r}; "
                    f"remove {self._root} to start from the beginning"
                )


def _named_tensors(model: nn.Module, optimizer: torch.optim.AdamW | None) -> Iterator[tuple[str, Tensor]]:
    """Yield this rank's tensors by their names in the file; they share the memory of model and optimizer."""
    for name, parameter in sorted(model.named_parameters()):
        yield f"weight.{name}", shard_of(parameter)
        if optimizer is not None:
            for kind, moment in moments(optimizer, parameter).items():
                yield f"{kind}.{name}", moment


def _rank_file(rank: int) -> str:
    return f"rank-{rank:05d}.safetensors"


def _digest(content: dict[str, Any]) -> str:
    return sha256_bytes(canonical_json(content).encode())


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
