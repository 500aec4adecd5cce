"""``make demo``: an office to play with. ``make demo-check``: the same, tried by a program that compares the bytes."""

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from tests.rig.cups import PPD
from tests.rig.documents import marker, pdf
from tests.rig.office import BIN, Office, Person
from tests.rig.printers import IppPrinter, RawPrinter
from tests.rig.processes import wait_until

SAMPLE = "Welcome to Pullprint.pdf"
LABEL = b"^XA^FO50,50^ADN,36,20^FDPullprint^FS^XZ\n"


@dataclass
class Demo:
    """What the demo consists of."""

    office: Office
    lobby: IppPrinter
    labels: RawPrinter


def open_demo(stack: ExitStack, console: Console) -> Demo:
    """Start everything; *stack* ends and removes it."""
    with console.status("Starting cloud, three hosts and a private cupsd …"):
        office = stack.enter_context(Office(nodes=3))
    with console.status("Switching on two printers …"):
        lobby = stack.enter_context(IppPrinter("Lobby"))
        labels = stack.enter_context(RawPrinter())
        office.add_printer("Lobby", lobby.uri)
        office.add_printer("Labels", labels.uri)
        office.cups.add_queue("lobby", "pullprint:/printer/Lobby", PPD)
    return Demo(office, lobby, labels)


def show(console: Console) -> None:
    """Run the demo until Ctrl-C."""
    with ExitStack() as stack:
        demo = open_demo(stack, console)
        office = demo.office
        office.cups.lp("pullprint", pdf(2, color=True), user=office.account, title=SAMPLE)
        office.wait_copies(SAMPLE)
        facts = Table.grid(padding=(0, 2))
        facts.add_row("Page", f"[bold]{office.cloud.url}[/]  (the certificate is the demo's own: accept it once)")
        facts.add_row("Account", f"[bold]{office.user}[/]  password [bold]{office.password}[/]")
        facts.add_row("Waiting", f"“{SAMPLE}”, held for {office.user} by {len(office.nodes)} hosts")
        facts.add_row("Printers", "Lobby (takes PDF), Labels (takes anything, raw)")
        facts.add_row("Print", f"lp -h 127.0.0.1:{office.cups.port} -d pullprint FILE   (held)")
        facts.add_row("", f"lp -h 127.0.0.1:{office.cups.port} -d lobby FILE       (goes to Lobby at once)")
        for number, node in enumerate(office.nodes):
            what = "   (takes in what is printed)" if not number else ""
            label = "Hosts" if not number else ""
            facts.add_row(label, f"{node.name:<11} export PULLPRINT_SOCKET={node.control}{what}")
        facts.add_row(
            "Terminal", f"{BIN / 'pullprint'} jobs   |   release -P Lobby   |   trace   |   mesh   |   doctor"
        )
        facts.add_row(
            "Kill a host", f"kill -9 {office.node.process.pid}   ({office.node.name}, which the sample is from)"
        )
        facts.add_row("", "Then press Print on the page all the same: another host that holds it prints it.")
        facts.add_row("On paper", f"{demo.lobby.arrived}")
        console.print(
            Panel(
                facts, title="Pullprint, one office of three hosts on this machine", subtitle="Ctrl-C removes all of it"
            )
        )
        watch(demo, console)
    console.print("Everything was ended and removed.")


def watch(demo: Demo, console: Console) -> None:
    """Say what comes out of the printers, until Ctrl-C or SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    seen = {"Lobby": 0, "Labels": 0}
    try:
        while True:
            for name, count in (("Lobby", len(demo.lobby.documents())), ("Labels", len(demo.labels.received))):
                if count > seen[name]:
                    console.print(f"[green]●[/] {name} printed a document ({time.strftime('%H:%M:%S')})")
                    seen[name] = count
            time.sleep(0.3)
    except KeyboardInterrupt:
        console.print()


class Checks:
    """What ``make demo-check`` tries; every method is one promise."""

    def __init__(self, demo: Demo) -> None:
        self.demo = demo
        self.office = demo.office
        self.me: Person = demo.office.person()

    def held_pdf_comes_out_unchanged(self) -> None:
        """lp, held, released on the web: the bytes at the printer are those that went in."""
        document, before = pdf(3, color=True), len(self.demo.lobby.documents())
        self.office.cups.lp("pullprint", document, "sides=two-sided-long-edge", user=self.office.account, title="a.pdf")
        self.me.release(self.me.wait_job("a.pdf", "held")["id"], "Lobby")
        printed = self.demo.lobby.wait_documents(before + 1)[-1]
        assert printed.document == document, "the printed bytes differ"
        assert printed.attributes["IPP_SIDES"] == "two-sided-long-edge", "the ticket was lost"
        self.me.wait_job("a.pdf", "done")

    def direct_queue_prints_at_once(self) -> None:
        """A queue on pullprint:/printer/Lobby needs no release."""
        document, before = pdf(), len(self.demo.lobby.documents())
        self.office.cups.lp("lobby", document, user=self.office.account, title="b.pdf")
        assert self.demo.lobby.wait_documents(before + 1)[-1].document == document, "the printed bytes differ"

    def raw_document_reaches_the_socket_printer(self) -> None:
        """A label goes to port 9100 byte for byte."""
        before = len(self.demo.labels.received)
        self.office.cups.lp("pullprint", LABEL, "raw", user=self.office.account, title="c.zpl")
        self.me.release(self.me.wait_job("c.zpl", "held")["id"], "Labels")
        assert self.demo.labels.wait_received(before + 1)[-1] == LABEL, "the printed bytes differ"

    def text_becomes_pdf(self) -> None:
        """CUPS's own filters make PDF of what is none."""
        before = len(self.demo.lobby.documents())
        self.office.cups.lp("pullprint", b"Hello, printer.\n", user=self.office.account, title="d.txt")
        self.me.release(self.me.wait_job("d.txt", "held")["id"], "Lobby")
        assert self.demo.lobby.wait_documents(before + 1)[-1].document.startswith(b"%PDF-"), "it is no PDF"

    def terminal_releases(self) -> None:
        """pullprint release prints what this account printed."""
        before = len(self.demo.lobby.documents())
        self.office.cups.lp("pullprint", pdf(), user=self.office.account, title="e.pdf")
        job = self.me.wait_job("e.pdf", "held")["id"]
        self.office.node.pullprint("release", job, "--printer", "Lobby")
        self.demo.lobby.wait_documents(before + 1)

    def held_job_is_unreadable_on_every_disk(self) -> None:
        """A marker from the document is found in no file of hosts and cloud."""
        word = marker()
        self.office.cups.lp("pullprint", pdf(marker=word), user=self.office.account, title="f.pdf")
        self.office.wait_copies("f.pdf")
        files = [path for root in self.office.disks() for path in root.rglob("*") if path.is_file()]
        assert files, "there is nothing on the disks"
        assert not [path for path in files if word.encode() in path.read_bytes()], "the document can be read"

    def any_holder_prints_it(self) -> None:
        """A job of one host is released on another one, from which it comes out."""
        document, before, other = pdf(2), len(self.demo.lobby.documents()), self.office.nodes[2]
        self.office.cups.lp("pullprint", document, user=self.office.account, title="g.pdf")
        job = self.office.wait_copies("g.pdf")["id"]
        other.pullprint("release", job, "--printer", "Lobby")
        assert self.demo.lobby.wait_documents(before + 1)[-1].document == document, "the printed bytes differ"
        wait_until("its word", lambda: self._printed_by(job) == [other.name])

    def killed_host_leaves_its_jobs_to_the_others(self) -> None:
        """The host that took a job in is killed; released on the web, it comes out of another one, once."""
        document, before, first = pdf(4), len(self.demo.lobby.documents()), self.office.node
        self.office.cups.lp("pullprint", document, user=self.office.account, title="h.pdf")
        job = self.office.wait_copies("h.pdf")["id"]
        first.process.kill()
        try:
            self.me.release(job, "Lobby")
            self.me.wait_job("h.pdf", "done", 30)
        finally:
            first.start()
            first.wait_connected()
        printed = self.demo.lobby.documents()[before:]
        assert [paper.document for paper in printed] == [document], "the printed bytes differ"
        wait_until("its word", lambda: self._printed_by(job))
        assert self._printed_by(job) != [first.name], "a dead host says that it printed"

    def _printed_by(self, job: str) -> list[str]:
        return [step["host"] for step in self.me.trace(job) if step["event"] == "printed"]

    def trace_tells_the_way(self) -> None:
        """Every step of the first job is on its trace."""
        job = self.me.wait_job("a.pdf", "done")["id"]
        wanted = {"stored", "held", "prepared", "committed", "sending", "printed"}
        wait_until("the whole trace", lambda: wanted <= {step["event"] for step in self.me.trace(job)})

    def doctor_finds_nothing_broken(self) -> None:
        """pullprint doctor knows of nothing that keeps this host from printing."""
        findings = json.loads(self.office.node.pullprint("doctor", "--json"))
        bad = [finding["what"] for finding in findings if finding["level"] == "bad"]
        assert not bad, "; ".join(bad)


def check(console: Console) -> int:
    """Try every promise; the number of failures."""
    failures = 0
    with ExitStack() as stack:
        checks = Checks(open_demo(stack, console))
        promises: list[tuple[str, Callable[[], None]]] = [
            (name, getattr(checks, name)) for name in vars(Checks) if not name.startswith("_")
        ]
        for name, promise in promises:
            began = time.monotonic()
            try:
                promise()
            except Exception as error:
                failures += 1
                console.print(f"[red]✗[/] {name.replace('_', ' ')}: {error}", highlight=False)
            else:
                seconds = time.monotonic() - began
                console.print(f"[green]✓[/] {name.replace('_', ' ')} ({seconds:.1f} s)", highlight=False)
    console.print(f"{len(promises) - failures} passed, {failures} failed", highlight=False)
    return failures


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="try it without a person")
    arguments = parser.parse_args()
    console = Console(highlight=False)
    if arguments.check:
        sys.exit(1 if check(console) else 0)
    show(console)


if __name__ == "__main__":
    main()
