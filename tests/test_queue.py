"""The queue as a user sees it: a private cupsd, ``lp``, our PPD and backend, and a stand-in intake."""

import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pypdfium2
import pytest
from tests.rig.cups import PPD, PrivateCups
from tests.rig.intake import Intake, Received, stored
from tests.rig.processes import wait_until

PWG = b"RaS2PwgRaster\0" + bytes(1_783)
URF = b"UNIRAST\0" + bytes(100)
PCL = b"\x1bE\x1b&l0OHello\x0c\x1bE"
ZPL = b"^XA^FO50,50^FDHello^FS^XZ\n"
POSTSCRIPT = (
    b"%!PS-Adobe-3.0\n%%Pages: 2\n%%EndComments\n%%Page: 1 1\n72 72 moveto 99 99 lineto stroke showpage\n"
    b"%%Page: 2 2\n72 72 moveto 9 99 lineto stroke showpage\n%%EOF\n"
)
TEXT = "".join(f"line {number}\n" for number in range(300)).encode()
CHOSEN = (
    "number-up=2",
    "page-ranges=1-3",
    "fit-to-page",
    "some-unknown=thing",
    "sides=two-sided-long-edge",
    "job-sheets=none",
)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    # lp, as whom the backend runs, has to reach the socket: not below pytest's 0700 folders.
    with tempfile.TemporaryDirectory(prefix="pullprint-queue-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def cups(folder: Path) -> Iterator[PrivateCups]:
    environment = {"PULLPRINT_INTAKE": str(folder / "intake.sock"), "PULLPRINT_WAIT": "1"}
    with PrivateCups(environment, retry_limit=1) as running:
        running.add_queue("hold", "pullprint:/", PPD)
        yield running


@pytest.fixture
def intake(folder: Path) -> Iterator[Intake]:
    with Intake(folder / "intake.sock") as running:
        yield running


@pytest.fixture(scope="module")
def documents(folder: Path) -> dict[str, Path]:
    """Real files of the types that cupsd converts, made by Ghostscript."""
    made = {}
    for device, name in (("pdfwrite", "a.pdf"), ("png16m", "a.png"), ("jpeg", "a.jpg")):
        made[name] = folder / name
        argv = ["gs", "-q", "-dSAFER", f"-sDEVICE={device}", "-r20", "-o", str(made[name]), "-"]
        subprocess.run(argv, input=POSTSCRIPT, check=True, capture_output=True, timeout=30)
    return made


def pages(document: bytes) -> int:
    pdf = pypdfium2.PdfDocument(document)
    try:
        return len(pdf)
    finally:
        pdf.close()


def print_one(cups: PrivateCups, intake: Intake, document: bytes | Path, *options: str, **more: object) -> Received:
    """Print, wait for the job's end, and return the one thing that reached the intake."""
    before = len(intake.received)
    job = cups.lp("hold", document, *options, **more)  # type: ignore[arg-type]
    assert cups.wait_job(job) == "completed"
    [received] = intake.received[before:]
    assert received.fields["cups_job_id"] == job
    return received


def test_lpinfo_lists_the_backend(cups: PrivateCups) -> None:
    assert "direct pullprint:/" in cups.run("lpinfo", "-v", "--include-schemes", "pullprint").splitlines()


def test_the_ppd_passes_cupstestppd() -> None:
    done = subprocess.run(["cupstestppd", PPD], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stdout
    assert "WARN" not in done.stdout


def test_a_pdf_passes_byte_for_byte_whatever_the_options_say(
    cups: PrivateCups, intake: Intake, documents: dict[str, Path]
) -> None:
    original = documents["a.pdf"].read_bytes()
    for options, copies in (((), None), (CHOSEN, 3)):
        received = print_one(cups, intake, documents["a.pdf"], *options, copies=copies)
        assert received.document == original
        assert received.is_file
        assert received.fields["content_type"] == "application/pdf"


def test_options_reach_the_backend_unchanged_also_unknown_ones(
    cups: PrivateCups, intake: Intake, documents: dict[str, Path]
) -> None:
    received = print_one(
        cups, intake, documents["a.pdf"], *CHOSEN, "x=a b\\\"'", copies=3, title='Tïtle "q" \\ x=y', user="jo"
    )
    words = received.fields["options"].split(" ")
    assert set(CHOSEN[:-1]) <= set(words)
    assert f"job-uuid=urn:uuid:{received.fields['job_uuid']}" in words
    assert received.fields["copies"] == 3
    assert received.fields["title"] == 'Tïtle "q" \\ x=y'
    assert received.fields["user"] == "jo"
    assert received.fields["queue"] == "hold"
    assert received.fields["device_uri"] == "pullprint:/"


@pytest.mark.parametrize(("name", "count"), [("a.png", 1), ("a.jpg", 1), ("text", 5), ("postscript", 2)])
def test_converted_documents_are_pdf_and_no_filter_applies_the_options(
    cups: PrivateCups, intake: Intake, documents: dict[str, Path], name: str, count: int
) -> None:
    document = {"text": TEXT, "postscript": POSTSCRIPT}.get(name) or documents[name]
    for options, copies in (((), None), (CHOSEN, 3)):
        received = print_one(cups, intake, document, *options, copies=copies)
        assert received.fields["content_type"] == "application/pdf"
        assert received.fields["copies"] == (copies or 1)
        assert pages(received.document) == count


@pytest.mark.parametrize(
    ("document", "options", "content_type"),
    [
        (PWG, (), "image/pwg-raster"),
        (URF, (), "image/urf"),
        (PCL, (), "application/octet-stream"),
        (bytes(range(256)), (), "application/octet-stream"),
        (ZPL, ("raw",), "application/octet-stream"),
        (b"%PDF-1.4 raw", ("raw",), "application/octet-stream"),
    ],
)
def test_what_is_no_office_document_is_held_as_it_is(
    cups: PrivateCups, intake: Intake, document: bytes, options: tuple[str, ...], content_type: str
) -> None:
    received = print_one(cups, intake, document, *options)
    assert received.document == document
    assert received.fields["content_type"] == content_type


def test_no_file_of_a_job_is_lost_or_taken_for_another(
    cups: PrivateCups, intake: Intake, documents: dict[str, Path], folder: Path
) -> None:
    other = folder / "other.pdf"
    other.write_bytes(b"%PDF-1.4 other")
    cups.run("lp", "-d", "hold", str(documents["a.pdf"]), str(other))
    assert cups.wait_job(max(cups.job_states())) == "completed"
    first, second = intake.received
    assert (first.document, second.document) == (documents["a.pdf"].read_bytes(), other.read_bytes())
    assert first.fields["job_uuid"] != second.fields["job_uuid"]


def test_banner_pages_are_not_held_beside_the_document(cups: PrivateCups, intake: Intake) -> None:
    received = print_one(cups, intake, TEXT, "job-sheets=standard,standard")
    assert pages(received.document) == 5


def test_the_user_reads_in_lpstat_what_became_of_the_job(cups: PrivateCups, intake: Intake) -> None:
    job = cups.lp("hold", PWG)
    cups.wait_job(job)
    assert "Status: Held: release it at any printer." in cups.run("lpstat", "-l", "-W", "completed", "-o")
    intake.answer = lambda _: b"refused Colour is not allowed here.\n"
    refused = cups.lp("hold", PWG)
    assert cups.wait_job(refused) == "canceled"
    assert cups.job(refused)["job-printer-state-message"] == "Colour is not allowed here."
    intake.answer = stored
    print_one(cups, intake, PWG)
    assert cups.printer("hold")["printer-state-message"] == ""


def test_daemon_away_keeps_the_job_queued_and_delivers_when_it_returns(cups: PrivateCups, folder: Path) -> None:
    job = cups.lp("hold", PWG)
    wait_until(
        "waiting reason",
        lambda: "pullprint-waiting-warning" in cups.printer("hold")["printer-state-reasons"],
    )
    assert "does not answer" in cups.run("lpstat", "-p", "hold", "-l")
    assert "resources-are-not-ready" in cups.run("lpstat", "-l", "-o")
    # Longer than three runs of one second: JobRetryLimit 1 would have dropped the job by now.
    time.sleep(4)
    assert cups.job_states()[job] in ("pending", "processing")
    with Intake(folder / "intake.sock") as late:
        assert cups.wait_job(job) == "completed"
    assert [received.document for received in late.received] == [PWG]
    assert cups.printer("hold")["printer-state-reasons"] == ["none"]


def test_a_broken_off_pipe_is_made_anew_by_cupsd_and_not_truncated(cups: PrivateCups, intake: Intake) -> None:
    intake.answer = lambda received: stored(received) if len(intake.received) > 1 else None
    assert cups.wait_job(cups.lp("hold", TEXT)) == "completed"
    first, second = intake.received
    assert first.fields["job_uuid"] == second.fields["job_uuid"]
    assert pages(second.document) == 5


def test_cancelling_a_waiting_job_removes_it(cups: PrivateCups) -> None:
    job = cups.lp("hold", PWG)
    wait_until("processing", lambda: cups.job_states()[job] == "processing")
    cups.run("cancel", f"hold-{job}")
    assert cups.wait_job(job) == "canceled"
    wait_until("reason gone", lambda: cups.printer("hold")["printer-state-reasons"] == ["none"])


def test_kill_9_of_cupsd_between_store_and_end_sends_the_same_key_again(folder: Path) -> None:
    # A socket of its own: the backend of a killed cupsd lives on, and must not reach another test.
    environment = {"PULLPRINT_INTAKE": str(folder / "crash.sock"), "PULLPRINT_WAIT": "1"}
    with PrivateCups(environment) as cups, Intake(folder / "crash.sock") as intake:
        cups.add_queue("hold", "pullprint:/", PPD)

        def crash(received: Received) -> bytes:
            if len(intake.received) == 1:
                cups.kill(signal.SIGKILL)
            return stored(received)

        intake.answer = crash
        job = cups.lp("hold", PWG)
        wait_until("crash", lambda: not cups.running)
        cups.start()
        assert cups.wait_job(job) == "completed"
        first, second = intake.received[0], intake.received[-1]
        assert len(intake.received) == 2
        assert first.fields["job_uuid"] == second.fields["job_uuid"]
        assert first.document == second.document == PWG
