"""Benchmark one model on one suite; `python -m scripts.benchmark grim FILE` checks published figures instead."""

import sys

from scripts.artifact.stage import run_stage
from scripts.benchmark.build import build
from scripts.benchmark.grim import main as grim
from scripts.recipe.benchmark import BenchmarkSpec

if __name__ == "__main__":
    if sys.argv[1:2] == ["grim"]:
        sys.exit(grim(sys.argv[2:]))
    run_stage("benchmark", BenchmarkSpec, build)
