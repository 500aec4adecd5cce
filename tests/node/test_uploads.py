"""What is uploaded becomes a held job of PDF, or nothing at all and a sentence; what it is, its bytes say."""

import asyncio
import io
import json
import os
import secrets
import struct
import subprocess
import tempfile
import zipfile
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pikepdf
import pypdfium2
import pytest
from PIL import Image
from tests.node.host import Host, Organisation, running
from tests.rig.documents import marker, pdf
from tests.rig.office import CONVERT

from pullprint.base.clock import SystemClock
from pullprint.base.errors import PullprintError
from pullprint.model.states import State
from pullprint.node import convert, uploads
from pullprint.node.convert import (
    BrokenDocument,
    Converter,
    Kind,
    NeedsPassword,
    NoConverter,
    NotPrintable,
    TooManyPages,
    kind_of,
)
from pullprint.node.uploads import Uploads
from pullprint.vault.index import Index
from pullprint.vault.opening import read_header
from pullprint.vault.upload import seal_upload
from pullprint.wire.node import UploadItem, UploadResult

A4 = (595, 842)
OWNER = "alice@example.com"


class Cloudlet:
    """The two requests of a node about an upload, answered on the spot."""

    def __init__(self, body: bytes, fault: Exception | None = None) -> None:
        self.body = body
        self.fault = fault
        """Raised instead of the end."""
        self.told: list[UploadResult] = []
        self.taken = 0

    @asynccontextmanager
    async def stream(self, path: str, idle: float, total: float) -> AsyncIterator[AsyncIterator[bytes]]:
        async def pieces() -> AsyncIterator[bytes]:
            for start in range(0, len(self.body), 100_000):
                self.taken = min(start + 100_000, len(self.body))
                yield self.body[start : start + 100_000]
                await asyncio.sleep(0)
            if self.fault:
                raise self.fault

        yield pieces()

    async def tell(self, path: str, message: UploadResult) -> None:
        self.told.append(message)


async def upload(
    host: Host, document: bytes, alter: Callable[[bytes], bytes] = bytes, fault: Exception | None = None, **changes: Any
) -> tuple[UploadResult, Cloudlet]:
    """What the node says of *document*, sealed as a browser does."""
    key = host.keyring.current(host.clock.now())
    item = UploadItem(
        seq=1, upload=changes.pop("upload", secrets.token_hex(16)), key=key.key, owner=OWNER, title="Holiday",
        content_type="application/pdf", size=len(document),
    ).model_copy(update=changes)  # fmt: skip
    cloud = Cloudlet(alter(b"".join(seal_upload(document, key.public, item.upload))), fault)
    reported: list[int] = []

    async def report() -> None:
        reported.append(len(cloud.told))

    converter = Converter(CONVERT, "iso_a4_210x297mm", host.clock)
    taker = Uploads(cloud, host.intake, host.keyring, converter)  # type: ignore[arg-type]
    await taker.take(item, report)
    [result] = cloud.told
    assert reported == ([0] if result.job else []), "the cloud hears of the job before it hears of its upload"
    return result, cloud


async def assert_nothing(host: Host) -> None:
    assert await host.holder.read(Index.jobs) == []
    assert list(host.holder.directory.iterdir()) == []


async def test_a_pdf_is_held_as_it_is_for_its_owner(host: Host) -> None:
    document = pdf(3)
    result, _ = await upload(host, document, title="\u202eHoli\nday" + "x" * 300)
    record = await host.record(result.job)
    assert (record.owner, record.submitter, record.queue, record.state) == (OWNER, OWNER, "", State.HELD)
    assert (record.size, record.content_type, record.claim_code) == (len(document), "application/pdf", "")
    assert len(record.title) <= 255 and record.title.isprintable()
    header = read_header(host.holder.path(result.job))
    assert header.context.owner == OWNER
    async with asyncio.timeout(30):
        while (facts := (await host.record(result.job)).facts) is None:
            await asyncio.sleep(0.05)
    assert facts.pages == 3
    report = json.loads((await host.holder.read(Index.outbox, 100))[0][1])
    assert (report["kind"], report["queue"], report["owner"]) == ("job", "", OWNER)


async def test_the_same_upload_told_again_is_the_same_job(host: Host) -> None:
    one, _ = await upload(host, pdf(), upload="a" * 32)
    two, again = await upload(host, pdf(), upload="a" * 32)
    assert again.taken == 0, "the cloud need not have it any more"
    other, _ = await upload(host, pdf(), upload="b" * 32)
    assert one.job == two.job != other.job


@pytest.mark.parametrize("large", [False, True], ids=["in memory", "passed on"])
@pytest.mark.parametrize(
    ("alter", "fault"),
    [
        (lambda s: s[:-1], None),
        (lambda s: s[: 80 + (1 << 18) + 16], None),
        (lambda s: s[:-16], None),
        (lambda s: s + b"x", None),
        (lambda s: s[:300_000] + bytes([s[300_000] ^ 1]) + s[300_001:], None),
        (lambda s: s[:5] + b"\0" + s[6:], None),
        (lambda s: s[:-1000], aiohttp.ClientPayloadError("cut off")),
        (lambda s: s[:-1000], ConnectionResetError()),
    ],
    ids=["short", "one piece", "no end", "long", "flipped", "key", "payload error", "reset"],
)
async def test_what_is_not_whole_is_no_job(
    host: Host, monkeypatch: pytest.MonkeyPatch, alter: Callable[[bytes], bytes], fault: Exception | None, large: bool
) -> None:
    if large:
        monkeypatch.setattr(uploads, "MEMORY_LIMIT", 1_000)
    document = pdf() + secrets.token_bytes(700_000)
    result, _ = await upload(host, document, alter, fault)
    assert not result.job
    assert fault or (result.code == "upload-damaged" and "Nothing was stored" in result.sentence)
    await assert_nothing(host)
    assert (await upload(host, document))[0].job, "the node does not go on"


async def test_a_pdf_beyond_memory_is_sealed_as_it_comes(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MEMORY_LIMIT", 1 << 20)
    document = pdf(2) + secrets.token_bytes(5 << 20)
    result, _ = await upload(host, document)
    assert (await host.record(result.job)).size == len(document)
    too_large, cloud = await upload(host, b"some text\n" * (1 << 18))
    assert "1 MiB" in too_large.sentence and not too_large.job
    assert cloud.taken < len(cloud.body), "it reads on what it will not take"


async def test_a_document_over_the_hosts_limit_is_refused(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    object.__setattr__(host.settings, "document_limit_mib", 1)
    for limit in (uploads.MEMORY_LIMIT, 1_000):
        monkeypatch.setattr(uploads, "MEMORY_LIMIT", limit)
        result, _ = await upload(host, pdf() + secrets.token_bytes(3 << 20))
        assert result.code == "too-large" and "1 MiB" in result.sentence
        await assert_nothing(host)


async def test_documents_that_wait_in_memory_to_be_counted_are_counted_as_memory(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pullprint.node.intake.FACTS_MEMORY", 1_000)
    result, _ = await upload(host, pdf(3))
    async with asyncio.timeout(30):
        while (facts := (await host.record(result.job)).facts) is None:
            await asyncio.sleep(0.01)
    assert facts.problem == "busy"


async def test_a_full_disk_is_told_in_words_that_fit_an_upload(host: Host) -> None:
    object.__setattr__(host.settings, "disk_reserve_mib", 1 << 40)
    result, _ = await upload(host, pdf())
    assert result.code == "no-room" and "CUPS" not in result.sentence


async def test_a_key_that_is_gone_is_told(host: Host) -> None:
    result, _ = await upload(host, pdf(), key="20200101-0123456789ab")
    assert result.code == "upload-damaged" and "Nothing was stored" in result.sentence


def image(kind: str, size: tuple[int, int] = (600, 400), mode: str = "RGB", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, 128 if mode in ("L", "1", "P", "I;16") else None or 0).save(buffer, kind, **options)
    return buffer.getvalue()


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return image("JPEG", (600, 400), exif=exif)


def animated() -> bytes:
    buffer = io.BytesIO()
    first, second = Image.new("RGB", (40, 60), "red"), Image.new("RGB", (40, 60), "blue")
    first.save(buffer, "GIF", save_all=True, append_images=[second] * 3)
    return buffer.getvalue()


def translucent() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGBA", (300, 400), (255, 0, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def bomb(width: int = 60_000, height: int = 60_000) -> bytes:
    """A PNG of a few kilobytes that says it is very large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(1 << 20), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def locked(user: str) -> bytes:
    buffer = io.BytesIO()
    with pikepdf.open(io.BytesIO(pdf(2))) as document:
        document.save(buffer, encryption=pikepdf.Encryption(owner="owner", user=user))
    return buffer.getvalue()


async def converted(document: bytes, media: str = "iso_a4_210x297mm", program: Path = CONVERT) -> bytes:
    """What is printed of *document*; raises what its uploader is told."""
    source = os.memfd_create("test")
    try:
        os.write(source, document)
        made = await Converter(program, media, SystemClock()).pdf(source, kind_of(document[: convert.HEAD]))
    finally:
        os.close(source)
    with open(made, "rb") as file:
        file.seek(0)
        return file.read()


def pages(document: bytes) -> list[tuple[int, int]]:
    with pypdfium2.PdfDocument(document) as opened:
        return [(round(width), round(height)) for width, height in (page.get_size() for page in opened)]


def words(document: bytes, page: int = 0) -> str:
    with pypdfium2.PdfDocument(document) as opened:
        return opened[page].get_textpage().get_text_range()


def pixels(document: bytes) -> Image.Image:
    with pypdfium2.PdfDocument(document) as opened:
        return opened[0].render(scale=1).to_pil().convert("RGB")


@pytest.mark.parametrize(
    ("document", "size"),
    [
        (image("JPEG"), A4[::-1]),
        (image("JPEG", (400, 600)), A4),
        (rotated(), A4),
        (image("JPEG", mode="CMYK"), A4[::-1]),
        (image("PNG"), A4[::-1]),
        (image("PNG", mode="P"), A4[::-1]),
        (image("PNG", mode="I;16"), A4[::-1]),
        (translucent(), A4),
        (animated(), A4),
        (image("WEBP"), A4[::-1]),
        (image("TIFF", mode="1"), A4[::-1]),
        (image("TIFF", mode="CMYK", compression="tiff_lzw"), A4[::-1]),
        (image("AVIF"), A4[::-1]),
    ],
    ids="jpeg upright rotated cmyk png palette 16bit alpha gif webp fax tiff avif".split(),
)
async def test_a_picture_becomes_one_page_as_it_lies(document: bytes, size: tuple[int, int]) -> None:
    assert pages(await converted(document)) == [size]


async def test_what_is_seen_of_a_picture_is_right(host: Host) -> None:
    assert pixels(await converted(translucent())).getpixel((297, 421)) == (255, 255, 255)
    assert pixels(await converted(animated())).getpixel((297, 421)) == (255, 0, 0)
    page = pixels(await converted(image("JPEG", (2000, 3000), quality=90)))
    assert page.getpixel((297, 421)) == (0, 0, 0) and page.getpixel((10, 10)) == (255, 255, 255)
    small = pixels(await converted(image("PNG", (20, 20))))
    assert small.getpixel((297, 421)) == (0, 0, 0) and small.getpixel((297 + 30, 421)) == (255, 255, 255)


async def test_the_paper_is_the_one_that_was_set() -> None:
    assert pages(await converted(image("PNG"), "na_letter_8.5x11in")) == [(792, 612)]
    assert pages(await converted(b"hello\n", "iso_a5_148x210mm")) == [(420, 595)]
    assert pages(await converted(b"hello\n", "nonsense")) == [A4]


async def test_text_becomes_pages_of_wrapped_lines() -> None:
    made = await converted("Grüße, Привет\n".encode() + b"word " * 100 + b"\n" + b"line\n" * 200)
    assert set(pages(made)) == {A4} and len(pages(made)) == 4
    assert "Grüße, Привет" in words(made)
    assert words(made).count("word") == 100
    assert "Grüße" in words(await converted("Grüße".encode("latin-1")))
    assert "Grüße" in words(await converted("Grüße".encode("utf-16")))
    assert [words(await converted(b"one\ftwo\f"), page) for page in range(2)] == ["one", "two"]
    assert len(pages(await converted(b"x" * 100_000))) > 10, "a line without spaces is wrapped as well"


@pytest.mark.parametrize("kind", ["odt", "docx", "rtf", "doc"])
async def test_an_office_document_becomes_pages(kind: str) -> None:
    made = await converted(office_document("A letter from the office", kind))
    assert len(pages(made)) == 1
    assert "A letter from the office" in words(made)


async def test_an_office_document_that_is_none_is_broken() -> None:
    for start in (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", b"PK\x03\x04" + bytes(26) + b"word/document.xml"):
        with pytest.raises(BrokenDocument):
            await converted(start + secrets.token_bytes(5_000))


async def test_an_office_document_with_a_password_is_told_so() -> None:
    odt = io.BytesIO()
    with zipfile.ZipFile(odt, "w") as made:
        made.writestr("mimetype", "application/vnd.oasis.opendocument.text")
        made.writestr("META-INF/manifest.xml", "<manifest:encryption-data/>")
    docx = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(512) + "EncryptedPackage".encode("utf-16-le") + bytes(512)
    for document in (odt.getvalue(), docx):
        with pytest.raises(NeedsPassword):
            await converted(document)


async def test_without_libreoffice_an_office_document_is_told_so(tmp_path: Path) -> None:
    program = tmp_path / "pullprint-convert"
    program.write_text(CONVERT.read_text().replace('which("soffice"', 'which("no-such-program"'))
    with pytest.raises(PullprintError, match="libreoffice-writer-nogui"):
        await converted(b"{\\rtf1 hello}", program=program)


async def test_a_pdf_that_needs_a_password_is_refused_and_one_that_does_not_is_left_alone(host: Host) -> None:
    result, _ = await upload(host, locked("secret"))
    assert result.code == "needs-password" and "password" in result.sentence
    await assert_nothing(host)
    document = locked("")
    assert await converted(document) == document


@pytest.mark.parametrize(
    ("document", "error"),
    [
        (b"%PDF-1.7\nthis is not one", BrokenDocument),
        (b"%PDF-1.7\n" + bytes(100_000), BrokenDocument),
        (image("JPEG")[:300], BrokenDocument),
        (image("PNG")[:-60], BrokenDocument),
        (b"\x89PNG\r\n\x1a\n" + bytes(1_000), NotPrintable),
        (bomb(), TooManyPages),
        (bomb(1, 200_000_000), TooManyPages),
        (b"x\n" * 1_000_000, TooManyPages),
        (b"\f" * 5_000, TooManyPages),
        (b"text\n" * 1_000 + b"\0\1\2", NotPrintable),
        (b"\xff\xfeodd" + b"\0\xd8" * 10, BrokenDocument),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(500), NotPrintable),
    ],
    ids=["pdf", "hollow", "jpeg", "png", "no png", "bomb", "long bomb", "text", "feeds", "binary", "utf-16", "heic"],
)
async def test_the_broken_and_the_endless_are_told_apart(document: bytes, error: type[PullprintError]) -> None:
    with pytest.raises(error) as caught:
        await converted(document)
    assert "Nothing was stored" in caught.value.sentence


def archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        made.writestr("holiday.jpg", b"x")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "document",
    [
        archive(), Path("/bin/true").read_bytes(), b"MZ\x90\0\3" + bytes(100), b"\0\0\0\x20ftypisom" + bytes(50),
        b"\x1aE\xdf\xa3" + bytes(50), b"ID3\3\0", b"%!PS-Adobe-3.0\nshowpage\n", b"\x1b%-12345X@PJL\n", bytes(100),
        secrets.token_bytes(5_000),
    ],
    ids="zip elf exe mp4 mkv mp3 postscript pjl zeros noise".split(),
)  # fmt: skip
async def test_other_kinds_are_refused_with_what_works_instead(host: Host, document: bytes) -> None:
    result, _ = await upload(host, document, content_type="application/pdf", title="harmless.pdf")
    assert result.code == "not-printable" and "PDF" in result.sentence
    await assert_nothing(host)


async def test_an_empty_document_is_refused(host: Host) -> None:
    result, _ = await upload(host, b"")
    assert result.code == "empty-document"


async def test_the_bytes_decide_whatever_the_sender_says(host: Host) -> None:
    result, _ = await upload(host, image("PNG"), content_type="application/x-msdownload", title="a.exe")
    record = await host.record(result.job)
    assert record.content_type == "application/pdf"


def test_a_word_file_of_any_program_is_told_from_an_archive() -> None:
    for name in (b"[Content_Types].xml", b"_rels/.rels", b"word/numbering.xml", b"docProps/app.xml"):
        assert kind_of(b"PK\x03\x04" + bytes(26) + name) is Kind.OFFICE
    odt = b"PK\x03\x04" + bytes(26) + b"mimetypeapplication/vnd.oasis.opendocument.text"
    assert kind_of(odt) is Kind.OFFICE
    with pytest.raises(NotPrintable):
        kind_of(b"PK\x03\x04" + bytes(26) + b"mimetypeapplication/epub+zip")


async def test_without_a_program_nothing_is_guessed(tmp_path: Path) -> None:
    with pytest.raises(NoConverter):
        await converted(pdf(), program=tmp_path / "missing")


async def test_a_converter_that_hangs_or_floods_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "pullprint-convert"
    monkeypatch.setattr(convert, "_LIMITS", replace(convert._LIMITS, wall_seconds=1.5, answer=1 << 20))
    for code in ("import time; time.sleep(60)", "import sys\nwhile True: sys.stdout.write('x' * 100_000)"):
        program.write_text(code)
        with pytest.raises(TooManyPages):
            await converted(pdf(), program=program)


async def test_a_converter_sees_no_network_no_files_and_keeps_nothing(tmp_path: Path) -> None:
    """The wider sandbox, in which LibreOffice runs."""
    program = tmp_path / "pullprint-convert"
    program.write_text(PROBE)
    told = json.loads(await converted(b"{\\rtf1 text}", program=program))
    assert told == {
        "network": False, "root": False, "home": True, "etc": False, "document": False, "ptrace": False,
        "too much": False,
    }  # fmt: skip
    assert not Path("/tmp/left-behind").exists()


PROBE = """
import ctypes, json, os, socket, sys
def can(what):
    try:
        what()
        return True
    except OSError:
        return False
def ptrace():
    if ctypes.CDLL(None, use_errno=True).ptrace(16, 1, 0, 0) == -1 and ctypes.get_errno() == 1:
        raise PermissionError
json.dump({
    "network": can(lambda: socket.create_connection(("1.1.1.1", 53), 1)),
    "root": can(lambda: open("/left-behind", "w")),
    "home": can(lambda: open(os.environ["HOME"] + "/left-behind", "w").close()),
    "etc": can(lambda: open("/etc/passwd")),
    "document": can(lambda: os.write(0, b"x")),
    "ptrace": can(ptrace),
    "too much": can(lambda: open("/tmp/much", "wb").write(bytes(300 << 20))),
}, sys.stdout)
"""


def office_document(text: str, kind: str) -> bytes:
    """A document of LibreOffice's own making."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "letter.txt")
        source.write_text(text + "\n")
        subprocess.run(
            ["soffice", "--headless", f"-env:UserInstallation=file://{folder}/profile", "--convert-to", kind,
             "--outdir", folder, str(source)],
            check=True, capture_output=True, timeout=90,
        )  # fmt: skip
        return Path(folder, f"letter.{kind}").read_bytes()


async def test_one_upload_too_many_is_told_to_wait(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "AT_ONCE", 0)
    result, _ = await upload(host, pdf())
    assert result.code == "busy"
    await assert_nothing(host)


async def test_no_word_of_a_document_is_on_disk_or_in_the_log(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    word = marker()
    caplog.set_level("DEBUG")
    for document in (pdf(marker=word), word.encode() + b"\n", b"PK\x03\x04 " + word.encode()):
        await upload(host, document, title="t")
    kept = b"".join(path.read_bytes() for path in host.root.rglob("*") if path.is_file())
    assert word.encode() not in kept and word not in caplog.text


async def test_an_upload_is_found_again_when_the_index_is_lost(root: Path) -> None:
    async with running(Host(root, Organisation(), {})) as host:
        await host.join()
        result, _ = await upload(host, pdf())
    for path in (root / "state").glob("index.sqlite*"):
        path.unlink()
    (root / "intake.sock").unlink()
    async with running(Host(root, host.organisation, {})) as again:
        record = await again.record(result.job)
        assert (record.owner, record.queue, record.title) == (OWNER, "", "Holiday")
