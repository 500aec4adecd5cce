"""A joined node with a socket printer, in this process."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.node.host import Host, Organisation, running
from tests.rig.printers import RawPrinter


@pytest.fixture
def root() -> Iterator[Path]:
    """Short, because Unix sockets lie in it."""
    path = Path(tempfile.mkdtemp(prefix="pullprint-host-", dir="/dev/shm"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def sink() -> Iterator[RawPrinter]:
    with RawPrinter() as printer:
        yield printer


@pytest.fixture
async def host(root: Path, sink: RawPrinter) -> AsyncIterator[Host]:
    host = Host(root, Organisation(), {"Sink": sink.uri})
    async with running(host):
        await host.join()
        yield host


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """No multicast: hosts find each other by the roster alone."""

    class Silent:
        def __init__(self, *_: object) -> None: ...

        async def run(self) -> None:
            await asyncio.Event().wait()

    monkeypatch.setattr("pullprint.node.mesh.Discovery", Silent)
