"""Signs for printers: the QR code that people scan at the machine, and a sheet to hang up beside it.

The code says an address with the printer's opaque id and nothing else; whoever follows it still has to sign in. Making
one takes a tenth of a second of a processor, so it is done in a thread, and the last ones are remembered.
"""

import functools
import io
import itertools
import logging
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import select

from pullprint.base.errors import NotFound, PullprintError
from pullprint.cloud.store import Transaction
from pullprint.cloud.tables import organisation, printer

if TYPE_CHECKING:
    from segno import QRCode

FONTS = tuple(
    Path(folder)
    for folder in (
        "/usr/share/fonts/truetype/dejavu",  # Debian's fonts-dejavu-core
        "/usr/share/fonts/dejavu-sans-fonts",
        "/usr/share/fonts/TTF",
        "/usr/share/fonts/dejavu",
        "/Library/Fonts",
    )
)
REMEMBERED = 64
"""Signs of each kind."""

# Millimetres of an A5 sheet, upright. Nothing comes nearer to its edge than printers print.
_WIDTH, _HEIGHT, _MARGIN, _PADDING = 148.0, 210.0, 10.0, 7.0
_INNER = _WIDTH - 2 * _MARGIN
_HEAD = (10.0, 52.0)
"""Top and height of the panel with the name."""
_FOOT = (175.5, 24.5)
_QR_TOP, _QR = 72.0, 74.0
_CODE = 46.0
"""Width of the code to type."""
_QUIET = 4
"""Modules of white around a QR code (ISO/IEC 18004, 9.1)."""
_LEADING = 1.25 * 25.4 / 72
"""Millimetres from line to line for each point of a letter's size."""

_Colour = tuple[int, int, int]
_INK, _SOFT, _PANEL, _TINT = (23, 28, 38), (87, 96, 112), (23, 43, 99), (238, 242, 250)
_WHITE, _PALE = (255, 255, 255), (200, 211, 240)

_HOW, _HOW_GERMAN = "Scan, choose, print.", "Scannen, auswählen, drucken."
_TYPE = "No camera? Open this address:"
_TYPE_GERMAN = "Ohne Kamera: diese Adresse öffnen:"


class FontMissing(PullprintError):
    """The sheet cannot be made: the font DejaVu Sans is missing on the host of the cloud. Install the package
    fonts-dejavu-core there, then try again; sign.png and sign.svg do without it."""

    code = "font-missing"
    http_status = 503


@dataclass(frozen=True, slots=True)
class Sign:
    """What stands on a printer's sign."""

    name: str
    place: str
    organisation: str
    code: str
    """To type."""
    url: str
    """What the QR code says."""
    address: str
    """What leads to the same page, for people: with the short code and without https://."""


def sign(t: Transaction, organisation_id: str, printer_id: str, public_url: str) -> Sign:
    """The sign of an organisation's printer. Raises NotFound."""
    query = select(printer.c.id, printer.c.name, printer.c.place, printer.c.code, organisation.c.name.label("of"))
    query = query.join(organisation, organisation.c.id == printer.c.organisation)
    row = t.one(query.where(printer.c.organisation == organisation_id, printer.c.id == printer_id))
    if row is None:
        raise NotFound(what="printer")
    page = public_url.rstrip("/")
    return Sign(
        row.name, row.place, row.of, row.code, f"{page}/p/{row.id}", f"{page.removeprefix('https://')}/p/{row.code}"
    )


def file_name(of: Sign, kind: str) -> str:
    """A name for the file that any system and any HTTP header takes."""
    plain = unicodedata.normalize("NFKD", of.name).encode("ascii", "ignore").decode()
    words = re.sub(r"[^A-Za-z0-9]+", "-", plain).strip("-")[:60].strip("-")
    return f"{words or 'printer'}-{of.code}.{kind}"


@functools.lru_cache(REMEMBERED)
def svg(of: Sign) -> bytes:
    """The QR code alone, on white: it is scanned from dark pages too."""
    out = io.BytesIO()
    # With a unit it has a viewBox too, so that a page can show it at any size.
    _qr(of.url).save(out, "svg", border=_QUIET, scale=2, unit="mm", dark="#000", light="#fff", xmldecl=False, nl=False)
    return out.getvalue()


@functools.lru_cache(REMEMBERED)
def png(of: Sign) -> bytes:
    """The QR code alone, about a thousand pixels wide."""
    code, out = _qr(of.url), io.BytesIO()
    code.save(out, kind="png", border=_QUIET, scale=max(4, 1_000 // code.symbol_size(border=_QUIET)[0]))
    return out.getvalue()


@functools.lru_cache(REMEMBERED)
def pdf(of: Sign) -> bytes:
    """The sheet, A5. Raises FontMissing."""
    return _Sheet(of).made()


KINDS: dict[str, tuple[str, Callable[[Sign], bytes]]] = {
    "pdf": ("application/pdf", pdf),
    "png": ("image/png", png),
    "svg": ("image/svg+xml", svg),
}
"""Media type, and how it is made, by the ending of a file's name. Blocking."""


def _qr(url: str) -> "QRCode":
    import segno  # late: a server starts without it

    # Q: a quarter of it may be covered by tape, glare and coffee.
    return segno.make(url, error="q", micro=False, boost_error=False)


def _font(name: str) -> Path:
    for folder in FONTS:
        if (file := folder / name).is_file():
            return file
    raise FontMissing


@dataclass(frozen=True, slots=True)
class _Lines:
    """Text that was made to fit."""

    lines: tuple[str, ...]
    style: str
    size: float
    """Points."""

    @property
    def leading(self) -> float:
        return self.size * _LEADING

    @property
    def height(self) -> float:
        return len(self.lines) * self.leading


class _Sheet:
    """One sheet under construction; all lengths in millimetres."""

    def __init__(self, of: Sign) -> None:
        from fpdf import FPDF  # late: it takes 0.4 s, and few ever ask for a sheet

        # They name every character that the font lacks.
        logging.getLogger("fpdf").setLevel(logging.ERROR)
        logging.getLogger("fontTools").setLevel(logging.ERROR)
        self._of = of
        self._pdf: FPDF = FPDF(unit="mm", format=(_WIDTH, _HEIGHT))
        self._pdf.set_auto_page_break(False)
        self._pdf.c_margin = 0
        self._pdf.set_title(of.name)
        self._pdf.set_creator("Pullprint")
        self._pdf.add_font("sans", "", _font("DejaVuSans.ttf"))
        self._pdf.add_font("sans", "B", _font("DejaVuSans-Bold.ttf"))
        self._pdf.add_page()

    def made(self) -> bytes:
        """The PDF."""
        self._head()
        self._code()
        self._how()
        self._foot()
        return bytes(self._pdf.output())

    def _head(self) -> None:
        """Organisation, name and place, in the middle of their panel."""
        top, height = _HEAD
        self._panel(top, height, _PANEL)
        width, room, gap = _INNER - 2 * _PADDING, height - 2 * _PADDING + 2, 2.5
        owner = self._fit(self._of.organisation, "", (10.5, 8.5), width, 5)
        place = self._fit(self._of.place, "", (13, 11, 9), width, 11.5)
        room -= owner.height + place.height + 2 * gap
        name = self._fit(self._of.name, "B", (32, 26, 21, 17, 14, 11), width, room)
        y = top + (height - owner.height - name.height - place.height - 2 * gap) / 2
        y = self._put(owner, y, _PALE) + gap
        y = self._put(name, y, _WHITE) + gap
        self._put(place, y, _PALE)

    def _code(self) -> None:
        """The QR code as one shape, so that no reader shows seams between its modules."""
        rows = [list(row) for row in _qr(self._of.url).matrix]
        module, left = _QR / len(rows), (_WIDTH - _QR) / 2
        with self._pdf.new_path() as path:
            path.style.fill_color = "#000000"
            path.style.stroke_color = None
            for y, row in enumerate(rows):
                for x, width in _runs(row):
                    path.rectangle(left + x * module, _QR_TOP + y * module, width * module, module)

    def _how(self) -> None:
        y = _QR_TOP + _QR + 8.5
        y = self._put(self._fit(_HOW, "B", (16,), _INNER, 8), y, _INK)
        self._put(self._fit(_HOW_GERMAN, "", (12.5,), _INNER, 8), y, _SOFT)

    def _foot(self) -> None:
        """Where to type on the left, what to type on the right."""
        top, height = _FOOT
        self._panel(top, height, _TINT)
        left, width = _MARGIN + _PADDING, _INNER - 2 * _PADDING - _CODE - 4
        hints = [self._fit(text, "", (8,), width, 4) for text in (_TYPE, _TYPE_GERMAN)]
        where = self._fit(self._of.address, "B", (12, 10.5, 9, 8, 7), width, 6.5)
        y = top + (height - sum(block.height for block in (*hints, where)) - 1) / 2
        for hint in hints:
            y = self._put(hint, y, _SOFT, left, width, "L")
        self._put(where, y + 1, _INK, left, width, "L")
        self._pdf.set_char_spacing(6)
        code = _Lines((self._of.code,), "B", 30 if len(self._of.code) <= 4 else 25)
        self._put(code, top + (height - code.height) / 2, _PANEL, left + width + 4, _CODE, "R")
        self._pdf.set_char_spacing(0)

    def _panel(self, top: float, height: float, colour: _Colour) -> None:
        self._pdf.set_fill_color(*colour)
        self._pdf.rect(_MARGIN, top, _INNER, height, style="F", round_corners=True, corner_radius=4)

    def _put(
        self, text: _Lines, y: float, colour: _Colour, x: float = _MARGIN, width: float = _INNER, align: str = "C"
    ) -> float:
        """Write *text* from *y* downwards; where it ends."""
        self._pdf.set_text_color(*colour)
        self._pdf.set_font("sans", text.style, text.size)
        for line in text.lines:
            self._pdf.set_xy(x, y)
            self._pdf.cell(width, text.leading, _seen(line), align=align)
            y += text.leading
        return y

    def _fit(self, text: str, style: str, sizes: tuple[float, ...], width: float, room: float) -> _Lines:
        """*text* in the largest of *sizes* in which it fits into *width* and *room* without breaking a word; in the
        smallest with words broken if need be, and its end cut off if that is not enough.
        """
        for size in sizes:
            self._pdf.set_font("sans", style, size)
            lines, broken = self._lines(text, width)
            most = max(1, int(room / (size * _LEADING)))
            if len(lines) <= most and not broken:
                break
        if len(lines) > most:
            lines = [*lines[: most - 1], self._clipped(lines[most - 1], width)]
        return _Lines(tuple(lines), style, size)

    def _lines(self, text: str, width: float) -> tuple[list[str], bool]:
        """*text* in lines of at most *width*, and whether a word had to be broken for that."""
        lines, line, broken = [], "", False
        for word in text.split():
            longer = f"{line} {word}" if line else word
            if self._fits(longer, width):
                line = longer
                continue
            if line:
                lines.append(line)
            line = word
            while not self._fits(line, width):
                broken = True
                most = next(n for n in range(len(line) - 1, 0, -1) if self._fits(line[:n], width))
                cut = line.rfind(".", 0, most) + 1 or most  # addresses are read name by name
                lines.append(line[:cut])
                line = line[cut:]
        return [*lines, line] if line else lines, broken

    def _clipped(self, line: str, width: float) -> str:
        while len(line) > 1 and not self._fits(f"{line}…", width):
            line = line[:-1]
        return f"{line}…"

    def _fits(self, text: str, width: float) -> bool:
        return len(text) <= 1 or self._pdf.get_string_width(text) <= width


def _runs(row: list[int]) -> Iterator[tuple[int, int]]:
    """Where dark modules begin in *row*, and how many there are."""
    at = 0
    for dark, group in itertools.groupby(row):
        length = len(list(group))
        if dark:
            yield at, length
        at += length


def _seen(line: str) -> str:
    """*line* from left to right as it is read: letters of Hebrew and Arabic stand in the order of their sounds."""
    from fpdf.bidi import BidiParagraph  # late: see _Sheet

    if not any(unicodedata.bidirectional(char) in ("R", "AL") for char in line):
        return line
    return BidiParagraph(line).get_reordered_string()
