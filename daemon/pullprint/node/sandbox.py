"""A program that reads what may be hostile, where it can do no harm: bubblewrap, seccomp and resource limits.

Namespaces of its own without a network, a file tree with only the interpreter and the program, nothing writable, no new
processes, and limits on memory, processor time, wall clock and the length of its answer. The answer is as untrusted as
what the program read.

A run whose `Limits` allow it more, because it starts a program that was not made for this, gets a private file system
in memory and processes of its own, and nothing else.
"""

import asyncio
import contextlib
import os
import platform
import shutil
import signal
import struct
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pullprint.base.clock import Clock


@dataclass(frozen=True, slots=True)
class Limits:
    """What one run may use."""

    wall_seconds: float = 60.0
    cpu_seconds: int = 40
    memory: int = 512 << 20
    """Bytes of address space."""
    answer: int = 64 << 10
    """Bytes on stdout."""
    scratch: int = 0
    """Bytes of a private file system in memory at /tmp, which goes with the run; 0: nothing is writable."""
    processes: int = 1
    """And threads. More than one may also speak to each other."""
    files: int = 32


DEFAULT_LIMITS = Limits()


class TooMuchSaid(Exception):
    """The program's answer is longer than its limit."""


@dataclass(frozen=True, slots=True)
class Tools:
    """Absolute paths, and the arguments of bwrap that show the program its files."""

    bwrap: str
    prlimit: str
    nice: str
    binds: tuple[str, ...]
    program: str
    """Where the program stands in the sandbox: under its own name, by which ps(1) shows it."""


def find_tools(program: Path, also: Iterable[Path] = ()) -> Tools | None:
    """What it takes to run *program* in a sandbox, where it sees the folders *also* too; None where something of it is
    missing. Blocking."""
    paths = [shutil.which(name, path="/usr/bin:/bin") for name in ("bwrap", "prlimit", "nice")]
    bwrap, prlimit, nice = paths
    if not (bwrap and prlimit and nice):
        return None
    inside = f"/{program.name}"
    folders = [word for folder in also if folder.is_dir() for word in ("--ro-bind", str(folder), str(folder))]
    binds = (*_interpreter_binds(), *folders, "--ro-bind", str(program.resolve()), inside)
    return Tools(bwrap, prlimit, nice, binds, inside)


@dataclass(frozen=True, slots=True)
class Sandbox:
    """One document, and everything that a program is given to read it."""

    tools: Tools
    document: int
    """A descriptor, the program's stdin."""
    content_type: str
    limits: Limits
    deadline: float
    """By the clock's `monotonic`."""

    async def run(self, arguments: list[str], clock: Clock) -> tuple[bytes, int]:
        """What a command says on stdout, and its exit status, 128 and more for a signal.

        Raises TimeoutError, TooMuchSaid, and OSError when no process can be started.
        """
        answer = bytearray()
        status = await self.run_into(answer.extend, arguments, clock)
        return bytes(answer), status

    async def run_into(self, take: Callable[[bytes], object], arguments: list[str], clock: Clock) -> int:
        """As `run`; *take* gets what is said as it is said, which may turn out to be too much or cut off."""
        with _seccomp_filter(alone=self.limits.processes == 1) as seccomp:
            process = await asyncio.create_subprocess_exec(
                *self._command(seccomp),
                *arguments,
                stdin=self.document,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                pass_fds=() if seccomp is None else (seccomp,),
                env={},
                start_new_session=True,
            )
        _step_back(process.pid)
        stdout = process.stdout
        assert stdout is not None
        try:
            async with asyncio.timeout(self.deadline - clock.monotonic()):
                await _read_all(stdout, self.limits.answer, take)
                return await process.wait()
        finally:
            # The group, because a bwrap that is killed while it sets the sandbox up leaves a child that waits for it
            # for ever; later everybody in the sandbox dies with it. Then what is left in the pipe is little, and ends.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            while await stdout.read(1 << 16):
                pass
            await process.wait()

    def _command(self, seccomp: int | None) -> Iterator[str]:
        """The command line in front of the program's: niceness, bubblewrap, resource limits."""
        yield from (self.tools.nice, "-n", "19", self.tools.bwrap)
        yield from ("--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts")
        yield from ("--unshare-cgroup-try", "--disable-userns", "--cap-drop", "ALL")
        yield from ("--die-with-parent", "--uid", "65534", "--gid", "65534")
        yield from ("--clearenv", "--setenv", "CONTENT_TYPE", self.content_type, "--hostname", "sandbox")
        if self.limits.scratch:
            yield from ("--size", str(self.limits.scratch), "--tmpfs", "/tmp", "--setenv", "HOME", "/tmp")  # noqa: S108
            yield from ("--dev-bind", "/dev/urandom", "/dev/urandom")
        else:
            yield from ("--tmpfs", "/tmp")  # noqa: S108  (private, empty and read-only)
        yield from self.tools.binds
        if not self.limits.scratch:
            yield from ("--remount-ro", "/tmp")  # noqa: S108
        yield from ("--remount-ro", "/", "--chdir", "/")
        if seccomp is not None:
            yield from ("--seccomp", str(seccomp))
        yield from ("--", self.tools.prlimit, f"--as={self.limits.memory}")
        yield from (
            f"--cpu={self.limits.cpu_seconds}:{self.limits.cpu_seconds + 1}",
            f"--fsize={self.limits.scratch}",
            f"--nproc={self.limits.processes}",
        )
        # One byte, not none: core(5) ignores a limit of zero for cores that go to a pipe, document and all.
        yield from (f"--nofile={self.limits.files}", "--core=1", "--memlock=0", "--msgqueue=0", "--")


def _step_back(session: int) -> None:
    """Let everybody else's work go before that of *session*.

    Where the kernel groups processes by session (sched(7), autogroup) nice(1) counts only within one, and counting
    the documents of a burst took a whole core from storing it: hence no bwrap --new-session either, which would make
    another group. Refused when it comes too often, or there is no such thing; then it is only slower.
    """
    with contextlib.suppress(OSError):
        Path(f"/proc/{session}/autogroup").write_text("19")


def _interpreter_binds() -> Iterator[str]:
    """What the interpreter, its libraries and the program's packages need, read-only."""
    yield from ("--ro-bind", "/usr", "/usr")
    for path in sorted(Path("/").glob("lib*")):
        if path.is_symlink():
            yield from ("--symlink", str(path.readlink()), str(path))
        elif path.is_dir():
            yield from ("--ro-bind", str(path), str(path))
    for prefix in dict.fromkeys((sys.base_prefix, sys.prefix)):
        if not Path(prefix).is_relative_to("/usr"):
            yield from ("--ro-bind", prefix, prefix)


async def _read_all(stream: asyncio.StreamReader, limit: int, take: Callable[[bytes], object]) -> None:
    while chunk := await stream.read(min(limit + 1, 1 << 16)):
        limit -= len(chunk)
        if limit < 0:
            raise TooMuchSaid
        take(chunk)


# System calls that only a program with processes and files of its own needs, as (x86-64, arm64): those that make them,
# and sockets, which without a network reach nobody else.
_CALLS_OF_SEVERAL: dict[str, tuple[int, int | None]] = {
    "clone": (56, 220), "fork": (57, None), "vfork": (58, None), "clone3": (435, 435),
    "socket": (41, 198), "socketpair": (53, 199), "memfd_create": (319, 279),
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53),
}  # fmt: skip
# Those that nothing in a sandbox needs: what changes files through a read-only descriptor, and the corners of the
# kernel in which most of its holes were found.
_REFUSED_CALLS: dict[str, tuple[int, int | None]] = {
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "pidfd_open": (434, 434), "pidfd_getfd": (438, 438),
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39),
    "pivot_root": (155, 41), "chroot": (161, 51), "fsopen": (430, 430), "fsmount": (432, 432), "open_tree":
    (428, 428), "move_mount": (429, 429), "mount_setattr": (442, 442), "open_by_handle_at": (304, 265),
    "chown": (92, None), "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54), "fsetxattr": (190, 7),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "io_uring_setup": (425, 425),
    "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218),
    "shmget": (29, 194), "semget": (64, 190), "msgget": (68, 186), "mq_open": (240, 180),
}  # fmt: skip
# linux/audit.h: EM_X86_64 and EM_AARCH64, 64 bits, little-endian.
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _KILL_PROCESS, _EPERM = 0x7FFF0000, 0x80000000, 0x00050001
_X32_CALLS = 0x40000000


@contextlib.contextmanager
def _seccomp_filter(*, alone: bool) -> Iterator[int | None]:
    """A file with the BPF program that refuses `_REFUSED_CALLS`, and `_CALLS_OF_SEVERAL` to who is to be *alone*; None
    on a processor that is not listed."""
    if platform.machine() not in _ARCHITECTURES:
        yield None
        return
    column, architecture = _ARCHITECTURES[platform.machine()]
    refused = {**_REFUSED_CALLS, **(_CALLS_OF_SEVERAL if alone else {})}
    calls = [numbers[column] for numbers in refused.values()]
    fd = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    try:
        # pwrite leaves the position at the start, where bwrap begins to read.
        os.pwrite(fd, seccomp_program(architecture, (call for call in calls if call is not None)), 0)
        yield fd
    finally:
        os.close(fd)


def seccomp_program(architecture: int, refused: Iterable[int]) -> bytes:
    """struct sock_filter[] (seccomp(2)): EPERM for the calls *refused*, death for another architecture's."""
    steps = [
        (_LOAD, 0, 0, 4),
        (_IF_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD, 0, 0, 0),
        (_IF_AT_LEAST, 0, 1, _X32_CALLS),
        (_RETURN, 0, 0, _EPERM),
    ]
    for call in refused:
        steps += [(_IF_EQUAL, 0, 1, call), (_RETURN, 0, 0, _EPERM)]
    steps.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("=HBBI", *step) for step in steps)
