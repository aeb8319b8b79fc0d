"""Make one model's release: `python -m scripts.release --spec JSON --inputs SHA256SUMS... --output SHA256SUMS`."""

from scripts.artifact.stage import run_stage
from scripts.recipe.release import ReleaseSpec
from scripts.release.build import build

if __name__ == "__main__":
    run_stage("release", ReleaseSpec, build)
