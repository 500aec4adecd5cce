"""What `pullprint doctor` finds out about the local CUPS.

libcups keeps state per thread, so one thread owns the connection. Settings are asked of the scheduler, which
gives them to members of its SystemGroup only; without that right the configuration file is read, and where
that is not readable either, the finding says so instead of guessing.
"""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import cups

from pullprint.base.text import printable
from pullprint.base.worker import Worker

CHECK_SECONDS = 10.0
FILE_LIMIT = 1 << 20
QUEUE_LIMIT = 1_000
CONFIGURATION = Path("/etc/cups/cupsd.conf")
OUR_SCHEME = "pullprint:"


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


async def check_cups(
    server: str | None = None,
    port: int = 631,
    *,
    backend: Path | None = None,
    configuration: Path = CONFIGURATION,
) -> list[Finding]:
    """Look at the cupsd at *server* (a host or a socket's path; None: the one that libcups finds).

    *backend* is where our backend should be installed, if that is to be looked at too. Takes at most 10 s;
    never raises for what it finds.
    """
    worker = Worker("cups-check")
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            seen = await worker.run(_look, server, port)
            settings, source = await worker.run(_settings, seen.settings, configuration)
            installed = [] if backend is None else await worker.run(_backend, backend)
    except (RuntimeError, cups.IPPError, cups.HTTPError, OSError):
        return [Finding(Level.BAD, "cupsd does not answer.", "Start it with `systemctl start cups`.")]
    except TimeoutError:
        # The thread is left to libcups' own time-out; waiting for it here would be the same hang again.
        return [Finding(Level.BAD, f"cupsd did not answer within {CHECK_SECONDS:g} seconds.", "Restart it.")]
    await asyncio.to_thread(worker.close)
    return [
        Finding(Level.OK, f"cupsd answers{f', version {seen.version}' if seen.version else ''}."),
        *installed,
        *_queues(seen.queues),
        *_judge(settings, source),
    ]


def _look(server: str | None, port: int) -> _Seen:
    connection = cups.Connection() if server is None else cups.Connection(host=server, port=port)
    wanted = [
        "printer-name",
        "device-uri",
        "printer-error-policy",
        "printer-state",
        "printer-is-accepting-jobs",
    ]
    queues = connection.getPrinters()
    details = {}
    version = ""
    for name in list(queues)[:QUEUE_LIMIT]:
        if str(queues[name].get("device-uri", "")).startswith(OUR_SCHEME):
            details[name] = connection.getPrinterAttributes(name, requested_attributes=[*wanted, "cups-version"])
            version = printable(str(details[name].get("cups-version", "")), 32)
    try:
        settings = {str(k): str(v) for k, v in connection.adminGetServerSettings().items()}
    except (cups.IPPError, cups.HTTPError, RuntimeError):
        settings = {}
    return _Seen(version, details, settings)


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


def parse_configuration(text: str) -> dict[str, str]:
    """Top-level directives of a cupsd.conf(5), the last of a name counts; sections are passed over."""
    found: dict[str, str] = {}
    depth = 0
    for line in text.splitlines():
        words = line.partition("#")[0].strip()
        if words.startswith("</"):
            depth = max(0, depth - 1)
        elif words.startswith("<"):
            depth += 1
        elif words and not depth:
            name, _, value = words.partition(" ")
            found[name.lower()] = printable(value.strip(), 200)
    return found


def _backend(path: Path) -> list[Finding]:
    install = f"Install it with `install -m 0755 backend/pullprint {path}`."
    try:
        status = path.lstat()
    except OSError:
        return [Finding(Level.BAD, "The pullprint backend is not installed in CUPS.", install)]
    if path.is_symlink():
        return [
            Finding(
                Level.BAD,
                "The pullprint backend is a symbolic link, which cupsd's AppArmor follows.",
                install,
            )
        ]
    if status.st_mode & 0o7777 != 0o755 or status.st_uid != 0:
        return [Finding(Level.WARN, "The pullprint backend should belong to root, mode 0755, to run as lp.", install)]
    return [Finding(Level.OK, "The pullprint backend is installed.")]


def _queues(queues: Mapping[str, Mapping[str, Any]]) -> list[Finding]:
    if not queues:
        advice = (
            "Make one with `lpadmin -p pullprint -E -v pullprint:/ -P pullprint.ppd -o printer-error-policy=retry-job`."
        )
        return [Finding(Level.WARN, "No queue prints to Pullprint.", advice)]
    findings = []
    for raw, attributes in queues.items():
        name = printable(raw, 127)
        policy = str(attributes.get("printer-error-policy", ""))
        if policy != "retry-job":
            advice = f"Set it with `lpadmin -p {name} -o printer-error-policy=retry-job`."
            what = f"Queue {name} has the error policy {printable(policy, 32) or 'unknown'}: it may stop or drop jobs."
            findings.append(Finding(Level.BAD if policy == "abort-job" else Level.WARN, what, advice))
        elif attributes.get("printer-state") == 5:
            findings.append(Finding(Level.BAD, f"Queue {name} is stopped.", f"Start it with `cupsenable {name}`."))
        elif attributes.get("printer-is-accepting-jobs") is False:
            findings.append(Finding(Level.BAD, f"Queue {name} takes no jobs.", f"Open it with `cupsaccept {name}`."))
        else:
            findings.append(Finding(Level.OK, f"Queue {name} is ready and keeps jobs until they are taken."))
    return findings


def _judge(settings: Mapping[str, str], source: str) -> list[Finding]:
    if not source:
        advice = (
            "Look into /etc/cups/cupsd.conf as root: PreserveJobFiles should be No, or documents stay readable there."
        )
        return [Finding(Level.WARN, "The settings of cupsd cannot be read.", advice)]
    preserve = settings.get("preservejobfiles", "86400")  # cupsd.conf(5): one day
    limit = _whole(settings.get("jobretrylimit"), 5)
    longest = _whole(settings.get("maxjobtime"), 10_800)
    dirty = _whole(settings.get("dirtycleaninterval"), 30)
    hint = f"in {source if source.startswith('/') else 'cupsd.conf'}, then restart cupsd"
    return [
        Finding(Level.OK, "cupsd deletes documents as soon as they are handed over.")
        if preserve.lower() in {"no", "off", "false", "0"}
        else Finding(
            Level.BAD,
            f"cupsd keeps every printed document readable on disk (PreserveJobFiles {preserve}).",
            f"Set `PreserveJobFiles No` {hint}.",
        ),
        Finding(Level.OK, f"cupsd tries a job {limit} times.")
        if limit == 0 or limit >= 100
        else Finding(
            Level.WARN,
            f"cupsd gives a job up after {limit} tries, also when pullprintd was only away for a while.",
            f"Set `JobRetryLimit 100000` {hint}.",
        ),
        Finding(Level.OK, "cupsd lets a job wait for as long as it must.")
        if longest == 0
        else Finding(
            Level.WARN,
            f"cupsd cancels a job after {longest} seconds, also while pullprintd is away.",
            f"Set `MaxJobTime 0` {hint}.",
        ),
        Finding(Level.OK, "cupsd writes new jobs to disk at once.")
        if dirty == 0
        else Finding(
            Level.WARN,
            f"cupsd forgets jobs of the last {dirty} seconds when it is killed.",
            f"Set `DirtyCleanInterval 0` {hint}.",
        ),
    ]


def _whole(value: str | None, default: int) -> int:
    match = re.match(r"[0-9]{1,9}", value or "")
    return int(match[0]) if match else default
