"""What `pullprint doctor` finds out about the local CUPS.

libcups keeps state per thread, so one thread owns the connection. Settings are asked of the scheduler, which
gives them to members of its SystemGroup only; without that right the configuration file is read, and where
that is not readable either, the finding says so instead of guessing.
"""

import asyncio
import http.client
import re
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import cups

from pullprint import __version__
from pullprint.base.platform import QUEUE_DESCRIPTION
from pullprint.base.text import printable
from pullprint.base.worker import Worker
from pullprint.printers.cups_jobs import OUR_SCHEME, set_aside
from pullprint.printers.cups_settings import CONFIGURATION, FILE_LIMIT, RULES, Rule, parse_configuration

CHECK_SECONDS = 10.0
BACKEND_SECONDS = 5.0
QUEUE_LIMIT = 1_000
OLDEST = (2, 4)
"""The CUPS that Pullprint is built for and tried with."""
DENIED = "pullprint-denied-warning"
"""The reason by which our backend tells that it is kept from pullprintd's socket."""
_RAW = "Local Raw Printer"
_REINSTALL = "Install it again: `apt install --reinstall pullprint`."


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    level: Level
    what: str
    advice: str = ""
    """What to do; empty when all is well."""


@dataclass(frozen=True, slots=True)
class _Seen:
    version: str
    queues: Mapping[str, Mapping[str, Any]]
    settings: Mapping[str, str]
    stopped: Mapping[str, int]
    """How many documents are set aside in each queue."""


async def check_cups(
    server: str | None = None,
    port: int = 631,
    *,
    backend: Path | None = None,
    configuration: Path = CONFIGURATION,
) -> list[Finding]:
    """Look at the cupsd at *server* (a host or a socket's path; None: the one that libcups finds).

    *backend* is where our backend should be installed, if that is to be looked at too. Takes at most 15 s;
    never raises for what it finds.
    """
    installed = [] if backend is None else await asyncio.to_thread(lambda: list(_backend(backend)))
    worker = Worker("cups-check")
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            seen = await worker.run(_look, server, port)
            settings, source = await worker.run(_settings, seen.settings, configuration)
    except (RuntimeError, cups.IPPError, cups.HTTPError, OSError):
        return [Finding(Level.BAD, "cupsd does not answer.", "Start it with `systemctl start cups`."), *installed]
    except TimeoutError:
        # The thread is left to libcups' own time-out; waiting for it here would be the same hang again.
        what = f"cupsd did not answer within {CHECK_SECONDS:g} seconds."
        return [Finding(Level.BAD, what, "Restart it with `systemctl restart cups`."), *installed]
    await asyncio.to_thread(worker.close)
    queues = (*_queues(seen.queues), *_stopped(seen.stopped))
    return [_version(seen.version), *installed, *queues, *_judge(settings, source)]


def _look(server: str | None, port: int) -> _Seen:
    connection = cups.Connection() if server is None else cups.Connection(host=server, port=port)
    wanted = [
        "printer-name",
        "device-uri",
        "printer-error-policy",
        "printer-make-and-model",
        "printer-state",
        "printer-state-reasons",
        "printer-is-accepting-jobs",
        "cups-version",
    ]
    queues = connection.getPrinters()
    details = {}
    for name in list(queues)[:QUEUE_LIMIT]:
        if str(queues[name].get("device-uri", "")).startswith(OUR_SCHEME):
            details[name] = connection.getPrinterAttributes(name, requested_attributes=wanted)
    version = next((str(queue.get("cups-version", "")) for queue in details.values()), "")
    try:
        settings = {str(k): str(v) for k, v in connection.adminGetServerSettings().items()}
    except (cups.IPPError, cups.HTTPError, RuntimeError):
        settings = {}
    stopped = Counter(set_aside(connection).values())
    return _Seen(version or _announced_version(server or cups.getServer(), port), details, settings, stopped)


def _announced_version(server: str, port: int) -> str:
    """The version by which cupsd calls itself in its answers' ``Server`` header; empty where it keeps it to itself."""
    connection = http.client.HTTPConnection("localhost" if server.startswith("/") else server, port, CHECK_SECONDS)
    try:
        if server.startswith("/"):
            connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.sock.settimeout(CHECK_SECONDS)
            connection.sock.connect(server)
        connection.request("HEAD", "/")
        match = re.match(r"CUPS/([0-9.]{1,16})", connection.getresponse().getheader("Server", ""))
    except (OSError, http.client.HTTPException):
        return ""
    finally:
        connection.close()
    return match[1] if match else ""


def _version(told: str) -> Finding:
    version = printable(told, 32)
    numbers = re.match(r"([0-9]{1,4})\.([0-9]{1,4})", version)
    if numbers and (int(numbers[1]), int(numbers[2])) < OLDEST:
        what = f"CUPS {version} is too old: Pullprint needs 2.4 or newer, which keep a job until it is taken."
        return Finding(Level.BAD, what, "Update it, with the system if need be: Debian 12 and Ubuntu 22.04 have 2.4.")
    return Finding(Level.OK, f"cupsd answers{f', version {version}' if version else ''}.")


def _settings(asked: Mapping[str, str], configuration: Path) -> tuple[Mapping[str, str], str]:
    """Directives by lower-case name, and where they come from; empty when neither source can be read."""
    if asked and any(name in asked for name in ("PreserveJobFiles", "JobRetryLimit", "MaxJobTime", "Browsing")):
        return {name.lower(): value for name, value in asked.items()}, "cupsd"
    try:
        with configuration.open("r", encoding="utf-8", errors="replace") as file:
            text = file.read(FILE_LIMIT)
    except OSError:
        return {}, ""
    return parse_configuration(text), str(configuration)


def _backend(path: Path) -> Iterator[Finding]:
    try:
        status = path.lstat()
    except OSError:
        yield Finding(Level.BAD, f"The pullprint backend is not installed in CUPS ({path} is missing).", _REINSTALL)
        return
    if path.is_symlink():
        what = "The pullprint backend is a symbolic link, which cupsd's AppArmor follows."
        yield Finding(Level.BAD, what, _REINSTALL)
    elif status.st_uid != 0:
        yield Finding(Level.BAD, "The pullprint backend does not belong to root.", f"Run `chown root:root {path}`.")
    elif status.st_mode & 0o7777 != 0o755:
        # CUPS refuses one that others may write, and runs one that only root may read as root.
        yield Finding(Level.BAD, "The pullprint backend has another mode than 0755.", f"Run `chmod 0755 {path}`.")
    else:
        yield _backend_version(path)


def _backend_version(path: Path) -> Finding:
    try:
        argv = [str(path), "--version"]
        ran = subprocess.run(argv, capture_output=True, timeout=BACKEND_SECONDS, check=True, env={})
    except (OSError, subprocess.SubprocessError):
        return Finding(Level.BAD, "The pullprint backend does not start.", _REINSTALL)
    version = printable(ran.stdout.decode("utf-8", "replace").strip(), 64).removeprefix("pullprint ")
    if version != __version__:
        what = f"The pullprint backend is of version {version}, but pullprintd, which runs, of {__version__}."
        return Finding(Level.WARN, what, "Restart it: `systemctl restart pullprintd`. If that does not help, "
                       "install the package again: `apt install --reinstall pullprint`.")  # fmt: skip
    return Finding(Level.OK, "The pullprint backend is installed.")


def _queues(queues: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    if not queues:
        yield Finding(Level.WARN, "No queue prints to Pullprint.", "Make one with `sudo pullprint queue add`.")
    for raw, attributes in queues.items():
        yield _queue(printable(raw, 127), attributes)
        if DENIED in attributes.get("printer-state-reasons", ()):
            yield _denied(printable(raw, 127))
    if queues and all(str(queue.get("device-uri", "")).rstrip("/") != OUR_SCHEME for queue in queues.values()):
        yield Finding(Level.OK, "There is no hold queue; `sudo pullprint queue add` makes one.")


def _queue(name: str, attributes: Mapping[str, Any]) -> Finding:
    policy = str(attributes.get("printer-error-policy", ""))
    if attributes.get("printer-make-and-model") == _RAW:
        what = f"Queue {name} has no description (PPD), so nothing becomes PDF on its way."
        return Finding(Level.BAD, what, f"Give it one: `sudo lpadmin -p {name} -P {QUEUE_DESCRIPTION}`.")
    if policy != "retry-job":
        advice = f"Set it with `sudo lpadmin -p {name} -o printer-error-policy=retry-job`."
        what = f"Queue {name} has the error policy {printable(policy, 32) or 'unknown'}: it may stop or drop jobs."
        return Finding(Level.BAD if policy == "abort-job" else Level.WARN, what, advice)
    if attributes.get("printer-state") == 5:
        return Finding(Level.BAD, f"Queue {name} is stopped.", f"Start it with `sudo cupsenable {name}`.")
    if attributes.get("printer-is-accepting-jobs") is False:
        return Finding(Level.BAD, f"Queue {name} takes no jobs.", f"Open it with `sudo cupsaccept {name}`.")
    return Finding(Level.OK, f"Queue {name} is ready and keeps jobs until they are taken.")


def _stopped(stopped: Mapping[str, int]) -> Iterator[Finding]:
    for raw, count in stopped.items():
        documents = "1 document" if count == 1 else f"{count} documents"
        what = f"CUPS has set aside {documents} of queue {printable(raw, 127)}, because it could not hand over."
        yield Finding(Level.BAD, what, "Have CUPS try again with `sudo pullprint queue resume`.")


def _denied(name: str) -> Finding:
    """Our backend was refused by a socket that is open to all."""
    what = f"The system keeps the print backend of queue {name} from pullprintd; its jobs wait in CUPS."
    if _flag(Path("/sys/fs/selinux/enforce")):
        denials = "ausearch -m avc -ts recent"
        allow = f"{denials} | audit2allow -M pullprint && semodule -i pullprint.pp"
        return Finding(Level.BAD, f"SELinux: {what}", f"See why with `{denials}`; allow it with `{allow}`.")
    if _flag(Path("/sys/module/apparmor/parameters/enabled")):
        see = "See why with `journalctl -k -g DENIED`."
        allow = "apt install --reinstall -o Dpkg::Options::=--force-confask cups-daemon"
        advice = f"{see} Debian's profile of cupsd does not restrict backends; bring it back with `{allow}`."
        return Finding(Level.BAD, f"AppArmor: {what}", advice)
    advice = "Look at `ls -ld /run/pullprint /run/pullprint/*.sock`, then `systemctl restart pullprintd.socket`."
    return Finding(Level.BAD, what, advice)


def _flag(path: Path) -> bool:
    try:
        return path.read_text().strip() in {"1", "Y"}
    except OSError:
        return False


def _judge(settings: Mapping[str, str], source: str) -> Iterator[Finding]:
    if not source:
        what = "The settings of cupsd cannot be read."
        yield Finding(Level.WARN, what, "Look at them, and put them right, with `sudo pullprint doctor --repair`.")
        return
    yield from (_rule(rule, rule.value(settings)) for rule in RULES)


def _rule(rule: Rule, value: str) -> Finding:
    if rule.is_right(value):
        return Finding(Level.OK, rule.right.format(value=value))
    advice = f"Run `sudo pullprint doctor --repair`, which sets `{rule.line}`."
    return Finding(Level.BAD if rule.leaks else Level.WARN, rule.wrong.format(value=value), advice)
