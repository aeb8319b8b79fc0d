"""`python -m scripts.report --spec ...` makes the report; `... scorecard RESULTS_DIR` prints it in the terminal,
`... export RESULTS_DIR OUT_DIR` writes tables and the files of a model's page."""

import sys

from scripts.artifact.stage import run_stage
from scripts.recipe.report import ReportSpec

if __name__ == "__main__":
    # Each way imports only what it needs: the terminal's answer must not wait for a plotting library.
    if sys.argv[1:2] == ["scorecard"]:
        from scripts.report.terminal import main

        sys.exit(main(sys.argv[2:]))
    if sys.argv[1:2] == ["export"]:
        from scripts.report.export import main as export

        sys.exit(export(sys.argv[2:]))
    from scripts.report.build import build

    run_stage("report", ReportSpec, build)
