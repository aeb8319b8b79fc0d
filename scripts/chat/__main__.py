"""Talk to a finished model: `python -m scripts.chat results/demo/release/tiny-mythalion`.

Commands in the conversation: /reset, /regenerate, /system TEXT, /quit.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from scripts.artifact.anywhere import folder_faults
from scripts.artifact.digest import ArtifactError
from scripts.artifact.foreign import foreign_code
from scripts.chat.session import HELP, Sampling, Session, load


def main() -> int:
    """Verify, load, talk. Returns 1 where the folder can't be trusted or used, 2 on bad usage."""
    args = _arguments()
    try:
        faults = folder_faults(args.model, os.cpu_count() or 1)
    except (ArtifactError, OSError) as error:
        faults = [str(error)]
    if faults:
        print("\n".join([*faults[:10], f"{args.model}: not verified, so not loaded"]), file=sys.stderr)
        return 1
    if refused := foreign_code(args.model):  # digests say that nothing was changed since, not that it is harmless
        print(refused, file=sys.stderr)
        return 1
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        model, tokenizer = load(args.model, args.device)
    except (ValueError, OSError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1
    if sys.stdin.isatty():
        print(f"{args.model.name} on {model.device.type}. {HELP}")
    sampling = Sampling(args.temperature, args.top_p, args.max_new_tokens, args.seed)
    session = Session(model, tokenizer, sampling, _say, args.system)
    try:
        session.run(_lines())
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    except (KeyboardInterrupt, BrokenPipeError):
        return 0
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m scripts.chat", description=__doc__)
    parser.add_argument("model", type=Path, help="folder of a release, or of a trained or merged model")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--system", default="", help="system prompt")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--temperature", type=float, default=0.8, help="0: always the likeliest token")
    parser.add_argument("--top-p", type=float, default=0.95)
    parser.add_argument("--max-new-tokens", type=int, default=300)
    args = parser.parse_args()
    if args.temperature < 0 or not 0 < args.top_p <= 1 or args.max_new_tokens < 1:
        parser.error("needs --temperature >= 0, 0 < --top-p <= 1 and --max-new-tokens >= 1")
    return args


def _lines() -> Iterator[str]:
    if not sys.stdin.isatty():
        yield from sys.stdin
        return
    while True:
        try:
            yield input("> ")
        except EOFError:
            return


def _say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
