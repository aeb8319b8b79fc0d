"""Files asked for on Snakemake's command line: what a typing error meant, before Snakemake trips over it."""

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from scripts.recipe.base import STAGES
from scripts.recipe.graph import Graph
from scripts.recipe.problems import nearest

_SUMS = "SHA256SUMS"
# What the name below a stage's folder is, and what becomes of it.
_WORDS = {
    "download": ("source, suite, data set or model", "downloaded"),
    "clean": ("source", "cleaned"),
    "mix": ("mixture", "mixed"),
    "create": ("model", "created"),
    "pack": ("model", "trained"),
    "train": ("model", "trained"),
    "merge": ("model", "merged"),
    "benchmark": ("MODEL/SUITE", "measured"),
    "release": ("model", "released"),
}


def target_problem(graph: Graph, arguments: Iterable[str]) -> str:
    """Return what is wrong with the first argument that can only be a mistyped target; empty where all may be right.

    What exists, and what is no artifact's file, is left to Snakemake.
    """
    for target in arguments:
        parts = PurePosixPath(target).parts
        if len(parts) > 2 and parts[0] == "results" and parts[2] in STAGES and not Path(target).is_file():
            problem = _problem(graph, target, parts[1], parts[2], parts[3:])
            if problem:
                return problem
    return ""


def _problem(graph: Graph, target: str, recipe: str, stage: str, rest: tuple[str, ...]) -> str:
    ours = graph.recipe.name
    if recipe != ours:
        return f"{target}: this run's recipe is {ours}, and all that it makes lies below results/{ours}/"
    name = "/".join(part for part in rest if part != _SUMS)
    if (stage, name) in graph.jobs:
        return "" if rest[-1:] == (_SUMS,) else f"{target} is a folder; ask for {str(target).rstrip('/')}/{_SUMS}"
    if any((stage, "/".join(rest[:depth])) in graph.jobs for depth in range(len(rest))):
        return ""
    if stage not in _WORDS:
        return f"{target}: recipe {ours} asks for no such {stage}"
    known, (noun, done) = sorted(job.name for job in graph.of_stage(stage)), _WORDS[stage]
    return f"no {noun} {name!r} is {done} by recipe {ours}; known: {', '.join(known) or 'none'}{nearest(name, known)}"
