"""Charts as inline SVG, drawn here and not in the browser: the page needs no script, prints, and passes any
content policy.

Bytes must not depend on the machine's fonts. Vega measures text only to place what has no fixed place, so every
chart fixes its padding and its axes' extents, keeps all labels, and leaves legends and titles to the page.
Colours are CSS variables and `currentColor`: one drawing serves light, dark and print.
"""

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
RAMP = ("#2f6db3", "#b85a0c")
"""All first model, all second model. White text has a contrast of at least 4.5 on every mixture of the two."""
WIDTH, HEIGHT = 360, 200
"""Plot area, in pixels: readable both on a phone and, enlarged, in one of two columns."""
_PADDING = {"left": 46, "right": 14, "top": 10, "bottom": 42}
# A line of more points than the plot has half pixels shows nothing more, and a run of 10,000 steps is 100 kB.
MAX_POINTS = 720
MAX_MARKS = 90
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
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups], size


def line_chart(series: Sequence[Series], x_title: str, label: str, y_format: str = "~f") -> str:
    """Return an SVG of lines over steps. `label` says for a screen reader what is drawn."""
    layers = []
    for index, one in enumerate(series):
        rows = [{"x": x, "y": y, "text": f"{one.name}, {x_title} {x:g}: {y:.4g}"} for x, y in one.points]
        chart = alt.Chart(alt.InlineData(values=rows)).encode(
            x=alt.X("x:Q", axis=_axis(x_title, ",~f"), scale=alt.Scale(nice=False)),
            y=alt.Y("y:Q", axis=_axis(None, y_format), scale=alt.Scale(zero=False)),
        )
        paint: Any = {"stroke": colour(one.colour), "strokeDash": dash(index) if one.bold else [1, 0]}
        width = 2 if one.bold else 1.3
        layers.append(chart.mark_line(strokeWidth=width, **paint))
        # More marks than one each 4 pixels cover the line, and 400 evaluations of 11 sources are a megabyte.
        if one.bold and len(rows) <= MAX_MARKS:
            layers.append(chart.mark_circle(fill=colour(one.colour), size=22, opacity=1).encode(description="text:N"))
    return _draw(alt.layer(*layers), WIDTH, HEIGHT, label)


def ratio_map(cells: Sequence[tuple[int, str, float]], projections: Sequence[str], label: str) -> str:
    """Return an SVG heat map of merge ratios.

    Args:
        cells: (layer, projection, share of the second model).
        projections: rows, from top to bottom.
        label: for a screen reader.
    """
    layers = sorted({layer for layer, _, _ in cells})
    rows = [
        {
            "x": str(layer),
            "y": row,
            "ratio": ratio,
            "short": f"{ratio:.2f}",
            "text": f"layer {layer}, {row}: {ratio:.4f}",
        }
        for layer, row, ratio in cells
    ]
    # Every label is kept (no text is measured), so many layers are numbered at each fifth only.
    shown = [str(layer) for layer in layers if len(layers) <= 16 or layer % 5 == 0 or layer == layers[-1]]
    x_axis = alt.Axis(title="layer", values=shown, labelAngle=0, ticks=False, **_EXTENT_X)
    y_axis = alt.Axis(title=None, labelLimit=0, ticks=False, minExtent=130, maxExtent=130)
    base = alt.Chart(alt.InlineData(values=rows)).encode(
        x=alt.X("x:O", sort=[str(layer) for layer in layers], axis=x_axis),
        y=alt.Y("y:O", sort=list(projections), axis=y_axis),
    )
    scale = alt.Scale(domain=[0, 1], range=list(RAMP), interpolate="rgb")
    drawn: list[Any] = [
        base.mark_rect(stroke="var(--page)", strokeWidth=1).encode(
            fill=alt.Fill("ratio:Q", scale=scale, legend=None), description="text:N"
        )
    ]
    if len(layers) <= 10:
        drawn.append(base.mark_text(fill="#fff", fontSize=10).encode(text="short:N"))
    padding = {**_PADDING, "left": 138}
    return _draw(alt.layer(*drawn), 560, 22 * len(projections), label, padding)


def _axis(title: str | None, number_format: str) -> alt.Axis:
    horizontal = title is not None
    extent = _EXTENT_X if horizontal else _EXTENT_Y
    return alt.Axis(title=title, format=number_format, tickCount=5, grid=not horizontal, titleLimit=0, **extent)


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
