"""Prove, explain, compare and share artifacts. Needs neither Snakemake's records nor a GPU."""

import argparse
import json
import sys
from importlib import import_module

from scripts.artifact.digest import ArtifactError
from scripts.recipe.problems import RecipeError

PROGRAM = "python -m scripts.artifact"
COMMANDS = {
    "verify": ("check", "are all bytes what their records say? Names each bad file, tensor and digest"),
    "lock": ("check", "write locks/<recipe>.lock: which key gave which value"),
    "compare": ("check", "hold results against a lock, stage by stage"),
    "guard": ("check", "is a job of this folder alive?"),
    "explain": ("ask", "why would an artifact be made again? Upstream first"),
    "diff": ("ask", "where do two results folders or locks part? Down to the file, tensor or row"),
    "lineage": ("ask", "all that an artifact was made from: digests, licences, rejected rows"),
    "gc": ("keep", "what no recipe and no lock needs any more; removes nothing unless told so"),
    "store": ("keep", "what the shared store holds; --deep reads all of it"),
    "replay": ("keep", "do some finished jobs again in a clean folder, and compare"),
    "sign": ("share", "sign a release with an EC key (OpenSSF model signing)"),
    "export": ("share", "write a Workflow Run RO-Crate or a CycloneDX ML-BOM"),
}
EXIT_CODES = """\
exit codes:
  0  yes: sound, equal, up to date, nothing to remove, done
  1  no: damaged, different, to be made again, a job is alive, something can be removed
  2  no answer: wrong usage, a file or folder that is not there or can't be read

Every command takes --json: one JSON value on standard output, also for errors ({"error": ...}).
"""


def main(arguments: list[str]) -> int:
    """Run one command; only the modules of that command are imported."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description=__doc__, epilog=EXIT_CODES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    table = parser.add_subparsers(required=True, metavar="COMMAND")
    chosen = next((word for word in arguments if word in COMMANDS), None)
    for name, (module, text) in COMMANDS.items():
        command = table.add_parser(name, help=text, description=text, allow_abbrev=False)
        if name == chosen:
            code = import_module(f"scripts.artifact.commands.{module}")
            getattr(code, f"{name}_arguments")(command)
            command.add_argument("--json", action="store_true", help="one JSON value instead of lines")
            command.set_defaults(run=getattr(code, name))
    args = parser.parse_args(arguments)
    try:
        return int(args.run(args))
    except (ArtifactError, RecipeError, OSError) as error:
        print(error, file=sys.stderr)
        if args.json:
            print(json.dumps({"error": str(error)}))
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
