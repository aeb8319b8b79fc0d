"""The charts of the page: what is drawn from which payload, with titles and legends."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from markupsafe import Markup

from scripts.report import charts
from scripts.report.facts import projection_order, split_tensor
from scripts.report.measured import Speed
from scripts.report.payloads import Audit, Merge, Tensor, Training

Figure = dict[str, Any]
MANY_LAYERS = 10


def figure_of(title: str, note: str, svg: str, series: Sequence[charts.Series] = (), wide: str = "") -> Figure:
    """Return a drawing with its title, a note, and a legend for its series; `wide` is drawn for wide screens."""
    legend = [
        {
            "name": s.name,
            "colour": charts.colour(s.colour),
            "width": 2 if s.bold else 1.3,
            "dash": charts.dash(s.dash),
        }
        for s in series
    ]
    # Drawings are escaped by their XML writer.
    drawn = {"svg": Markup(svg), "wide": Markup(wide)}  # noqa: S704
    return {"title": title, "note": note, **drawn, "legend": legend, "ramp": None}


def curves(name: str, training: Training) -> list[Figure]:
    """Return the charts of one fine-tune, as far as its metrics hold something to draw."""
    figures = []
    losses, each = charts.thin_out([(line.step, line.loss) for line in training.steps])
    means = f"; each training point is the mean of {each} steps" if each > 1 else ""
    evaluated = [(float(line.step), line.eval_loss) for line in training.evaluations]
    both = (charts.Series("training", losses, False, 0), charts.Series("evaluation", evaluated, True, 1))
    series = [s for s in both if s.points]
    if series:
        label = f"Training and evaluation loss of {name} over steps"
        drawn = [charts.line_chart(series, "step", label, size=size) for size in (charts.NARROW, charts.WIDE)]
        figures.append(figure_of("Training and evaluation loss", f"nats a token{means}", drawn[0], series, drawn[1]))
    sources = list(dict.fromkeys(s for line in training.evaluations for s in line.eval_loss_by_source))
    by_source = [
        charts.Series(
            s,
            [(e.step, e.eval_loss_by_source[s]) for e in training.evaluations if s in e.eval_loss_by_source],
            True,
            i,
            i,
        )
        for i, s in enumerate(sources)
    ]
    if by_source:
        svg = charts.line_chart(by_source, "step", f"Evaluation loss of {name} by source over steps")
        figures.append(figure_of("Evaluation loss by source", "held-out rows; nats a token", svg, by_source))
    for title, key, pattern in (("Learning rate", "learning_rate", ".1e"), ("Gradient norm", "grad_norm", "~f")):
        points, each = charts.thin_out([(line.step, getattr(line, key)) for line in training.steps])
        if points:
            one = charts.Series(title.lower(), points, False, 0)
            svg = charts.line_chart([one], "step", f"{title} of {name} over steps", pattern)
            figures.append(
                figure_of(title, "before clipping" if key == "grad_norm" else "as applied at each step", svg)
            )
    return figures


def speed_curves(name: str, speed: Speed) -> list[Figure]:
    """Return charts of tokens a second, MFU and memory over steps, as far as they were measured."""
    figures = []
    rows: list[tuple[str, str, str, str, Callable[[Any], float | None]]] = [
        ("Throughput", "tokens a second, all processes", ",~s", "tokens a second", lambda p: p.tokens_per_s),
        ("MFU", "share of the hardware's bf16 peak", ".0%", "MFU", lambda p: p.mfu),
    ]
    if speed.on_gpu:  # a process's peak on the CPU says little: it only ever grows
        rows.append(("Memory", "peak of one GPU so far, GB", "~f", "GB", lambda p: p.peak_bytes and p.peak_bytes / 1e9))
    for title, note, pattern, unit, read in rows:
        points = [(float(p.step), value) for p in speed.series if (value := read(p)) is not None]
        if len(points) > 1:
            one = charts.Series(unit, points, False, 2)
            svg = charts.line_chart([one], "step", f"{title} of {name} over steps", pattern)
            figures.append(figure_of(title, note, svg))
    return figures


def length_chart(source: str, audit: Audit) -> Figure | None:
    """Return the histogram of episode lengths; classes before the first and after the last episode are left out."""
    filled = [index for index, (_, number) in enumerate(audit.length_histogram) if number]
    if not filled:
        return None
    bars = audit.length_histogram[filled[0] : filled[-1] + 1]
    svg = charts.histogram(bars, "characters, up to", f"Lengths of the kept episodes of {source}")
    return figure_of("Length of kept episodes", "episodes by characters, doubling classes", svg)


def heat_maps(name: str, merge: Merge) -> list[Figure]:
    """Return maps by layer and projection: the ratio, then distances and cosines; none for layers of unknown names."""
    placed = [(*split_tensor(tensor), facts) for tensor, facts in merge.tensors.items()]
    inside = [(layer, group, facts) for layer, group, facts in placed if layer is not None]
    order = projection_order([group for _, group, _ in inside])
    many = len({layer for layer, _, _ in inside}) > MANY_LAYERS
    first, second = [*merge.models, "first model", "second model"][:2]
    share = f"Way from {first} to {second}" if merge.method == "slerp" else f"Share of {second}"
    rows: list[tuple[str, str, str, Callable[[Tensor], float | None]]] = [
        ("ratio", f"{share} by layer and projection", "the ratio r of each tensor", lambda t: t.ratio),
        ("a", "‖C − A‖", f"how far {name} lies from {first}", lambda t: t.norm_c_minus_a),
        ("b", "‖C − B‖", f"how far {name} lies from {second}", lambda t: t.norm_c_minus_b),
        ("cos-a", "cos(C, A)", f"direction against {first}", lambda t: t.cosine_a),
        ("cos-b", "cos(C, B)", f"direction against {second}", lambda t: t.cosine_b),
    ]
    figures = []
    for key, title, note, read in rows:
        values = [(layer, group, v) for layer, group, facts in inside if (v := read(facts)) is not None]
        if not values:
            continue
        place, least, most = _places([v for _, _, v in values], key)
        cells = [charts.Cell(layer, group, v, place(v)) for layer, group, v in values]
        ramp, width = charts.EVEN if key == "ratio" else charts.FAR, (900 if many else 520) if key == "ratio" else 380
        label = f"{title} in {name}, by layer and projection; the table has the figures"
        figure = figure_of(title, note, charts.heat_map(cells, order, ramp, label, width))
        ends = (first, second) if key == "ratio" else (f"{least:.4g}", f"{most:.4g}")
        figures.append(
            {**figure, "ramp": {"id": f"ramp-{name}-{key}", "ends": ends, "colours": ramp}, "key": key, "many": many}
        )
    return figures


def _places(values: Sequence[float], key: str) -> tuple[Callable[[float], float], float, float]:
    """Return how a figure becomes a place on the ramp, and the figures at its two ends: near, then far.

    Distances of a layer norm and of a feed-forward matrix differ a thousandfold: their places are logarithmic.
    """
    least, most = min(values), max(values)
    if key == "ratio":
        return (lambda v: v), 0.0, 1.0
    if least == most:
        return (lambda v: 0.5), least, most
    if key.startswith("cos"):
        return (lambda v: (most - v) / (most - least)), most, least
    if least > 0 and most / least > 20:
        return (lambda v: math.log(v / least) / math.log(most / least)), least, most
    return (lambda v: (v - least) / (most - least)), least, most
