"""The commands `sign` and `export`."""

import argparse
import json
import os
from pathlib import Path

from scripts.artifact.commands.output import say
from scripts.artifact.places import results_root


def sign_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `sign`."""
    parser.add_argument("release", type=Path, help="results/<recipe>/release/<model>")
    parser.add_argument("--key", type=Path, required=True, help="EC private key, PEM (password: ATELIER_KEY_PASSWORD)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="files read side by side")


def sign(args: argparse.Namespace) -> int:
    """Sign a release."""
    from scripts.artifact.sign import sign as sign_release

    path = sign_release(args.release.absolute(), args.key, args.threads)
    command = f"python -m model_signing verify key --signature {path} --public_key PUBLIC.pem {args.release}"
    say(args, {"signature": str(path), "verify": command}, [f"{path}", f"to verify: {command}"])
    return 0


def export_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `export`."""
    parser.add_argument("kind", choices=["crate", "bom"], help="RO-Crate of results/<recipe>, or ML-BOM of a model")
    parser.add_argument("place", type=Path, help="results/<recipe>, or results/<recipe>/release/<model>")
    parser.add_argument("--recipe", type=Path, nargs="+", help="recipe files (default: config/<recipe>.yaml)")
    parser.add_argument("--output", type=Path, help="file to write (default: standard output)")


def export(args: argparse.Namespace) -> int:
    """Write one of the exports. What it writes is JSON anyway: --json is about the message."""
    from scripts.artifact.bom import bom
    from scripts.artifact.commands.ask import recipe_files, recipe_of
    from scripts.artifact.crate import crate

    place = args.place.absolute()
    root = place if args.kind == "crate" else results_root(place)
    content = crate(place, recipe_files(args, root)) if args.kind == "crate" else bom(place, recipe_of(args, root))
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    if args.output is None:
        print(text, end="")
    else:
        args.output.write_text(text, encoding="utf-8")
        say(args, {"written": str(args.output)}, [f"{args.output}: {len(text.encode()):,} bytes"])
    return 0
