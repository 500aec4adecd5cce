"""Files that are there whole or not at all: temporary name, fsync, rename, fsync of the folder."""

import os
import tempfile
from pathlib import Path

from pullprint.base.platform import sync


def sync_directory(directory: Path) -> None:
    """Make renames and unlinks in *directory* survive a power cut."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync(fd)
    finally:
        os.close(fd)


def private_directory(path: Path) -> Path:
    """*path*, made if missing, open to its owner only."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(0o700)
    return path


def write_once(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write *data* durably under *path*; the same bytes again succeed, other bytes raise FileExistsError."""
    temporary = _write_beside(path, data, mode)
    try:
        os.link(temporary, path)
    except FileExistsError:
        if path.read_bytes() != data:
            raise
    finally:
        temporary.unlink()
    sync_directory(path.parent)


def replace(path: Path, data: bytes, mode: int = 0o600, group: int = -1) -> None:
    """Write *data* durably under *path* in place of what was there, for this *group* (-1: the writer's own); a crash
    leaves the one or the other."""
    _write_beside(path, data, mode, group).replace(path)
    sync_directory(path.parent)


def rename(path: Path, to: Path) -> None:
    """*path* becomes *to*, in whose place it is durably. Raises OSError."""
    path.rename(to)
    sync_directory(to.parent)


def _write_beside(path: Path, data: bytes, mode: int, group: int = -1) -> Path:
    """A durable file with *data* in *path*'s folder, under a name that nobody else has: two threads may do this at
    once."""
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".new")
    temporary = Path(name)
    try:
        with os.fdopen(fd, "wb") as file:
            if group != -1:  # which systemd's @privileged would not let a daemon even say
                os.fchown(file.fileno(), -1, group)
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            sync(file.fileno())
    except BaseException:
        temporary.unlink()
        raise
    return temporary
