"""`python -m scripts.create`: a Llama from a seed. See `scripts.create.build`."""

from scripts.artifact.stage import run_stage
from scripts.create.build import build
from scripts.recipe.create import CreateSpec

if __name__ == "__main__":
    run_stage("create", CreateSpec, build)
