"""Counting a document's facts, where the document can do no harm.

Nothing in this process parses a document. A program of ``filters/`` does, in bubblewrap: namespaces of its
own without a network, a file tree with only the interpreter and itself, nothing writable, no new processes,
and limits on memory, processor time, wall clock and the length of its answer. The answer is as untrusted as
the document was.

Where there is no sandbox nothing is counted; the job is held either way.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import platform
import re
import shutil
import signal
import stat
import struct
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from pullprint.base.clock import Clock
from pullprint.base.errors import PullprintError
from pullprint.model.facts import Facts

_ANSWER_KEYS = frozenset({"format", "pages", "color_pages", "sheets", "encrypted", "problem"})
_FORMATS = frozenset({"pdf", "pwg-raster", "image", "text", "other"})
_CONTENT_TYPE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,62}/[a-z0-9][a-z0-9.+-]{0,62}")
_PAGES_ONLY = "count=pages"
_PROGRAM = "/pullprint-facts"
# bwrap tells a signal as a shell does: SIGKILL (hard processor limit), SIGALRM (the program's own), SIGXCPU.
_OUT_OF_TIME = frozenset({128 + 9, 128 + 14, 128 + 24})


@dataclass(frozen=True, slots=True)
class Limits:
    """What one count may use."""

    wall_seconds: float = 60.0
    cpu_seconds: int = 40
    memory: int = 512 << 20
    """Bytes of address space."""
    answer: int = 64 << 10
    """Bytes on stdout."""


DEFAULT_LIMITS = Limits()


class FactCounter:
    """Counts documents, one at a time: facts are never worth the machine that prints."""

    def __init__(self, program: Path, clock: Clock, limits: Limits = DEFAULT_LIMITS) -> None:
        self._program = program
        self._clock = clock
        self._limits = limits
        self._turn = asyncio.Semaphore(1)

    async def count(self, document_fd: int, content_type: str) -> Facts:
        """As `count_facts`; *document_fd* must stay open until this returns."""
        async with self._turn:
            return await count_facts(
                document_fd, content_type, program=self._program, clock=self._clock, limits=self._limits
            )


async def count_facts(
    document_fd: int, content_type: str, *, program: Path, clock: Clock, limits: Limits = DEFAULT_LIMITS
) -> Facts:
    """The facts of the regular file or memfd open as *document_fd*, whose position stays where it is.

    Never raises for what a document or *program* does: such facts are unknown, with a problem. A document on
    which *program* dies is counted a second time without looking at its pages' content.
    """
    # stat() of a program on a sleeping disk is not for the event loop.
    tools = await asyncio.to_thread(_find_tools, program)
    if tools is None:
        return Facts.unknown("no-sandbox")
    with _read_only(document_fd) as document:
        if document is None:
            return Facts.unknown("unsupported")
        run = _Run(
            tools,
            document,
            _clean_type(content_type),
            limits,
            clock.monotonic() + limits.wall_seconds,
        )
        try:
            return await run.facts("", clock)
        except _Died as death:
            if not death.out_of_time and not await run.sandbox_works(clock):
                return Facts.unknown("no-sandbox")
            return await _count_again(run, clock, death.problem)
        except TimeoutError:
            return Facts.unknown("timeout")
        except OSError:  # no process or descriptor left to start one with
            return Facts.unknown("no-sandbox")
        except _Lied:
            return Facts.unknown("invalid")


async def _count_again(run: "_Run", clock: Clock, problem: str) -> Facts:
    try:
        facts = await run.facts(_PAGES_ONLY, clock)
    except (_Died, _Lied, OSError):
        return Facts.unknown(problem)
    return replace(facts, problem=facts.problem or problem)


class _Died(Exception):
    """The program ended without an answer."""

    def __init__(self, status: int) -> None:
        self.out_of_time = status in _OUT_OF_TIME
        self.problem = "timeout" if self.out_of_time else "crashed"


class _Lied(Exception):
    """The program's answer is too long or not an answer."""


@dataclass(frozen=True, slots=True)
class _Tools:
    """Absolute paths, and the arguments of bwrap that show the program its files."""

    bwrap: str
    prlimit: str
    nice: str
    binds: tuple[str, ...]


def _find_tools(program: Path) -> _Tools | None:
    paths = [shutil.which(name, path="/usr/bin:/bin") for name in ("bwrap", "prlimit", "nice")]
    bwrap, prlimit, nice = paths
    if not (bwrap and prlimit and nice):
        return None
    return _Tools(bwrap, prlimit, nice, (*_interpreter_binds(), "--ro-bind", str(program.resolve()), _PROGRAM))


@dataclass(frozen=True, slots=True)
class _Run:
    """One document and everything that the program is given to count it."""

    tools: _Tools
    document: int
    content_type: str
    limits: Limits
    deadline: float
    """By the clock's `monotonic`."""

    async def facts(self, options: str, clock: Clock) -> Facts:
        """Raises TimeoutError, _Died, _Lied."""
        arguments = [sys.executable, "-I", "-B", _PROGRAM, "0", "-", "-", "1", options]
        answer, status = await self._output(arguments, clock)
        if status:
            raise _Died(status)
        return _checked(answer)

    async def sandbox_works(self, clock: Clock) -> bool:
        """Whether a harmless program runs in it; kernels and container hosts can forbid user namespaces."""
        try:
            _, status = await self._output(["/usr/bin/true"], clock)
        except (OSError, _Lied):
            return False
        return status == 0

    async def _output(self, arguments: list[str], clock: Clock) -> tuple[bytes, int]:
        with _seccomp_filter() as seccomp:
            process = await asyncio.create_subprocess_exec(
                *self._sandbox(seccomp),
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
                answer = await _read_all(stdout, self.limits.answer)
                return answer, await process.wait()
        finally:
            # The group, because a bwrap that is killed while it sets the sandbox up leaves a child that waits for it
            # for ever; later everybody in the sandbox dies with it. Then what is left in the pipe is little, and ends.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            while await stdout.read(1 << 16):
                pass
            await process.wait()

    def _sandbox(self, seccomp: int | None) -> Iterator[str]:
        """The command line in front of the program's: niceness, bubblewrap, resource limits."""
        yield from (self.tools.nice, "-n", "19", self.tools.bwrap)
        yield from ("--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts")
        yield from ("--unshare-cgroup-try", "--disable-userns", "--cap-drop", "ALL")
        yield from ("--die-with-parent", "--uid", "65534", "--gid", "65534")
        yield from ("--clearenv", "--setenv", "CONTENT_TYPE", self.content_type, "--hostname", "sandbox")
        yield from ("--tmpfs", "/tmp")  # noqa: S108  (private, empty and read-only)
        yield from self.tools.binds
        yield from ("--remount-ro", "/tmp", "--remount-ro", "/", "--chdir", "/")  # noqa: S108
        if seccomp is not None:
            yield from ("--seccomp", str(seccomp))
        yield from ("--", self.tools.prlimit, f"--as={self.limits.memory}")
        yield from (
            f"--cpu={self.limits.cpu_seconds}:{self.limits.cpu_seconds + 1}",
            "--fsize=0",
            "--nproc=1",
        )
        # One byte, not none: core(5) ignores a limit of zero for cores that go to a pipe, document and all.
        yield from ("--nofile=32", "--core=1", "--memlock=0", "--msgqueue=0", "--")


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


@contextlib.contextmanager
def _read_only(fd: int) -> Iterator[int | None]:
    """*fd* opened again for reading only: the program shares no position with us and cannot write to a memfd.

    A file that may not be opened again (root's, handed over by the backend) is passed as it is, rewound, if
    it was opened for reading only. None for what is not a regular file, or may only be passed writable.
    """
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        yield None
        return
    try:
        own = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY:
            yield None
            return
        position = os.lseek(fd, 0, os.SEEK_CUR)
        os.lseek(fd, 0, os.SEEK_SET)
        try:
            yield fd
        finally:
            os.lseek(fd, position, os.SEEK_SET)
        return
    try:
        yield own
    finally:
        os.close(own)


def _clean_type(content_type: str) -> str:
    declared = content_type.partition(";")[0].strip().lower()
    return declared if _CONTENT_TYPE.fullmatch(declared) else "application/octet-stream"


async def _read_all(stream: asyncio.StreamReader, limit: int) -> bytes:
    data = bytearray()
    while chunk := await stream.read(limit + 1 - len(data)):
        data += chunk
        if len(data) > limit:
            raise _Lied
    return bytes(data)


def _checked(answer: bytes) -> Facts:
    """The facts in one line of JSON from the program. Raises _Lied."""
    try:
        if not answer.endswith(b"\n") or answer.count(b"\n") != 1:
            raise _Lied
        values = json.loads(answer, parse_constant=_refuse_constant)
        if not isinstance(values, dict) or values.keys() != _ANSWER_KEYS:
            raise _Lied
        if not isinstance(values["encrypted"], bool) or values["format"] not in _FORMATS:
            raise _Lied
        return Facts.from_dict(values)
    except (ValueError, TypeError, RecursionError, PullprintError) as error:
        raise _Lied from error


def _refuse_constant(_name: str) -> NoReturn:
    raise _Lied


# System calls that counting never needs, as (x86-64, arm64): new processes, sockets, what changes files
# through a read-only descriptor, and the corners of the kernel in which most of its holes were found.
_REFUSED_CALLS: dict[str, tuple[int, int | None]] = {
    "clone": (56, 220), "fork": (57, None), "vfork": (58, None), "clone3": (435, 435),
    "socket": (41, 198), "socketpair": (53, 199), "memfd_create": (319, 279),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "pidfd_open": (434, 434), "pidfd_getfd": (438, 438),
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39),
    "pivot_root": (155, 41), "chroot": (161, 51), "fsopen": (430, 430), "fsmount": (432, 432), "open_tree":
    (428, 428), "move_mount": (429, 429), "mount_setattr": (442, 442), "open_by_handle_at": (304, 265),
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "chown": (92, None), "fchown": (93, 55),
    "lchown": (94, None), "fchownat": (260, 54), "fsetxattr": (190, 7),
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
def _seccomp_filter() -> Iterator[int | None]:
    """A file with the BPF program that refuses `_REFUSED_CALLS`; None on a processor that is not listed."""
    if platform.machine() not in _ARCHITECTURES:
        yield None
        return
    column, architecture = _ARCHITECTURES[platform.machine()]
    calls = [numbers[column] for numbers in _REFUSED_CALLS.values()]
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
