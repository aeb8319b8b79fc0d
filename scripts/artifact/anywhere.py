"""Verify a folder with SHA256SUMS wherever it lies: a release that was downloaded is in no `results/`."""

from pathlib import Path

from scripts.artifact.digest import SUMS, hash_files, payload_files, read_sums

# What downloads leave beside the files: nothing of it is ever loaded.
_LEFT_BY_DOWNLOADS = (".gitattributes", ".cache/", ".git/")


def folder_faults(folder: Path, threads: int = 1) -> list[str]:
    """Return what is wrong with a folder: files that are missing, changed or not listed. Every byte is read.

    Raises:
        ArtifactError: there is no readable SHA256SUMS, or a link lies in the folder.
    """
    claimed = read_sums(folder)
    present = {name for name in payload_files(folder) if not name.startswith(_LEFT_BY_DOWNLOADS)}
    found = hash_files(folder, present & claimed.keys(), threads)
    faults = [f"{folder / name}: missing; {SUMS} lists it" for name in sorted(claimed.keys() - present)]
    faults += [f"{folder / name}: not listed in {SUMS}" for name in sorted(present - claimed.keys())]
    changed = sorted(name for name, digest in found.items() if digest != claimed[name])
    return faults + [f"{folder / n}: has SHA-256 {found[n]}, {SUMS} says {claimed[n]}" for n in changed]
