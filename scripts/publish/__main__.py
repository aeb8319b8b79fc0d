"""List what a publication would upload, or upload it: `snakemake publish`, `snakemake publish --config publish=yes`.

The token is read from the variable HF_TOKEN and from nowhere else.
"""

import argparse
import os
import sys
from pathlib import Path

from scripts.artifact.digest import SUMS, ArtifactError
from scripts.artifact.sign import signature_path, stale_names
from scripts.artifact.verify import check_artifact
from scripts.publish.upload import release_files, upload

ANSWERS = {"yes": True, "true": True, "no": False, "false": False}


def main() -> int:
    """Verify all releases, list their files, and upload them if asked. Exit codes: 0 done, 1 refused, 2 bad usage."""
    args = _arguments()
    folders = [path.parent for path in args.sums]
    faults = [fault for folder in folders for fault in check_artifact(folder, deep=True)]
    if faults:
        print("\n".join(map(str, faults[:10])), file=sys.stderr)
        print(
            f"refusing to publish: {len(faults)} faults; to rebuild: rm .../{SUMS}, snakemake release", file=sys.stderr
        )
        return 1
    try:
        stale = [f"{signature_path(f)}: is of other bytes: {n}" for f in folders for n in stale_names(f)[:3]]
    except ArtifactError as error:
        stale = [str(error)]
    if stale:
        print("\n".join(stale), file=sys.stderr)
        print("refusing to publish: sign again (python -m scripts.artifact sign), or remove the .sig", file=sys.stderr)
        return 1
    for folder in folders:
        files = {name: path.stat().st_size for name, path in release_files(folder).items()}
        print(f"{args.owner or '(no owner)'}/{folder.name}: {len(files)} files, {sum(files.values()):,} bytes")
        for name, size in files.items():
            print(f"  {size:>15,}  {name}")
    if not args.upload:
        print("nothing was uploaded; to upload, the same command with `--config publish=yes` at its end")
        return 0
    return _upload(folders, args.owner, args.private)


def _upload(folders: list[Path], owner: str, private: bool) -> int:
    if not owner:
        print("no account to upload to: set release.owner in the recipe", file=sys.stderr)
        return 1
    token = os.environ.get("HF_TOKEN")
    if not token:
        print(
            "no token: set the variable HF_TOKEN to one that may write; it is read from nowhere else", file=sys.stderr
        )
        return 1
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi(token=token, endpoint=os.environ.get("HF_ENDPOINT"))
    for folder in folders:
        repository = f"{owner}/{folder.name}"
        try:
            sent = upload(api, folder, repository, private, print)
        except (HfHubHTTPError, OSError, RuntimeError, ValueError) as error:
            text = str(error).replace(token, "***").strip()
            print(f"{repository}: {text}\nrun it again: what has arrived is not sent twice", file=sys.stderr)
            return 1
        print(f"{repository}: {sent} files uploaded" if sent else f"{repository}: nothing to do, all is there")
    return 0


def _answer(text: str) -> bool:
    if text.lower() not in ANSWERS:
        raise argparse.ArgumentTypeError(f"found {text!r}; allowed: yes, no")
    return ANSWERS[text.lower()]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m scripts.publish", description=__doc__)
    parser.add_argument("sums", nargs="+", type=Path, help="SHA256SUMS of each release")
    parser.add_argument("--owner", default="", help="account on the hub")
    parser.add_argument("--private", type=_answer, default=True, help="of repositories that are created: yes or no")
    parser.add_argument("--upload", type=_answer, default=False, help="yes: upload; no: list only")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
