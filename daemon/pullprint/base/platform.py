"""What differs between Linux and macOS: folders, accounts, and what only one of the two kernels can do.

Everybody else asks here and never which system it is; tests/macos/test_platform.py holds them to that. packaging/macos/
lays out the files that are named here.
"""

import errno
import fcntl
import os
import re
import socket
import struct
import sys
from pathlib import Path

from pullprint.base.errors import PullprintError

MACOS = sys.platform == "darwin"

# Not below /usr/local, which Homebrew gives to a user's account on Macs with Intel processors.
STATE = Path("/Library/Application Support/Pullprint" if MACOS else "/var/lib/pullprint")
"""Keys, sealed jobs, index."""
# macOS empties /var/run when it starts, and lets only root make folders there.
RUNTIME = STATE / "run" if MACOS else Path("/run/pullprint")
"""What need not outlast the daemon; only Linux keeps it in memory."""
# launchd makes these. In /private/var/run, because cupsd's sandbox lets a backend connect to sockets there and in
# temporary folders only (scheduler/process.c, cupsdCreateProfile).
INTAKE_SOCKET = "/private/var/run/pullprint-intake.sock" if MACOS else "/run/pullprint/intake.sock"
CONTROL_SOCKET = "/private/var/run/pullprint-control.sock" if MACOS else "/run/pullprint/control.sock"

CUPS_ACCOUNT = "_lp" if MACOS else "lp"
"""Whom cupsd runs backends and filters as."""
BACKENDS = Path("/usr/libexec/cups/backend" if MACOS else "/usr/lib/cups/backend")
FILTERS = Path("/usr/libexec/cups/filter" if MACOS else "/usr/lib/cups/filter")
QUEUE_DESCRIPTION = Path("/Library/Printers/PPDs/Contents/Resources" if MACOS else "/usr/share/ppd/pullprint") / (
    "pullprint.ppd"
)

# shm_open(2)'s objects can be mapped there, but neither read nor written; and an unlinked file is on a disk.
MEMORY_FILES = not MACOS
"""Whether `memory_file` makes files."""

_JOB = "system/org.pullprint.pullprintd"
START_DAEMON = f"sudo launchctl kickstart {_JOB}" if MACOS else "systemctl start pullprintd"
STOP_DAEMON = f"sudo launchctl bootout {_JOB}" if MACOS else "systemctl stop pullprintd"
# sandbox-exec(1) is not meant to be used any more, and App Sandbox is for programs that Apple signed.
SANDBOX = not MACOS
"""Whether `node.confine`, which is made of what only Linux has, can work."""
TMPFS = "what mount_tmpfs(8) makes" if MACOS else "a tmpfs such as /run"
SANDBOX_ADVICE = (
    "macOS has no sandbox that Pullprint could use" if MACOS else "Install bubblewrap and the pullprint filters"
)

_F_FULLFSYNC = 51  # macOS's sys/fcntl.h
_MOUNT_OF_MACOS = re.compile(r".* on (/.*) \((\w+)[^()]*\)")
_MEMORY_KINDS = frozenset({"tmpfs", "ramfs"})


class NoMemoryFile(PullprintError):
    """This computer can keep no files in memory, so it would have to write the document to its disk unsealed. Nothing
    was stored. Upload it where a Linux host takes it, or print it from this computer."""

    code = "no-memory-file"
    http_status = 503


def peer_uid(sock: socket.socket) -> int:
    """The effective uid of the process that connected, as the kernel knows it. Raises OSError."""
    if MACOS:
        return getpeereid(sock.fileno())
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("iII"))
    return int(struct.unpack("iII", raw)[1])


def getpeereid(fd: int, library: str | None = None) -> int:
    """The uid that getpeereid(3) gives, which macOS has in its C library. Raises OSError."""
    import ctypes

    uid, gid = ctypes.c_uint32(), ctypes.c_uint32()
    if ctypes.CDLL(library, use_errno=True).getpeereid(fd, ctypes.byref(uid), ctypes.byref(gid)):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return uid.value


def launchd_sockets(*names: str, library: str | None = None) -> dict[str, socket.socket]:
    """The listening sockets that launchd made for us under *names* (launchd.plist(5), Sockets): none elsewhere, or
    where it did not start us. Only the first call gets them."""
    if not MACOS and library is None:
        return {}
    return {name: found for name in names if (found := _launchd_socket(name, library))}


def _launchd_socket(name: str, library: str | None) -> socket.socket | None:
    """launch_activate_socket(3): an array from malloc(3), which is ours to free, of one descriptor for a path."""
    import ctypes

    system = ctypes.CDLL(library)
    fds, count = ctypes.POINTER(ctypes.c_int)(), ctypes.c_size_t()
    if system.launch_activate_socket(name.encode(), ctypes.byref(fds), ctypes.byref(count)):
        return None
    sockets = [socket.socket(fileno=fds[place]) for place in range(count.value)]
    system.free(fds)
    for further in sockets[1:]:
        further.close()
    if not sockets:
        return None
    os.set_inheritable(sockets[0].fileno(), False)
    return sockets[0]


def memory_file(name: str) -> int:
    """A descriptor of an empty file that is in memory only. Raises NoMemoryFile where there is no such thing."""
    if not MEMORY_FILES:
        raise NoMemoryFile
    return os.memfd_create(name, os.MFD_CLOEXEC)


def reopen(fd: int) -> int:
    """*fd*'s file opened again, for reading only and with a position of its own. Raises OSError, on macOS always:
    /dev/fd/N is a duplicate there, as writable as the original and with its position."""
    if MACOS:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
    return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)


def forget_cached(fd: int) -> None:
    """What was read of *fd* need not stay in memory, and is read from the disk the next time; a hint, which macOS has
    no call for. Raises OSError."""
    if not MACOS:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def sync(fd: int) -> None:
    """Everything written to *fd*, a file or folder, survives a power cut once this returns. Raises OSError."""
    if MACOS:
        # fsync(2) leaves it in the drive's memory there. Not every file system of others' making knows this call.
        try:
            fcntl.fcntl(fd, _F_FULLFSYNC)
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.ENOTTY, errno.EINVAL):
                raise
        else:
            return
    os.fsync(fd)


def in_memory(folder: Path) -> bool:
    """Whether what is written into *folder* stays in memory; also if nobody can tell. Blocking."""
    try:
        mounts = _mounts()
    except OSError:
        return True
    path = os.path.realpath(folder)
    inside = [mount for mount in mounts if path == mount[0] or path.startswith(mount[0].rstrip("/") + "/")]
    return max(inside, key=lambda mount: len(mount[0]))[1] in _MEMORY_KINDS if inside else False


def _mounts() -> list[tuple[str, str]]:
    """Folders, and the kind of file system that is mounted there. Raises OSError."""
    if not MACOS:
        with open("/proc/self/mounts", encoding="utf-8") as lines:  # noqa: PTH123
            return [(words[1], words[2]) for words in map(str.split, lines)]
    import subprocess

    said = subprocess.run(["/sbin/mount"], capture_output=True, text=True, check=False).stdout
    return [(found[1], found[2]) for found in map(_MOUNT_OF_MACOS.fullmatch, said.splitlines()) if found]


def pidfd(pid: int) -> int:
    """A descriptor that is readable once the child *pid* has ended; -1 where there is no such thing. Raises OSError."""
    return -1 if MACOS else os.pidfd_open(pid)


def no_more_descriptors(pid: int) -> None:
    """The process *pid* gets no new descriptors from now on; without effect where another's limits cannot be set."""
    if not MACOS:
        import contextlib
        import resource

        with contextlib.suppress(OSError):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (0, 0))
