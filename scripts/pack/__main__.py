"""`python -m scripts.pack`: the stage; `python -m scripts.pack show FOLDER ROW`: look at one packed row."""

import sys

if __name__ == "__main__":
    # Worker processes load this file too, under another name; they need none of it.
    from scripts.artifact.stage import run_stage
    from scripts.pack.build import build
    from scripts.pack.show import show
    from scripts.recipe.pack import PackSpec

    if sys.argv[1:2] == ["show"]:
        sys.exit(show(sys.argv[2:]))
    run_stage("pack", PackSpec, build)
