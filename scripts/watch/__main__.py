"""Watch the workflow of this folder: `python -m scripts.watch`, or `make watch`.

Only reads: Snakemake's log, the stages' logs and JSON lines. Starting, ending or forgetting it changes nothing.
"""

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from scripts.watch.frame import BLOCKS, frame
from scripts.watch.state import Watcher

_HINT = Text("Ctrl+C ends the view; the workflow goes on.", "dim")


def main(arguments: Sequence[str]) -> int:
    """Show frames until Ctrl+C, or one with `--once` or without a terminal. Returns 0."""
    parser = argparse.ArgumentParser(prog="python -m scripts.watch", description=__doc__)
    parser.add_argument("recipe", type=Path, nargs="*", help="recipe, and overlays as in the run; else the last run's")
    parser.add_argument("--once", action="store_true", help="print one frame and end")
    parser.add_argument("--interval", type=float, default=2.0, help="seconds between two looks")
    args = parser.parse_args(arguments)
    if args.interval <= 0:
        parser.error("--interval must be above 0")
    console = Console(highlight=False, soft_wrap=False)
    unicode = _can_print(console.encoding)
    watcher = Watcher(Path.cwd(), args.recipe)
    if args.once or not console.is_terminal:
        console.print(frame(watcher.look(), unicode))
        return 0
    # Whoever was started in the background of a script has inherited that it ignores Ctrl+C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
            while True:
                live.update(Group(frame(watcher.look(), unicode), "", _HINT), refresh=True)
                time.sleep(args.interval)
    except (KeyboardInterrupt, BrokenPipeError):
        return 0


def _can_print(encoding: str) -> bool:
    try:
        BLOCKS.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return os.environ.get("TERM") != "linux"  # the console of a kernel has no such glyphs


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
