"""``pullprint printers``, ``status``, ``doctor`` and ``join``."""

import time
from pathlib import Path

from pullprint.cli import words
from pullprint.cli.answers import Status
from pullprint.cli.daemon import Daemon
from pullprint.cli.errors import Exit, Usage
from pullprint.cli.terminal import Cell, Column, Terminal

AUTHORITY_LIMIT = 65_536
"""Bytes of a CA file (`wire.views.JoinRequest.authority`)."""
_LEVELS = {"ok": ("ok", "green"), "warn": ("warn", "yellow"), "bad": ("BAD", "bold red")}


def printers(daemon: Daemon, terminal: Terminal) -> Exit:
    """List the site's printers."""
    found = daemon.printers()
    if terminal.json:
        terminal.dump([printer.raw for printer in found])
    elif not found:
        terminal.say("This site has no printer yet. An administrator adds one in the cloud.")
    else:
        columns = (Column("PRINTER", gives=True), Column("PLACE", at=50, gives=True), Column("ID", at=70))
        terminal.table(columns, [[Cell(p.name, "bold"), Cell(p.place), Cell(p.id, "dim")] for p in found])
    return Exit.DONE


def status(daemon: Daemon, terminal: Terminal) -> Exit:
    """How this host is."""
    _show_status(terminal, daemon.status())
    return Exit.DONE


def _show_status(terminal: Terminal, status: Status) -> None:
    if terminal.json:
        terminal.dump(status.raw)
        return
    pairs = [("version", status.version)]
    if status.joined:
        away = f"{status.cloud} — away"
        since = words.age(time.time() - status.connected_since)
        link = f"{status.cloud} — connected" + (f" for {since}" if since != "now" else "")
        pairs += [
            ("host", status.name),
            ("organisation", status.organisation),
            ("site", status.site),
            ("cloud", link if status.connected else away),
        ]
    else:
        pairs.append(("cloud", "not joined — run: sudo pullprint join CLOUD CODE"))
    pairs.append(("held", f"{_jobs(status.held)}, {words.size(status.stored_bytes)}"))
    pairs += [
        (name, _jobs(count))
        for name, count in (("unclaimed", status.unclaimed), ("uncertain", status.uncertain))
        if count
    ]
    if status.unreported:
        pairs.append(("unreported", f"{status.unreported} events the cloud has not seen yet"))
    if status.sentence:
        pairs.append(("", status.sentence))
    terminal.notes([(Cell(name.ljust(12), "dim"), text) for name, text in pairs])


def _jobs(count: int) -> str:
    return "1 job" if count == 1 else f"{count} jobs"


def doctor(daemon: Daemon, terminal: Terminal) -> Exit:
    """What is wrong with this host's printing, and how it is put right."""
    findings = daemon.findings()
    bad = sum(finding.level == "bad" for finding in findings)
    warned = sum(finding.level == "warn" for finding in findings)
    if terminal.json:
        terminal.dump([finding.raw for finding in findings])
    else:
        for finding in findings:
            word, style = _LEVELS.get(finding.level, (finding.level, ""))
            text = f"{finding.what} {finding.advice}".rstrip()
            terminal.notes([(Cell(word.ljust(4), style), text)])
        if not bad and not warned:
            terminal.say("Nothing is wrong.", "green")
        else:
            terminal.say(f"{bad} to repair, {warned} to know.")
    return Exit.FOUND if bad else Exit.DONE


def join(daemon: Daemon, terminal: Terminal, cloud: str, code: str, authority: Path | None) -> Exit:
    """Make this host a node of an organisation."""
    status = daemon.join(cloud, code, _read_authority(authority) if authority else "")
    if terminal.json:
        terminal.dump(status.raw)
    else:
        terminal.say(f"This host has joined {status.organisation} at {status.site}.", "green")
        _show_status(terminal, status)
    return Exit.DONE


def _read_authority(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(AUTHORITY_LIMIT + 1)
    except OSError as error:
        raise Usage(reason=f"{path} cannot be read: {error.strerror or 'unknown reason'}.") from None
    if len(data) > AUTHORITY_LIMIT or b"-----BEGIN CERTIFICATE-----" not in data or not data.isascii():
        raise Usage(reason=f"{path} is not a file with a CA's certificate in PEM (at most 64 KiB).")
    return data.decode("ascii")
