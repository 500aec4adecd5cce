"""What `setup` does to this system, each step so that it can be taken back.

Files are root's. What belongs to the server's account is made as that account, which root is while it is at the
database; so do the other commands.
"""

import contextlib
import errno
import os
import pwd
import re
import socket
import sqlite3
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy.exc import DBAPIError

from pullprint.base import files
from pullprint.base.errors import BadRequest, ConfigError, PullprintError
from pullprint.base.text import printable
from pullprint.cloud import certificates
from pullprint.cloud.certificates import File
from pullprint.cloud.config import ACCOUNT, Settings, host_of
from pullprint.cloud.store import StoreBusy

UNIT = "pullprint-cloud.service"
ANSWERS_WITHIN = 20.0
"""Seconds in which a server that says it is ready has to answer."""


class NotRoot(PullprintError):
    """Only root can set this server up. Nothing was changed; use sudo."""

    code = "not-root"


class NoAccount(PullprintError):
    """This system has no account {account}, which the package pullprint-cloud makes. Nothing was changed; install it
    first."""

    code = "no-account"


class PortTaken(PullprintError):
    """Another program{who} listens on {port}. Nothing was changed; stop it, or set up behind it with --proxy."""

    code = "port-taken"


class DatabaseRefused(PullprintError):
    """The database cannot be used: {reason}. The system is as it was."""

    code = "database-refused"


class WriteFailed(PullprintError):
    """{path} cannot be written: {reason}. The system is as it was."""

    code = "write-failed"


class NotStarted(PullprintError):
    """The server does not start: {reason}. The system is as it was; `journalctl -u pullprint-cloud` has more."""

    code = "not-started"


class Undo(contextlib.ExitStack):
    """Takes back what was done, last things first, unless it was all of it."""

    def write(self, file: File, group: int) -> None:
        """Write *file*; its folder, too, if there is none. Raises WriteFailed."""
        try:
            for folder in reversed([folder for folder in file.path.parents if not folder.exists()]):
                folder.mkdir()
                folder.chmod(0o755)
                self.callback(_quietly, folder.rmdir)
            self.callback(_as_it_was(file.path))
            certificates.write([file], group)
        except (OSError, ConfigError) as error:
            reason = error.strerror if isinstance(error, OSError) else error.fields["reason"]
            raise WriteFailed(path=file.path, reason=reason) from error


def account() -> pwd.struct_passwd:
    """The account that the server runs as, for root. Raises NotRoot, NoAccount."""
    if os.geteuid() != 0:
        raise NotRoot
    try:
        return pwd.getpwnam(ACCOUNT)
    except KeyError as error:
        raise NoAccount(account=ACCOUNT) from error


def state_folder(undo: Undo, settings: Settings, account: pwd.struct_passwd) -> None:
    """The state's folder, which systemd would make at the first start; and no trace of a database that is new."""
    folder = settings.state_dir
    try:
        if not folder.exists():
            undo.callback(_quietly, folder.rmdir)
            _make_folder(folder, account)
    except OSError as error:
        raise WriteFailed(path=folder, reason=error.strerror) from error
    if not any(folder.glob("*.sqlite")):
        undo.callback(_empty, folder, frozenset(folder.iterdir()))


def _make_folder(folder: Path, account: pwd.struct_passwd) -> None:
    folder.mkdir(mode=0o700, parents=True)
    os.chown(folder, account.pw_uid, account.pw_gid)


class Service:
    """The unit, where systemd runs."""

    def __init__(self) -> None:
        self.systemd = Path("/run/systemd/system").is_dir()
        self.was_active = self.systemd and self._ask("is-active")
        self.was_enabled = self.systemd and self._ask("is-enabled")

    def check_port(self, settings: Settings) -> None:
        """Raises PortTaken, unless it is ours."""
        if self.was_active or settings.socket:
            return
        try:
            family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
            socket.create_server((settings.host, settings.port), family=family).close()
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise BadRequest(reason=f"{settings.host}: {error.strerror or 'no such address'}") from error
            raise PortTaken(port=f"port {settings.port}", who=_holder(settings.port)) from error

    def restart_at_the_end(self, undo: Undo) -> None:
        """Once everything else was taken back, a server that ran before runs with that again."""
        if self.was_active:
            undo.callback(self._ask, "restart")

    def start(self, undo: Undo, settings: Settings, *, changed: bool) -> None:
        """Start it, or again if something has *changed*, and wait until it answers. Raises NotStarted."""
        if not self.systemd:
            return
        if not self.was_enabled:
            undo.callback(self._ask, "disable")
            self._ask("enable")
        if not self.was_active:
            undo.callback(self._ask, "stop")
        begun = int(time.time())
        if not self._ask("restart" if changed else "start"):
            raise NotStarted(reason=_last_words(begun))
        until = time.monotonic() + ANSWERS_WITHIN
        while (reason := _why_silent(settings)) and time.monotonic() < until:
            time.sleep(0.2)
        if reason:
            raise NotStarted(reason=reason)

    @staticmethod
    def _ask(verb: str) -> bool:
        try:
            done = subprocess.run(["systemctl", "--quiet", verb, UNIT], capture_output=True, timeout=120, check=False)
        except (OSError, subprocess.SubprocessError):
            return False
        return done.returncode == 0


def _last_words(since: int) -> str:
    """What the server said last, without its name."""
    command = ["journalctl", "--unit", UNIT, "--since", f"@{since}", "--output", "cat", "--no-pager"]
    try:
        lines = subprocess.run(command, capture_output=True, timeout=20, check=False, text=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        lines = []
    said = [line.removeprefix("pullprint-cloud: ") for line in lines if line.startswith("pullprint-cloud: ")]
    return said[-1].rstrip(".") if said else "it gave no reason"


def _why_silent(settings: Settings) -> str:
    """Empty when the server answers at its own address, under its own name."""
    try:
        with _connected(settings) as connection:
            host = urlsplit(settings.public_url).netloc
            connection.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            line = connection.recv(64).decode("ascii", "replace")
    except OSError as error:
        return f"it does not answer ({error.strerror or type(error).__name__})"
    return "" if line.startswith("HTTP/1.1 200 ") else f"it answers with {printable(line, 30)}"


@contextlib.contextmanager
def _connected(settings: Settings) -> Iterator[socket.socket]:
    if settings.socket:
        with socket.socket(socket.AF_UNIX) as plain:
            plain.settimeout(5)
            plain.connect(str(settings.socket))
            yield plain
        return
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104
    with socket.create_connection((host, settings.port), timeout=5) as plain:
        if settings.proxy:
            yield plain
            return
        # The name need not lead here yet, and its CA need not be trusted by this host: it is this very certificate.
        context = ssl.create_default_context(cafile=settings.certificate)
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        with context.wrap_socket(plain, server_hostname=host_of(settings.public_url)) as secured:
            yield secured


def _holder(port: int) -> str:
    try:
        shown = subprocess.run(
            ["ss", "-Hltnp", f"sport = :{port}"], capture_output=True, text=True, timeout=5, check=False
        ).stdout
    except (OSError, subprocess.SubprocessError):
        shown = ""
    named = re.search(r'users:\(\("([^"]+)"', shown)
    return f" ({named[1]})" if named else ""


@contextlib.contextmanager
def as_owner(settings: Settings) -> Iterator[None]:
    """What root does in this block, the account does that the state's folder belongs to. Raises ConfigError.

    That account could have laid a link where the database is to be, and could not write files of root's beside it.
    """
    with contextlib.ExitStack() as back:
        try:
            if os.geteuid() == 0 and (owner := _owner(settings)):
                _become(back, *owner)
        except OSError as error:
            raise ConfigError(path=settings.state_dir, reason=error.strerror or "no access") from error
        yield


@contextlib.contextmanager
def checked_database(settings: Settings) -> Iterator[None]:
    """`as_owner`, for whoever cannot know yet whether that is a database. Raises DatabaseRefused."""
    folder = settings.state_dir
    if folder.exists() and not folder.stat().st_uid and os.geteuid() == 0:
        raise DatabaseRefused(
            reason=f"{folder} belongs to root, so the server may not write there; give it to {ACCOUNT}"
        )
    try:
        with as_owner(settings):
            yield
    except StoreBusy as error:
        raise DatabaseRefused(reason=_driver_says(error.__cause__)) from error
    except ConfigError as error:
        cause = error.__cause__
        reason = _driver_says(cause) if isinstance(cause, DBAPIError) else error.fields["reason"]
        raise DatabaseRefused(reason=reason) from error
    except (DBAPIError, sqlite3.Error) as error:
        raise DatabaseRefused(reason=_driver_says(error)) from error
    except PullprintError as error:
        raise DatabaseRefused(reason=error.sentence.rstrip(".")) from error


def _become(back: contextlib.ExitStack, uid: int, gid: int, groups: list[int]) -> None:
    """Until *back* leads back to root."""
    back.callback(os.umask, os.umask(0o077))
    back.callback(os.setgroups, os.getgroups())
    os.setgroups(groups)
    back.callback(os.setegid, os.getegid())
    os.setegid(gid)
    back.callback(os.seteuid, 0)
    os.seteuid(uid)


def _owner(settings: Settings) -> tuple[int, int, list[int]] | None:
    """User, group and further groups of whom the state's folder belongs to; None where that is root, or nobody yet."""
    folder = settings.state_dir
    if not folder.exists():
        try:
            server = pwd.getpwnam(ACCOUNT)
        except KeyError:
            return None
        if folder != Settings().state_dir:
            return None
        _make_folder(folder, server)
    uid, gid = folder.stat().st_uid, folder.stat().st_gid
    try:
        groups = os.getgrouplist(pwd.getpwuid(uid).pw_name, gid)
    except KeyError:  # a container's volume
        groups = [gid]
    return (uid, gid, groups) if uid else None


def _driver_says(error: BaseException | None) -> str:
    words = str(error.orig if isinstance(error, DBAPIError) else error).strip().splitlines()
    return words[0].rstrip(".") if words else "it does not answer"


def _as_it_was(path: Path) -> Callable[[], None]:
    """Puts back what is at *path* now."""
    if path.is_symlink():
        target = path.readlink()
        return lambda: _link(path, target)
    if not path.exists():
        return lambda: path.unlink(missing_ok=True)
    data, stat = path.read_bytes(), path.stat()
    return lambda: files.replace(path, data, stat.st_mode & 0o777, stat.st_gid)


def _link(path: Path, target: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def _empty(folder: Path, but: frozenset[Path]) -> None:
    for path in frozenset(folder.iterdir()) - but:
        path.unlink(missing_ok=True)


def _quietly(action: Callable[[], None]) -> None:
    with contextlib.suppress(OSError):
        action()
