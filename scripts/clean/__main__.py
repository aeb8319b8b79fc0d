"""`python -m scripts.clean`: clean one source."""

from scripts.artifact.stage import run_stage
from scripts.clean.build import build
from scripts.recipe.clean import CleanSpec

if __name__ == "__main__":
    run_stage("clean", CleanSpec, build)
