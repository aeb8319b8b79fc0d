"""What to say when a GPU's memory is exhausted: the plan's figure, and the knob to turn."""

import json
import math

import torch

from scripts.recipe.estimate import GIB, closed_form_peak
from scripts.recipe.fits import nearest_fits
from scripts.recipe.gpus import RESERVE_GIB, Gpu
from scripts.recipe.pack import PackSettings
from scripts.recipe.shapes import ModelShape
from scripts.train.handover import Task


def out_of_memory_text(task: Task, error: BaseException) -> str:
    """Return the message for a training that ran out of GPU memory.

    The figure is the closed form (within 6 % of the tracker's): the tracker needs a process group of its own.
    """
    facts = json.loads((task.pack / "pack.json").read_text(encoding="utf-8"))
    config = json.loads((task.base / "config.json").read_text(encoding="utf-8"))
    shape = ModelShape(**{key: int(config[key]) for key in ModelShape.__dataclass_fields__})
    keys = ("sequence_len", "micro_batch_size", "gradient_accumulation_steps")
    pack = PackSettings.model_validate({key: facts[key] for key in keys if key in facts})
    numerics, launch = task.spec.numerics, task.spec.launch
    peak = closed_form_peak(shape, pack, numerics, launch.processes)
    total = torch.cuda.mem_get_info()[1] if torch.cuda.is_available() else None
    # It was not enough, whatever the plan said: what is named must need a tenth less than now, too.
    limit = min(total or math.inf, 0.9 * peak + RESERVE_GIB * GIB)
    ways = nearest_fits(shape, pack, numerics, launch, Gpu("this GPU", limit / GIB, 0.0, 0, 1.0))
    here = f", this GPU has {total / GIB:.1f} GiB" if total else ""
    first = str(error).splitlines()[0]
    text = (
        f"out of GPU memory ({first}); the plan's figure is {peak / GIB:.2f} GiB and {RESERVE_GIB:g} GiB reserve{here}"
    )
    listed = "".join(f"\n  - {way}" for way in ways) or "\n  - more GPUs (launch.nodes)"
    return f"{text}; turn one of these knobs:{listed}\n`python -m scripts.train plan RECIPE` shows what a setting needs"
