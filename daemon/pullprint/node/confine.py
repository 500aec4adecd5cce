"""The program that stands between pullprintd and a program that reads what may be hostile: one run in one sandbox.

    python -I -c "from pullprint.node.confine import main; main()" [--caller=ACCOUNT] KIND=PROGRAM…

Standard input is a connection from *ACCOUNT* (ours, if none is named): systemd's, of pullprint-sandbox.socket, or one
end of a pair where pullprintd starts this itself. It carries one request, sent at once: a JSON line of at most
`REQUEST_LIMIT` bytes with two descriptors, the document opened for reading only, and a pipe for what the program says.

    kind          one of `MOST`; which program that is, the command line says
    content_type  of the document, and
    options       for the program: printable ASCII
    limits        as in `MOST`, which is taken where one is missing or larger

Other keys and limits mean nothing: during an upgrade it is a daemon of another version that asks.
The answer is the line ``started`` and, when the program has ended, its exit status, 128 and more for a signal; or only
``unable`` where there can be no sandbox, and ``refused`` for a request that is not like this. When the caller closes
the connection, or its half of it, or dies, everything that was started ends, and then this.

The sandbox: bubblewrap, seccomp and resource limits. Namespaces of its own without a network, a file tree with only the
interpreter and the program, nothing writable, no new processes. A kind that may use more of that, because it starts a
program that was not made for this, gets a private file system in memory and processes of its own, and nothing else.

Only what the standard library loads quickly is imported, nothing of ours: this starts once for each document.
"""

# pathlib alone takes as long to load as the interpreter.
# ruff: noqa: PTH112, PTH113, PTH114, PTH115, PTH119, PTH123, PTH208

import contextlib
import fcntl
import json
import os
import select
import signal
import socket
import stat
import struct
import sys
from collections.abc import Iterable, Iterator

REQUEST_LIMIT = 2_048
TEXT_LIMIT = 255
REQUEST_SECONDS = 5.0
MOST = {
    "facts": {"cpu_seconds": 40, "memory": 512 << 20, "scratch": 0, "processes": 1, "files": 32},
    "convert": {"cpu_seconds": 60, "memory": 3 << 29, "scratch": 0, "processes": 1, "files": 32},
    "office": {"cpu_seconds": 100, "memory": 3 << 29, "scratch": 256 << 20, "processes": 256, "files": 256},
    # Whether anything runs at all.
    "nothing": {"cpu_seconds": 40, "memory": 512 << 20, "scratch": 0, "processes": 1, "files": 32},
}
"""What a run of each kind may use: seconds, bytes of address space, bytes at /tmp (0: nothing is writable), processes
and threads (more than one may also speak to each other), open files."""
STARTED, UNABLE, REFUSED = b"started\n", b"unable\n", b"refused\n"

_FOLDERS = {"office": ("/etc/fonts", "/etc/libreoffice", "/var/cache/fontconfig")}
"""What a kind sees besides."""
_PRLIMIT = "/usr/bin/prlimit"


class Refused(Exception):
    """Not a request of ours."""


class Unable(Exception):
    """No sandbox can be made here."""


class Request:
    """What the caller asks for, checked."""

    def __init__(self, line: bytes, document: int, answer: int) -> None:
        """Raises Refused."""
        try:
            values = json.loads(line)
            self.kind, self.content_type, self.options = (values[n] for n in ("kind", "content_type", "options"))
            limits, most = values.get("limits", {}), MOST[self.kind]
            self.limits: dict[str, int] = {name: min(limits.get(name, most[name]), most[name]) for name in most}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise Refused from error
        if not (_is_text(self.content_type) and _is_text(self.options)):
            raise Refused
        if not all(type(value) is int and value >= 0 for value in self.limits.values()):
            raise Refused
        writable = fcntl.fcntl(document, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
        if writable or not stat.S_ISREG(os.fstat(document).st_mode) or not stat.S_ISFIFO(os.fstat(answer).st_mode):
            raise Refused
        self.document, self.answer = document, answer


def main() -> None:
    """Serve the connection that is standard input."""
    caller = os.geteuid()
    arguments = sys.argv[1:]
    if arguments and arguments[0].startswith("--caller="):
        import pwd

        caller = pwd.getpwnam(arguments.pop(0).partition("=")[2]).pw_uid
    _step_back()
    with socket.socket(fileno=0) as connection:
        connection.settimeout(REQUEST_SECONDS)
        # A caller that has gone needs no answer.
        with contextlib.suppress(ConnectionError):
            try:
                connection.sendall(_serve(connection, caller, dict(word.split("=", 1) for word in arguments)))
            except Unable:
                connection.sendall(UNABLE)
            except (Refused, OSError):
                connection.sendall(REFUSED)


def _serve(connection: socket.socket, caller: int, programs: dict[str, str]) -> bytes:
    """The answer's last line; nothing for a caller that has gone. Raises Refused, Unable, OSError."""
    request = _receive(connection, caller)
    child = _start(request, programs.get(request.kind, ""))
    try:
        connection.sendall(STARTED)
        ended = os.pidfd_open(child)
        waiting = select.poll()
        waiting.register(ended, select.POLLIN)
        waiting.register(connection, select.POLLIN)  # its end: nothing more may come
        gone = any(fd != ended for fd, _ in waiting.poll())
    finally:
        # The group, because a bwrap that is killed while it sets the sandbox up leaves a child that waits for it for
        # ever; later everybody in the sandbox dies with it.
        os.killpg(child, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return b"" if gone else b"%d\n" % (code if code >= 0 else 128 - code)


def _receive(connection: socket.socket, caller: int) -> Request:
    """Raises Refused, OSError."""
    # base.platform.peer_uid, without what that module imports.
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("iII"))
    if struct.unpack("iII", credentials)[1] != caller:
        raise Refused
    line, ancillary, flags, _ = connection.recvmsg(
        REQUEST_LIMIT + 1, socket.CMSG_LEN(2 * struct.calcsize("i")), socket.MSG_CMSG_CLOEXEC
    )
    if flags & socket.MSG_CTRUNC or len(line) > REQUEST_LIMIT or not line.endswith(b"\n"):
        raise Refused
    passed = [data for level, kind, data in ancillary if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)]
    if [len(data) for data in passed] != [struct.calcsize("2i")]:
        raise Refused
    return Request(line, *struct.unpack("2i", passed[0]))


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= TEXT_LIMIT and value.isascii() and value.isprintable()


def _start(request: Request, program: str) -> int:
    """The process, and group of processes, of bwrap. Raises Unable."""
    binds, command = _program(request, program)
    seccomp = _seccomp_filter(alone=request.limits["processes"] == 1)
    if seccomp is not None:
        os.set_inheritable(seccomp, True)
    try:
        # A group, not a session: that would be another one for the kernel to be fair to, see _step_back.
        return os.posix_spawnp(
            "bwrap",
            ["bwrap", *_sandbox(request, binds, seccomp), *command],
            {},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, request.document, 0),
                (os.POSIX_SPAWN_DUP2, request.answer, 1),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            ],
            setpgroup=0,
        )
    except OSError as error:
        raise Unable from error
    finally:
        for fd in (request.document, request.answer, seccomp):
            if fd is not None:
                os.close(fd)


def _program(request: Request, path: str) -> tuple[list[str], list[str]]:
    """What the sandbox shows of the program, and the program's command: under its own name, which ps(1) tells.
    Raises Unable."""
    if request.kind == "nothing":
        return [], ["/usr/bin/true"]
    if not os.path.isfile(path):
        raise Unable
    inside = f"/{os.path.basename(path)}"
    command = [sys.executable, "-I", "-B", inside, "0", "-", "-", "1", request.options]
    return ["--ro-bind", os.path.realpath(path), inside], command


def _sandbox(request: Request, binds: list[str], seccomp: int | None) -> Iterator[str]:
    """The command line in front of the program's: bubblewrap's arguments, resource limits."""
    limits, scratch = request.limits, request.limits["scratch"]
    yield from ("--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc")
    yield from ("--disable-userns", "--cap-drop", "ALL")
    yield from ("--die-with-parent", "--uid", "65534", "--gid", "65534")
    yield from ("--clearenv", "--setenv", "CONTENT_TYPE", request.content_type)
    if scratch:
        yield from ("--size", str(scratch), "--tmpfs", "/tmp", "--setenv", "HOME", "/tmp")  # noqa: S108
        yield from ("--dev-bind", "/dev/urandom", "/dev/urandom")
    else:
        yield from ("--tmpfs", "/tmp")  # noqa: S108  (private, empty and read-only)
    yield from _interpreter_binds()
    for folder in _FOLDERS.get(request.kind, ()):
        yield from ("--ro-bind-try", folder, folder)
    yield from binds
    if not scratch:
        yield from ("--remount-ro", "/tmp")  # noqa: S108
    yield from ("--remount-ro", "/", "--chdir", "/")
    if seccomp is not None:
        yield from ("--seccomp", str(seccomp))
    yield from ("--", _PRLIMIT, f"--as={limits['memory']}")
    yield from (f"--cpu={limits['cpu_seconds']}:{limits['cpu_seconds'] + 1}", f"--fsize={scratch}")
    yield from (f"--nproc={limits['processes']}", f"--nofile={limits['files']}")
    # One byte, not none: core(5) ignores a limit of zero for cores that go to a pipe, document and all.
    yield from ("--core=1", "--memlock=0", "--msgqueue=0", "--")


def _interpreter_binds() -> Iterator[str]:
    """What the interpreter, its libraries and the program's packages need, read-only."""
    yield from ("--ro-bind", "/usr", "/usr")
    for path in sorted(f"/{name}" for name in os.listdir("/") if name.startswith("lib")):
        if os.path.islink(path):
            yield from ("--symlink", os.readlink(path), path)
        elif os.path.isdir(path):
            yield from ("--ro-bind", path, path)
    for prefix in dict.fromkeys((sys.base_prefix, sys.prefix)):
        if not prefix.startswith("/usr/") and prefix != "/usr":
            yield from ("--ro-bind", prefix, prefix)


def _step_back() -> None:
    """Let everybody else's work go first.

    Where the kernel groups processes by session (sched(7), autogroup) being nice counts only within one, and counting
    the documents of a burst took a whole core from storing it. Refused when it comes too often, or there is no such
    thing; then it is only slower.
    """
    with contextlib.suppress(OSError):
        os.nice(19)
    with contextlib.suppress(OSError), open("/proc/self/autogroup", "w", encoding="ascii") as group:
        group.write("19")


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


def _seccomp_filter(*, alone: bool) -> int | None:
    """A file with the BPF program that refuses `_REFUSED_CALLS`, and `_CALLS_OF_SEVERAL` to who is to be *alone*; None
    on a processor that is not listed."""
    machine = os.uname().machine
    if machine not in _ARCHITECTURES:
        return None
    column, architecture = _ARCHITECTURES[machine]
    refused = {**_REFUSED_CALLS, **(_CALLS_OF_SEVERAL if alone else {})}
    calls = [numbers[column] for numbers in refused.values()]
    fd = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    # pwrite leaves the position at the start, where bwrap begins to read.
    os.pwrite(fd, seccomp_program(architecture, (call for call in calls if call is not None)), 0)
    return fd


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
