"""Printers that really take documents: CUPS's ``ippeveprinter``, a raw port-9100 sink, a small LPD server."""

import shutil
import socket
import struct
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from tests.rig.namespaces import inside
from tests.rig.processes import Process, free_port, wait_until

IPP_FORMATS = ("application/pdf", "image/pwg-raster", "image/urf", "image/jpeg", "application/octet-stream")
IDLE_SECONDS = 20.0
DOCUMENT_LIMIT = 2 << 30

# ippeveprinter ends at once without a D-Bus system bus, where it looks for Avahi; an empty private one will do.
_BUS_CONF = """\
<busconfig>
  <type>session</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
"""

# Document and attributes appear together, under a name that sorts by arrival.
_COMMAND = """\
#!/bin/sh
set -e
new=$(mktemp -d "{directory}/.new.XXXXXX")
cp -- "$1" "$new/document"
env -0 >"$new/environment"
{after}
mv "$new" "{directory}/$(date +%s%N)"
"""


@dataclass(frozen=True)
class Printed:
    """One document at a printer. *attributes* are ippeveprinter's: ``IPP_COPIES``, ``IPP_SIDES``, …"""

    document: bytes
    job_name: str = ""
    attributes: dict[str, str] = field(default_factory=dict)


class IppPrinter:
    """A real IPP Everywhere printer, as a context manager; keeps what it printed through `stop` and `start`.

    *formats* are the document-formats it takes, *seconds* how long it prints each job, *host* is where it is reached,
    *namespace* the network that it stands in. It is two-sided and prints in colour; it refuses attribute values that it does not support (RFC 8011 section 5.2), as printers do.
    """

    def __init__(
        self,
        name: str = "Test Printer",
        formats: tuple[str, ...] = IPP_FORMATS,
        seconds: float = 0.0,
        port: int = 0,
        host: str = "localhost",
        namespace: str = "",
    ) -> None:
        # Short, because a unix socket's path lies in it.
        self._root = Path(tempfile.mkdtemp(prefix="pullprint-ipp-"))
        self.port = port or free_port()
        self.host = host
        self.arrived = self._root / "arrived"
        self.arrived.mkdir()
        spool = self._root / "spool"
        spool.mkdir()
        command = self._root / "command"
        command.write_text(_COMMAND.format(directory=self.arrived, after=f"sleep {seconds:g}" if seconds else ""))
        command.chmod(0o755)
        bus_socket = self._root / "bus"
        (self._root / "bus.conf").write_text(_BUS_CONF.format(socket=bus_socket))
        self._bus_socket = bus_socket
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "TMPDIR": str(self._root)}
        environment["DBUS_SYSTEM_BUS_ADDRESS"] = f"unix:path={bus_socket}"
        self._bus = Process(
            [
                "dbus-daemon",
                "--nofork",
                "--nosyslog",
                "--nopidfile",
                f"--config-file={self._root / 'bus.conf'}",
            ],
            self._root / "bus.log",
        )
        options = {
            "-r": "off",
            "-p": str(self.port),
            "-f": ",".join(formats),
            "-d": str(spool),
            "-c": str(command),
            "-K": str(self._root),
            "-s": "60,60",
        }
        if host == "localhost":
            # It listens at what this name means, which has to be an address of each family; else everywhere.
            options["-n"] = host
        arguments = [part for option in options.items() for part in option]
        self.process = Process(
            ["ippeveprinter", *arguments, "-2", "-v", name],
            self._root / "log",
            env=environment,
            namespace=namespace,
        )

    @property
    def uri(self) -> str:
        """Where to print: ``ipp://…``; the same address answers ipps."""
        return f"ipp://{self.host}:{self.port}/ipp/print"

    @property
    def running(self) -> bool:
        """Whether it is on."""
        return self.process.running

    def start(self) -> None:
        """Switch on; a printer that was switched off has forgotten its jobs."""
        if not self._bus.running:
            self._bus.start(ready=self._bus_socket)
        self.process.start(ready=("127.0.0.1", self.port))

    def stop(self) -> None:
        """Switch off."""
        self.process.stop()

    def documents(self) -> list[Printed]:
        """What was printed so far, in order of arrival."""
        printed = []
        for directory in sorted(path for path in self.arrived.iterdir() if not path.name.startswith(".")):
            words = (directory / "environment").read_bytes().decode("utf-8", "replace").split("\0")
            attributes = dict(word.split("=", 1) for word in words if word.startswith("IPP_") and "=" in word)
            document = (directory / "document").read_bytes()
            printed.append(Printed(document, attributes.get("IPP_JOB_NAME", ""), attributes))
        return printed

    def wait_documents(self, count: int, timeout: float = 20.0) -> list[Printed]:
        """`documents`, once there are *count*."""
        wait_until(f"{count} documents at {self.uri}", lambda: len(self.documents()) >= count, timeout)
        return self.documents()

    def log(self) -> str:
        """The end of ippeveprinter's log."""
        return self.process.log_tail()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def _remove(self) -> None:
        self.stop()
        self._bus.stop()
        shutil.rmtree(self._root, ignore_errors=True)


class _Sink:
    """A TCP server at *host* (of *namespace*), a thread for each connection; what it took stays through `stop` and
    `start`."""

    scheme = ""

    def __init__(self, port: int = 0, host: str = "127.0.0.1", namespace: str = "") -> None:
        self.port = port or free_port()
        self.host = host
        self._namespace = namespace
        self.received: list[bytes] = []
        self.connections = 0
        """How many were ever made to it."""
        self._listener: socket.socket | None = None
        self._threads: list[threading.Thread] = []
        self._open: set[socket.socket] = set()
        self._stopping = threading.Event()
        self._lock = threading.Lock()

    @property
    def uri(self) -> str:
        """The device URI that reaches it."""
        return f"{self.scheme}://{self.host}:{self.port}"

    @property
    def running(self) -> bool:
        """Whether it is on."""
        return self._listener is not None

    def start(self) -> None:
        """Switch on."""
        with inside(self._namespace):
            listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((self.host, self.port))
        listener.listen(16)
        self._listener = listener
        self._stopping.clear()
        self._run(self._accept, listener)

    def stop(self) -> None:
        """Switch off: nobody listens, connections break, threads end."""
        if self._listener is None:
            return
        self._stopping.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        with self._lock:
            for connection in self._open:
                connection.shutdown(socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join()
        self._threads.clear()
        self._listener.close()
        self._listener = None

    def wait_received(self, count: int, timeout: float = 20.0) -> list[bytes]:
        """`received`, once there are *count* connections that ended."""
        wait_until(f"{count} documents at {self.uri}", lambda: len(self.received) >= count, timeout)
        return self.received

    def _run(self, target: Callable[[socket.socket], None], argument: socket.socket) -> None:
        thread = threading.Thread(target=target, args=(argument,), name=self.uri)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.settimeout(IDLE_SECONDS)
            with self._lock:
                self.connections += 1
                self._open.add(connection)
            self._run(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        try:
            self.take(connection)
        except OSError:
            pass  # the other side or `stop` broke off; what came before is in `received`
        finally:
            with self._lock:
                self._open.discard(connection)
                connection.close()

    def take(self, connection: socket.socket) -> None:
        """Serve one connection; appends to `received`."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class RawPrinter(_Sink):
    """A port-9100 printer: every connection is a document, also one that broke off.

    *mode* may be changed at any time: ``takes`` everything; ``resets`` the connection after *limit* bytes;
    ``stalls``: reads *limit* bytes, then no more until `stop`. Off is `stop`.
    """

    scheme = "socket"

    def __init__(
        self,
        port: int = 0,
        mode: Literal["takes", "resets", "stalls"] = "takes",
        limit: int = 0,
        host: str = "127.0.0.1",
        namespace: str = "",
    ) -> None:
        super().__init__(port, host, namespace)
        self.mode = mode
        self.limit = limit

    def take(self, connection: socket.socket) -> None:
        """Read until the end, or until the mode says otherwise."""
        limit = DOCUMENT_LIMIT if self.mode == "takes" else self.limit
        data = bytearray()
        try:
            while len(data) < limit:
                part = connection.recv(min(1 << 16, limit - len(data)))
                if not part:
                    return
                data += part
            if self.mode == "stalls":
                self._stopping.wait()
            else:
                # Linger of zero seconds: close() sends RST.
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        finally:
            self.received.append(bytes(data))


class LpdPrinter(_Sink):
    """Enough of RFC 1179 for CUPS's ``lpd`` backend: `received` are data files, `controls` control files."""

    scheme = "lpd"
    OK, NO = b"\0", b"\1"

    def __init__(self, port: int = 0, queue: str = "raw") -> None:
        super().__init__(port)
        self.queue = queue
        self.controls: list[str] = []

    @property
    def uri(self) -> str:
        """``reserve=none``: the backend may not bind a reserved port, and this does not ask for one."""
        return f"lpd://127.0.0.1:{self.port}/{self.queue}?reserve=none"

    def take(self, connection: socket.socket) -> None:
        """Command 2, *receive a printer job* (section 5.2), with its subcommands (section 6)."""
        with connection.makefile("rb") as stream:
            command = stream.readline(1_024)
            if command != b"\x02" + self.queue.encode() + b"\n":
                connection.sendall(self.NO)
                return
            connection.sendall(self.OK)
            while line := stream.readline(1_024):
                kind, count = line[:1], line[1:].split(b" ")[0]
                size = int(count) if count.isdigit() else -1
                if kind not in (b"\x02", b"\x03") or not 0 <= size <= DOCUMENT_LIMIT:
                    connection.sendall(self.NO)
                    return
                connection.sendall(self.OK)
                data = stream.read(size)
                if len(data) < size or stream.read(1) != self.OK:
                    return
                if kind == b"\x03":
                    self.received.append(data)
                else:
                    self.controls.append(data.decode("utf-8", "replace"))
                connection.sendall(self.OK)
