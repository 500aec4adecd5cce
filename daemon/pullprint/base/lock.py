"""One process at a time."""

import fcntl
import os
from pathlib import Path

from pullprint.base.errors import PullprintError
from pullprint.base.platform import STOP_DAEMON


class InUse(PullprintError):
    """Another process works in {path} already. Stop it first, with `{command}`; nothing was changed."""

    code = "in-use"


def lock_directory(directory: Path) -> int:
    """Keep *directory* to this process until it ends, or closes the descriptor that is returned. Raises InUse."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        raise InUse(path=directory, command=STOP_DAEMON) from error
    return fd
