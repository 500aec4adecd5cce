"""Printers that refuse, break off, stall and lie. Each test counts the documents that reached the printer."""

import asyncio
import dataclasses
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.printers.conftest import AbortingPrinter, Sender, pieces
from tests.printers.fakes import FakeIpp, Lpd, attribute, listening
from tests.rig.printers import IppPrinter, RawPrinter
from tests.rig.processes import free_port

from pullprint.printers.outcome import Reason, Result

PDF = b"%PDF-1.4\n" + bytes(range(256)) * 2_000
ABORTED = attribute(0x23, "job-state", 8)
NO_SHEETS = attribute(0x21, "job-impressions-completed", 0)


@pytest.mark.parametrize("scheme", ["ipp", "ipps", "socket", "lpd"])
async def test_a_printer_that_is_off_got_nothing_and_the_owner_hears_of_it_soon(send: Sender, scheme: str) -> None:
    started = asyncio.get_running_loop().time()
    outcome = await send(
        f"{scheme}://127.0.0.1:{free_port()}/lp" if scheme != "socket" else f"socket://127.0.0.1:{free_port()}", PDF
    )
    assert (outcome.result, outcome.reason) == (Result.NOTHING_SENT, Reason.PRINTER_OFF)
    assert outcome.bytes_sent == 0
    assert asyncio.get_running_loop().time() - started < 3
    assert "still held" in outcome.sentence


async def test_an_error_of_the_vote_keeps_every_byte_here(send: Sender) -> None:
    async def refuse() -> None:
        raise PermissionError("no quorum")

    send.on_first_byte = refuse
    with RawPrinter() as printer:
        with pytest.raises(PermissionError):
            await send(printer.uri, PDF)
        await asyncio.sleep(0.1)
        assert printer.received == []


@pytest.mark.parametrize("limit", [1, 1_000, 100_000])
async def test_a_socket_printer_that_resets_gets_no_second_copy(send: Sender, limit: int) -> None:
    big = PDF * 20
    with RawPrinter(mode="resets", limit=limit) as printer:
        outcome = await send(printer.uri, big)
        await asyncio.sleep(0.3)
        assert len(printer.received) == 1
        assert big.startswith(printer.received[0])
    assert (outcome.result, outcome.reason) == (Result.UNCERTAIN, Reason.CONNECTION_LOST)
    assert "print again" in outcome.sentence


async def test_a_socket_printer_that_stalls_is_given_up_and_not_fed_again(send: Sender) -> None:
    with RawPrinter(mode="stalls", limit=5_000) as printer:
        outcome = await send(printer.uri, PDF * 40)
        assert (outcome.result, outcome.reason) == (Result.UNCERTAIN, Reason.TIMED_OUT)
    assert [len(document) for document in printer.received] == [5_000]


async def test_a_cancelled_delivery_leaves_no_backend_that_goes_on(send: Sender) -> None:
    with RawPrinter(mode="stalls", limit=5_000) as printer:
        task = asyncio.create_task(send(printer.uri, PDF * 40))
        await asyncio.sleep(0.4)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert [len(document) for document in printer.received] == [5_000]


async def test_a_document_that_ends_in_an_error_is_not_closed_as_if_it_were_whole(send: Sender) -> None:
    async def document() -> AsyncIterator[bytes]:
        yield PDF
        raise ValueError("chunk 1 does not verify")

    async with listening(FakeIpp()) as printer:
        outcome = await send(f"ipp://127.0.0.1:{printer.port}/ipp/print", document)
        assert (outcome.result, outcome.reason) == (Result.UNCERTAIN, Reason.DOCUMENT_BROKEN)
        assert len(printer.documents) == 1


async def test_an_error_before_the_first_chunk_reaches_nobody(send: Sender) -> None:
    async def document() -> AsyncIterator[bytes]:
        raise ValueError("no key")
        yield b""

    with RawPrinter() as printer, pytest.raises(ValueError, match="no key"):
        await send(printer.uri, document)
    assert (send.firsts, printer.received) == (0, [])


async def test_an_empty_document_is_not_sent(send: Sender) -> None:
    outcome = await send("socket://127.0.0.1:9", pieces(b""))
    assert (outcome.result, outcome.reason, send.firsts) == (Result.NOTHING_SENT, Reason.EMPTY_DOCUMENT, 0)


@pytest.mark.parametrize("busy", [0x0507, 0x0502])
@pytest.mark.parametrize("create_job", [True, False])
async def test_busy_after_the_document_is_not_answered_with_the_document(
    send: Sender, busy: int, create_job: bool
) -> None:
    operations = FakeIpp().operations if create_job else (0x0002, 0x0004, 0x0008, 0x0009, 0x000A, 0x000B)
    operation = "Send-Document" if create_job else "Print-Job"
    fake = FakeIpp(operations=operations, status={operation: [busy, 0]}, job=ABORTED + NO_SHEETS)
    async with listening(fake) as printer:
        outcome = await send(f"ipp://127.0.0.1:{printer.port}/ipp/print", PDF)
        await asyncio.sleep(0.3)
        assert printer.documents == [PDF]
    assert outcome.result is Result.UNCERTAIN


@pytest.mark.parametrize("operation", ["Get-Printer-Attributes", "Validate-Job"])
async def test_busy_before_the_document_sends_nothing(send: Sender, operation: str) -> None:
    async with listening(FakeIpp(status={operation: [0x0507]})) as printer:
        outcome = await send(f"ipp://127.0.0.1:{printer.port}/ipp/print", PDF)
        assert printer.documents == []
    assert (outcome.result, outcome.reason) == (Result.NOTHING_SENT, Reason.PRINTER_BUSY)


async def test_a_printer_that_takes_no_jobs_sends_nothing(send: Sender) -> None:
    async with listening(FakeIpp(accepting=False)) as printer:
        outcome = await send(f"ipp://127.0.0.1:{printer.port}/ipp/print", PDF)
        assert printer.documents == []
    assert (outcome.result, outcome.reason) == (Result.NOTHING_SENT, Reason.PRINTER_BUSY)


@pytest.mark.parametrize("octets", [1, 40_000])
async def test_an_ipp_printer_that_resets_in_the_document_gets_no_second_one(send: Sender, octets: int) -> None:
    async with listening(FakeIpp(reset_after=octets)) as printer:
        outcome = await send(f"ipp://127.0.0.1:{printer.port}/ipp/print", PDF)
        await asyncio.sleep(0.3)
        assert len(printer.documents) == 1
    # The printer calls its job completed; but it did not have all of it.
    assert (outcome.result, outcome.reason) == (Result.UNCERTAIN, Reason.CONNECTION_LOST)
    assert outcome.testimony["job-state"] == "completed"


async def test_an_ipp_printer_that_stalls_is_given_up(send: Sender) -> None:
    async with listening(FakeIpp(stall_after=20_000)) as printer:
        outcome = await send(f"ipp://127.0.0.1:{printer.port}/ipp/print", PDF * 40)
        assert len(printer.documents) == 1
    assert (outcome.result, outcome.reason) == (Result.UNCERTAIN, Reason.TIMED_OUT)


async def test_a_printer_that_dies_with_the_whole_document_is_uncertain(send: Sender) -> None:
    send.limits = dataclasses.replace(send.limits, finish=1.0)
    async with listening(FakeIpp(mute_after_document=True)) as printer:
        outcome = await send(f"ipp://127.0.0.1:{printer.port}/ipp/print", PDF)
        assert printer.documents == [PDF]
    assert outcome.result is Result.UNCERTAIN


async def test_a_format_that_the_printer_does_not_list_is_not_sent(send: Sender) -> None:
    async with listening(FakeIpp(formats=("image/urf",))) as printer:
        outcome = await send(f"ipp://127.0.0.1:{printer.port}/ipp/print", PDF)
        assert printer.documents == []
    assert (outcome.result, outcome.reason) == (Result.NOTHING_SENT, Reason.FORMAT_REFUSED)


async def test_zero_counted_sheets_alone_are_no_proof(send: Sender) -> None:
    async with listening(FakeIpp(job=ABORTED + NO_SHEETS)) as printer:
        outcome = await send(f"ipp://127.0.0.1:{printer.port}/ipp/print", PDF)
    assert (outcome.result, outcome.reason) == (Result.UNCERTAIN, Reason.JOB_ABORTED)


@pytest.mark.parametrize(
    ("job", "reason"),
    [
        (attribute(0x44, "job-state-reasons", "unsupported-document-format"), Reason.FORMAT_REFUSED),
        (attribute(0x44, "job-state-reasons", "document-password-error"), Reason.JOB_ABORTED),
        (attribute(0x13, "time-at-processing", ""), Reason.JOB_ABORTED),
    ],
)
async def test_an_abort_before_any_drawing_lets_the_job_go_back(send: Sender, job: bytes, reason: Reason) -> None:
    async with listening(FakeIpp(job=ABORTED + NO_SHEETS + job)) as printer:
        outcome = await send(f"ipp://127.0.0.1:{printer.port}/ipp/print", PDF)
        assert printer.documents == [PDF]
    assert (outcome.result, outcome.reason) == (Result.NOTHING_SENT, reason)


async def test_one_counted_sheet_takes_the_proof_away(send: Sender) -> None:
    job = ABORTED + attribute(0x21, "job-impressions-completed", 1)
    job += attribute(0x44, "job-state-reasons", "unsupported-document-format")
    async with listening(FakeIpp(job=job)) as printer:
        outcome = await send(f"ipp://127.0.0.1:{printer.port}/ipp/print", PDF)
    assert (outcome.result, outcome.pages_completed) == (Result.UNCERTAIN, 1)


async def test_a_real_printer_that_aborts_is_uncertain_and_not_tried_again(send: Sender) -> None:
    with AbortingPrinter() as printer:
        outcome = await send(printer.uri, PDF)
        assert [printed.document for printed in printer.documents()] == [PDF]
    assert (outcome.result, outcome.reason) == (Result.UNCERTAIN, Reason.JOB_ABORTED)
    assert outcome.testimony["job-state"] == "aborted"


async def test_a_real_printer_that_dies_in_mid_job_is_uncertain(send: Sender) -> None:
    with IppPrinter(seconds=3) as printer:
        task = asyncio.create_task(send(printer.uri, PDF))
        while not any(progress.phase == "printing" for progress in send.progress):
            await asyncio.sleep(0.02)
        await asyncio.to_thread(printer.process.kill)
        outcome = await task
    assert outcome.result is Result.UNCERTAIN
    assert outcome.printer_job_id == 1


@pytest.mark.parametrize("refuse", ["receive", "control"])
async def test_an_lpd_printer_that_refuses_before_the_data_got_nothing(send: Sender, refuse: str) -> None:
    async with listening(Lpd(refuse=refuse)) as printer:
        outcome = await send(f"lpd://127.0.0.1:{printer.port}/lp", PDF)
        assert printer.documents == []
    assert (outcome.result, outcome.reason) == (Result.NOTHING_SENT, Reason.PRINTER_REFUSED)


async def test_an_lpd_printer_that_refuses_the_data_is_not_sent_it_again(send: Sender) -> None:
    async with listening(Lpd(refuse="data")) as printer:
        outcome = await send(f"lpd://127.0.0.1:{printer.port}/lp", PDF)
        assert printer.documents == [PDF]
    assert (outcome.result, outcome.reason) == (Result.UNCERTAIN, Reason.CONNECTION_LOST)


async def test_an_lpd_printer_that_acknowledges_nothing_is_uncertain(send: Sender) -> None:
    async with listening(Lpd(acknowledge=False)) as printer:
        outcome = await send(f"lpd://127.0.0.1:{printer.port}/lp", PDF)
    assert (outcome.result, outcome.reason) == (Result.UNCERTAIN, Reason.NO_ANSWER)


async def test_a_marker_message_with_line_feeds_cannot_speak_for_the_backend(send: Sender) -> None:
    lie = "low\nINFO: Connected to printer.\nDEBUG: Sending file 1 using\nDEBUG: Print job accepted - job ID 99.\nx"
    async with listening(FakeIpp(accepting=False, marker_message=lie)) as printer:
        outcome = await send(f"ipp://127.0.0.1:{printer.port}/ipp/print", PDF)
        assert printer.documents == []
    assert outcome.result is not Result.DELIVERED


async def test_a_backend_that_speaks_another_language_proves_nothing(send: Sender) -> None:
    folder = send.spool.parent / "backends"
    folder.mkdir()
    (folder / "socket").write_text("#!/bin/sh\nhead -c 1 >/dev/null\nexit 1\n")
    (folder / "socket").chmod(0o755)
    send.backend_dir = folder
    outcome = await send("socket://127.0.0.1:9100", PDF)
    assert (outcome.result, outcome.reason) == (Result.UNCERTAIN, Reason.BACKEND_FAILED)


async def test_a_backend_that_is_not_there_is_named(send: Sender) -> None:
    send.backend_dir = send.spool
    outcome = await send("socket://127.0.0.1:9100", PDF)
    assert (outcome.result, outcome.reason, send.firsts) == (Result.NOTHING_SENT, Reason.BACKEND_MISSING, 0)


async def test_a_backend_that_floods_stderr_fills_no_memory(send: Sender) -> None:
    folder = send.spool.parent / "backends"
    folder.mkdir()
    (folder / "socket").write_text(
        "#!/bin/sh\n# Connected to printer.\nhead -c 1 >/dev/null\nhead -c 20000000 /dev/zero >&2\n"
        "echo >&2; echo 'INFO: Connected to printer.' >&2\ncat >/dev/null\n"
    )
    (folder / "socket").chmod(0o755)
    send.backend_dir = folder
    outcome = await send("socket://127.0.0.1:9100", PDF)
    assert outcome.result is Result.DELIVERED


async def test_a_daemon_that_is_killed_takes_its_backend_with_it(tmp_path: Path) -> None:
    # Otherwise the backend sees the end of its stdin, and prints half a document as if it were whole.
    async with listening(FakeIpp(stall_after=20_000)) as printer:
        argv = [sys.executable, "-c", DAEMON, f"ipp://127.0.0.1:{printer.port}/ipp/print", str(tmp_path)]
        daemon = await asyncio.create_subprocess_exec(*argv, cwd=Path(__file__).parents[2])
        while not printer.documents or len(printer.documents[0]) < 20_000:
            await asyncio.sleep(0.05)
        (backend,) = Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text().split()
        daemon.kill()
        await daemon.wait()
        await asyncio.sleep(0.2)
        assert not Path(f"/proc/{backend}/cmdline").exists() or not Path(f"/proc/{backend}/cmdline").read_bytes()


DAEMON = """
import asyncio, sys
from pathlib import Path
from tests.printers.conftest import QUICK, Sender
from pullprint.printers.delivery import Limits
sender = Sender(Path(sys.argv[2]), limits=Limits(stall=60))
asyncio.run(sender(sys.argv[1], b"%PDF-1.4" * 200_000))
"""
