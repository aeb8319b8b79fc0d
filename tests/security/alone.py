"""Run a command where there is no network but the machine's own: `python -m tests.security.alone COMMAND...`.

Needs a user who may make network namespaces (root, or `unshare --user` allowed). Exit status 97: not allowed.
"""

import ctypes
import fcntl
import os
import socket
import struct
import sys

NOT_ALLOWED = 97
_CLONE_NEWNET, _CLONE_NEWUSER = 0x40000000, 0x10000000
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1


def enter() -> bool:
    """Move this process to a network of its own, in which only 127.0.0.1 exists; return whether that worked."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) and libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET):
        return False
    with socket.socket() as handle:
        fcntl.ioctl(handle, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))
    return True


if __name__ == "__main__":
    if not enter():
        sys.exit(NOT_ALLOWED)
    os.execvp(sys.argv[1], sys.argv[1:])
