"""One frame: plain words, a few bars. What a log or a recipe says is never markup, nor a control character."""

from collections.abc import Sequence
from itertools import pairwise

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from scripts.watch.state import JobView, View

BLOCKS, ASCII = "▁▂▃▄▅▆▇█", ".:-=+*#@"
_SPARK, _BAR = 40, 24
_GIB = 1024**3
_STATUS = {
    "running": ("running", "green"),
    "elsewhere": ("running on {host}", "green"),
    "silent": ("on {host}: its log is silent for {silent}; is it alive?", "yellow"),
    "finished": ("finished", "bold green"),
    "nothing": ("nothing was to be done", "green"),
    "failed": ("failed", "bold red"),
    "stopped": ("stopped by the user; run it again to go on", "yellow"),
    "killed": ("was killed; `make resume` goes on", "bold red"),
    "orphans": ("Snakemake is gone, but jobs of it are alive; `make resume` names them", "bold red"),
    "refused": ("the last call ended before any job, with a message of its own", "yellow"),
    "never": ("no run yet", "dim"),
}


def frame(view: View, unicode: bool = True) -> RenderableType:
    """Return what the terminal shows.

    Args:
        view: what there is to see.
        unicode: whether block characters can be shown.
    """
    words, style = _STATUS[view.status]
    words = words.format(host=view.host, silent=duration(view.silent_s))
    head = Text.assemble((view.title, "bold"), "  ", (words, style))
    if view.seconds:
        head.append(f"  {duration(view.seconds)}")
    parts: list[RenderableType] = [head]
    if view.problem:
        parts.append(Text(view.problem, "red"))
    if view.steps[1] and view.status not in ("nothing", "never"):
        parts.append(_steps(view, unicode))
    if view.stages:
        parts.append(_stages(view))
    failed = [job for job in view.jobs if job.state == "failed"]
    for job in [job for job in view.jobs if job.state != "failed"]:
        parts += ["", *_job(job, unicode)]
    for job in failed:
        parts += ["", *_failed(job)]
    return Group(*parts)


def _steps(view: View, unicode: bool) -> Text:
    done, of = view.steps
    line = Text.assemble(bar(done / of, unicode), f"  {done} of {of} jobs")
    if view.left_s is not None and not (view.at_least and view.left_s < 1):  # nothing is known yet
        line.append(f"  {'at least' if view.at_least else 'about'} {duration(view.left_s)} left")
    return line


def _stages(view: View) -> Table:
    grid = Table.grid(padding=(0, 2))
    cells = [Text(f"{stage} {there}/{of}", "green" if there == of else "") for stage, there, of in view.stages]
    for first in range(0, len(cells), 6):
        grid.add_row(*cells[first : first + 6])
    return grid


def _job(job: JobView, unicode: bool) -> list[RenderableType]:
    head = Text.assemble((job.title, "bold"), f"  {job.state} " if job.state != "running" else "  ")
    head.append(duration(job.seconds) if job.state != "unfinished" else "")
    if job.external:
        head.append(f"  job {printable(job.external)}")
    if job.attempts > 1:
        head.append(f"  attempt {job.attempts}", "yellow")
    if job.memory_bytes:
        head.append(f"  {size(job.memory_bytes)}")
    if job.left_s is not None:
        head.append(f"  {duration(job.left_s)} left")
    lines: list[RenderableType] = [head]
    if job.training is not None and (job.training.losses or job.training.step):
        lines += _training(job, unicode)
    elif job.said:
        lines.append(Text(f"  {job.said[-1]}", "dim", no_wrap=True, overflow="ellipsis"))
    return lines


def _training(job: JobView, unicode: bool) -> list[RenderableType]:
    t = job.training
    assert t is not None
    line = Text("  ")
    if t.steps:
        line.append_text(bar(t.step / t.steps, unicode))
        line.append(f"  step {t.step:,} of {t.steps:,}")
    else:
        line.append(f"step {t.step:,}")
    if t.tokens_per_s:
        line.append(f"  {t.tokens_per_s:,.0f} tokens/s")
    if t.mfu:
        line.append(f"  MFU {t.mfu:.0%}")
    if t.memory_bytes:
        line.append(f"  {size(t.memory_bytes)} peak a {'GPU' if t.on_gpu else 'process'}")
    lines: list[RenderableType] = [line]
    if t.losses:
        text = Text.assemble("  loss ", (sparkline(t.losses, _SPARK, unicode), "cyan"), f" {t.losses[-1]:.4f}")
        if t.eval_loss is not None:
            text.append(f"  evaluation {t.eval_loss:.4f} at step {t.eval_step:,}")
        lines.append(text)
    return lines


def _failed(job: JobView) -> list[RenderableType]:
    tries = f" after {job.attempts} attempts" if job.attempts > 1 else ""
    lines: list[RenderableType] = [Text.assemble((f"{job.title}  failed{tries}", "bold red"), f"  {job.log or ''}")]
    return [*lines, *(Text(f"  {line}") for line in job.said)]


def bar(share: float, unicode: bool = True) -> Text:
    """Return a bar of fixed width."""
    full = round(_BAR * min(1.0, max(0.0, share)))
    on, off = ("█", "░") if unicode else ("#", ".")
    return Text.assemble((on * full, "green"), (off * (_BAR - full), "dim"))


def sparkline(values: Sequence[float], width: int, unicode: bool = True) -> str:
    """Return a curve of at most `width` characters: means of equal pieces, lowest to highest block."""
    pieces = min(width, len(values))
    cuts = [len(values) * i // pieces for i in range(pieces + 1)] if pieces else [0]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(cuts)]
    low, high = min(means, default=0.0), max(means, default=0.0)
    blocks = BLOCKS if unicode else ASCII
    span = high - low
    return "".join(blocks[round((len(blocks) - 1) * (mean - low) / span) if span > 0 else 0] for mean in means)


def duration(seconds: float) -> str:
    """Return 12 s, 3 min 20 s, 5 h 04 min or 2 d 3 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def size(count: int) -> str:
    """Return 0.8 GiB, or MiB below a tenth of it."""
    return f"{count / _GIB:.1f} GiB" if count >= _GIB / 10 else f"{count / 1024**2:.0f} MiB"


def printable(text: str) -> str:
    """Return the text without control characters."""
    return "".join(c for c in text if c.isprintable())
