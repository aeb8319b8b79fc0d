"""`python -m scripts.train`: fine-tune a base model on a packed schedule."""

from scripts.artifact.stage import run_stage
from scripts.recipe.train import TrainSpec
from scripts.train.build import build

if __name__ == "__main__":
    run_stage("train", TrainSpec, build)
