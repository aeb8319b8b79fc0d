"""`python -m scripts.merge`: the stage; `show RECIPE [MODEL]` prints ratios; `import`, `export` speak other tools'."""

import sys


def main() -> None:
    """Run the command that the first argument names; without one, the stage."""
    command = sys.argv[1] if len(sys.argv) > 1 else ""
    if command == "show":
        from scripts.merge.show import main as show

        show(sys.argv[2:])
    elif command in ("import", "export"):
        from scripts.merge.exchange import main as exchange

        exchange(sys.argv[1:])
    else:
        from scripts.artifact.stage import run_stage
        from scripts.merge.build import build
        from scripts.recipe.merge import MergeSpec

        run_stage("merge", MergeSpec, build)


if __name__ == "__main__":
    main()
