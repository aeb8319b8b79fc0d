"""The graph from sources to released files: layers by longest path, drawn as SVG by the page's template."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

NODE_WIDTH, NODE_HEIGHT = 140, 42
COLUMN, ROW = NODE_WIDTH + 24, NODE_HEIGHT + 14
_MARGIN = 8
# Monospaced 11 px text is at most 6.7 px wide a character: 19 characters fit into a node whatever the font.
_FITS = 19


@dataclass(frozen=True)
class Node:
    """One artifact at its place."""

    artifact: str
    stage: str
    short: str
    """Name, cut so that it fits."""
    value: str
    """SHA-256 of its SHA256SUMS; empty where the report doesn't read the artifact."""
    x: int
    y: int
    number: int
    """Its number in the drawing."""
    below: tuple[int, ...]
    """Numbers of all that is made from it, its own included."""


@dataclass(frozen=True)
class Drawing:
    """Nodes, edges (their two ends, SVG path data, numbers of all that lies below) and the size in pixels."""

    nodes: list[Node]
    edges: list[tuple[str, str, str, tuple[int, ...]]]
    width: int
    height: int


def anchor(artifact: str) -> str:
    """Return the id of the artifact's row in the page's table."""
    return "artifact-" + artifact.replace("/", "--")


def parents_of(lineage: Mapping[str, Sequence[str]], models: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Return {artifact: artifacts that it reads} of the recipe.

    Args:
        lineage: the recipe's graph of jobs; complete where it is given.
        models: {model: [kind, parents...]}, used where it isn't: the models alone.
    """
    if lineage:
        return {artifact: list(parents) for artifact, parents in lineage.items()}
    place = {name: f"{facts[0]}/{name}" for name, facts in models.items()}
    return {place[name]: [place[p] for p in facts[1:] if p in place] for name, facts in models.items()}


def draw(parents: Mapping[str, Sequence[str]], values: Mapping[str, str]) -> Drawing:
    """Place the artifacts in columns: a node stands right of everything that it is made from."""
    nodes = list(dict.fromkeys([*parents, *(p for reads in parents.values() for p in reads)]))
    depth: dict[str, int] = {}
    for name in nodes:
        _depth(name, parents, depth)
    _move_beside_first_use(parents, depth)
    columns: list[list[str]] = [
        [n for n in nodes if depth[n] == level] for level in range(max(depth.values(), default=-1) + 1)
    ]
    row, number = _rows(columns, parents), {name: index for index, name in enumerate(nodes)}
    below = _below(sorted(nodes, key=lambda name: -depth[name]), parents, number)
    height = max((len(column) for column in columns), default=0)
    placed = {}
    for level, column in enumerate(columns):
        # Short columns are centred: their edges then fan out evenly.
        offset = (height - len(column)) * ROW // 2
        for name in column:
            x, y = _MARGIN + level * COLUMN, _MARGIN + offset + row[name] * ROW
            stage, _, short = name.partition("/")
            text, value = _cut(short or stage), values.get(name, "")
            placed[name] = Node(name, stage, text, value, x, y, number[name], below[name])
    edges = [(p, n, _curve(placed[p], placed[n]), below[n]) for n in nodes for p in parents.get(n, ())]
    width = 2 * _MARGIN + len(columns) * COLUMN - (COLUMN - NODE_WIDTH)
    return Drawing([placed[n] for c in columns for n in c], edges, max(width, 0), 2 * _MARGIN + height * ROW)


def _depth(name: str, parents: Mapping[str, Sequence[str]], known: dict[str, int]) -> int:
    if name not in known:
        # The recipe's check has ruled out circles; chains are a few dozen artifacts long.
        known[name] = 1 + max((_depth(p, parents, known) for p in parents.get(name, ())), default=-1)
    return known[name]


def _move_beside_first_use(parents: Mapping[str, Sequence[str]], depth: dict[str, int]) -> None:
    """Put what is made from nothing, such as a base model, just left of its first use: no edge then runs far."""
    uses: dict[str, int] = {}
    for name, reads in parents.items():
        for parent in reads:
            uses[parent] = min(uses.get(parent, depth[name]), depth[name])
    depth.update({name: use - 1 for name, use in uses.items() if not parents.get(name)})


def _below(
    nodes: Sequence[str], parents: Mapping[str, Sequence[str]], number: Mapping[str, int]
) -> dict[str, tuple[int, ...]]:
    """Return for each node the numbers of all that is made from it; `nodes` begins with the last ones."""
    found: dict[str, set[int]] = {name: {number[name]} for name in nodes}
    for name in nodes:
        for parent in parents.get(name, ()):
            found[parent] |= found[name]
    return {name: tuple(sorted(numbers)) for name, numbers in found.items()}


def _rows(columns: Sequence[list[str]], parents: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Order each column by the mean place of its parents, which keeps edges short and mostly uncrossed."""
    row: dict[str, int] = {}
    for column in columns:
        place = {name: index for index, name in enumerate(column)}

        def mean(name: str, place: dict[str, int] = place) -> tuple[float, int]:
            above = [row[p] for p in parents.get(name, ()) if p in row]
            return (sum(above) / len(above) if above else float(place[name])), place[name]

        column.sort(key=mean)
        row.update({name: index for index, name in enumerate(column)})
    return row


def _curve(start: Node, stop: Node) -> str:
    x0, y0 = start.x + NODE_WIDTH, start.y + NODE_HEIGHT // 2
    x1, y1 = stop.x, stop.y + NODE_HEIGHT // 2
    bend = (COLUMN - NODE_WIDTH) // 2
    # Straight until just before the goal's column, so that long edges don't run through nodes at a slant.
    return f"M{x0} {y0}C{x0 + bend} {y0} {x0 + bend} {y1} {x0 + 2 * bend} {y1}L{x1} {y1}"


def _cut(text: str) -> str:
    return text if len(text) <= _FITS else f"{text[: _FITS - 1]}…"
