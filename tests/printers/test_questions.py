"""What printers and CUPS say of themselves, and what is made of it when they lie or talk nonsense."""

import asyncio
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.printers.conftest import BACKENDS
from tests.printers.fakes import FakeIpp, attribute, listening
from tests.rig.cups import PrivateCups
from tests.rig.printers import IppPrinter, RawPrinter
from tests.rig.processes import free_port

from pullprint.base.clock import ManualClock, SystemClock
from pullprint.model.uri import check_uri
from pullprint.printers.cups_check import Level, check_cups, parse_configuration
from pullprint.printers.ipp import NoAnswer, read_answer
from pullprint.printers.options import option_string
from pullprint.printers.probe import Capabilities, probe
from pullprint.printers.tell import Testimony as Word
from pullprint.printers.witness import LINE_LIMIT, Witness, speaks

CLOCK = SystemClock()
HEAD = struct.pack(">bbhi", 2, 0, 0, 1)


async def test_a_real_printer_says_what_it_can() -> None:
    with IppPrinter(formats=("application/pdf", "image/urf")) as printer:
        found = await probe(check_uri(printer.uri), CLOCK)
    assert found.answers
    assert found.ready
    assert found.state == "idle"
    assert found.troubles == ()
    assert "two-sided-long-edge" in found.sides
    assert "iso_a4_210x297mm" in found.media
    assert found.copies is not None
    assert found.copies > 1
    assert found.accepts("application/pdf")
    assert not found.accepts("application/postscript")
    assert found.unmet({"sides": "three-sided", "media": "iso_a4_210x297mm"}, copies=10_000) == ("sides", "copies")


async def test_an_enum_that_nobody_has_heard_of_spoils_nothing() -> None:
    async with listening(FakeIpp()) as printer:
        found = await probe(check_uri(f"ipp://127.0.0.1:{printer.port}/"), CLOCK)
    assert found.finishings == (3, 4, 9_999)
    assert found.copies == 99


@pytest.mark.parametrize("scheme", ["ipp", "ipps", "socket", "lpd"])
async def test_a_printer_that_is_off_is_said_to_be_off(scheme: str) -> None:
    path = "" if scheme == "socket" else "/lp"
    found = await probe(check_uri(f"{scheme}://127.0.0.1:{free_port()}{path}"), CLOCK)
    assert not found.ready
    assert found.troubles


async def test_a_socket_printer_accepts_whatever_comes() -> None:
    with RawPrinter() as printer:
        found = await probe(check_uri(printer.uri), CLOCK)
    assert found.ready
    assert found.accepts("application/x-anything")


@pytest.mark.parametrize(
    ("content_type", "accepted"),
    [("application/vnd.cups-raw", True), ("application/octet-stream", True), ("application/vnd.hp-pcl", True),
     ("application/pdf", False), ("text/plain", False), ("image/jpeg", False)],
)  # fmt: skip
def test_octet_stream_is_for_what_only_printers_read(content_type: str, accepted: bool) -> None:
    assert (
        Capabilities(answers=True, checked=0, formats=("image/urf", "application/octet-stream")).accepts(content_type)
        is accepted
    )


def test_troubles_are_told_in_sentences() -> None:
    found = Capabilities(
        answers=True, checked=0, state="stopped", reasons=("media-empty-error", "cover-open", "x-y-z"), accepting=False
    )
    assert found.troubles == (
        "The printer is out of paper.",
        "A cover of the printer is open.",
        "The printer takes no jobs at the moment.",
    )


async def _answering(body: bytes) -> Capabilities:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(body)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        return await probe(check_uri(f"ipp://127.0.0.1:{port}/"), ManualClock())


@pytest.mark.parametrize(
    "body",
    [
        b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n" + bytes(3_000_000),
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabcd",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"",
    ],
)
async def test_something_that_is_no_printer_is_no_printer(body: bytes) -> None:
    found = await _answering(body)
    assert not found.answers
    assert found.troubles[0].isprintable()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        HEAD,
        HEAD + b"\1",
        HEAD + b"\4\x44\xff\xff\3",  # pyipp would walk backwards for ever
        HEAD + b"\4\x44\0\4name\xff\xf0x\3",
        HEAD + b"\4" + attribute(0x23, "printer-state", b"\0\3") + b"\3",
        HEAD + b"\4" + b"\x34\0\1a\0\0" * 40 + b"\3",
        HEAD + b"\4" + b"\x34\0\1a\0\0" + b"\3",
        HEAD + b"\4\x37\0\0\0\0\3",
    ],
)
def test_a_broken_answer_is_no_answer(body: bytes) -> None:
    with pytest.raises(NoAnswer):
        read_answer(body, "printer")


@given(st.binary(max_size=200))
def test_no_answer_crashes_or_hangs(body: bytes) -> None:
    try:
        read_answer(HEAD + body, "printer")
    except NoAnswer as error:
        assert error.sentence.isprintable()


def test_an_empty_group_and_a_date_are_read() -> None:
    body = (
        HEAD
        + b"\1"
        + attribute(0x47, "attributes-charset", "utf-8")
        + b"\5\2"
        + attribute(0x31, "date-time-at-creation", b"\xff" * 11)
        + attribute(0x21, "job-id", 5)
        + b"\3"
    )
    assert read_answer(body, "printer").jobs[0]["job-id"] == 5


def test_only_the_whole_proof_is_a_proof() -> None:
    reasons = ("unsupported-document-format",)
    assert Word(1, 8, reasons, impressions=0).nothing_printed
    assert Word(1, 8, (), sheets=0, never_started=True).nothing_printed
    assert not Word(1, 7, (), sheets=0, never_started=True).nothing_printed, "it was cancelled at the printer"
    assert not Word(1, 8, reasons).nothing_printed
    assert not Word(1, 8, reasons, impressions=0, sheets=1).nothing_printed
    assert not Word(1, 8, ("aborted-by-system",), impressions=0).nothing_printed
    assert not Word(1, 9, reasons, impressions=0).nothing_printed
    assert not Word(1, 7, reasons, impressions=0).nothing_printed
    assert not Word(1, None, reasons, impressions=0, never_started=True).nothing_printed


@given(st.lists(st.binary(max_size=300), max_size=30))
def test_no_stderr_crashes_or_is_kept(pieces: list[bytes]) -> None:
    witness = Witness("ipp", lambda: None)
    for piece in pieces:
        witness.feed(piece)
    assert len(witness._rest) <= LINE_LIMIT


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_lines_are_read_however_they_are_cut(cut: int) -> None:
    witness = Witness("ipp", lambda: None)
    said = b"INFO: Connected to printer.\nDEBUG: Sending file 1 using chunking...\n"
    said += b"DEBUG: Print job accepted - job ID 12.\nPAGE: total 3\n"
    for start in range(0, len(said), cut):
        witness.feed(said[start : start + cut])
    assert (witness.connected, witness.sending, witness.job_id, witness.pages) == (True, True, 12, 3)


@pytest.mark.parametrize("scheme", ["ipp", "ipps", "socket", "lpd"])
def test_the_backends_of_this_machine_speak_the_words_that_count(scheme: str) -> None:
    assert speaks(BACKENDS / scheme, scheme)


@given(st.dictionaries(st.text(max_size=12), st.text(max_size=40), max_size=5))
def test_options_stay_on_one_line(options: dict[str, str]) -> None:
    text = option_string(1, options)
    assert text.isprintable()
    assert len(text) <= sum(2 * len(name + value) + 4 for name, value in options.items())


async def test_doctor_sees_what_a_real_cupsd_does() -> None:
    settings = "PreserveJobFiles Yes\nMaxJobTime 0\n"
    with PrivateCups(settings=settings) as cupsd:
        cupsd.add_queue("hold", "pullprint:/")
        found = await check_cups("127.0.0.1", cupsd.port, configuration=cupsd.root / "etc" / "cupsd.conf")
    assert found[0].level is Level.OK
    assert "2.4" in found[0].what
    told = {finding.what: finding.level for finding in found}
    assert any("PreserveJobFiles" in what for what in told), told


async def test_doctor_says_that_cupsd_is_away(tmp_path: Path) -> None:
    (found,) = await check_cups(str(tmp_path / "cups.sock"))
    assert found.level is Level.BAD
    assert "systemctl start cups" in found.advice


def test_directives_are_read_outside_of_sections_only() -> None:
    text = (
        "# PreserveJobFiles No\nPreserveJobFiles  3600 # an hour\n<Location />\nMaxJobTime 5\n</Location>\nmaxjobtime 7"
    )
    assert parse_configuration(text) == {"preservejobfiles": "3600", "maxjobtime": "7"}
