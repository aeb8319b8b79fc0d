"""A loss chart as SVG: a dozen lines of geometry, so that the bytes depend on no font and no drawing library."""

from html import escape

from scripts.release.results import Curve

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 720, 300, 56, 40, 34
_TICKS = 4
# A smaller range of losses is drawn as none: its labels would need more digits than there is room for.
_FLAT = 1e-3
# Text and lines that can be read on a white and on a dark page.
_INK, _TRAIN, _HELD_OUT = "#7a7a7a", "#3b82c4", "#d97706"


def loss_chart(curve: Curve) -> str:
    """Return the SVG of training loss (line) and held-out loss (line with dots) by step."""
    points = [*curve.train, *curve.held_out] or [(0, 0.0)]
    last = max(max(step for step, _ in points), 1)
    low, high = min(loss for _, loss in points), max(loss for _, loss in points)
    high = high if high - low >= _FLAT else low + 1

    def x(step: float) -> str:
        return f"{_LEFT + (_WIDTH - _LEFT - 16) * step / last:.1f}"

    def y(loss: float) -> str:
        return f"{_TOP + (_HEIGHT - _TOP - _BOTTOM) * (high - loss) / (high - low):.1f}"

    def line(of: list[tuple[int, float]], colour: str) -> str:
        path = " ".join(f"{x(step)},{y(loss)}" for step, loss in of)
        return f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{path}"/>'

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img"'
        f' font-family="sans-serif" font-size="12" fill="{_INK}">',
        f"<title>Training and held-out loss of {escape(curve.model)} by step</title>",
        f'<text x="{_LEFT}" y="18">{escape(curve.model)}: nats a token</text>',
        f'<text x="{_WIDTH - 16}" y="18" text-anchor="end"><tspan fill="{_TRAIN}">training</tspan>'
        f' <tspan fill="{_HELD_OUT}">held out</tspan></text>',
    ]
    losses = [low + (high - low) * tick / _TICKS for tick in range(_TICKS + 1)]
    for loss, label in zip(losses, _labels(losses), strict=True):
        grid = f'x1="{_LEFT}" x2="{_WIDTH - 16}" y1="{y(loss)}" y2="{y(loss)}"'
        parts.append(f'<line {grid} stroke="{_INK}" stroke-opacity="0.25"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y(loss)}" dy="4" text-anchor="end">{label}</text>')
    steps = sorted({round(last * tick / _TICKS) for tick in range(_TICKS + 1)})  # of a short training, fewer
    parts += [f'<text x="{x(step)}" y="{_HEIGHT - 20}" text-anchor="middle">{step}</text>' for step in steps]
    parts.append(line(curve.train, _TRAIN))
    parts.append(line(curve.held_out, _HELD_OUT))
    parts += [f'<circle cx="{x(s)}" cy="{y(v)}" r="3" fill="{_HELD_OUT}"/>' for s, v in curve.held_out]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _labels(values: list[float]) -> list[str]:
    """Return the values with two decimals, or as many more as tell them apart."""
    digits = next((d for d in range(2, 5) if len({f"{value:.{d}f}" for value in values}) == len(values)), 5)
    return [f"{value:.{digits}f}" for value in values]
