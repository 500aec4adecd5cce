"""Printers for what a real one cannot be told to do: refuse, break off in a document, lie, forget.

Each counts what reached it, because «at most once» is counted here.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import TypeVar


def reset(writer: asyncio.StreamWriter) -> None:
    """RST instead of FIN."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@dataclass
class Lpd:
    """An RFC 1179 printer; *refuse* is the command that it answers with an error: receive, control or data."""

    refuse: str = ""
    acknowledge: bool = True
    documents: list[bytes] = field(default_factory=list)
    controls: list[bytes] = field(default_factory=list)
    queues: list[bytes] = field(default_factory=list)
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._session(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await reader.readline()
        self.queues.append(line[1:-1])
        writer.write(b"\1" if self.refuse == "receive" else b"\0")
        while line := await reader.readline():
            kind, size = line[:1], int(line[1:].split()[0])
            writer.write(b"\0")
            if kind == b"\2":
                self.controls.append(await reader.readexactly(size))
            else:
                self.documents.append(b"")
                body = bytearray()
                while len(body) < size and (data := await reader.read(min(65_536, size - len(body)))):
                    body += data
                    self.documents[-1] = bytes(body)
            await reader.readexactly(1)
            refused = (kind == b"\2" and self.refuse == "control") or (kind == b"\3" and self.refuse == "data")
            if kind == b"\3" and not self.acknowledge:
                return
            writer.write(b"\1" if refused else b"\0")


def attribute(tag: int, name: str, *values: bytes | int | str | bool) -> bytes:
    """One attribute as RFC 8010 3.1.4 writes it."""
    out = b""
    for index, value in enumerate(values):
        title = name.encode() if index == 0 else b""
        if isinstance(value, bool):
            data = bytes([value])
        elif isinstance(value, int):
            data = struct.pack(">i", value)
        else:
            data = value.encode() if isinstance(value, str) else value
        out += bytes([tag]) + struct.pack(">H", len(title)) + title + struct.pack(">H", len(data)) + data
    return out


OPERATIONS = {0x0002: "Print-Job", 0x0004: "Validate-Job", 0x0005: "Create-Job", 0x0006: "Send-Document",
              0x0008: "Cancel-Job", 0x0009: "Get-Job-Attributes", 0x000A: "Get-Jobs", 0x000B:
              "Get-Printer-Attributes"}  # fmt: skip


@dataclass
class FakeIpp:
    """An IPP printer that misbehaves to order; speaks HTTP/1.1 itself, because it has to break off in the
    middle.
    """

    formats: tuple[str, ...] = ("application/pdf", "application/octet-stream")
    operations: tuple[int, ...] = (0x0002, 0x0004, 0x0005, 0x0006, 0x0008, 0x0009, 0x000A, 0x000B)
    status: dict[str, list[int]] = field(default_factory=dict)
    """Answers by operation, one after the other, the last one for ever; 0 where there is none."""
    reset_after: int | None = None
    """Octets of a document after which the connection is reset."""
    stall_after: int | None = None
    mute_after_document: bool = False
    """The document is taken, and nobody ever answers again."""
    accepting: bool = True
    job: bytes = attribute(0x23, "job-state", 9) + attribute(0x44, "job-state-reasons", "job-completed-successfully")
    """Attributes of the job after the document came."""
    forget: bool = False
    """No job history."""
    marker_message: str = ""
    documents: list[bytes] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    names: list[bytes] = field(default_factory=list)
    created: list[bytes] = field(default_factory=list)
    """Requests that made a job, attributes only."""
    on_document: Callable[[], object] = lambda: None
    """Called with every piece of a document."""
    muted: bool = False
    whole: bool = False
    """A document came to its end."""
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._request(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the backend hung up
        finally:
            writer.close()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        if self.muted:
            return False
        if b"100-continue" in head.lower():
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        chunks = _chunked(reader) if b"chunked" in head.lower() else _sized(reader, head)
        body, mine = b"", None
        async for chunk in chunks:
            body += chunk
            if mine is None and len(body) > 4 and OPERATIONS.get(body[3]) in {"Print-Job", "Send-Document"}:
                self.documents.append(b"")
                mine = len(self.documents) - 1
            if mine is None:
                continue
            self.on_document()
            document = body[_end_of_attributes(body) :]
            self.documents[mine] = document
            if self.reset_after is not None and len(document) >= self.reset_after:
                reset(writer)
                return False
            if self.stall_after is not None and len(document) >= self.stall_after:
                await asyncio.Event().wait()
        self.whole |= mine is not None
        operation = OPERATIONS[body[3]]
        self.asked.append(operation)
        if mine is not None and self.mute_after_document:
            self.muted = True
            await asyncio.Event().wait()
        answer = self._answer(operation, body)
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/ipp\r\nContent-Length: %d\r\n\r\n" % len(answer) + answer
        )
        await writer.drain()
        return True

    def _answer(self, operation: str, body: bytes) -> bytes:
        statuses = self.status.get(operation, [0])
        status = statuses.pop(0) if len(statuses) > 1 else statuses[0]
        out = body[:2] + struct.pack(">H", status) + body[4:8]
        out += (
            b"\1"
            + attribute(0x47, "attributes-charset", "utf-8")
            + attribute(0x48, "attributes-natural-language", "en")
        )
        if operation == "Get-Printer-Attributes" and status < 0x100:
            out += b"\4" + attribute(0x22, "printer-is-accepting-jobs", self.accepting)
            out += attribute(0x23, "printer-state", 3) + attribute(0x44, "printer-state-reasons", "none")
            out += attribute(0x49, "document-format-supported", *self.formats) if self.formats else b""
            out += attribute(0x23, "operations-supported", *self.operations)
            out += attribute(0x23, "finishings-supported", 3, 4, 9_999)  # pyipp has never heard of the last one
            out += attribute(0x33, "copies-supported", struct.pack(">ii", 1, 99))
            if self.marker_message:
                out += attribute(0x41, "marker-message", self.marker_message)
        if operation in {"Create-Job", "Print-Job"} and status < 0x100:
            self.created.append(body[: _end_of_attributes(body)])
            at = body.find(b"job-name")
            (length,) = struct.unpack_from(">H", body, at + 8)
            self.names.append(body[at + 10 : at + 10 + length])
        if operation in {"Create-Job", "Print-Job", "Send-Document"} and status < 0x100:
            out += b"\2" + attribute(0x21, "job-id", 7) + attribute(0x23, "job-state", 5)
        known = operation in {"Get-Job-Attributes", "Get-Jobs"} and self.names and not self.forget
        if known and status < 0x100:
            out += b"\2" + attribute(0x21, "job-id", 7) + attribute(0x42, "job-name", self.names[-1])
            out += self.job if self.whole or self.reset_after is not None else attribute(0x23, "job-state", 5)
        elif operation == "Get-Job-Attributes":
            out = out[:2] + struct.pack(">H", 0x0406) + out[4:]
        return out + b"\3"


async def _chunked(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while size := int(await reader.readuntil(b"\r\n"), 16):
        yield await reader.readexactly(size)
        await reader.readexactly(2)
    await reader.readexactly(2)


async def _sized(reader: asyncio.StreamReader, head: bytes) -> AsyncIterator[bytes]:
    lines = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    yield await reader.readexactly(int(lines[0].partition(b":")[2]) if lines else 0)


def _end_of_attributes(body: bytes) -> int:
    at = 8
    with contextlib.suppress(IndexError, struct.error):
        while body[at] != 3:
            if body[at] < 0x10:
                at += 1
                continue
            at += 3 + struct.unpack_from(">H", body, at + 1)[0]
            at += 2 + struct.unpack_from(">H", body, at)[0]
        return at + 1
    return len(body)


Fake = TypeVar("Fake", Lpd, FakeIpp)


@contextlib.asynccontextmanager
async def listening(printer: Fake) -> AsyncIterator[Fake]:
    """*printer* on a free port of 127.0.0.1 (or the one that it had before)."""
    sessions: set[asyncio.Task[None]] = set()

    async def session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        sessions.add(task)
        await printer.serve(reader, writer)

    server = await asyncio.start_server(session, "127.0.0.1", printer.port)
    printer.port = server.sockets[0].getsockname()[1]
    try:
        yield printer
    finally:
        server.close()
        for task in sessions:
            task.cancel()
        await asyncio.gather(*sessions, return_exceptions=True)
        await server.wait_closed()
