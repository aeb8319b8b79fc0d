"""Make the page for testers (`--spec ...`), or turn their votes into ratings.

python -m scripts.blind score VOTES...      ratings, agreement, correlation with the benchmarks
"""

import sys

if __name__ == "__main__":
    if sys.argv[1:2] == ["score"]:
        from scripts.blind.score import main

        sys.exit(main(sys.argv[2:]))
    from scripts.artifact.stage import run_stage
    from scripts.blind.build import build
    from scripts.recipe.blind import BlindSpec

    run_stage("blind", BlindSpec, build)
