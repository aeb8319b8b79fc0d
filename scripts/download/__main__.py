"""`python -m scripts.download`: the only program of the workflow that uses the network."""

import os

from scripts.artifact.stage import run_stage
from scripts.download.build import build
from scripts.recipe.fetch import DownloadSpec

# The rules switch every stage offline; huggingface_hub reads these once, when it is first imported (in `build`).
OFFLINE_FLAGS = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")

if __name__ == "__main__":
    for flag in OFFLINE_FLAGS:
        os.environ.pop(flag, None)
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"  # else the library asks the hub for more than our files
    run_stage("download", DownloadSpec, build)
