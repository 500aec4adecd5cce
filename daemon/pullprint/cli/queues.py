"""``pullprint queue``: queues of the local CUPS that print to Pullprint, made with CUPS's own commands.

A queue that is not ours is never changed, and nothing that the network said becomes a queue: names come from whoever
types them, printers' names from the site's signed inventory.
"""

import os
import re
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from pullprint.base.errors import PullprintError
from pullprint.base.platform import QUEUE_DESCRIPTION
from pullprint.base.text import printable
from pullprint.cli.answers import Printer
from pullprint.cli.daemon import Daemon
from pullprint.cli.errors import CommandError, Exit
from pullprint.cli.terminal import Cell, Column, Terminal

HOLD_QUEUE = "pullprint"
HOLD_URI = "pullprint:/"
_PRINTER_URI = "pullprint:/printer/"
SECONDS = 30.0
"""For one of CUPS's commands."""
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
NAME_LIMIT = 127
"""Bytes of a queue's name."""
URI_LIMIT = 1_000
_NAME = re.compile(r"\w[\w.-]*")
"""Fewer characters than CUPS takes: none that means something to lp, to a shell or in a URI."""
_AWAY = ("unable to connect", "failed to connect", "scheduler is not running", "bad file descriptor",
         "transport endpoint")  # fmt: skip
_FORBIDDEN = ("forbidden", "unauthorized", "not authorized", "not allowed", "password")


class BadQueueName(CommandError):
    """{name} cannot be a queue's name: letters, digits, and within it also . _ - make one, at most 127 bytes. Nothing
    was changed.
    """

    code = "bad-queue-name"
    exit = Exit.USAGE


class NoSuchPrinter(CommandError):
    """This site has no printer called {name}; it has: {names}. Nothing was changed."""

    code = "no-such-printer"


class QueueTaken(CommandError):
    """There is a queue {name} that is not Pullprint's: it prints to {uri}. It was left as it is; for a queue
    of Pullprint's, take another name.
    """

    code = "queue-taken"


class OtherQueue(CommandError):
    """Queue {name} is there already and {does}. It was left as it is; to make another of it, first `pullprint queue
    remove {name}`.
    """

    code = "other-queue"


class NoSuchQueue(CommandError):
    """There is no queue {name}. `pullprint queue list` shows those of Pullprint. Nothing was changed."""

    code = "no-such-queue"


class QueueBusy(CommandError):
    """Documents wait in queue {name}, and would be lost with it: {jobs}. Wait until pullprintd has them, or delete them
    with `cancel -a {name}`; then try again. Nothing was changed.
    """

    code = "queue-busy"


class CupsAway(CommandError):
    """cupsd does not answer: {reason}. Start it with `systemctl start cups`, then try again. No queue was changed."""

    code = "cups-away"
    exit = Exit.AWAY


class CupsForbids(CommandError):
    """CUPS lets only administrators change queues. Try again with sudo. Nothing was changed."""

    code = "cups-forbids"


class CupsRefused(CommandError):
    """CUPS did not do it: {reason}. If that is no help, see what `pullprint doctor` says."""

    code = "cups-refused"


class NoDescription(CommandError):
    """The description of Pullprint's queues, {path}, is missing. Install it again: `apt install --reinstall pullprint`.
    Nothing was changed.
    """

    code = "no-description"


class NoCups(CommandError):
    """The command {command} is missing. Install CUPS: `apt install cups`. Nothing was changed."""

    code = "no-cups"


@dataclass(frozen=True, slots=True)
class Cups:
    """The cupsd that CUPS's commands speak to. Every method raises CupsAway, CupsForbids, CupsRefused, NoCups."""

    server: str = ""
    """Socket or host; empty: whichever they find, $CUPS_SERVER first."""
    description: Path = QUEUE_DESCRIPTION
    seconds: float = SECONDS
    """For one of them."""

    def queues(self) -> dict[str, str]:
        """The device URI of every queue."""
        said = self._lpstat("-v")
        # device for NAME: URI; a name may end in a colon, but has no blank.
        lines = (line.removeprefix("device for ").partition(": ") for line in said.splitlines())
        return {name: uri for name, colon, uri in lines if colon}

    def printing(self) -> list[str]:
        """The queues that have a job on its way to their printer, ours or not."""
        return re.findall(r"^printer (\S+) now printing ", self._lpstat("-p"), re.MULTILINE)

    def resume(self) -> dict[int, str]:
        """Have printed what cupsd has set aside of our queues; those jobs and their queues."""
        ended: list[dict[int, str] | CommandError] = []

        def ask() -> None:
            from pullprint.printers import cups_jobs

            try:
                ended.append(cups_jobs.resume(self.server))
            except cups_jobs.NotResumed as error:
                ended.append(_refusal(str(error)))

        # libcups waits without end for a cupsd that hangs, and heeds no signal meanwhile.
        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        thread.join(self.seconds)
        if not ended:
            raise CupsAway(reason=f"nothing came in {self.seconds:g} seconds")
        if isinstance(ended[0], CommandError):
            raise ended[0]
        return ended[0]

    def default(self) -> str:
        """The queue that lp(1) prints to when none is named; empty for none."""
        _, colon, name = self._run("lpstat", "-d").strip().partition("destination: ")
        return name if colon else ""

    def make(self, name: str, uri: str) -> None:
        """A queue that takes jobs and keeps them, or the same as it should be."""
        if not self.description.is_file():
            raise NoDescription(path=self.description)
        self._run("lpadmin", "-p", name, "-E", "-v", uri, "-P", str(self.description),
                  "-o", "printer-error-policy=retry-job", "-o", "printer-is-shared=false")  # fmt: skip

    def make_default(self, name: str) -> None:
        """What lp(1) prints to from now on."""
        self._run("lpadmin", "-d", name)

    def remove(self, name: str) -> None:
        """Delete a queue in which nothing waits. Raises QueueBusy."""
        self._run("cupsreject", name)
        try:
            waiting = [line.split()[0] for line in self._run("lpstat", "-o", name).splitlines() if line.strip()]
            if waiting:
                raise QueueBusy(name=name, jobs=", ".join(waiting))
        except PullprintError:
            self._run("cupsaccept", name)
            raise
        self._run("lpadmin", "-x", name)

    def _lpstat(self, option: str) -> str:
        """What lpstat says of all queues; nothing where there is none."""
        try:
            return self._run("lpstat", option)
        except CupsRefused as error:
            if "No destinations added" in error.fields["reason"]:
                return ""
            raise

    def _run(self, *argv: str) -> str:
        # Its English is what `_refusal` reads. Without a terminal of its own it cannot ask for a password.
        environment = os.environ | {"PATH": PATH, "LC_ALL": "C.UTF-8"}
        environment |= {"CUPS_SERVER": self.server} if self.server else {}
        try:
            ran = subprocess.run(
                argv, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=self.seconds, check=False,
                start_new_session=True,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise CupsAway(reason=f"nothing came in {self.seconds:g} seconds") from None
        except OSError:
            raise NoCups(command=argv[0]) from None
        if ran.returncode:
            raise _refusal(ran.stderr.decode("utf-8", "replace"))
        return ran.stdout.decode("utf-8", "replace")


def _refusal(said: str) -> CommandError:
    """What a failed command of CUPS said on standard error, as an error; every PPD and raw queue is «deprecated»."""
    lines = [line.partition(": ")[2] or line for line in said.splitlines() if "deprecated" not in line]
    reason = " ".join(line.strip().rstrip(".") for line in lines if line.strip()) or "it does not say why"
    lowered = reason.lower()
    if any(word in lowered for word in _AWAY):
        return CupsAway(reason=reason)
    if any(word in lowered for word in _FORBIDDEN):
        return CupsForbids()
    return CupsRefused(reason=reason)


def check_name(name: str) -> str:
    """*name*, if it may be a queue's. Raises BadQueueName."""
    if not _NAME.fullmatch(name) or len(name.encode()) > NAME_LIMIT or printable(name, NAME_LIMIT) != name:
        raise BadQueueName(name=name)
    return name


def check_free(cups: Cups, name: str, uri: str = HOLD_URI) -> bool:
    """Whether queue *name* is ours already, and the same. Raises BadQueueName, QueueTaken, OtherQueue."""
    there = cups.queues().get(check_name(name))
    if there is None:
        return False
    if not is_ours(there):
        raise QueueTaken(name=name, uri=there)
    if _what(there) != _what(uri):
        raise OtherQueue(name=name, does=_what(there))
    return True


def is_ours(uri: str) -> bool:
    """Whether a queue with that device URI prints to Pullprint."""
    return uri.startswith("pullprint:")


def add(daemon: Daemon, terminal: Terminal, cups: Cups, name: str, *, printer: str = "", default: bool = False) -> Exit:
    """Make a hold queue, or one that prints at *printer* at once; and tell how to use it."""
    uri = _PRINTER_URI + _target(_find(daemon, printer)) if printer else HOLD_URI
    there = check_free(cups, name or HOLD_QUEUE, uri)
    name = name or HOLD_QUEUE
    cups.make(name, uri)
    if default:
        cups.make_default(name)
    if terminal.json:
        terminal.dump({"name": name, "uri": uri, "default": cups.default() == name})
        return Exit.DONE
    was = "was there already and is as it should be" if there else "is ready"
    terminal.say(f"Queue {name} {was}: it {_what(uri)}.", "green")
    to = "" if default else f"-d {name} "
    terminal.say(f"Print: lp {to}FILE" + ("" if printer else "   Then: pullprint release"))
    return Exit.DONE


def show(terminal: Terminal, cups: Cups) -> Exit:
    """List the queues that print to Pullprint."""
    ours = {name: uri for name, uri in cups.queues().items() if is_ours(uri)}
    default = cups.default() if ours else ""
    if terminal.json:
        terminal.dump([{"name": name, "uri": uri, "default": name == default} for name, uri in ours.items()])
    elif not ours:
        terminal.say("No queue prints to Pullprint. Make one: sudo pullprint queue add")
    else:
        rows = [
            [Cell(name, "bold"), Cell(_what(uri)), Cell("default" if name == default else "", "dim")]
            for name, uri in ours.items()
        ]
        terminal.table((Column("QUEUE", gives=True), Column("WHAT IT DOES", gives=True), Column("")), rows)
    return Exit.DONE


def resume(terminal: Terminal, cups: Cups) -> Exit:
    """Have CUPS try again what it has set aside in queues of ours; says nothing where there is nothing."""
    resumed = cups.resume()
    if terminal.json:
        terminal.dump([{"job": f"{queue}-{job}", "queue": queue} for job, queue in resumed.items()])
    elif resumed:
        jobs = ", ".join(f"{queue}-{job}" for job, queue in resumed.items())
        terminal.say(f"CUPS tries again what it had set aside: {jobs}.", "green")
    return Exit.DONE


def remove(terminal: Terminal, cups: Cups, name: str) -> Exit:
    """Delete a queue of ours."""
    uri = cups.queues().get(check_name(name))
    if uri is None:
        raise NoSuchQueue(name=name)
    if not is_ours(uri):
        raise QueueTaken(name=name, uri=uri)
    cups.remove(name)
    terminal.say(f"Queue {name} is gone. Jobs that are held stay held.")
    if terminal.json:
        terminal.dump({"name": name, "uri": uri})
    return Exit.DONE


def _find(daemon: Daemon, wanted: str) -> Printer:
    """The printer of the site's inventory with that id or name, as pullprintd finds it. Raises NoSuchPrinter."""
    printers: Sequence[Printer] = daemon.printers()
    for printer in printers:
        if printer.id == wanted:
            return printer
    for printer in printers:
        if printer.name.casefold() == wanted.casefold():
            return printer
    raise NoSuchPrinter(name=wanted, names=", ".join(printer.name for printer in printers) or "none yet")


def _target(printer: Printer) -> str:
    """How a device URI names *printer*: by what people call it, unless that would not fit."""
    name = quote(printer.name, safe="")
    return quote(printer.id, safe="") if "/" in printer.name or len(name) > URI_LIMIT else name


def _what(uri: str) -> str:
    """What becomes of documents in a queue of ours, as the end of a sentence."""
    if uri.rstrip("/") == HOLD_URI.rstrip("/"):
        return "holds documents until their owner releases them"
    return f"prints at {unquote(uri.removeprefix(_PRINTER_URI))} at once"
