"""A delivery with everything filled in that a test does not care about, and a look for what it leaves behind."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.rig.printers import IppPrinter

from pullprint.base.clock import SystemClock
from pullprint.model.uri import check_uri
from pullprint.printers.delivery import DeliveryRequest, Document, Limits, Prepared, deliver
from pullprint.printers.outcome import Outcome, Progress

BACKENDS = Path("/usr/lib/cups/backend")
QUICK = Limits(connect=3.0, refused=1.2, stall=1.0, finish=5.0, silence=0.6)
TAG = "tag-6f1c"


async def _nothing() -> None:
    pass


@dataclass
class Sender:
    """`deliver` with defaults; remembers what was called."""

    spool: Path
    firsts: int = 0
    progress: list[Progress] = field(default_factory=list)
    backend_dir: Path = BACKENDS
    limits: Limits = QUICK
    on_first_byte: Callable[[], Awaitable[None]] = _nothing

    async def __call__(
        self,
        uri: str,
        data: bytes | Document,
        *,
        content_type: str = "application/pdf",
        copies: int = 1,
        options: dict[str, str] | None = None,
    ) -> Outcome:
        async def first() -> None:
            await self.on_first_byte()
            self.firsts += 1

        size = len(data) if isinstance(data, bytes) else None
        request = DeliveryRequest(TAG, content_type, copies, options or {}, size)
        return await deliver(
            await Prepared(check_uri(uri), request, spool=self.spool, limits=self.limits).load(self.backend_dir),
            pieces(data) if isinstance(data, bytes) else data,
            on_first_byte=first,
            on_progress=self.progress.append,
            clock=SystemClock(),
        )


def pieces(data: bytes, size: int = 65_536) -> Document:
    """A document that comes in pieces, as the vault gives it."""

    async def document() -> AsyncIterator[bytes]:
        for start in range(0, len(data), size):
            yield data[start : start + size]

    return document


@pytest.fixture
async def send(tmp_path: Path) -> AsyncIterator[Sender]:
    """Delivers; afterwards no backend may run and no plain text may lie about."""
    spool = tmp_path / "spool"
    spool.mkdir()
    yield Sender(spool)
    assert list(spool.iterdir()) == []
    assert await asyncio.to_thread(_children) == []


def _children() -> list[str]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = stat.read_text().partition("(")[2].rpartition(")")
        except OSError:
            continue
        if rest.split()[1] == str(os.getpid()) and name in {"ipp", "ipps", "socket", "lpd", "setpriv"}:
            found.append(name)
    return found


class AbortingPrinter(IppPrinter):
    """Takes a document, and then gives its job up."""

    def __init__(self) -> None:
        super().__init__()
        command = self._root / "command"
        command.write_text(command.read_text() + "exit 3\n")
