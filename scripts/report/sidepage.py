"""The comparison of two runs as a page: the same tables, with losses of both in one chart."""

from collections.abc import Sequence
from typing import Any

from scripts.report import charts
from scripts.report.figures import figure_of
from scripts.report.formats import style, template
from scripts.report.sidebyside import Table
from scripts.report.sides import Side


def difference_page(a: Side, b: Side, pairs: Sequence[tuple[str, str]], made: Sequence[Table]) -> str:
    """Return the page: one file, no script, nothing loaded."""
    return template("compare.html.j2").render(a=a, b=b, tables=made, figures=_curves(a, b, pairs), style=style())


def _curves(a: Side, b: Side, pairs: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """Return, for each pair of fine-tunes whose metrics are there, losses and learning rates of both."""
    figures = []
    for first, second in pairs:
        runs = [side.found.trainings.get(name) for side, name in ((a, first), (b, second))]
        if None in runs:
            continue
        name = first if first == second else f"{first} and {second}"
        losses, rates = [], []
        for index, (letter, run) in enumerate(zip("AB", runs, strict=True)):
            assert run is not None
            steps, _ = charts.thin_out([(line.step, line.loss) for line in run.steps])
            held_out = [(float(line.step), line.eval_loss) for line in run.evaluations]
            rate, _ = charts.thin_out([(line.step, line.learning_rate) for line in run.steps])
            losses += [
                charts.Series(f"{letter}, training", steps, False, index),
                charts.Series(f"{letter}, evaluation", held_out, True, index, index),
            ]
            rates.append(charts.Series(letter, rate, False, index))
        losses, rates = [s for s in losses if s.points], [s for s in rates if s.points]
        if losses:
            label = f"Training and evaluation loss of {name} in A and B"
            drawn = [charts.line_chart(losses, "step", label, size=size) for size in (charts.NARROW, charts.WIDE)]
            figures.append(figure_of(f"Loss of {name}", "nats a token", drawn[0], losses, drawn[1]))
        if rates:
            svg = charts.line_chart(rates, "step", f"Learning rate of {name} in A and B", ".1e")
            figures.append(figure_of(f"Learning rate of {name}", "as applied at each step", svg, rates))
    return figures
