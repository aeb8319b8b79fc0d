"""The page: figures and payloads put into the templates, every value escaped."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from scripts.recipe.report import ReportSpec
from scripts.report import charts
from scripts.report.facts import projection_order, split_tensor
from scripts.report.lineage import NODE_HEIGHT, NODE_WIDTH, anchor, draw, parents_of
from scripts.report.payloads import Episode, Payloads, Training

MAX_TURN_CHARS = 600
"""A sample's turn is cut here: five whole logs of ten sources would fill the page's 5 MB."""
MAX_TURNS = 6


def render(spec: ReportSpec, found: Payloads, facts: Mapping[str, Any]) -> str:
    """Return the whole page. Nothing in it depends on the machine, the time or the place of the files."""
    folder = Path(__file__).parent / "templates"
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        count=count, decimal=decimal, signed=signed, scientific=scientific, short=short, anchor=anchor
    )
    parents = parents_of(spec.lineage, spec.models)
    return environment.get_template("page.html.j2").render(
        facts=facts,
        spec=spec,
        style=Markup((folder / "style.css").read_text(encoding="utf-8")),  # noqa: S704 - our own file
        models=_models(spec, facts),
        samples=_samples(spec, found),
        curves={name: _curves(name, training) for name, training in found.trainings.items()},
        maps={name: _heat_map(name, found) for name in found.merges},
        tasks=_by_task(facts["benchmarks"], facts["suites"]),
        groups=facts["benchmark_groups"],
        bits=_bits_tables(facts["bits_per_byte"]),
        graph=draw(_made_into_models(parents, spec), found.values),
        known=set(found.values),
        node=(NODE_WIDTH, NODE_HEIGHT),
    )


def count(value: int | None) -> str:
    """Return 1,234 or a dash."""
    return "–" if value is None else f"{value:,}"


def decimal(value: float | None, digits: int = 4) -> str:
    """Return a number of fixed digits or a dash."""
    return "–" if value is None else f"{value:.{digits}f}"


def signed(value: float | None, digits: int = 2) -> str:
    """Return a number with its sign (a true minus) or a dash."""
    return "–" if value is None else f"{value:+.{digits}f}".replace("-", "−")


def scientific(value: float | None) -> str:
    """Return a number of four digits, however large or small it is, or a dash."""
    return "–" if value is None else f"{value:.4g}"


def short(digest: str) -> str:
    """Return the first 12 digits of a digest: enough to tell artifacts apart by eye."""
    return digest[:12]


def _models(spec: ReportSpec, facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one row for each model of the recipe's table."""
    values = {row["artifact"]: row["value"] for row in facts["artifacts"]}
    trained = {row["model"]: row for row in facts["trainings"]}
    bits: dict[str, float | None] = {}
    for row in facts["bits_per_byte"]:
        bits.setdefault(row["model"], row["value"])
    return [
        {
            "model": name,
            "kind": kind,
            "parents": parents,
            "training": trained.get(name),
            "bits": bits.get(name),
            "artifact": f"{kind}/{name}",
            "value": values.get(f"{kind}/{name}", ""),
        }
        for name, (kind, *parents) in spec.models.items()
    ]


def _samples(spec: ReportSpec, found: Payloads) -> list[dict[str, Any]]:
    """Return what may be shown of each source's samples; the page may be published, so not every text may."""
    rows = []
    for name, sample in found.samples.items():
        facts = spec.sources.get(name)
        hidden = "" if facts and facts.redistributable else "its rows may not be published again"
        kept = [_episode(e) for e in sample.kept if e.label != "adult"]
        refused = {r: texts for r, texts in sample.rejected.items() if texts and "adult" not in r}
        withheld = len(sample.kept) - len(kept)
        shown = {"kept": [], "rejected": {}} if hidden else {"kept": kept, "rejected": refused}
        rows.append({"source": name, "hidden": hidden, "withheld": 0 if hidden else withheld, **shown})
    return rows


def _episode(episode: Episode) -> dict[str, Any]:
    turns = [("system", episode.system)] if episode.system else []
    turns += [(turn.role, turn.text) for turn in episode.turns]
    return {
        "id": episode.id,
        "more": max(0, len(turns) - MAX_TURNS),
        "turns": [
            {"role": role, "text": text[:MAX_TURN_CHARS], "more": max(0, len(text) - MAX_TURN_CHARS)}
            for role, text in turns[:MAX_TURNS]
        ],
    }


def _figure(title: str, note: str, svg: str, series: Sequence[charts.Series] = ()) -> dict[str, Any]:
    legend = [
        {
            "name": s.name,
            "colour": charts.colour(s.colour),
            "width": 2 if s.bold else 1.3,
            "dash": charts.dash(i) if s.bold else [1, 0],
        }
        for i, s in enumerate(series)
    ]
    # The drawing is escaped by its XML writer.
    return {"title": title, "note": note, "svg": Markup(svg), "legend": legend, "ramp": None}  # noqa: S704


def _curves(name: str, training: Training) -> list[dict[str, Any]]:
    """Return the charts of one fine-tune, as far as its metrics hold something to draw."""
    figures = []
    losses, each = charts.thin_out([(line.step, line.loss) for line in training.steps])
    means = f"; each training point is the mean of {each} steps" if each > 1 else ""
    evaluated = [(float(line.step), line.eval_loss) for line in training.evaluations]
    series = [
        s
        for s in (charts.Series("training", losses, False, 0), charts.Series("evaluation", evaluated, True, 1))
        if s.points
    ]
    if series:
        svg = charts.line_chart(series, "step", f"Training and evaluation loss of {name} over steps")
        figures.append(_figure("Training and evaluation loss", f"nats a token{means}", svg, series))
    sources = list(dict.fromkeys(s for line in training.evaluations for s in line.eval_loss_by_source))
    by_source = [
        charts.Series(
            s, [(e.step, e.eval_loss_by_source[s]) for e in training.evaluations if s in e.eval_loss_by_source], True, i
        )
        for i, s in enumerate(sources)
    ]
    if by_source:
        svg = charts.line_chart(by_source, "step", f"Evaluation loss of {name} by source over steps")
        figures.append(_figure("Evaluation loss by source", "held-out rows; nats a token", svg, by_source))
    for title, key, pattern in (("Learning rate", "learning_rate", ".1e"), ("Gradient norm", "grad_norm", "~f")):
        points, each = charts.thin_out([(line.step, getattr(line, key)) for line in training.steps])
        if points:
            one = charts.Series(title.lower(), points, False, 0)
            svg = charts.line_chart([one], "step", f"{title} of {name} over steps", pattern)
            figures.append(_figure(title, "before clipping" if key == "grad_norm" else "as applied at each step", svg))
    return figures


def _heat_map(name: str, found: Payloads) -> dict[str, Any] | None:
    """Return the ratios by layer and projection; none if the model's layers have unknown names."""
    placed = [(*split_tensor(tensor), facts.ratio) for tensor, facts in found.merges[name].tensors.items()]
    cells = [(layer, group, ratio) for layer, group, ratio in placed if layer is not None and ratio is not None]
    if not cells:
        return None
    first, second = [*found.merges[name].models, "first model", "second model"][:2]
    rows = projection_order([group for _, group, _ in cells])
    svg = charts.ratio_map(
        cells, rows, f"Share of {second} in {name}, by layer and projection; the table has the figures"
    )
    figure = _figure(f"Share of {second} by layer and projection", "the ratio r of each tensor", svg)
    return {**figure, "ramp": {"id": f"ramp-{name}", "first": first, "second": second, "colours": charts.RAMP}}


def _by_task(rows: Sequence[dict[str, Any]], suites: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Group benchmark rows: one table a suite, one block a task and metric, one line a model."""

    def block(row: dict[str, Any]) -> tuple[str, str]:
        return row["task"], row["metric"]

    tables = []
    for suite in dict.fromkeys(row["suite"] for row in rows):
        mine = [row for row in rows if row["suite"] == suite]
        order = {key: index for index, key in enumerate(dict.fromkeys(map(block, mine)))}
        mine.sort(key=lambda row: order[block(row)])
        tables.append(
            {
                "suite": suite,
                "title": suites[suite]["title"] if suite in suites else suite,
                "protocol": mine[0]["protocol"],
                "published": any(row["published"] for row in mine),
                "blocks": [(*key, list(lines)) for key, lines in groupby(mine, key=block)],
            }
        )
    return tables


def _bits_tables(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one table a task: sources down, models across."""
    tables = []
    for suite, task in dict.fromkeys((row["suite"], row["task"]) for row in rows):
        mine = [row for row in rows if (row["suite"], row["task"]) == (suite, task)]
        sources = list(dict.fromkeys(source for row in mine for source in row["sources"]))
        lines = [
            ("all sources", [row["value"] for row in mine]),
            *((s, [row["sources"].get(s) for row in mine]) for s in sources),
        ]
        best = [min((v for v in values if v is not None), default=None) for _, values in lines]
        table = [(name, values, least) for (name, values), least in zip(lines, best, strict=True)]
        tables.append({"suite": suite, "task": task, "models": [row["model"] for row in mine], "lines": table})
    return tables


def _made_into_models(parents: Mapping[str, Sequence[str]], spec: ReportSpec) -> dict[str, list[str]]:
    """Return the part of the graph that leads to models: measuring a model is no part of its lineage."""
    wanted: set[str] = set()
    waiting = [f"{facts[0]}/{name}" for name, facts in spec.models.items()]
    while waiting:
        name = waiting.pop()
        if name not in wanted:
            wanted.add(name)
            waiting.extend(parents.get(name, ()))
    return {name: list(reads) for name, reads in parents.items() if name in wanted}
