"""``pullprint join``: membership, which pullprintd sees to, then what is left to do before this host prints.

Queues and CUPS's settings are this command's part, and changed only if whoever typed it says so.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pullprint.base.errors import PullprintError
from pullprint.cli import queues, repair
from pullprint.cli.answers import Status
from pullprint.cli.daemon import Daemon
from pullprint.cli.errors import Exit, Refused, Usage, exit_code
from pullprint.cli.host import show_findings, show_printers, show_status
from pullprint.cli.queues import HOLD_QUEUE, Cups
from pullprint.cli.terminal import Terminal

AUTHORITY_LIMIT = 65_536
"""Bytes of a CA file (`wire.views.JoinRequest.authority`)."""
CONNECT_SECONDS = 10.0
"""How long a host that has just joined may take to connect before the doctor looks at it."""
PAUSE = 0.1


@dataclass(frozen=True, slots=True)
class Wish:
    """What the command line asks for."""

    cloud: str
    code: str
    authority: Path | None
    queue: str
    """The hold queue's name; empty: not said."""
    no_queue: bool
    yes: bool
    """Every question is answered by yes."""
    cups: Cups
    configuration: Path
    """cupsd.conf."""


def join(daemon: Daemon, terminal: Terminal, wish: Wish) -> Exit:
    """Make this host a node of an organisation, and ready to print."""
    authority = _read_authority(wish.authority) if wish.authority else ""
    wanted = not wish.no_queue and bool(wish.queue or wish.yes)
    if wanted:
        # While nothing has been done yet.
        queues.check_free(wish.cups, wish.queue or HOLD_QUEUE)
    status = daemon.join(wish.cloud, wish.code, authority)
    if terminal.json:
        terminal.dump(status.raw)
        if wanted:
            wish.cups.make(wish.queue or HOLD_QUEUE, queues.HOLD_URI)
        return Exit.DONE
    terminal.say(f"This host has joined {status.organisation} at {status.site}.", "green")
    show_status(terminal, _connected(daemon, status))
    _tell_printers(daemon, terminal)
    # The host has joined, whatever becomes of the rest: a failure is told, and ends nothing but its own step.
    failures = [_try(terminal, step) for step in (
        lambda: _offer_queue(daemon, terminal, wish, wanted=wanted),
        lambda: _offer_repair(terminal, wish),
        lambda: _tell_troubles(daemon, terminal),
    )]  # fmt: skip
    return next((failure for failure in failures if failure), Exit.DONE)


def _connected(daemon: Daemon, status: Status) -> Status:
    """How this host is once it has connected, or has had its time for that."""
    deadline = time.monotonic() + CONNECT_SECONDS
    while not status.connected and time.monotonic() < deadline:
        time.sleep(PAUSE)
        status = daemon.status()
    return status


def _tell_printers(daemon: Daemon, terminal: Terminal) -> None:
    try:
        show_printers(terminal, daemon.printers())
    except Refused:
        terminal.say("The site's printers are not known yet; later: pullprint printers")


def _try(terminal: Terminal, step: Callable[[], None]) -> Exit:
    try:
        step()
    except PullprintError as error:
        terminal.fail(error)
        return exit_code(error)
    return Exit.DONE


def _offer_queue(daemon: Daemon, terminal: Terminal, wish: Wish, *, wanted: bool) -> None:
    if wish.no_queue:
        return
    if not wanted and not terminal.asks:
        terminal.say("Make the hold queue that people print to: sudo pullprint queue add")
        return
    if wanted or terminal.confirm(f"Make the hold queue {HOLD_QUEUE}, which people print to?", default=True):
        queues.add(daemon, terminal, wish.cups, wish.queue or HOLD_QUEUE)


def _offer_repair(terminal: Terminal, wish: Wish) -> None:
    rules = repair.needed(wish.configuration)
    if not rules:
        return
    if not wish.yes and not terminal.asks:
        terminal.say("Put CUPS's settings right, which leave documents readable or lose jobs: "
                     "sudo pullprint doctor --repair")  # fmt: skip
        return
    repair.repair(terminal, wish.configuration, yes=wish.yes)


def _tell_troubles(daemon: Daemon, terminal: Terminal) -> None:
    show_findings(terminal, [finding for finding in daemon.findings() if finding.level != "ok"])


def _read_authority(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(AUTHORITY_LIMIT + 1)
    except OSError as error:
        raise Usage(reason=f"{path} cannot be read: {error.strerror or 'unknown reason'}.") from None
    if len(data) > AUTHORITY_LIMIT or b"-----BEGIN CERTIFICATE-----" not in data or not data.isascii():
        raise Usage(reason=f"{path} is not a file with a CA's certificate in PEM (at most 64 KiB).")
    return data.decode("ascii")
