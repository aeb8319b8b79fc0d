"""The finished run of the tiny recipe that tests/pipeline makes, and small disks to break."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.pipeline.conftest import bench, built

__all__ = ["bench", "built", "small_disk"]


@dataclass
class SmallDisk:
    """A file system in memory whose size and mode can be changed."""

    folder: Path

    def change(self, options: str) -> None:
        """Mount it again with other options: `size=40960`, `ro`, `rw`."""
        subprocess.run(["mount", "-o", f"remount,{options}", self.folder], check=True)

    def leave_free(self, free: int) -> None:
        """Shrink it to what is used and `free` bytes more."""
        found = os.statvfs(self.folder)
        self.change(f"size={(found.f_blocks - found.f_bfree) * found.f_frsize + free}")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """An empty file system of 1 GB in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1g", "none", folder], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"this user may not mount a file system: {done.stderr.strip()}")
    try:
        yield SmallDisk(folder)
    finally:
        with contextlib.suppress(OSError):
            subprocess.run(["umount", "-l", folder], check=False)
