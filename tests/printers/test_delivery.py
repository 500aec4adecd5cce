"""What goes in comes out: bytes, options, copies; and it does not take longer than the bare backend."""

import asyncio
import contextlib
import dataclasses
import os
import shutil
import statistics
import struct
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.printers.conftest import BACKENDS, TAG, Sender
from tests.printers.fakes import FakeIpp, Lpd, listening
from tests.rig.printers import IppPrinter, LpdPrinter, RawPrinter

from pullprint.printers.backend import Backend, command
from pullprint.printers.outcome import Phase, Reason, Result

PDF = b"%PDF-1.4\n" + os.urandom(300_000)


async def test_bytes_and_options_arrive_at_a_real_ipp_printer(send: Sender) -> None:
    wanted = {"sides": "two-sided-long-edge", "media": "A4", "print-quality": "5", "print-color-mode": "color",
              "orientation-requested": "4", "x-nobody-heard-of": 'a "quoted" \\ value'}  # fmt: skip
    with IppPrinter() as printer:
        outcome = await send(printer.uri, PDF, copies=3, options=wanted)
        (printed,) = printer.documents()
    assert outcome.result is Result.DELIVERED, outcome
    assert printed.document == PDF
    assert outcome.bytes_sent == len(PDF)
    assert outcome.printer_job_id == 1
    assert outcome.testimony["job-state"] == "completed"
    arrived = printed.attributes
    assert arrived["IPP_COPIES"] == "3"
    assert arrived["IPP_SIDES"] == "two-sided-long-edge"
    assert arrived["IPP_MEDIA"] == "iso_a4_210x297mm"
    assert arrived["IPP_PRINT_QUALITY"] == "high"
    assert arrived["IPP_PRINT_COLOR_MODE"] == "color"
    assert arrived["IPP_ORIENTATION_REQUESTED"] == "landscape"
    assert arrived["IPP_X_NOBODY_HEARD_OF"] == 'a \\"quoted\\" \\\\ value'  # as ippAttributeString(3) writes it


async def test_ranges_finishings_and_collections_keep_their_types(send: Sender) -> None:
    wanted = {"page-ranges": "1-4,7", "finishings": "4,5", "number-up": "2", "output-bin": "face-up",
              "media-col": "{media-size={x-dimension=21000 y-dimension=29700} media-source=main}"}  # fmt: skip
    async with listening(FakeIpp()) as printer:
        outcome = await send(f"ipp://127.0.0.1:{printer.port}/ipp/print", PDF, options=wanted)
    assert outcome.result is Result.DELIVERED
    request = printer.created[-1]
    assert (
        b"\x33\0\x0bpage-ranges\0\x08" + struct.pack(">ii", 1, 4) + b"\x33\0\0\0\x08" + struct.pack(">ii", 7, 7)
        in request
    )
    assert b"\x23\0\x0afinishings\0\x04" + struct.pack(">i", 4) + b"\x23\0\0\0\x04" + struct.pack(">i", 5) in request
    assert b"\x21\0\x09number-up\0\x04" + struct.pack(">i", 2) in request
    assert b"\x44\0\x0aoutput-bin\0\x07face-up" in request
    assert b"\x34\0\x09media-col\0\0" in request
    assert struct.pack(">i", 21_000) in request


async def test_nobody_s_name_and_no_title_reach_the_printer(send: Sender) -> None:
    theirs = {
        "job-name": "Kündigung.pdf",
        "document-name": "Kündigung.pdf",
        "requesting-user-name": "anna",
        "job-originating-user-name": "anna",
        "job-hold-until": "indefinite",
        "document-format": "text/plain",
    }
    async with listening(FakeIpp()) as printer:
        outcome = await send(f"ipp://127.0.0.1:{printer.port}/ipp/print", PDF, options=theirs)
    assert outcome.result is Result.DELIVERED
    assert printer.names == [TAG.encode()]
    seen = b"".join(printer.created)
    assert all(word not in seen for word in (b"ndigung", b"anna", b"indefinite", b"text/plain"))


async def test_an_option_cannot_smuggle_another_one_in(send: Sender) -> None:
    tricks = {"sides": "one-sided\nATTR: x", "media": 'A4" job-hold-until="indefinite', "a b": "c", "x": "y copies=99"}
    async with listening(FakeIpp()) as printer:
        await send(f"ipp://127.0.0.1:{printer.port}/ipp/print", PDF, options=tricks)
    assert b"\0\x0ejob-hold-until" not in printer.created[-1]
    assert b"\0\x06copies" not in printer.created[-1]
    assert b"\0\x05sides" not in printer.created[-1]


async def test_copies_without_any_other_option_still_arrive(send: Sender) -> None:
    async with listening(FakeIpp()) as printer:
        await send(f"ipp://127.0.0.1:{printer.port}/ipp/print", PDF, copies=2)
        assert printer.documents == [PDF]
    assert printer.created[-1].count(b"\0\x06copies\0\x04" + struct.pack(">i", 2)) == 1


async def test_a_document_that_the_printer_refuses_after_it_made_the_job_is_taken_back(send: Sender) -> None:
    with IppPrinter() as printer:
        async with asyncio.timeout(10):
            outcome = await send(printer.uri, b"PK\x05\x06" + bytes(88), content_type="application/octet-stream")
        assert (outcome.result, outcome.reason) == (Result.NOTHING_SENT, Reason.PRINTER_REFUSED)
        assert outcome.testimony["job-state"] == "canceled"
        assert (await send(printer.uri, PDF)).result is Result.DELIVERED, "nothing of it stands in the way"


async def test_options_that_a_real_printer_cannot_do_are_named_and_nothing_is_sent(send: Sender) -> None:
    with IppPrinter() as printer:
        outcome = await send(printer.uri, PDF, options={"sides": "three-sided"})
        assert printer.documents() == []
    assert (outcome.result, outcome.reason) == (Result.NOTHING_SENT, Reason.OPTIONS_REFUSED)


async def test_raw_copies_for_ipp_travel_as_bytes(send: Sender) -> None:
    async with listening(FakeIpp()) as printer:
        outcome = await send(
            f"ipp://127.0.0.1:{printer.port}/ipp/print", b"\x1bE" * 100, content_type="application/vnd.hp-pcl", copies=2
        )
        assert printer.documents == [b"\x1bE" * 200]
    assert outcome.result is Result.DELIVERED


async def test_a_printer_without_create_job_gets_the_whole_document(send: Sender) -> None:
    async with listening(FakeIpp(operations=(0x0002, 0x0004, 0x0009, 0x000A, 0x000B))) as printer:
        outcome = await send(f"ipp://127.0.0.1:{printer.port}/ipp/print", PDF)
        assert printer.documents == [PDF]
    assert outcome.result is Result.DELIVERED


async def test_a_printer_without_a_memory_has_still_printed(send: Sender) -> None:
    async with listening(FakeIpp(forget=True)) as printer:
        outcome = await send(f"ipp://127.0.0.1:{printer.port}/ipp/print", PDF)
    assert (outcome.result, outcome.reason) == (Result.DELIVERED, Reason.DONE)


@pytest.mark.parametrize("copies", [1, 3])
async def test_a_socket_printer_gets_the_bytes_and_nothing_else(send: Sender, copies: int) -> None:
    with RawPrinter() as printer:
        outcome = await send(printer.uri, PDF, copies=copies, options={"sides": "two-sided-long-edge"})
        assert await asyncio.to_thread(printer.wait_received, 1) == [PDF * copies]
    assert (outcome.result, outcome.bytes_sent) == (Result.DELIVERED, len(PDF) * copies)
    assert send.firsts == 1


@pytest.mark.parametrize("copies", [1, 2])
async def test_an_lpd_printer_gets_the_bytes_and_no_name(send: Sender, copies: int) -> None:
    with LpdPrinter() as printer:
        outcome = await send(printer.uri, PDF, copies=copies)
        assert printer.received == [PDF * copies]
        assert f"J{TAG.replace('-', '_')}\n" in printer.controls[0]
        assert "Ppullprint\n" in printer.controls[0]
    assert outcome.result is Result.DELIVERED


async def test_lpd_can_stream_without_a_spool(send: Sender) -> None:
    async with listening(Lpd()) as printer:
        outcome = await send(f"lpd://127.0.0.1:{printer.port}/lp?mode=stream", PDF)
        async with asyncio.timeout(5):  # nothing is acknowledged in this mode, so the backend ends first
            while printer.documents != [PDF]:
                await asyncio.sleep(0.01)
    assert outcome.result is Result.DELIVERED


async def test_a_backend_that_may_only_be_read_is_run_by_the_loader(send: Sender) -> None:
    send.backend_dir = send.spool.parent / "backends"
    send.backend_dir.mkdir()
    shutil.copy(BACKENDS / "lpd", send.backend_dir / "lpd")
    (send.backend_dir / "lpd").chmod(0o444)
    assert "ld-linux" in " ".join(await asyncio.to_thread(command, send.backend_dir / "lpd"))
    with LpdPrinter() as printer:
        assert (await send(printer.uri, PDF)).result is Result.DELIVERED
        assert printer.received == [PDF]


async def test_a_full_spool_is_found_before_anything_is_sent(send: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(send.spool)._replace(free=1_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    outcome = await send("lpd://127.0.0.1:515/lp", PDF)
    assert (outcome.result, outcome.reason, send.firsts) == (Result.NOTHING_SENT, Reason.SPOOL_FULL, 0)


async def test_a_connected_lpd_backend_cannot_open_a_second_connection(tmp_path: Path) -> None:
    async with listening(Lpd(refuse="data")) as printer:
        environment = {"DEVICE_URI": f"lpd://127.0.0.1:{printer.port}/lp", "LC_ALL": "C.UTF-8", "TMPDIR": str(tmp_path)}
        async with Backend.start("lpd", [str(BACKENDS / "lpd"), "1", "u", "t", "1", ""], environment) as backend:
            assert await backend.write(PDF, 5)
            backend.close_stdin()
            assert await backend.until(lambda: backend.witness.broken, 5)
            limits = Path(f"/proc/{backend.pid}/limits").read_text()
            assert [line.split()[3:5] for line in limits.splitlines() if line.startswith("Max open files")] == [
                ["0", "0"]
            ]


async def test_progress_is_told(send: Sender) -> None:
    with IppPrinter(seconds=0.5) as printer:
        await send(printer.uri, PDF)
    phases = [progress.phase for progress in send.progress]
    assert phases[0] is Phase.CONNECTING
    assert Phase.SENDING in phases
    assert phases[-1] is Phase.PRINTING
    assert max(progress.bytes_sent for progress in send.progress) == len(PDF)


async def test_ipps_sends_over_tls_and_asks_over_tls(send: Sender) -> None:
    # As an unprivileged user, because libcups keeps root's certificates in /etc/cups/ssl.
    home = Path(tempfile.mkdtemp(prefix="pullprint-ipps-"))
    try:
        home.chmod(0o777)
        wrapper = home / "ipps"
        drop = "setpriv --reuid=65534 --regid=65534 --clear-groups" if os.geteuid() == 0 else ""
        wrapper.write_text("#!/bin/sh\n# DEBUG: Sending file %d using, DEBUG: Sending file using HTTP/1.1\n"
                           f"HOME={home} exec {drop} {BACKENDS / 'ipps'} \"$@\"\n")  # fmt: skip
        wrapper.chmod(0o755)
        send.backend_dir = home
        with IppPrinter() as printer:
            outcome = await send(printer.uri.replace("ipp:", "ipps:"), PDF)
            assert [printed.document for printed in printer.documents()] == [PDF]
        assert outcome.result is Result.DELIVERED
        assert (home / ".cups" / "ssl" / "localhost.crt").exists()
    finally:
        shutil.rmtree(home)


async def test_a_large_document_is_never_all_in_memory(send: Sender) -> None:
    waiting = 0
    most = 0

    async def document() -> AsyncIterator[bytes]:
        nonlocal waiting, most
        for _ in range(500):
            waiting += 65_536
            most = max(most, waiting)
            yield bytes(65_536)
            waiting -= 65_536

    with RawPrinter() as printer:
        outcome = await send(printer.uri, document)
        (received,) = await asyncio.to_thread(printer.wait_received, 1)
    assert (outcome.result, len(received), most) == (Result.DELIVERED, 500 * 65_536, 65_536)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["socket", "ipp"])
async def test_little_time_is_added_to_the_bare_backend(send: Sender, scheme: str) -> None:
    send.limits = dataclasses.replace(send.limits, finish=10)
    bare, ours = [], []
    for _ in range(15):
        bare.append(await _first_byte(scheme, None))
        ours.append(await _first_byte(scheme, send))
    added = statistics.median(ours) - statistics.median(bare)
    print(f"{scheme}: bare {statistics.median(bare) * 1e3:.2f} ms, deliver() {statistics.median(ours) * 1e3:.2f} ms")
    assert added < 0.015  # 5 ms on an idle machine; tests share theirs


async def _first_byte(scheme: str, send: Sender | None) -> float:
    """Seconds from the call to the first octet of a document at the printer."""
    loop = asyncio.get_running_loop()
    arrived: asyncio.Future[float] = loop.create_future()

    async def raw(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        arrived.set_result(loop.time())
        while await reader.read(65_536):
            pass
        writer.close()

    fake = FakeIpp(on_document=lambda: arrived.done() or arrived.set_result(loop.time()))
    async with contextlib.AsyncExitStack() as stack:
        if scheme == "ipp":
            await stack.enter_async_context(listening(fake))
            uri = f"ipp://127.0.0.1:{fake.port}/ipp/print"
        else:
            server = await stack.enter_async_context(await asyncio.start_server(raw, "127.0.0.1", 0))
            uri = f"socket://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        started = loop.time()
        if send is not None:
            assert (await send(uri, PDF[:4_000])).result is Result.DELIVERED
        else:
            await _bare(scheme, uri)
        return await arrived - started


async def _bare(scheme: str, uri: str) -> None:
    environment = {
        "DEVICE_URI": uri + ("?waitjob=false" if scheme == "ipp" else ""),
        "CONTENT_TYPE": "application/pdf",
        "FINAL_CONTENT_TYPE": "application/pdf",
        "LC_ALL": "C.UTF-8",
    }
    async with Backend.start(scheme, [str(BACKENDS / scheme), "1", "u", "t", "1", ""], environment) as backend:
        assert await backend.write(PDF[:4_000], 5)
        backend.close_stdin()
        assert await backend.until(lambda: backend.exit is not None, 5)
