"""Make the report (`--spec ...`), or print one of its tables in the terminal.

python -m scripts.report scorecard results/demo        what was built, and how well
python -m scripts.report efficiency config/demo.yaml   what jobs asked for and what they used
python -m scripts.report export results/demo OUT       tables and the files of a model's page
python -m scripts.report page results/demo             results/demo/report.html once more
python -m scripts.report compare A B                   two runs or two recipes side by side
"""

import sys

from scripts.artifact.stage import run_stage
from scripts.recipe.report import ReportSpec

if __name__ == "__main__":
    # Each way imports only what it needs: the terminal's answer must not wait for a plotting library.
    if sys.argv[1:2] == ["scorecard"]:
        from scripts.report.terminal import main

        sys.exit(main(sys.argv[2:]))
    if sys.argv[1:2] == ["efficiency"]:
        from scripts.report.efficiency import main as efficiency

        sys.exit(efficiency(sys.argv[2:]))
    if sys.argv[1:2] == ["export"]:
        from scripts.report.export import main as export

        sys.exit(export(sys.argv[2:]))
    if sys.argv[1:2] == ["page"]:
        from scripts.report.volatile import main as page

        sys.exit(page(sys.argv[2:]))
    if sys.argv[1:2] == ["compare"]:
        from scripts.report.sidebyside import main as compare

        sys.exit(compare(sys.argv[2:]))
    from scripts.report.build import build

    run_stage("report", ReportSpec, build)
