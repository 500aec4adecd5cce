"""One site spread over several hosts: cloud, nodes and printers, each real processes in a network namespace of its own.

Whoever cuts, stops and kills here does it by name; ids of processes and names of namespaces are this module's business.
What came out is counted at the printers: by the marker in each document, so that a job that was printed under two names
counts twice.
"""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tests.rig.documents import pdf
from tests.rig.namespaces import NETWORK, Network
from tests.rig.office import NODES, Cloud, Node, Premises
from tests.rig.printers import IppPrinter, RawPrinter
from tests.rig.processes import wait_until

CLOUD = "cloud"


def document(marker: str, size: int = 40_000) -> bytes:
    """A PDF of about *size* bytes in which *marker* stands."""
    return pdf(marker=f"<{marker}> {'.' * size}", same=True)


class Hosts(Premises):
    """A site whose hosts are apart. A context manager.

    *printers* are IPP Everywhere printers, *sinks* take anything on port 9100; each is a host. *settings* are further
    ones of all nodes or, under the name of one, of that one.
    """

    def __init__(
        self,
        nodes: Sequence[str] = NODES[:3],
        *,
        printers: Sequence[str] = ("lobby",),
        sinks: Sequence[str] = (),
        settings: Mapping[str, str | int] | None = None,
        settings_of: Mapping[str, Mapping[str, str | int]] | None = None,
    ) -> None:
        super().__init__()
        self.names = tuple(nodes)
        self.network = Network(CLOUD, *nodes, *printers, *sinks)
        self._printer_names = tuple(printers)
        self._sink_names = tuple(sinks)
        self._settings = dict(settings or {})
        self._settings_of = dict(settings_of or {})
        self._stopped: dict[str, list[int]] = {}
        self.printers: dict[str, IppPrinter] = {}
        self.sinks: dict[str, RawPrinter] = {}

    def _set_up(self) -> None:
        network = self._stack.enter_context(self.network)
        for name in self.names:
            # Nobody answers there: no cupsd runs on these hosts.
            settings = {"cups_server": "127.0.0.1", "cups_port": 1, **self._settings, **self._settings_of.get(name, {})}
            node = Node(self.root, name, settings, network.address(name), network.namespace(name))
            self._stack.callback(node.close)
            self.nodes.append(node)
        place = network.address(CLOUD)
        self._open_cloud(Cloud(self.root, host=place, namespace=network.namespace(CLOUD)), "24h", NETWORK)
        for node in self.nodes:
            self._join(node)
        for name in self._printer_names:
            ipp = IppPrinter(name, host=network.address(name), namespace=network.namespace(name))
            self.printers[name] = self._stack.enter_context(ipp)
        for name in self._sink_names:
            raw = RawPrinter(host=network.address(name), namespace=network.namespace(name))
            self.sinks[name] = self._stack.enter_context(raw)
        self._stack.callback(self._continue_all)
        for node in self.nodes:
            node.wait_connected()
        for name, printer in self.all_printers().items():
            self.add_printer(name, printer.uri)
        self.wait_mesh()

    def all_printers(self) -> dict[str, IppPrinter | RawPrinter]:
        """By name."""
        return {**self.printers, **self.sinks}

    def host(self, name: str) -> Node:
        """The node *name*."""
        return self.nodes[self.names.index(name)]

    # The network

    def cut(self, one: str, *others: str) -> None:
        """No packet passes between *one* and any of *others*."""
        self.network.cut(one, *others)

    def cut_off(self, name: str) -> None:
        """*name* is alone."""
        self.network.cut_off(name)

    def partition(self, *groups: Sequence[str]) -> None:
        """Only hosts of one group reach each other; who stands in none reaches everybody."""
        self.network.partition(*groups)

    def slow(self, name: str, rate: str) -> None:
        """What goes to and from *name* goes at *rate*, such as ``1mbit``."""
        self.network.slow(name, rate)

    # The processes

    def kill(self, name: str) -> None:
        """kill -9 of the node *name* (or the cloud), and what it started."""
        process = self.cloud.process if name == CLOUD else self.host(name).process
        self._stopped.pop(name, None)
        if process.namespace and process.started:
            for pid in self.network.processes(name):
                _signal(pid, signal.SIGKILL)
            process.stop(grace=0)

    def start(self, name: str, kill_at: str = "", stop_at: str = "", clock: float = 0.0) -> None:
        """Start *name* again; see `Node.start`."""
        if name == CLOUD:
            self.cloud.start(kill_at)
        else:
            self.host(name).start(kill_at, stop_at, clock)

    def restart(self, name: str, kill_at: str = "", stop_at: str = "", clock: float = 0.0) -> None:
        """End it in order, start it, and wait until it is a member of the mesh again."""
        process = self.cloud.process if name == CLOUD else self.host(name).process
        process.stop()
        self.start(name, kill_at, stop_at, clock)
        if name != CLOUD:
            self.host(name).wait_connected()
            self.wait_mesh()

    def stop(self, name: str) -> None:
        """SIGSTOP of all processes there: it stands still as a machine that is suspended."""
        self._stopped[name] = self.network.processes(name)
        for pid in self._stopped[name]:
            _signal(pid, signal.SIGSTOP)

    def cont(self, name: str) -> None:
        """SIGCONT."""
        for pid in {*self._stopped.pop(name, []), *self.network.processes(name)}:
            _signal(pid, signal.SIGCONT)

    def power_off(self, name: str) -> None:
        """The plug is pulled: nobody hears from it any more, not even that it ends."""
        self.network.cut_off(name)
        self.kill(name)

    def power_on(self, name: str) -> None:
        """Undo `power_off`."""
        self.network.join_again(name)
        self.start(name)

    def wait_dead(self, name: str, timeout: float = 30.0) -> None:
        """Until *name* has died of its checkpoint; `start` may follow."""
        process = self.cloud.process if name == CLOUD else self.host(name).process
        wait_until(f"the end of {name}", lambda: not process.running, timeout)
        self.kill(name)

    def wait_still(self, name: str, timeout: float = 30.0) -> None:
        """Until *name* stands still (SIGSTOP) at its checkpoint."""
        stat = Path(f"/proc/{self.host(name).process.pid}/stat")
        wait_until(f"{name} standing still", lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", timeout)

    def heal(self) -> None:
        """Everybody runs and reaches everybody; printers are on."""
        self.network.heal()
        self._continue_all()
        for name in (CLOUD, *self.names):
            process = self.cloud.process if name == CLOUD else self.host(name).process
            if not process.running:
                self.kill(name)
                self.start(name)
        for printer in self.all_printers().values():
            if not printer.running:
                printer.start()

    def _continue_all(self) -> None:
        for name in list(self._stopped):
            self.cont(name)

    # The jobs

    def submit(self, name: str, title: str, content: bytes | None = None, uuid: str = "") -> None:
        """Print *content*, or else a `document` whose marker is *title*, at the node *name*.

        Raises CommandFailed when it was not stored.
        """
        content = document(title) if content is None else content
        kind = "application/pdf" if content.startswith(b"%PDF-") else "application/octet-stream"
        path = self.root / f"{title}.document"
        path.write_bytes(content)
        try:
            self.host(name).submit(title, path, uuid=uuid, content_type=kind)
        finally:
            path.unlink()

    def printed(self, marker: str) -> int:
        """How many documents with that *marker* came out anywhere, whole or in part."""
        return sum(f"<{marker}>".encode() in content for content in self._paper())

    def printed_whole(self, content: bytes) -> int:
        """How many times *content* came out as it went in."""
        return sum(content == other for other in self._paper())

    def _paper(self) -> list[bytes]:
        paper = [printed.document for printer in self.printers.values() for printed in printer.documents()]
        return paper + [received for sink in self.sinks.values() for received in list(sink.received)]

    def names_at_printers(self) -> list[str]:
        """The opaque job names that the printers were told, one for each document that came out."""
        return [printed.job_name for printer in self.printers.values() for printed in printer.documents()]

    def node_name(self, node: str) -> str:
        """The name of the node with that id."""
        return next(host.name for host in self.nodes if host.id == node)


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def copy_disk(folder: Path, to: Path) -> None:
    """What a thief has who takes that disk: its files, sockets left out."""
    subprocess.run(["cp", "-a", "--", folder, to], check=True)
