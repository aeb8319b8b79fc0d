"""One answer of a command, for people or for machines."""

import argparse
import json
from collections.abc import Iterable


def say(args: argparse.Namespace, value: object, lines: Iterable[str]) -> None:
    """Print `value` as JSON if that was asked for, else the lines."""
    if args.json:
        print(json.dumps(value, indent=1, ensure_ascii=False))
    else:
        for line in lines:
            print(line)
