"""`python -m scripts.train`: the stage; `python -m scripts.train plan RECIPE`: what a training will take, before it."""

import sys

from scripts.artifact.stage import run_stage
from scripts.recipe.train import TrainSpec
from scripts.train.build import build

if __name__ == "__main__":
    if sys.argv[1:2] == ["plan"]:
        from scripts.train.plan import main

        sys.exit(main(sys.argv[2:]))
    run_stage("train", TrainSpec, build)
