"""`python -m scripts.train`: the stage; `python -m scripts.train plan RECIPE`: what a training will take, before it."""

import os
import sys

from scripts.artifact.stage import run_stage
from scripts.recipe.train import TrainSpec
from scripts.train.build import build

if __name__ == "__main__":
    if sys.argv[1:2] == ["plan"]:
        from scripts.train.plan import main

        try:
            status = main(sys.argv[2:])
            sys.stdout.flush()
        except BrokenPipeError:  # `| head` has read enough; the interpreter's own last flush must not meet the pipe
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            status = 1
        sys.exit(status)
    run_stage("train", TrainSpec, build)
