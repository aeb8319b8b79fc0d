"""GPUs that a plan can name: what its figures rest on."""

from dataclasses import dataclass

from scripts.recipe.problems import nearest


@dataclass(frozen=True)
class Gpu:
    """One kind of GPU."""

    name: str
    memory_gib: float
    """As the driver shows it, with error correction on where the card has it: less than the GB of the data sheet."""
    bf16_tflops: float
    """Dense bf16 peak with fp32 accumulation, TFLOP/s."""
    board_power_w: int
    link_gb_s: float
    """Host to card, one direction, as copies reach it: 80 % of PCIe 4.0 or 5.0 x16."""


# Peaks, power and memory: NVIDIA's data sheets of each card (dense, where the sheet prints figures with sparsity).
GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("rtx3090", 24.0, 71.0, 350, 25.0),
        Gpu("rtx4090", 24.0, 165.2, 450, 25.0),
        Gpu("a6000", 48.0, 154.8, 300, 25.0),
        Gpu("a40", 45.0, 149.7, 300, 25.0),
        Gpu("l40s", 45.0, 362.0, 350, 25.0),
        Gpu("a100-40gb", 40.0, 312.0, 400, 25.0),
        Gpu("a100", 80.0, 312.0, 400, 25.0),
        Gpu("h100-pcie", 79.6, 756.0, 350, 50.0),
        Gpu("h100", 79.6, 989.0, 700, 50.0),
        Gpu("h200", 140.4, 989.0, 700, 50.0),
    )
}

RESERVE_GIB = 3.0
"""Left for the CUDA context, NCCL's buffers and fragmentation (an estimate: not yet measured on a GPU)."""


def gpu_named(name: str) -> Gpu:
    """Return the GPU of a name in any case.

    Raises:
        ValueError: the table lacks it; the message names what is known.
    """
    found = GPUS.get(name.lower())
    if found is None:
        known = ", ".join(sorted(GPUS))
        raise ValueError(f"GPU {name!r} is not in the table; known: {known}{nearest(name.lower(), GPUS)}")
    return found
