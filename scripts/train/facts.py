"""What is really in memory: asserted in the first step of every attempt, and told to provenance.json."""

from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from scripts.artifact.stage import StageError
from scripts.recipe.train import TrainSpec
from scripts.train.model import require_sharded, weight_dtype


def require_types(spec: TrainSpec, model: nn.Module, optimizer: torch.optim.AdamW, mesh: DeviceMesh) -> dict[str, Any]:
    """Check weights, gradients and optimizer state after a step, before the gradients go; return them as facts.

    Libraries have changed precision silently (accelerate#2624, #3979): weights of another type would train, worse.

    Raises:
        StageError: one of them is not sharded, or of another type than `numerics.precision` says.
    """
    wanted = weight_dtype(spec.numerics)
    require_sharded(model, mesh, wanted)
    for name, parameter in model.named_parameters():
        state = optimizer.state[parameter]
        for what, tensor in (("gradient", parameter.grad), *((k, state[k]) for k in ("exp_avg", "exp_avg_sq"))):
            if not isinstance(tensor, DTensor) or tensor.dtype != wanted:
                found = f"{type(tensor).__name__} of {getattr(tensor, 'dtype', None)}"
                raise StageError(f"{name}: its {what} is a {found}, not a DTensor of {wanted}; report this as a bug")
    kind = str(wanted).removeprefix("torch.")
    return {
        "world_size": mesh.size(),
        "nodes": spec.launch.nodes,
        "sharding": "DTensor, Shard(0)",
        "weights": kind,
        "gradients": kind,
        "optimizer_state": kind,
        "attention": spec.numerics.attention,
        "device": torch.cuda.get_device_name() if mesh.device_type == "cuda" else "cpu",
        "torch": torch.__version__,
    }
