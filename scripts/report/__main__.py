"""`python -m scripts.report --spec ...` makes the report; `... scorecard RESULTS_DIR` prints it in the terminal."""

import sys

from scripts.artifact.stage import run_stage
from scripts.recipe.report import ReportSpec

if __name__ == "__main__":
    # Each way imports only what it needs: the terminal's answer must not wait for a plotting library.
    if sys.argv[1:2] == ["scorecard"]:
        from scripts.report.terminal import main

        sys.exit(main(sys.argv[2:]))
    from scripts.report.build import build

    run_stage("report", ReportSpec, build)
