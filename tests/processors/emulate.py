"""An interpreter that runs as another x86-64 processor: `qemu-user` in front of the python of this environment."""

import os
import shlex
import shutil
import sys
from pathlib import Path

import pytest

PROCESSORS = ("Haswell", "EPYC")
"""The oldest Intel and AMD server processors with AVX2 that `qemu-x86_64 -cpu help` lists."""


def needs_qemu() -> pytest.MarkDecorator:
    """Skip, with the reason, where nothing emulates a processor."""
    return pytest.mark.skipif(shutil.which("qemu-x86_64") is None, reason="qemu-user is not installed: no emulation")


def emulated_python(folder: Path, processor: str) -> Path:
    """Write an environment below `folder` whose python is emulated, and so is every python that it starts.

    `-0` gives python the name of the script, from which it derives its environment and `sys.executable`: what a
    program starts as `sys.executable` is then emulated too. A plain child process would run on the real processor.
    """
    environment = Path(sys.prefix)
    (folder / "bin").mkdir(parents=True)
    shutil.copy2(environment / "pyvenv.cfg", folder / "pyvenv.cfg")
    for library in ("lib", "lib64"):
        if (environment / library).exists():
            (folder / library).symlink_to(environment / library)
    script = folder / "bin" / "python"
    real = shlex.quote(os.path.realpath(sys.executable))
    call = f"exec qemu-x86_64 -cpu {processor} -0 {shlex.quote(str(script))} {real}"
    script.write_text(f'#!/bin/sh\n{call} "$@"\n')
    script.chmod(0o755)
    return script
