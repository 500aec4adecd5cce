"""What a node learns of its printers and tells its cloud: real printers, and a cloud that only listens."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.node.host import Host, Organisation, running
from tests.rig.printers import IppPrinter, LpdPrinter, RawPrinter
from tests.rig.processes import free_port

from pullprint.model.uri import PrinterUri
from pullprint.node import watch
from pullprint.node.client import CloudAway
from pullprint.node.memory import PrinterMemory
from pullprint.node.release import PROBE_FRESH
from pullprint.node.watch import Watch, described
from pullprint.printers.probe import Capabilities
from pullprint.wire.node import Printer, PrinterState, PrinterStates


class ListeningCloud:
    """Takes what it is told, as long as it is not away."""

    def __init__(self) -> None:
        self.told: list[PrinterState] = []
        self.away = False

    async def tell(self, path: str, message: PrinterStates) -> None:
        if self.away:
            raise CloudAway(cloud="cloud.example.com", reason="it is silent")
        assert path == "/node/v1/printers"
        self.told += PrinterStates.model_validate_json(message.model_dump_json()).printers

    def last(self, printer: str) -> PrinterState | None:
        return next((state for state in reversed(self.told) if state.printer == printer), None)


@pytest.fixture
def cloud() -> ListeningCloud:
    return ListeningCloud()


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "SOON", 0.0)
    monkeypatch.setattr(watch, "GATHER", 0.02)


@asynccontextmanager
async def watched(root: Path, cloud: ListeningCloud, printers: dict[str, str]) -> AsyncIterator[Host]:
    """A host that looks after *printers*."""
    host = Host(root, Organisation(), printers)
    async with running(host):
        await host.join()
        task = asyncio.create_task(Watch(host.site, host.releaser.printers, cloud, host.clock).run())  # type: ignore[arg-type]
        try:
            yield host
        finally:
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled(), task


async def until(what: Callable[[], Any], seconds: float = 20.0) -> Any:
    """The first true answer of *what*."""
    async with asyncio.timeout(seconds):
        while not (answer := what()):
            await asyncio.sleep(0.02)
    return answer


async def reconfigure(host: Host, printers: dict[str, str], revision: int) -> None:
    await host.site.accept(host.organisation.config(host.identity.node, printers, revision=revision))


def count_questions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The printers that were asked from now on."""
    asked: list[str] = []
    real = PrinterMemory.ask

    async def ask(memory: PrinterMemory, printer: Printer, uri: PrinterUri) -> Capabilities:
        asked.append(printer.id)
        return await real(memory, printer, uri)

    monkeypatch.setattr(PrinterMemory, "ask", ask)
    return asked


async def test_printers_tell_what_they_can_and_one_that_is_off_is_said_to_be_off(
    root: Path, cloud: ListeningCloud, sink: RawPrinter
) -> None:
    with IppPrinter() as real, LpdPrinter() as lpd:
        addresses = {
            "Real": real.uri, "Off": f"ipp://127.0.0.1:{free_port()}/ipp/print", "Raw": sink.uri, "Lpd": lpd.uri,
            "Dead": f"socket://127.0.0.1:{free_port()}", "Nowhere": "ipp://no-such-host.invalid/ipp/print",
            "Outside": "ipp://192.0.2.1/ipp/print",
        }  # fmt: skip
        async with watched(root, cloud, addresses):
            await until(lambda: {state.printer for state in cloud.told} == {"real", "off", "nowhere", "outside"})
    found = cloud.last("real")
    assert found and found.ready and found.trouble == "" and found.can
    assert found.can.sides == ("one-sided", "two-sided-long-edge", "two-sided-short-edge")
    assert found.can.color is True and found.can.copies == 999 and found.can.page_ranges is True
    assert "iso_a4_210x297mm" in found.can.media and not any("custom" in name for name in found.can.media)
    for name, word in {"off": "switched off", "nowhere": "name", "outside": "not allowed"}.items():
        state = cloud.last(name)
        assert state and not state.ready and state.can is None and word in state.trouble, state
        assert "127.0.0.1" not in state.trouble and "invalid" not in state.trouble, "addresses are nobody's business"
    assert sink.connections == 0, "a printer without words is left alone"


async def test_loaded_media_come_first(root: Path, cloud: ListeningCloud) -> None:
    ready = ("na_letter_8.5x11in", "iso_a5_148x210mm")
    media = ("iso_a4_210x297mm", "na_letter_8.5x11in", "custom_max_8.5x14in", "custom_min_3x5in", "tray-1", "auto")
    found = Capabilities(answers=True, checked=0.0, media=media, media_ready=ready, color_modes=("auto", "color"))
    view = described(found)
    assert view.media == ("na_letter_8.5x11in", "iso_a5_148x210mm", "iso_a4_210x297mm")
    assert view.color is True and view.copies == 1 and view.sides == () and not view.page_ranges
    assert described(Capabilities(answers=True, checked=0.0)).color is None
    hostile = Capabilities(answers=True, checked=0.0, copies=-5, media=tuple(f"x_{n}x1mm" for n in range(500)))
    assert described(hostile).copies == 1 and len(described(hostile).media) == 64


async def test_only_what_changed_is_told_until_the_cloud_is_connected_anew(
    root: Path, cloud: ListeningCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "EVERY", 0.2)
    monkeypatch.setattr(watch, "AGAIN", 0.0)
    asked = count_questions(monkeypatch)
    with IppPrinter() as one, IppPrinter() as other:
        async with watched(root, cloud, {"One": one.uri, "Other": other.uri}) as host:
            await until(lambda: len(cloud.told) == 2)
            rounds = len(asked)
            await until(lambda: len(asked) > rounds + 4)
            assert len(cloud.told) == 2, "the same thing was told again"
            other.stop()
            await until(lambda: len(cloud.told) == 3)
            assert (cloud.told[2].printer, cloud.told[2].ready) == ("other", False)
            await reconfigure(host, host.printers, 1)  # what every reconnect begins with
            await until(lambda: len(cloud.told) == 5)
            assert {state.printer for state in cloud.told[3:]} == {"one", "other"}


async def test_the_same_is_told_again_before_the_cloud_forgets_it(
    root: Path, cloud: ListeningCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "EVERY", 0.1)
    monkeypatch.setattr(watch, "AGAIN", 0.0)
    monkeypatch.setattr(watch, "REPEAT", 0.5)
    asked = count_questions(monkeypatch)
    with IppPrinter() as one:
        async with watched(root, cloud, {"One": one.uri}):
            await until(lambda: len(cloud.told) >= 3)
    assert len(asked) > 5 >= len(cloud.told)


async def test_what_could_not_be_told_is_told_later(
    root: Path, cloud: ListeningCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = count_questions(monkeypatch)
    cloud.away = True
    with IppPrinter() as one:
        async with watched(root, cloud, {"One": one.uri}) as host:
            await until(lambda: host.releaser.printers.state("one").capabilities)
            await asyncio.sleep(0.2)
            cloud.away = False
            await reconfigure(host, host.printers, 1)
            await until(lambda: cloud.last("one"))
    assert len(asked) == 1, "it had just answered"


async def test_a_release_and_the_watch_remember_the_same(root: Path, cloud: ListeningCloud) -> None:
    with IppPrinter() as printer:
        async with watched(root, cloud, {"Printer": printer.uri}) as host:
            await until(lambda: cloud.last("printer"))
            known = host.site.printer("printer")
            seen = host.releaser.printers.fresh(known, PROBE_FRESH)
            assert seen is not None
            record = await host.hold(b"%PDF-1.4\n", content_type="text/x-unknown")
            await host.releaser.execute(host.order(record, "Printer"))
            assert host.releaser.printers.fresh(known, PROBE_FRESH) is seen, "it was asked again"
            assert "does not take documents" in (await host.record(record.id)).sentence
            printer.stop()
            host.releaser.printers.doubt("printer")
            await host.releaser.execute(host.order(record, "Printer", ballot=2))
            assert "cannot print now" in (await host.record(record.id)).sentence
            state = await until(lambda: (last := cloud.last("printer")) and not last.ready and last)
            assert state.trouble, "what the release found out is told too"


async def test_an_answer_from_before_a_failure_is_not_trusted_by_the_next_release(host: Host) -> None:
    memory, printer = PrinterMemory(host.clock, host.root), host.site.printer("sink")
    now = host.clock.monotonic()
    good, bad = Capabilities(answers=True, checked=0.0), Capabilities(answers=False, checked=0.0)
    memory.learn(printer, good, now)
    assert memory.fresh(printer, PROBE_FRESH) is good
    memory.doubt("sink")
    assert memory.fresh(printer, PROBE_FRESH) is None
    memory.learn(printer, good, now)
    assert memory.fresh(printer, PROBE_FRESH) is None, "asked before the doubt, answered after it"
    memory.learn(printer, good, host.clock.monotonic() + 1)
    assert memory.fresh(printer, PROBE_FRESH) is good
    memory.learn(printer, bad, host.clock.monotonic())
    assert memory.state("sink").capabilities is good, "a later question is answered already"
    memory.learn(printer, bad, host.clock.monotonic() + 2)
    assert memory.fresh(printer, PROBE_FRESH) is None
    moved = printer.model_copy(update={"uri": "socket://127.0.0.1:1"})
    memory.learn(printer, good, host.clock.monotonic() + 3)
    assert memory.fresh(moved, PROBE_FRESH) is None, "another address is another printer"


async def test_many_printers_are_asked_a_few_at_a_time(
    root: Path, cloud: ListeningCloud, sink: RawPrinter, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once, most = 0, 0

    async def slow(ask: Callable[..., Awaitable[Capabilities]], *args: Any) -> Capabilities:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.02)
        try:
            return await ask(*args)
        finally:
            at_once -= 1

    real = PrinterMemory.ask
    monkeypatch.setattr(PrinterMemory, "ask", lambda *args: slow(real, *args))
    async with watched(root, cloud, {f"P{n}": f"ipp://127.0.0.1:{free_port()}/ipp/print" for n in range(30)}):
        await until(lambda: len(cloud.told) == 30)
    assert most == watch.FEW
