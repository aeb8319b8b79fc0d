"""Charts as inline SVG, drawn here and not in the browser: the page needs no script, prints, and passes any
content policy.

Bytes must not depend on the machine's fonts. Vega measures text only to place what has no fixed place, so every
chart fixes its padding and its axes' extents, keeps all labels, and leaves legends and titles to the page.
Colours are CSS variables and `currentColor`: one drawing serves light, dark and print.
"""

import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import altair as alt
import vl_convert

Point = tuple[float, float]
COLOURS = 8
"""Colours `--s0` to `--s7` of the style sheet; dashes tell further series apart, and all of them in print."""
DASHES = ((1, 0), (6, 3), (2, 2), (8, 3, 2, 3))
FONT = "inherit"
EVEN = ("#2166ac", "#92c0de", "#f1eeea", "#f0ae75", "#a84f08")
"""All first model, even, all second model."""
FAR = ("#eef3f8", "#9dc3e2", "#3b86bd", "#15508c", "#0a2a55")
"""Near to far."""
INKS = ("#ffffff", "#000000")
"""Text on a heat map: the one of higher contrast."""
NARROW, WIDE = (276, 172), (690, 190)
"""Plot area in pixels. Cards are as wide as the drawing, so that text is as large as on the rest of the page; a phone
gets the narrow drawing of a wide chart."""
_PADDING = {"left": 46, "right": 14, "top": 10, "bottom": 42}
# A line of more points than the plot has half pixels shows nothing more, and a run of 10,000 steps is 100 kB.
MAX_POINTS = 720
MAX_MARKS = 90
# 24 characters (`post_attention_layernorm`) of the widest common font.
_ROW_LABEL, _ROW_CHARS, _ROW_HEIGHT = 168, 24, 22
_EXTENT_X: Any = {"minExtent": 16, "maxExtent": 16, "labelOverlap": False}
_EXTENT_Y: Any = {"minExtent": 38, "maxExtent": 38, "labelOverlap": False}
_LONG = re.compile(r"-?\d+\.\d{3,}(?:e-?\d+)?")
_SVG = "{http://www.w3.org/2000/svg}"


@dataclass(frozen=True)
class Series:
    """One line: points (x, y) in order of x; `bold` lines carry point marks with a tooltip if they are few."""

    name: str
    points: Sequence[Point]
    bold: bool = True
    colour: int = 0
    dash: int = 0


@dataclass(frozen=True)
class Cell:
    """One field of a heat map: its layer and row, its figure, and its place on the ramp, 0 to 1."""

    layer: int
    row: str
    value: float
    place: float


def colour(index: int) -> str:
    """Return the CSS colour of series `index`."""
    return f"var(--s{index % COLOURS})"


def dash(index: int) -> list[int]:
    """Return the dash pattern of series `index`: where the colours begin again, the patterns are shifted by one."""
    return list(DASHES[(index + index // COLOURS) % len(DASHES)])


def thin_out(points: Sequence[Point], limit: int = MAX_POINTS) -> tuple[list[Point], int]:
    """Return at most `limit` points and how many each stands for: means of n points in a row."""
    size = max(1, -(-len(points) // limit))
    if size == 1:
        return list(points), 1
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [(math.fsum(x for x, _ in g) / len(g), math.fsum(y for _, y in g) / len(g)) for g in groups], size


def line_chart(
    series: Sequence[Series], x_title: str, label: str, y_format: str = "~f", size: tuple[int, int] = NARROW
) -> str:
    """Return an SVG of lines over steps. `label` says for a screen reader what is drawn."""
    layers = []
    for one in series:
        rows = [{"x": x, "y": y, "text": f"{one.name}, {x_title} {x:,g}: {y:,.4g}"} for x, y in one.points]
        ticks = 5 if size[0] < WIDE[0] else 10
        chart = alt.Chart(alt.InlineData(values=rows)).encode(
            x=alt.X("x:Q", axis=_axis(x_title, ",~f", ticks), scale=alt.Scale(nice=False)),
            y=alt.Y("y:Q", axis=_axis(None, y_format), scale=alt.Scale(zero=False)),
        )
        paint: Any = {"stroke": colour(one.colour), "strokeDash": dash(one.dash)}
        layers.append(chart.mark_line(strokeWidth=2 if one.bold else 1.3, **paint))
        # More marks than one each 4 pixels cover the line, and 400 evaluations of 11 sources are a megabyte.
        if one.bold and len(rows) <= MAX_MARKS:
            layers.append(chart.mark_circle(fill=colour(one.colour), size=22, opacity=1).encode(description="text:N"))
    return _draw(alt.layer(*layers), *size, label)


def histogram(bars: Sequence[tuple[int, int]], x_title: str, label: str) -> str:
    """Return an SVG of counts over doubling classes.

    Args:
        bars: (upper end, count), in order.
        x_title: what the upper end counts.
        label: for a screen reader.
    """
    ends = [_short_number(end) for end, _ in bars]
    rows = [
        {"x": short, "y": number, "text": f"{x_title} {end:,}: {number:,}"}
        for short, (end, number) in zip(ends, bars, strict=True)
    ]
    shown = ends[:: 1 + (len(ends) - 1) // 8]
    x_axis = alt.Axis(title=x_title, values=shown, labelAngle=0, ticks=False, titleLimit=0, **_EXTENT_X)
    chart = (
        alt.Chart(alt.InlineData(values=rows))
        .mark_bar(fill=colour(0))
        .encode(
            x=alt.X("x:O", sort=ends, axis=x_axis, scale=alt.Scale(paddingInner=0.12, paddingOuter=0.1)),
            y=alt.Y("y:Q", axis=_axis(None, "~s")),
            description="text:N",
        )
    )
    return _draw(alt.layer(chart), NARROW[0], 110, label)


def _short_number(number: int) -> str:
    """Return 64, 4k, 1M: powers of two as people call them."""
    for size, letter in ((2**20, "M"), (2**10, "k")):
        if number >= size:
            return f"{number / size:g}{letter}"
    return str(number)


def shade(ramp: Sequence[str], place: float) -> str:
    """Return the colour at `place` (0 to 1) of a ramp of evenly spaced colours `#rrggbb`."""
    at = min(max(place, 0.0), 1.0) * (len(ramp) - 1)
    index = min(int(at), len(ramp) - 2)
    pair = [[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in ramp[index : index + 2]]
    return "#" + "".join(f"{round(a + (b - a) * (at - index)):02x}" for a, b in zip(*pair, strict=True))


def contrast(colour: str, other: str) -> float:
    """Return the contrast of two colours, 1 to 21.

    Source:
        W3C, Web Content Accessibility Guidelines 2.2, definition of contrast ratio.
    """

    def light(text: str) -> float:
        parts = [int(text[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        r, g, b = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    low, high = sorted((light(colour), light(other)))
    return (high + 0.05) / (low + 0.05)


def heat_map(cells: Sequence[Cell], order: Sequence[str], ramp: Sequence[str], label: str, width: int) -> str:
    """Return an SVG heat map: layers across, `order` from top to bottom.

    Args:
        cells: at most one for each layer and row.
        order: the rows.
        ramp: colours of places 0 to 1.
        label: for a screen reader.
        width: of the plot area, pixels.
    """
    layers = sorted({cell.layer for cell in cells})
    names = {row: row if len(row) <= _ROW_CHARS else f"{row[: _ROW_CHARS - 1]}…" for row in order}
    rows = []
    for cell in cells:
        fill = shade(ramp, cell.place)
        ink = max(INKS, key=lambda colour: contrast(fill, colour))
        rows.append(
            {
                "x": str(cell.layer),
                "y": names[cell.row],
                "fill": fill,
                "ink": ink,
                "short": f"{cell.value:.3g}",
                "text": f"layer {cell.layer}, {cell.row}: {cell.value:.4g}",
            }
        )
    # Every label is kept (no text is measured), so many layers are numbered at each fifth only.
    shown = [str(layer) for layer in layers if len(layers) <= 16 or layer % 5 == 0]
    x_axis = alt.Axis(title="layer", values=shown, labelAngle=0, ticks=False, **_EXTENT_X)
    y_axis = alt.Axis(title=None, labelLimit=0, ticks=False, minExtent=_ROW_LABEL - 8, maxExtent=_ROW_LABEL - 8)
    base = alt.Chart(alt.InlineData(values=rows)).encode(
        x=alt.X("x:O", sort=[str(layer) for layer in layers], axis=x_axis),
        y=alt.Y("y:O", sort=[names[row] for row in order], axis=y_axis),
    )
    fill_by: Any = alt.Fill("fill:N", scale=None, legend=None)
    drawn: list[Any] = [base.mark_rect(stroke="var(--card)", strokeWidth=1).encode(fill=fill_by, description="text:N")]
    if width / len(layers) >= 36:
        ink_by: Any = alt.Fill("ink:N", scale=None, legend=None)
        drawn.append(base.mark_text(fontSize=10).encode(text="short:N", fill=ink_by))
    return _draw(alt.layer(*drawn), width, _ROW_HEIGHT * len(order), label, {**_PADDING, "left": _ROW_LABEL})


def _axis(title: str | None, number_format: str, ticks: int = 5) -> alt.Axis:
    horizontal = title is not None
    extent = _EXTENT_X if horizontal else _EXTENT_Y
    return alt.Axis(title=title, format=number_format, tickCount=ticks, grid=not horizontal, titleLimit=0, **extent)


def _draw(chart: alt.LayerChart | alt.FacetChart, width: int, height: int, label: str, padding: Any = None) -> str:
    fixed: Literal["none"] = "none"
    chart = chart.properties(
        width=width,
        height=height,
        autosize=alt.AutoSizeParams(type=fixed),
        padding=padding or _PADDING,
        background="transparent",
    )
    ink: dict[str, Any] = {"labelColor": "currentColor", "titleColor": "currentColor", "titleFontWeight": "normal"}
    chart = (
        chart.configure(font=FONT)
        .configure_axis(
            **ink,
            gridColor="var(--line)",
            domainColor="var(--line)",
            tickColor="var(--line)",
            labelFontSize=11,
            titleFontSize=11,
        )
        .configure_view(stroke=None)
    )
    return inline(vl_convert.vegalite_to_svg(chart.to_dict(), allowed_base_urls=[]), label)


def inline(svg: str, label: str) -> str:
    """Return Vega's SVG as one accessible figure: a role, a name, a tooltip a mark, numbers of two decimals."""
    root = ET.fromstring(svg)  # noqa: S314 - our own drawing, no entities
    box = root.attrib["viewBox"]
    _clean(root)
    root.attrib.clear()
    root.attrib.update({"class": "chart", "viewBox": box, "role": "img", "aria-label": label})
    return ET.tostring(root, encoding="unicode")


def _clean(node: ET.Element) -> None:
    """Drop what draws nothing, turn descriptions into tooltips, and shorten numbers (0.005 px is invisible)."""
    node.tag = node.tag.removeprefix(_SVG)
    text = node.attrib.pop("aria-label", None)
    is_mark = node.attrib.get("role") == "graphics-symbol"
    for key in [k for k in node.attrib if k.startswith("aria-") or k in {"role", "pointer-events"}]:
        del node.attrib[key]
    for key, value in node.attrib.items():
        node.attrib[key] = _LONG.sub(lambda m: f"{float(m[0]):.2f}".rstrip("0").rstrip("."), value)
    for child in list(node):
        classes = child.attrib.get("class", "")
        empty = child.tag == f"{_SVG}rect" and child.attrib.get("fill") == "transparent"
        if empty or classes in {"background", "foreground"}:
            node.remove(child)
        else:
            _clean(child)
    if text and is_mark and not len(node) and node.tag != "text":
        title = ET.SubElement(node, "title")
        title.text = text
