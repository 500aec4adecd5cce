"""What a document can say of itself, and what it can do to us while it is asked."""

import asyncio
import io
import json
import os
import random
import socket
import struct
import sys
import textwrap
import time
import zlib
from pathlib import Path

import pikepdf
import pytest
from PIL import Image

from pullprint.base.clock import SystemClock
from pullprint.model.facts import BadFacts, Facts, SheetSize
from pullprint.node import facts as facts_module
from pullprint.node import sandbox as sandbox_module
from pullprint.node.facts import PICTURE_WIDTH, Counted, FactCounter, count_facts, is_picture
from pullprint.node.sandbox import Limits

PROGRAM = Path(__file__).parent.parent / "filters" / "pullprint-facts"
A4, A5 = (595.276, 841.89), (419.528, 595.276)
GREY, RED = b"0.5 g 50 50 200 200 re f", b"1 0 0 rg 50 50 200 200 re f"


def pdf(*pages: tuple[tuple[float, float], bytes], **save: object) -> bytes:
    """A PDF with pages of the given size in points and content."""
    document = pikepdf.new()
    for size, content in pages:
        page = document.add_blank_page(page_size=size)
        page.Contents = document.make_stream(content)
    out = io.BytesIO()
    document.save(out, **save)
    return out.getvalue()


def raw_pdf(*objects: bytes, size: int | None = None) -> bytes:
    """Objects 1… as given, object 1 the catalog, with a correct cross-reference table."""
    out, offsets = bytearray(b"%PDF-1.4\n"), []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    out += b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start)
    return bytes(out)


def pwg(*pages: tuple[int, int, bytes], points: tuple[int, int] = (595, 842), total: int = 0) -> bytes:
    """A PWG raster of 8-bit pages: colour space, height in lines, run-length data of 4 pixels a line."""
    out = bytearray(b"RaS2")
    for space, height, data in pages:
        channels = {18: 1, 19: 3, 6: 4}[space]
        header = bytearray(1796)
        header[:9] = b"PwgRaster"
        struct.pack_into(">II", header, 276, 300, 300)
        struct.pack_into(">II", header, 352, *points)
        struct.pack_into(">II", header, 372, 4, height)
        struct.pack_into(">IIIII", header, 384, 8, 8 * channels, 4 * channels, 0, space)
        struct.pack_into(">I", header, 452, total)
        out += header + data
    return bytes(out)


async def counted(
    document: bytes,
    content_type: str = "application/pdf",
    *,
    program: Path = PROGRAM,
    limits: Limits | None = None,
) -> Facts:
    return (await looked_at(document, content_type, program=program, limits=limits)).facts


async def looked_at(
    document: bytes,
    content_type: str = "application/pdf",
    *,
    program: Path = PROGRAM,
    limits: Limits | None = None,
) -> Counted:
    fd = os.memfd_create("document")
    try:
        os.write(fd, document)
        return await count_facts(fd, content_type, program=program, clock=SystemClock(), limits=limits or Limits())
    finally:
        os.close(fd)


async def answer_of(tmp_path: Path, source: str, **limits: float) -> Facts:
    """The facts of a stand-in program with this *source*, counting any document."""
    return (await said(tmp_path, source, **limits)).facts


async def said(tmp_path: Path, source: str, **limits: float) -> Counted:
    """What is believed of a stand-in program with this *source*, looking at any document."""
    program = tmp_path / "stand-in"
    program.write_text(textwrap.dedent(source))
    return await looked_at(b"any", program=program, limits=Limits(**limits))  # type: ignore[arg-type]


def shown(picture: bytes) -> Image.Image:
    """A picture, decoded."""
    with Image.open(io.BytesIO(picture), formats=["WEBP"]) as image:
        return image.convert("RGB")


def image_file(kind: str, image: Image.Image, **save: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **save)
    return out.getvalue()


class TestDocuments:
    async def test_mixed_sizes_rotation_and_colour_are_told_apart(self) -> None:
        document = pikepdf.open(io.BytesIO(pdf((A4, GREY), (A4, RED), (A5, GREY), (A4, GREY), (A5, RED))))
        document.pages[3].Rotate = 90
        out = io.BytesIO()
        document.save(out)
        found = await counted(out.getvalue())
        assert found == Facts(
            5, 2, (SheetSize(210.0, 297.0, 2), SheetSize(148.0, 210.0, 2), SheetSize(297.0, 210.0, 1))
        )

    async def test_cropbox_and_userunit_make_the_sheet(self) -> None:
        document = pikepdf.open(io.BytesIO(pdf((A4, GREY), (A4, GREY))))
        document.pages[0].CropBox = [0, 0, 72, 144]
        document.pages[1].UserUnit = 2
        out = io.BytesIO()
        document.save(out, object_stream_mode=pikepdf.ObjectStreamMode.generate)
        found = await counted(out.getvalue())
        assert found.sheets == (SheetSize(25.4, 50.8, 1), SheetSize(420.0, 594.0, 1))

    async def test_sizes_within_two_millimetres_are_one_size(self) -> None:
        found = await counted(pdf(*[((595 + step, 842 - step), GREY) for step in range(5)]))
        assert found.sheets == (SheetSize(209.9, 297.0, 5),)

    @pytest.mark.parametrize(
        ("content", "color"),
        [
            (b"0 0 0 1 k 10 10 400 400 re f", 0),
            (b"1 1 1 rg 10 10 400 400 re f", 0),
            (b"0.50 0.52 0.51 rg 10 10 400 400 re f", 0),
            (b"0 0 1 RG 0.7 w 20 20 m 400 400 l S", 1),
            (b"0 0 0.3 0 k 10 10 9 9 re f", 1),
        ],
        ids=["cmyk-black", "white-in-rgb", "almost-grey", "thin-blue-line", "pale-yellow-spot"],
    )
    async def test_only_visible_colour_is_charged(self, content: bytes, color: int) -> None:
        assert (await counted(pdf((A4, content)))).color_pages == color

    async def test_more_pages_than_are_rendered_still_have_their_number(self) -> None:
        found = await counted(pdf(*[(A5, GREY)] * 1001))
        assert (found.pages, found.color_pages, found.problem) == (1001, None, "too-large")

    async def test_declared_type_decides_and_octets_are_looked_at(self) -> None:
        document = pdf((A4, GREY))
        assert (await counted(document, "application/octet-stream")).pages == 1
        assert await counted(document, "text/plain; charset=utf-8") == Facts.unknown("unsupported")
        assert await counted(document, "image/jpeg") == Facts.unknown("unsupported")
        assert await counted(document, "\0; rm -rf /\n" * 9000) == Facts(1, 0, (SheetSize(210.0, 297.0, 1),))


class TestPwgRaster:
    async def test_pages_and_visible_colour(self) -> None:
        grey = (19, 3, b"\x02\x03\x80\x80\x80")
        red = (19, 1, b"\x00\x01\xff\x00\x00\xff\x10\x10\x10\x20\x20\x20")
        ink = (6, 2, b"\x01\x03\x00\x00\x00\xff")
        found = await counted(pwg(grey, red, ink, (18, 1, b"\x00\x80")), "image/pwg-raster")
        assert found == Facts(4, 1, (SheetSize(209.9, 297.0, 4),))

    async def test_claimed_total_is_not_believed(self) -> None:
        found = await counted(pwg((18, 1, b"\x00\x03\x00"), total=7), "image/pwg-raster")
        assert found.pages == 1

    @pytest.mark.parametrize(
        "document",
        [
            b"RaS2",
            b"RaS3" + bytes(1796),
            b"RaS2" + bytes(1796),
            b"RaS2" + b"\xff" * 1796,
            pwg((18, 9, b"\x00\x03")),
            pwg((18, 1, b"\x00\x7f\x00")),
            pwg((18, 1, b"\x00\x03\x00"))[:-40] + bytes(3),
            pwg((18, 1, b"\x00\x03\x00")) + b"tail",
        ],
    )
    async def test_broken_is_unknown(self, document: bytes) -> None:
        assert await counted(document, "image/pwg-raster") == Facts.unknown("broken")


class TestHostileDocuments:
    @pytest.mark.parametrize(
        "document",
        [b"", b"\0", b"%PDF-1.7\n", b"%PDF-1.4\n" + b"\xff" * 9999, pdf((A4, GREY))[:40]],
        ids=["zero-bytes", "one-byte", "header-only", "noise", "truncated-to-nothing"],
    )
    async def test_broken_is_unknown(self, document: bytes) -> None:
        assert await counted(document) == Facts.unknown("broken")

    async def test_any_truncation_is_survived(self) -> None:
        document = pdf((A4, GREY), (A4, RED))
        for length in range(100, len(document), len(document) // 6):
            found = await counted(document[:length])
            assert found.problem in (None, "broken")
            assert found.pages in (None, 1, 2)

    async def test_password_is_a_problem_and_a_mere_owner_password_is_not(self) -> None:
        locked = pdf((A4, RED), encryption=pikepdf.Encryption(owner="o", user="u"))
        assert await counted(locked) == Facts.unknown("encrypted")
        open_to_read = pdf((A4, RED), encryption=pikepdf.Encryption(owner="o", user=""))
        assert await counted(open_to_read) == Facts(1, 1, (SheetSize(210.0, 297.0, 1),))

    async def test_deep_page_tree_ends(self) -> None:
        depth = 20_000
        nodes = [b"<< /Type /Pages /Kids [%d 0 R] /Count 1 >>" % (number + 3) for number in range(depth)]
        leaf = b"<< /Type /Page /Parent %d 0 R /MediaBox [0 0 72 72] >>" % (depth + 1)
        found = await counted(raw_pdf(b"<< /Type /Catalog /Pages 2 0 R >>", *nodes, leaf))
        assert found.pages in (None, 0, 1)
        assert found.problem is not None or found.pages == 1

    async def test_page_tree_that_bites_its_tail_ends(self) -> None:
        pages = b"<< /Type /Pages /Kids [2 0 R 2 0 R] /Count 3 >>"
        found = await counted(raw_pdf(b"<< /Type /Catalog /Pages 2 0 R >>", pages))
        assert not found.pages

    async def test_claimed_million_pages_are_not_charged(self) -> None:
        pages = b"<< /Type /Pages /Kids [3 0 R] /Count 900000 >>"
        page = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 72 72] >>"
        found = await counted(raw_pdf(b"<< /Type /Catalog /Pages 2 0 R >>", pages, page))
        assert found.pages in (None, 1)

    @pytest.mark.parametrize("box", [b"0 0 1e30 1e30", b"0 0 2000000 1", b"0 0 0 0", b"9 9 -9e9 -9e9", b"/A /B"])
    async def test_absurd_mediabox_takes_no_memory(self, box: bytes) -> None:
        pages = b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>"
        page = b"<< /Type /Page /Parent 2 0 R /MediaBox [%s] >>" % box
        found = await counted(raw_pdf(b"<< /Type /Catalog /Pages 2 0 R >>", pages, page))
        assert found.pages == 1

    async def test_endless_content_stream_loses_colour_but_not_pages(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # 2 MB of drawing orders, in forms that each draw the next one ten times: 10^13 rectangles.
        document = pikepdf.new()
        page = document.add_blank_page(page_size=A4)
        inner = document.make_stream(b"1 0 0 rg 0 0 1 1 re f\n" * 100_000)
        for _ in range(8):
            inner.Type, inner.Subtype = pikepdf.Name.XObject, pikepdf.Name.Form
            inner.BBox = [0, 0, 600, 900]
            outer = document.make_stream(b"/X Do\n" * 10)
            outer.Resources = pikepdf.Dictionary(XObject=pikepdf.Dictionary(X=inner))
            inner = outer
        page.Contents, page.Resources = inner, inner.Resources
        out = io.BytesIO()
        document.save(out)
        found = await counted(out.getvalue(), limits=Limits(cpu_seconds=2))
        assert (found.pages, found.color_pages) == (1, None)
        assert found.problem in ("timeout", "crashed"), "which limit ends it first, time or memory, is the machine's"

    async def test_decompression_bomb_stays_in_its_memory(self) -> None:
        document = pikepdf.new()
        page = document.add_blank_page(page_size=A4)
        image = document.make_stream(bytes(300 << 20))
        image.Type, image.Subtype = pikepdf.Name.XObject, pikepdf.Name.Image
        image.Width, image.Height, image.BitsPerComponent = 10_240, 10_240, 8
        image.ColorSpace = pikepdf.Name.DeviceRGB
        page.Resources = pikepdf.Dictionary(XObject=pikepdf.Dictionary(X=image))
        page.Contents = document.make_stream(b"500 0 0 500 0 0 cm /X Do")
        out = io.BytesIO()
        document.save(out, compress_streams=True, recompress_flate=True)
        found = await counted(out.getvalue(), limits=Limits(memory=200 << 20))
        assert found.pages == 1
        assert found.color_pages in (None, 0)

    @pytest.mark.parametrize(
        ("size", "table_found"), [(1 << 30, True), (1 << 28, False)], ids=["1-GiB", "256-MiB-without-table"]
    )
    async def test_a_huge_document_takes_little_memory(self, size: int, table_found: bool, tmp_path: Path) -> None:
        """Sparse: objects, a hole, and behind it a cross-reference table that is found or must be rebuilt."""
        small = raw_pdf(
            b"<< /Type /Catalog /Pages 2 0 R >>",
            b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 72 72] >>",
        )
        body, table, tail = small.partition(b"xref\n0")
        start = size - len(small)
        path = tmp_path / "sparse.pdf"
        with path.open("wb") as file:
            file.write(body)
            file.seek(start)
            file.write(table + tail.partition(b"startxref")[0])
            file.write(b"startxref\n%d\n%%%%EOF\n" % (start if table_found else 12345))
        # Address space is more than resident memory: what fits here is far below 150 MiB resident.
        with path.open("rb") as file:
            found = await count_facts(
                file.fileno(),
                "application/pdf",
                program=PROGRAM,
                clock=SystemClock(),
                limits=Limits(memory=192 << 20),
            )
        assert found.facts == Facts(1, 0, (SheetSize(25.4, 25.4, 1),))
        assert await self._peak_memory(path) < 64 << 20

    async def _peak_memory(self, path: Path) -> int:
        """The most resident bytes of the program while it counts *path*, outside the sandbox."""
        measure = (
            "import resource, subprocess, sys; "
            "subprocess.run([sys.executable, '-I', *sys.argv[1:]], stdout=2);"
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
        )
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-c", measure, str(PROGRAM), "1", "-", "-", "1", "", str(path)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"CONTENT_TYPE": "application/pdf"},
        )
        out, answer = await process.communicate()
        assert json.loads(answer)["pages"] == 1
        return int(out) * 1024


GOOD = {
    "format": "pdf",
    "pages": 2,
    "color_pages": 1,
    "sheets": [[210, 297, 2]],
    "encrypted": False,
    "problem": None,
}


class TestLyingProgram:
    async def test_the_stand_in_is_believed_when_it_is_honest(self, tmp_path: Path) -> None:
        found = await answer_of(tmp_path, f"print({json.dumps(GOOD)!r})")
        assert found == Facts(2, 1, (SheetSize(210, 297, 2),))

    @pytest.mark.parametrize(
        "lie",
        [
            {"pages": -1},
            {"pages": 1_000_001},
            {"pages": True},
            {"pages": 2.0},
            {"pages": "2"},
            {"pages": None},
            {"color_pages": 3},
            {"sheets": [[210, 297, 3]]},
            {"sheets": [[0, 297, 1]]},
            {"sheets": [[float("nan"), 297, 1]]},
            {"sheets": [[float("inf"), 297, 1]]},
            {"sheets": [["210", 297, 1]]},
            {"sheets": [[210, 297]]},
            {"sheets": {"0": 1}},
            {"sheets": [[210, 297, 1]] * 65, "pages": 1000},
            {"encrypted": 1},
            {"format": ["pdf"]},
            {"format": "exe"},
            {"problem": "no\nproblem"},
            {"problem": "x" * 33},
            {"problem": 7},
            {"owner": "root"},
        ],
        ids=str,
    )
    async def test_answers_out_of_range_are_refused(self, lie: dict[str, object]) -> None:
        with pytest.raises(facts_module._Lied):
            facts_module._checked(json.dumps(GOOD | lie).encode() + b"\n")

    @pytest.mark.parametrize(
        "answer",
        [
            b"",
            b"\n",
            b"null\n",
            b"[]\n",
            json.dumps(GOOD).encode(),
            (json.dumps(GOOD) + "\n").encode() * 2,
            b"\xff\xfe{}\n",
            b"[" * 60_000 + b"\n",
            b'{"pages": ' + b"9" * 50_000 + b"}\n",
        ],
        ids=["nothing", "empty", "null", "list", "no-newline", "two-lines", "utf-16", "deep", "long-number"],
    )
    async def test_answers_that_are_none_are_refused(self, answer: bytes) -> None:
        with pytest.raises(facts_module._Lied):
            facts_module._checked(answer)

    async def test_a_flood_is_cut_off(self, tmp_path: Path) -> None:
        assert await answer_of(tmp_path, "print('x' * (1 << 20))") == Facts.unknown("invalid")

    async def test_sleeping_for_ever_ends_at_the_wall_clock(self, tmp_path: Path) -> None:
        found = await answer_of(tmp_path, "import time; time.sleep(1e6)", wall_seconds=0.7)
        assert found == Facts.unknown("timeout")

    async def test_closing_stdout_and_staying_ends_at_the_wall_clock(self, tmp_path: Path) -> None:
        source = "import os, time; os.close(1); time.sleep(1e6)"
        assert await answer_of(tmp_path, source, wall_seconds=0.7) == Facts.unknown("timeout")

    async def test_busy_for_ever_ends_at_the_processor_limit(self, tmp_path: Path) -> None:
        assert await answer_of(tmp_path, "while True: pass", cpu_seconds=1) == Facts.unknown("timeout")

    async def test_a_crash_with_pages_known_keeps_them(self, tmp_path: Path) -> None:
        source = f"import os, sys; 'count=pages' in sys.argv[5] or os.abort(); print({json.dumps(GOOD)!r})"
        assert await answer_of(tmp_path, source) == Facts(2, 1, (SheetSize(210, 297, 2),), "crashed")

    async def test_cancelling_leaves_nothing_running(self, tmp_path: Path) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await answer_of(tmp_path, "import time; time.sleep(77777)  # tell-tale")
        commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
        assert not any(str(tmp_path).encode() in command for command in commands)


WHITE, INK = (255, 255, 255), (255, 0, 0)


def near(pixel: object, color: tuple[int, int, int]) -> bool:
    """WebP is lossy."""
    assert isinstance(pixel, tuple)
    return max(abs(a - b) for a, b in zip(pixel, color, strict=True)) < 24


class TestPictures:
    async def test_page_one_is_drawn_as_it_looks_and_the_others_are_not(self) -> None:
        # A red square low on the left of page one; page two is red all over.
        found = await looked_at(pdf((A4, RED), (A4, b"1 0 0 rg 0 0 600 900 re f")))
        assert found.facts.pages == 2
        image = shown(found.picture)
        assert image.size == (PICTURE_WIDTH, 362)
        scale = PICTURE_WIDTH / A4[0]
        assert near(image.getpixel((round(150 * scale), round((842 - 150) * scale))), INK)
        assert near(image.getpixel((round(400 * scale), round((842 - 150) * scale))), WHITE)
        assert near(image.getpixel((round(150 * scale), round(150 * scale))), WHITE)

    @pytest.mark.parametrize(
        ("size", "expected"),
        [((1000, 100), (256, 26)), ((100, 1000), (38, 384)), ((20, 20), (256, 256)), ((14_000, 3), (256, 1))],
    )
    async def test_any_shape_stays_within_its_bounds(
        self, size: tuple[float, float], expected: tuple[int, int]
    ) -> None:
        assert shown((await looked_at(pdf((size, RED)))).picture).size == expected

    async def test_noise_gets_small_enough(self) -> None:
        noise = Image.frombytes("RGB", (900, 1200), random.Random(1).randbytes(900 * 1200 * 3))
        for document, kind in [
            (image_file("PNG", noise), "image/png"),
            (image_file("PDF", noise, resolution=72), "application/pdf"),
        ]:
            picture = (await looked_at(document, kind)).picture
            assert is_picture(picture) and 0 < len(picture) <= 24 << 10

    async def test_images_are_drawn_upright_on_white_and_tell_nothing_else(self) -> None:
        half = Image.new("RGB", (400, 200), INK)
        half.paste((0, 0, 0), (200, 0, 400, 200))
        exif = Image.Exif()
        exif[0x0112] = 6  # turn it right by a quarter: what was left is above
        exif[0x010E] = "taken at home"
        for declared in ("image/jpeg", "application/octet-stream"):
            found = await looked_at(image_file("JPEG", half, exif=exif), declared)
            assert found.facts == Facts.unknown("unsupported")
            image = shown(found.picture)
            assert image.size == (192, 384)
            assert near(image.getpixel((96, 90)), INK) and near(image.getpixel((96, 290)), (0, 0, 0))
            assert b"home" not in found.picture and b"EXIF" not in found.picture
        clear = Image.new("RGBA", (60, 60), (255, 0, 0, 0))
        clear.paste((255, 0, 0, 255), (0, 0, 30, 60))
        image = shown((await looked_at(image_file("PNG", clear), "image/png")).picture)
        assert image.size == (60, 60) and near(image.getpixel((10, 30)), INK) and near(image.getpixel((50, 30)), WHITE)

    @pytest.mark.parametrize(
        "document", [b"", b"%PDF-1.7\n", b"\x89PNG\r\n\x1a\n" + bytes(99), b"\xff\xd8\xff\xe0" * 99]
    )
    @pytest.mark.parametrize("content_type", ["application/pdf", "image/png", "text/plain", "application/octet-stream"])
    async def test_what_is_broken_has_no_picture(self, document: bytes, content_type: str) -> None:
        found = await looked_at(document, content_type)
        assert found.picture == b"" and found.facts.problem in ("broken", "unsupported")

    async def test_text_and_raster_have_none(self) -> None:
        assert (await looked_at(b"hello\n", "text/plain")).picture == b""
        assert (await looked_at(pwg((18, 1, b"\x00\x80")), "image/pwg-raster")) == Counted(
            Facts(1, 0, (SheetSize(209.9, 297.0, 1),))
        )
        locked = pdf((A4, RED), encryption=pikepdf.Encryption(owner="o", user="u"))
        assert await looked_at(locked) == Counted(Facts.unknown("encrypted"))

    async def test_a_bomb_of_an_image_has_no_picture_and_takes_no_memory(self) -> None:
        claimed = struct.pack(">II", 100_000, 100_000) + b"\x08\x02\0\0\0"
        header = b"IHDR" + claimed
        empty = image_file("PNG", Image.new("RGB", (1, 1)))
        real = image_file("PNG", Image.new("1", (8_000, 8_000)))
        for bomb in (patched(empty, 12, header + struct.pack(">I", zlib.crc32(header))), real):
            assert len(bomb) < 1 << 16
            begin = time.monotonic()
            found = await looked_at(bomb, "image/png", limits=Limits(memory=192 << 20))
            assert found == Counted(Facts.unknown("unsupported"))
            assert time.monotonic() - begin < 5
        inside = image_file("PNG", Image.new("RGB", (5_000, 5_000), INK), compress_level=1)
        assert shown((await looked_at(inside, "image/png")).picture).size == (256, 256), "a large one is none"

    async def test_a_page_that_takes_too_long_to_draw_costs_its_picture_and_nothing_else(self, tmp_path: Path) -> None:
        """The program itself, with a first page that never gets drawn: what it has counted stands."""
        for ending in ("while True: pass", "os.abort()", "raise MemoryError", "os._exit(3)", "time.sleep(1e6)"):
            source = PROGRAM.read_text().replace(
                "    scale = min(width / max(box[0]", f"    {ending}\n    scale = min(width / max(box[0]"
            )
            assert ending in source
            program = tmp_path / "endless"
            program.write_text(source.replace("PICTURE_SECONDS = 4", "PICTURE_SECONDS = 1"))
            found = await looked_at(pdf((A4, RED)), program=program)
            assert found == Counted(Facts(1, 1, (SheetSize(210.0, 297.0, 1),))), ending

    async def test_without_the_library_there_is_no_picture(self, tmp_path: Path) -> None:
        program = tmp_path / "poor"
        program.write_text(
            PROGRAM.read_text().replace(
                "import ctypes\n", "import ctypes\nimport sys as _sys\n_sys.modules['PIL'] = None\n", 1
            )
        )
        assert await looked_at(pdf((A4, RED)), program=program) == Counted(Facts(1, 1, (SheetSize(210.0, 297.0, 1),)))


def webp(width: int = 30, height: int = 40) -> bytes:
    return image_file("WEBP", Image.new("RGB", (width, height), INK), quality=60)


def patched(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


class TestLyingPictures:
    async def test_a_stand_ins_picture_is_believed_when_it_looks_like_one(self, tmp_path: Path) -> None:
        line = json.dumps(GOOD).encode() + b"\n"
        for picture, status in [(webp(), 0), (webp(), 3), (b"", 0)]:
            source = (
                f"import os, sys; sys.stdout.buffer.write({line + picture!r}); sys.stdout.flush(); os._exit({status})"
            )
            assert await said(tmp_path, source) == Counted(Facts(2, 1, (SheetSize(210, 297, 2),)), picture)

    @pytest.mark.parametrize("picture", [webp() + b"\n", b"\n", b"<svg/>", webp(PICTURE_WIDTH + 1)], ids=repr)
    async def test_what_looks_otherwise_is_dropped_and_the_facts_stand(self, picture: bytes, tmp_path: Path) -> None:
        out = json.dumps(GOOD).encode() + b"\n" + picture
        found = await said(tmp_path, f"import sys; sys.stdout.buffer.write({out!r})")
        assert found == Counted(Facts(2, 1, (SheetSize(210, 297, 2),)))

    async def test_a_picture_without_facts_is_none(self, tmp_path: Path) -> None:
        found = await said(tmp_path, f"import sys; sys.stdout.buffer.write({webp()!r})")
        assert found == Counted(Facts.unknown("invalid"))

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            webp()[:20],
            webp()[:-2],
            webp() + bytes(2),
            webp() + webp(),
            patched(webp(), 0, b"RIFX"),
            patched(webp(), 4, b"\xff\xff\xff\xff"),
            patched(webp(), 8, b"WAVE"),
            patched(webp(), 12, b"VP8L"),
            patched(webp(), 12, b"VP8X"),
            patched(webp(), 16, bytes(4)),
            patched(webp(), 20, b"\x01"),
            patched(webp(), 23, b"\x00"),
            patched(webp(), 26, b"\x00\x00"),
            patched(webp(), 26, b"\x1e\x40"),
            patched(webp(), 28, b"\xff\x3f"),
            webp(PICTURE_WIDTH + 1, 10),
            webp(10, PICTURE_WIDTH * 3 // 2 + 1),
            image_file("WEBP", Image.new("RGB", (30, 40)), lossless=True),
            image_file("WEBP", Image.new("RGBA", (30, 40))),
            image_file("WEBP", Image.new("RGB", (30, 40)), exif=b"Exif\0\0MM\0*" + bytes(32)),
            image_file("PNG", Image.new("RGB", (30, 40))),
            image_file("WEBP", Image.frombytes("RGB", (256, 384), random.Random(2).randbytes(294_912)), quality=95),
        ],
    )
    def test_other_files_are_no_pictures(self, data: bytes) -> None:
        assert not is_picture(data)

    @pytest.mark.parametrize("size", [(1, 1), (30, 40), (256, 384), (255, 1), (1, 384)])
    def test_pictures_are(self, size: tuple[int, int]) -> None:
        assert is_picture(webp(*size))


ESCAPES = {
    "reads-shadow": "open('/etc/shadow').read()",
    "reads-passwd": "open('/etc/passwd').read()",
    "reads-a-file-of-ours": "open({secret!r}).read()",
    "lists-our-processes": "os.listdir('/proc')",
    "looks-up-our-environment": "os.environ['PULLPRINT_TEST_SECRET']",
    "connects-to-loopback": "socket.create_connection(('127.0.0.1', {port}), 2)",
    "opens-a-netlink-socket": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)",
    "writes-to-tmp": "open('/tmp/file', 'w')",
    "writes-to-root": "open('/file', 'w')",
    "writes-to-its-own-program": "open('/pullprint-facts', 'a')",
    "writes-to-the-interpreter": "open(sys.prefix + '/file', 'w')",
    "writes-to-the-document": "os.pwrite(0, b'forged', 0)",
    "maps-the-document-for-writing": "mmap.mmap(0, 3, mmap.MAP_SHARED, mmap.PROT_WRITE)",
    "changes-the-documents-mode": "os.fchmod(0, 0o777)",
    "makes-a-memory-file": "os.memfd_create('file')",
    "forks": "os.fork()",
    "starts-a-program": "subprocess.run(['/usr/bin/true'])",
    "starts-a-thread": "threading.Thread(target=print).start()",
    "takes-a-gibibyte": "bytearray(1 << 30)",
    "raises-its-own-limits": "resource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
    "makes-a-user-namespace": "ctypes.CDLL(None).unshare(0x10000000) and os.read(99, 1)",
    "mounts": "ctypes.CDLL(None).mount(b'x', b'/tmp', b'tmpfs', 0, None) and os.read(99, 1)",
    "inherits-other-descriptors": "[os.fstat(fd) for fd in range(3, 32)]",
    "is-nice-to-itself": "os.nice(0) == 19 and os.read(99, 1) or os.nice(-1)",
}


class TestSandbox:
    @pytest.mark.parametrize("attempt", ESCAPES.values(), ids=list(ESCAPES))
    async def test_escape_is_refused(self, attempt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PULLPRINT_TEST_SECRET", "secret")
        secret = tmp_path / "secret"
        secret.write_text("secret")
        with socket.create_server(("127.0.0.1", 0)) as server:
            attempt = attempt.format(secret=str(secret), port=server.getsockname()[1])
            assert await self._refused(attempt, tmp_path)

    async def test_what_is_allowed_goes_through(self, tmp_path: Path) -> None:
        """Without this, the test above could pass because nothing at all works in there."""
        assert not await self._refused("os.pread(0, 3, 0) == b'any' or os.read(99, 1)", tmp_path)
        assert not await self._refused("bytearray(64 << 20)", tmp_path)

    async def _refused(self, attempt: str, tmp_path: Path) -> bool:
        """Whether the stand-in could not do it: it answers 2 pages then, and 1 if it could."""
        found = await answer_of(
            tmp_path,
            f"""
            import ctypes, json, mmap, os, resource, socket, subprocess, sys, threading
            answer = {GOOD!r}
            try:
                {attempt}
            except (OSError, KeyError, MemoryError, RuntimeError, ValueError):
                pass
            else:
                answer |= dict(pages=1, color_pages=0, sheets=[])
            print(json.dumps(answer), flush=True)
            """,
        )
        return found.pages == 2

    async def test_without_bubblewrap_nothing_is_parsed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sandbox_module, "_PATH", "/nowhere")
        assert await counted(pdf((A4, GREY))) == Facts.unknown("no-sandbox")

    async def test_where_namespaces_are_forbidden_nothing_is_parsed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What bwrap does on a kernel without unprivileged user namespaces: complain and exit 1."""
        refusing = tmp_path / "bwrap"
        refusing.write_text("#!/bin/sh\nexit 1\n")
        refusing.chmod(0o755)
        monkeypatch.setattr(sandbox_module, "_PATH", f"{tmp_path}:/usr/bin")
        assert await counted(pdf((A4, GREY))) == Facts.unknown("no-sandbox")

    async def test_position_of_the_descriptor_is_left_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "document"
        path.write_bytes(pdf((A4, GREY)))
        with path.open("rb") as file:
            file.seek(17)
            found = await count_facts(file.fileno(), "application/pdf", program=PROGRAM, clock=SystemClock())
            assert (found.facts.pages, os.lseek(file.fileno(), 0, os.SEEK_CUR)) == (1, 17)

    async def test_a_pipe_is_not_waited_for(self) -> None:
        reader, writer = os.pipe()
        try:
            found = await count_facts(reader, "application/pdf", program=PROGRAM, clock=SystemClock())
        finally:
            os.close(reader)
            os.close(writer)
        assert found.facts == Facts.unknown("unsupported")

    async def test_documents_wait_for_their_turn(self, tmp_path: Path) -> None:
        program = tmp_path / "stand-in"
        program.write_text(f"import time; time.sleep(0.2); print({json.dumps(GOOD)!r})")
        counter = FactCounter(program, SystemClock())
        document = tmp_path / "document"
        document.write_bytes(b"any")
        with document.open("rb") as file:
            start = SystemClock().monotonic()
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(counter.count(file.fileno(), "application/pdf")) for _ in range(3)]
        assert all(task.result().facts.pages == 2 for task in tasks)
        assert SystemClock().monotonic() - start >= 0.6


class TestAsAFilter:
    """The program as CUPS would start one: a file argument, or a pipe on stdin."""

    async def _run(self, *arguments: str, stdin: bytes = b"") -> tuple[bytes, int | None]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", str(PROGRAM), *arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"CONTENT_TYPE": "application/pdf"},
        )
        out, _ = await process.communicate(stdin)
        return out, process.returncode

    async def test_file_argument_and_pipe_give_the_same_line(self, tmp_path: Path) -> None:
        document = pdf((A4, RED))
        path = tmp_path / "document.pdf"
        path.write_bytes(document)
        from_file = await self._run("1", "u", "t", "1", "", str(path))
        assert from_file == await self._run("1", "u", "t", "1", "", stdin=document)
        assert json.loads(from_file[0])["color_pages"] == 1

    async def test_a_picture_follows_the_line_only_when_it_is_asked_for(self, tmp_path: Path) -> None:
        document = pdf((A4, RED))
        bare, _ = await self._run("1", "u", "t", "1", "media=a4", stdin=document)
        assert bare.endswith(b"\n") and bare.count(b"\n") == 1
        for options, width in [("picture=100", 100), ("sides=one-sided picture=9999 x", 400)]:
            out, status = await self._run("1", "u", "t", "1", options, stdin=document)
            line, _, picture = out.partition(b"\n")
            assert (line + b"\n", status, shown(picture).width) == (bare, 0, width)
        for nonsense in ("picture=", "picture=-9", "picture=0", "picture=x", "picture=²"):
            assert await self._run("1", "u", "t", "1", nonsense, stdin=document) == (bare, 0)

    async def test_bad_usage_is_not_success(self) -> None:
        assert await self._run("1", "u") == (b"", 1)


class TestModel:
    def test_facts_survive_the_wire(self) -> None:
        facts = Facts(3, 1, (SheetSize(210.0, 297.0, 2), SheetSize(297.0, 420.0, 1)), "timeout")
        assert Facts.from_dict(json.loads(json.dumps(facts.to_dict()))) == facts
        assert Facts.from_dict({}) == Facts.unknown()

    def test_colour_without_pages_is_refused(self) -> None:
        with pytest.raises(BadFacts, match="more colour pages"):
            Facts(None, 1)

    @pytest.mark.parametrize(
        ("sides", "copies", "number_up", "sheets"),
        [
            ("one-sided", 1, 1, 5),
            ("two-sided-long-edge", 1, 1, 3),
            ("two-sided-short-edge", 2, 1, 6),
            ("one-sided", 1, 2, 3),
            ("two-sided-long-edge", 3, 4, 3),
        ],
    )
    def test_paper_is_estimated(self, sides: str, copies: int, number_up: int, sheets: int) -> None:
        assert Facts(5).sheets_of_paper(sides, copies, number_up) == sheets

    def test_paper_of_unknown_pages_is_unknown(self) -> None:
        assert Facts.unknown("broken").sheets_of_paper("one-sided", 2, 1) is None
