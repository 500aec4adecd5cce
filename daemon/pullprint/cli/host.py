"""``pullprint printers``, ``status`` and ``doctor``."""

import time
from collections.abc import Sequence

from pullprint.cli import words
from pullprint.cli.answers import Finding, Printer, Status
from pullprint.cli.daemon import Daemon
from pullprint.cli.errors import BrokenAnswer, Exit, Refused
from pullprint.cli.terminal import Cell, Column, Terminal

_LEVELS = {"ok": ("ok", "green"), "warn": ("warn", "yellow"), "bad": ("BAD", "bold red")}


def printers(daemon: Daemon, terminal: Terminal) -> Exit:
    """List the site's printers."""
    found = daemon.printers()
    if terminal.json:
        terminal.dump([printer.raw for printer in found])
    else:
        show_printers(terminal, found)
    return Exit.DONE


def show_printers(terminal: Terminal, found: Sequence[Printer]) -> None:
    """A table of them, or that there are none."""
    if not found:
        terminal.say("This site has no printer yet. An administrator adds one in the cloud.")
        return
    columns = (Column("PRINTER", gives=True), Column("PLACE", at=50, gives=True), Column("ID", at=70))
    terminal.table(columns, [[Cell(p.name, "bold"), Cell(p.place), Cell(p.id, "dim")] for p in found])


def status(daemon: Daemon, terminal: Terminal) -> Exit:
    """How this host is."""
    found = daemon.status()
    show_status(terminal, found, _copies(daemon) if found.joined and not terminal.json else "")
    return Exit.DONE


def _copies(daemon: Daemon) -> str:
    """How the copies of what is held here are; empty from a pullprintd that knows of none."""
    from pullprint.cli.mesh import nodes_awake, summary

    try:
        found = daemon.mesh()
    except (BrokenAnswer, Refused):
        return ""
    return f"{summary(found)} {nodes_awake(found)}"


def show_status(terminal: Terminal, status: Status, copies: str = "") -> None:
    """What is known of this host and its cloud, and the *copies* of what it holds."""
    if terminal.json:
        terminal.dump(status.raw)
        return
    pairs = [("version", status.version + (f"; cloud {status.cloud_version}" if status.cloud_version else ""))]
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
    if copies:
        pairs.append(("copies", copies))
    if status.unreported:
        pairs.append(("unreported", f"{status.unreported} events the cloud has not seen yet"))
    if status.config_trouble:
        pairs.append(("settings", status.config_trouble))
    if status.sentence:
        pairs.append(("", status.sentence))
    terminal.notes([(Cell(name.ljust(12), "dim"), text) for name, text in pairs])


def _jobs(count: int) -> str:
    return "1 job" if count == 1 else f"{count} jobs"


def doctor(daemon: Daemon, terminal: Terminal) -> Exit:
    """What is wrong with this host's printing, and how it is put right."""
    findings = daemon.findings()
    if terminal.json:
        terminal.dump([finding.raw for finding in findings])
    else:
        show_findings(terminal, findings)
    return Exit.FOUND if any(finding.level == "bad" for finding in findings) else Exit.DONE


def show_findings(terminal: Terminal, findings: Sequence[Finding]) -> None:
    """A line for each, and how many are to be seen to."""
    bad = sum(finding.level == "bad" for finding in findings)
    warned = sum(finding.level == "warn" for finding in findings)
    for finding in findings:
        word, style = _LEVELS.get(finding.level, (finding.level, ""))
        terminal.notes([(Cell(word.ljust(4), style), f"{finding.what} {finding.advice}".rstrip())])
    if bad or warned:
        terminal.say(f"{bad} to repair, {warned} to know.")
    else:
        terminal.say("Nothing is wrong.", "green")
