"""Settings that fit: when a recipe's memory is more than its GPU has, what to change, the smallest change first."""

import re
from collections.abc import Iterator

from scripts.recipe.estimate import GIB, closed_form_peak
from scripts.recipe.gpus import RESERVE_GIB, Gpu
from scripts.recipe.pack import PackSettings
from scripts.recipe.shapes import ModelShape
from scripts.recipe.train import Launch, Numerics

Settings = tuple[PackSettings, Numerics, Launch]
MARGIN = 1.06
"""Largest error of the closed form against the tracker that was seen, so that what is named here does fit."""


def fits(peak_bytes: int, gpu: Gpu) -> bool:
    """Whether a peak leaves the reserve free."""
    return peak_bytes + RESERVE_GIB * GIB <= gpu.memory_gib * GIB


def nearest_fits(shape: ModelShape, pack: PackSettings, numerics: Numerics, launch: Launch, gpu: Gpu) -> list[str]:
    """Return up to four changes, as keys to write, each of which makes the training fit; the global batch stays."""
    found: list[str] = []
    seen: list[set[str]] = []
    for text, (new_pack, new_numerics, new_launch) in _changes(pack, numerics, launch):
        peak = int(MARGIN * closed_form_peak(shape, new_pack, new_numerics, new_launch.processes))
        kinds = {re.sub(r"\d+", "", change) for change in text.split(", ")}
        # A change that contains one that already helps, or turns the same knob further, is not nearer.
        if fits(peak, gpu) and not any(old <= kinds for old in seen):
            found.append(text)
            seen.append(kinds)
    return found[:4]


def _changes(pack: PackSettings, numerics: Numerics, launch: Launch) -> Iterator[tuple[str, Settings]]:
    """Yield (text, settings): single changes first, then with checkpointing, then with more GPUs and offloading."""
    plain: list[tuple[list[str], PackSettings, Numerics, Launch]] = [([], pack, numerics, launch)]
    if not numerics.gradient_checkpointing:
        on = numerics.model_copy(update={"gradient_checkpointing": True})
        plain.append((["numerics.gradient_checkpointing: true"], pack, on, launch))
    batches = list(_smaller_batches(pack))
    with_batches = plain + [([*t, *b], p, n, w) for b, p in batches for t, _, n, w in plain]
    more = [([*t, *g], q, n, w) for g, q, w in _more_gpus(pack, launch) for t, _, n, _ in plain]
    ways = with_batches + more
    if not numerics.fsdp_offload_params:
        extra = {"fsdp_offload_params": True}
        key = "numerics.fsdp_offload_params: true"
        ways += [([key, *t], p, n.model_copy(update=extra), w) for t, p, n, w in with_batches + more]
    for text, new_pack, new_numerics, new_launch in sorted(ways, key=lambda way: len(way[0])):
        if text:
            yield ", ".join(text), (new_pack, new_numerics, new_launch)


def _smaller_batches(pack: PackSettings) -> Iterator[tuple[list[str], PackSettings]]:
    size, accumulation = pack.micro_batch_size, pack.gradient_accumulation_steps
    while size % 2 == 0:
        size, accumulation = size // 2, accumulation * 2
        update = {"micro_batch_size": size, "gradient_accumulation_steps": accumulation}
        text = f"pack.micro_batch_size: {size} with gradient_accumulation_steps: {accumulation}"
        yield [text], pack.model_copy(update=update)


def _more_gpus(pack: PackSettings, launch: Launch) -> Iterator[tuple[list[str], PackSettings, Launch]]:
    for factor in (2, 4, 8):
        size, accumulation = pack.micro_batch_size, pack.gradient_accumulation_steps
        if accumulation % factor == 0:
            new = pack.model_copy(update={"gradient_accumulation_steps": accumulation // factor})
            text = f"gradient_accumulation_steps: {accumulation // factor}"
        elif size % factor == 0:
            new = pack.model_copy(update={"micro_batch_size": size // factor})
            text = f"micro_batch_size: {size // factor}"
        else:
            return
        wider = launch.model_copy(update={"nodes": launch.nodes * factor})
        yield [f"{wider.processes} GPUs (launch.nodes: {wider.nodes}) with pack.{text}"], new, wider
