"""Run pullprintd as macOS would have it, on Linux: without what only Linux has, with what macOS has in its C library.

Usage: as_macos LIBBSD LAUNCHD INTAKE CONTROL [argument of pullprintd …]
"""

import ctypes
import importlib
import os
import resource
import shutil
import socket
import sys

ABSENT = {
    os: ("memfd_create", "pidfd_open", "pipe2", "posix_fadvise", "fdatasync", "sched_setaffinity", "eventfd"),
    socket: ("SO_PEERCRED", "SOCK_CLOEXEC", "SOCK_NONBLOCK", "AF_NETLINK"),
    resource: ("prlimit",),
}
"""What macOS lacks, of Python's modules."""


def pretend() -> None:
    """Make ``base.platform`` believe that this is macOS, and take Linux's own things away."""
    linux = sys.platform
    # Its imports are loaded by now; only that one module may be told.
    importlib.import_module("pullprint.base.text")
    sys.platform = "darwin"
    platform = importlib.import_module("pullprint.base.platform")
    sys.platform = linux
    assert platform.MACOS
    for module, names in ABSENT.items():
        for name in names:
            delattr(module, name)
    sys.modules["systemd"] = None  # type: ignore[assignment]
    which = shutil.which
    absent = {"bwrap", "prlimit", "setpriv"}
    shutil.which = lambda name, *more, **named: None if name in absent else which(name, *more, **named)  # type: ignore


def main() -> None:
    libbsd, launchd, intake, control, *arguments = sys.argv[1:]
    for library in (libbsd, launchd):
        ctypes.CDLL(library, ctypes.RTLD_GLOBAL)
    os.environ |= {"LAUNCHD_SOCKET_intake": intake, "LAUNCHD_SOCKET_control": control}
    pretend()
    from pullprint.node.main import main as pullprintd

    sys.argv = ["pullprintd", *arguments]
    pullprintd()


if __name__ == "__main__":
    main()
