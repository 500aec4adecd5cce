"""base/platform.py is the one place that knows macOS; what of it can be called on Linux is called."""

import ast
import ctypes
import errno
import fcntl
import json
import os
import socket
import stat
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.macos.as_macos import ABSENT

from pullprint.base import files, platform

SOURCE = Path(platform.__file__).parents[1]
REPOSITORY = SOURCE.parents[1]
PLATFORM = SOURCE / "base" / "platform.py"
# The sandbox itself, a program of its own that is made of what only Linux has and runs nowhere else.
CONFINE = SOURCE / "node" / "confine.py"
# The server is for Linux, and is in no package for a Mac.
CLOUD = SOURCE / "cloud"
MODULES = sorted(path for path in SOURCE.rglob("*.py") if path not in (PLATFORM, CONFINE) and CLOUD not in path.parents)
BACKEND = REPOSITORY / "backend" / "pullprint"

LINUX_ONLY = {
    "os": {
        "memfd_create", "MFD_CLOEXEC", "MFD_ALLOW_SEALING", "pidfd_open", "pipe2", "eventfd", "eventfd_read", "splice",
        "posix_fadvise", "posix_fallocate", "fdatasync", "fsync", "O_TMPFILE", "O_PATH", "O_DIRECT", "O_NOATIME",
        "copy_file_range", "sched_setaffinity", "sched_getaffinity", "sched_setscheduler", "getrandom", "getxattr",
        "setxattr", "listxattr", "setresuid", "setresgid", "getresuid", "getresgid", "unshare", "setns", "uname",
        "accept4", "timerfd_create",
    },
    "socket": {
        "SO_PEERCRED", "SO_PASSCRED", "SO_BINDTODEVICE", "SO_MARK", "SO_PRIORITY", "SOCK_CLOEXEC", "SOCK_NONBLOCK",
        "AF_NETLINK", "AF_PACKET", "AF_VSOCK", "AF_ALG", "TCP_USER_TIMEOUT", "TCP_CORK", "TCP_QUICKACK", "TCP_KEEPIDLE",
        "SCM_CREDENTIALS",
    },
    "select": {"epoll"},
    "resource": {"prlimit"},
    "fcntl": {"F_ADD_SEALS", "F_GET_SEALS", "F_SETPIPE_SZ", "F_NOTIFY", "F_OFD_SETLK"},
    "signal": {"pidfd_send_signal", "sigtimedwait", "sigwaitinfo"},
    "sys": {"platform"},
    "platform": {"system", "uname", "mac_ver", "libc_ver", "freedesktop_os_release"},
}  # fmt: skip
ASKING = {("hasattr", name) for name in LINUX_ONLY} | {("getattr", name) for name in LINUX_ONLY}


def breaches(tree: ast.Module) -> Iterator[str]:
    """What a module asks or uses that base.platform should do for it."""
    docstrings = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)}
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id=module), attr=name) if name in LINUX_ONLY.get(module, ()):
                yield f"{module}.{name}"
            case ast.ImportFrom(module=str(module), names=names):
                yield from (f"{module}.{n.name}" for n in names if n.name in LINUX_ONLY.get(module, ()))
            case ast.Call(func=ast.Name(id=function), args=[ast.Name(id=module), *_]) if (function, module) in ASKING:
                yield f"{function}({module}, …)"
            case ast.Constant(value=str(text)) if text.startswith("/proc/") and id(node) not in docstrings:
                yield text


def test_the_rule_finds_what_it_is_for() -> None:
    found = set(breaches(ast.parse(PLATFORM.read_text())))
    assert {"sys.platform", "os.memfd_create", "os.pidfd_open", "socket.SO_PEERCRED", "resource.prlimit", "os.fsync",
            "/proc/self/mounts", "/proc/self/fd/"} <= found  # fmt: skip
    assert set(breaches(ast.parse("from socket import SO_PEERCRED\nhasattr(os, 'x')"))) == {
        "socket.SO_PEERCRED", "hasattr(os, …)"
    }  # fmt: skip


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_other_module_asks_which_system_it_is_or_uses_what_only_linux_has(path: Path) -> None:
    assert list(breaches(ast.parse(path.read_text()))) == []


def test_the_backend_asks_once_for_the_sockets_name_and_agrees_with_the_daemon() -> None:
    tree = ast.parse(BACKEND.read_text())
    assert list(breaches(tree)) == ["sys.platform"]
    [choice] = [n.value for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "INTAKE"]
    for system in ("linux", "darwin"):
        told = eval(compile(ast.Expression(choice), "", "eval"), {"sys": type("sys", (), {"platform": system})})
        assert told.decode() == paths(system)["INTAKE_SOCKET"]


def paths(system: str) -> dict[str, str]:
    """What base.platform names on *system*."""
    code = """
        import json, sys
        import pullprint.base.text, ctypes, fcntl, socket, subprocess, pathlib
        sys.platform = %r
        from pullprint.base import platform
        print(json.dumps({name: str(value) for name, value in vars(platform).items() if name.isupper()}))
    """
    return json.loads(subprocess.check_output([sys.executable, "-c", textwrap.dedent(code % system)]))


def test_linux_paths_are_what_they_were() -> None:
    told = paths("linux")
    assert told | {
        "STATE": "/var/lib/pullprint", "RUNTIME": "/run/pullprint", "INTAKE_SOCKET": "/run/pullprint/intake.sock",
        "CONTROL_SOCKET": "/run/pullprint/control.sock", "CUPS_ACCOUNT": "lp", "BACKENDS": "/usr/lib/cups/backend",
        "FILTERS": "/usr/lib/cups/filter", "MEMORY_FILES": "True", "SANDBOX": "True",
        "STOP_DAEMON": "systemctl stop pullprintd", "START_DAEMON": "systemctl start pullprintd",
        "QUEUE_DESCRIPTION": "/usr/share/ppd/pullprint/pullprint.ppd",
    } == told  # fmt: skip


def test_macos_paths_can_be_reached_from_cupsds_sandbox_and_outlast_a_start() -> None:
    told = paths("darwin")
    assert told["MACOS"] == "True" and (told["MEMORY_FILES"], told["SANDBOX"]) == ("False", "False")
    for name in ("INTAKE_SOCKET", "CONTROL_SOCKET"):
        assert told[name].startswith("/private/var/run/") and len(told[name]) < 104, "sun_path of macOS"
    for name in ("STATE", "RUNTIME"):
        assert told[name].startswith("/Library/"), "neither emptied at a start nor given to a user by Homebrew"
    assert told["CUPS_ACCOUNT"] == "_lp"
    assert told["BACKENDS"] == "/usr/libexec/cups/backend"


def test_everything_of_the_node_and_the_command_loads_without_what_only_linux_has() -> None:
    code = """
        import sys
        from tests.macos.as_macos import pretend
        pretend()
        import importlib, pkgutil, pullprint
        for room in ("base", "model", "wire", "vault", "printers", "node", "cli"):
            package = importlib.import_module(f"pullprint.{room}")
            for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
                importlib.import_module(module.name)
        from pullprint.node.settings import Settings
        from pullprint.base import systemd
        settings = Settings()
        assert settings.intake_accounts == ("_lp", "root"), settings
        assert str(settings.state_dir) == "/Library/Application Support/Pullprint"
        assert str(settings.runtime_dir) == "/Library/Application Support/Pullprint/run"
        assert str(settings.intake_socket) == "/private/var/run/pullprint-intake.sock"
        assert str(settings.control_socket) == "/private/var/run/pullprint-control.sock"
        assert str(settings.backend_dir) == "/usr/libexec/cups/backend"
        assert systemd.inherited_sockets() == {} and not systemd.notify("READY=1")
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_what_is_taken_away_is_there_on_linux_and_is_what_the_rule_names() -> None:
    for module, names in ABSENT.items():
        assert set(names) <= LINUX_ONLY[module.__name__]
        assert all(hasattr(module, name) for name in names)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_the_peers_uid_is_the_same_by_both_ways(pair: tuple[socket.socket, socket.socket], libbsd: str) -> None:
    assert platform.peer_uid(pair[0]) == os.geteuid() == platform.getpeereid(pair[0].fileno(), libbsd)


def test_the_peers_uid_is_the_peers_not_ours(tmp_path: Path, libbsd: str) -> None:
    if os.geteuid():
        pytest.fail("only root can connect as somebody else")
    tmp_path.chmod(0o755)
    with socket.socket(socket.AF_UNIX) as listener:
        address = f"/proc/self/fd/{os.open(tmp_path, os.O_PATH)}"  # short; pytest's folder is not open to all
        listener.bind(f"{address}/socket")
        os.chmod(tmp_path / "socket", 0o666)
        listener.listen()
        child = os.fork()
        if not child:
            caller = socket.socket(socket.AF_UNIX)
            os.setuid(65534)
            os._exit(caller.connect_ex(f"{address}/socket"))
        os.close(int(address.rpartition("/")[2]))
        connection, _ = listener.accept()
        with connection:
            assert platform.getpeereid(connection.fileno(), libbsd) == 65534 == platform.peer_uid(connection)
        assert os.waitpid(child, 0)[1] == 0


def test_no_uid_is_made_up_for_what_is_no_socket(tmp_path: Path, libbsd: str) -> None:
    with (tmp_path / "file").open("w") as file, pytest.raises(OSError) as error:
        platform.getpeereid(file.fileno(), libbsd)
    assert error.value.errno == errno.ENOTSOCK


def test_launchds_sockets_are_taken_over_by_name(launchd: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LAUNCHD_SOCKET_intake", "intake.sock")
    monkeypatch.setenv("LAUNCHD_SOCKET_empty", "")
    found = platform.launchd_sockets("intake", "empty", "unknown", library=launchd)
    assert set(found) == {"intake"}
    with found["intake"] as listener, socket.socket(socket.AF_UNIX) as caller:
        assert listener.family is socket.AF_UNIX and not listener.get_inheritable()
        assert stat.S_IMODE((tmp_path / "intake.sock").stat().st_mode) == 0o666
        caller.connect("intake.sock")
        accepted, _ = listener.accept()
        accepted.close()


def test_without_launchd_there_are_none() -> None:
    assert platform.launchd_sockets("intake", "control") == {}


@pytest.fixture
def macos(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("MACOS", True), ("MEMORY_FILES", False), ("SANDBOX", False)):
        monkeypatch.setattr(platform, name, value)


def test_a_file_in_memory_is_in_memory_or_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    fd = platform.memory_file("document")
    try:
        assert os.readlink(f"/proc/self/fd/{fd}").startswith("/memfd:document") and not os.get_inheritable(fd)
    finally:
        os.close(fd)
    monkeypatch.setattr(platform, "MEMORY_FILES", False)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(platform.NoMemoryFile, match="Nothing was stored"):
        platform.memory_file("document")
    assert os.listdir("/proc/self/fd") == before


def test_a_file_is_opened_again_for_reading_with_its_own_position(tmp_path: Path) -> None:
    path = tmp_path / "document"
    path.write_bytes(b"abc")
    with path.open("r+b") as file:
        file.seek(2)
        again = platform.reopen(file.fileno())
        try:
            assert os.read(again, 9) == b"abc" and file.tell() == 2
            with pytest.raises(OSError):
                os.write(again, b"x")
        finally:
            os.close(again)


@pytest.mark.usefixtures("macos")
def test_a_duplicate_is_not_given_out_as_one(tmp_path: Path) -> None:
    with (tmp_path / "document").open("w") as file, pytest.raises(OSError, match="not supported"):
        platform.reopen(file.fileno())


@pytest.mark.usefixtures("macos")
@pytest.mark.parametrize("known", [True, False])
def test_macos_is_asked_to_empty_the_drives_memory_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    asked: list[str] = []

    def full(fd: int, request: int) -> None:
        asked.append({51: "F_FULLFSYNC"}[request])
        if not known:
            raise OSError(errno.ENOTSUP, "no such call on this file system")

    monkeypatch.setattr(fcntl, "fcntl", full)
    monkeypatch.setattr(os, "fsync", lambda fd: asked.append("fsync"))
    files.replace(tmp_path / "key", b"key")
    once = ["F_FULLFSYNC"] if known else ["F_FULLFSYNC", "fsync"]
    assert asked == once * 2, "the file and its folder"


@pytest.mark.usefixtures("macos")
def test_a_drive_that_fails_is_not_taken_for_one_that_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(fd: int, request: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "fcntl", fails)
    with pytest.raises(OSError, match="Input/output"):
        files.replace(tmp_path / "key", b"key")
    assert os.listdir(tmp_path) == []


def test_a_tmpfs_is_told_from_a_disk() -> None:
    assert platform.in_memory(Path("/dev/shm/anything")) and not platform.in_memory(Path("/proc/self"))


@pytest.mark.usefixtures("macos")
def test_macoss_mounts_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    said = """\
/dev/disk3s1s1 on / (apfs, sealed, local, read-only, journaled)
devfs on /dev (devfs, local, nobrowse)
/dev/disk3s5 on /System/Volumes/Data (apfs, local, journaled, nobrowse, protect)
map auto_home on /System/Volumes/Data/home (autofs, automounted, nobrowse)
tmpfs on /Library/Application Support/Pullprint/run (tmpfs, local)
"""
    monkeypatch.setattr(subprocess, "run", lambda argv, **_: subprocess.CompletedProcess(argv, 0, said))
    assert platform.in_memory(Path("/Library/Application Support/Pullprint/run/spool-1"))
    assert not platform.in_memory(Path("/Library/Application Support/Pullprint/running"))


@pytest.mark.usefixtures("macos")
def test_processes_are_left_alone_where_their_limits_cannot_be_set() -> None:
    limit = ctypes.CDLL(None).getdtablesize()
    assert platform.pidfd(os.getpid()) == -1
    platform.no_more_descriptors(os.getpid())
    assert ctypes.CDLL(None).getdtablesize() == limit
