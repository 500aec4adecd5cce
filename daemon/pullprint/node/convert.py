"""Making PDF of what people upload: what it really is, and a program of ``filters/`` that reads it in a `Sandbox`.

What a document is, its first bytes say, not its name or its sender. Nothing in this process parses it.
"""

import asyncio
import os
import re
from enum import StrEnum
from pathlib import Path

from pullprint.base.clock import Clock
from pullprint.base.errors import PullprintError
from pullprint.base.platform import memory_file, reopen
from pullprint.node.confine import MOST
from pullprint.node.sandbox import Limits, NoSandbox, Sandbox, TooMuchSaid

HEAD = 4_096
"""Bytes from the beginning that tell what a document is."""
MADE_LIMIT = 256 << 20
"""Bytes of PDF that may come of a document."""
_LIMITS = Limits(wall_seconds=60.0, answer=MADE_LIMIT, **MOST["convert"])
_OFFICE_LIMITS = Limits(wall_seconds=110.0, answer=MADE_LIMIT, **MOST["office"])


class Kind(StrEnum):
    """What a document can be, each with the type that its converter is told."""

    PDF = "application/pdf"
    PICTURE = "image/*"
    TEXT = "text/plain"
    OFFICE = "application/vnd.oasis.opendocument"


class NotPrintable(PullprintError):
    """Such a file cannot be made into pages. Nothing was stored. Upload a PDF, a picture (JPEG, PNG, GIF, WebP, TIFF),
    a text or an office document."""

    code = "not-printable"
    http_status = 415


class NeedsPassword(PullprintError):
    """This document asks for a password, so no printer can print it. Nothing was stored. Save it without a password,
    then upload it again."""

    code = "needs-password"
    http_status = 415


class BrokenDocument(PullprintError):
    """This document is broken: it cannot be opened here. Nothing was stored. Save it anew from the program that made
    it, or as PDF, then upload it again."""

    code = "broken-document"
    http_status = 415


class TooManyPages(PullprintError):
    """This document is too large to be made into pages here. Nothing was stored. Save it as PDF yourself, or in parts,
    then upload that."""

    code = "too-many-pages"
    http_status = 413


class NoOffice(PullprintError):
    """This host cannot convert office documents. Nothing was stored. Upload a PDF, or ask an administrator to install
    libreoffice-writer-nogui on it."""

    code = "no-office"
    http_status = 415


class NoConverter(PullprintError):
    """This host cannot look into documents safely: bubblewrap or the converter is missing. Nothing was stored. Tell who
    looks after it."""

    code = "no-converter"
    http_status = 503


_FAILURES: dict[int, type[PullprintError]] = {
    1: NoConverter,  # bwrap says so too, where the kernel lets it make no sandbox
    10: NeedsPassword, 11: BrokenDocument, 12: TooManyPages, 13: NotPrintable, 14: NoOffice,
    # bwrap tells a signal as a shell does: SIGKILL and SIGXCPU, the limit of processor time.
    128 + 9: TooManyPages, 128 + 24: TooManyPages,
}  # fmt: skip

_PICTURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*")
_PICTURE_BRANDS = frozenset({b"avif", b"avis", b"heic", b"heix", b"heif", b"mif1", b"msf1"})
_RTF, _OLE, _ZIP = b"{\\rtf", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", b"PK\x03\x04"
_ODF = b"mimetypeapplication/vnd.oasis.opendocument."
_OOXML = (b"[Content_Types].xml", b"_rels/", b"docProps/", b"word/", b"xl/", b"ppt/", b"customXml/")
_NO_TEXT = re.compile(rb"[\0-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_PROGRAMS = (b"%!", b"\x1b%-12345X", b"\x1bE")
"""PostScript, PJL and PCL: for a printer, but not something to show."""


def kind_of(head: bytes) -> Kind:
    """What the document is whose first `HEAD` bytes these are. Raises NotPrintable."""
    if b"%PDF-" in head[:1_024]:
        return Kind.PDF
    if head.startswith(_PICTURES) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
        return Kind.PICTURE
    if head[4:8] == b"ftyp" and head[8:12] in _PICTURE_BRANDS:
        return Kind.PICTURE
    # The name of a zip's first file stands at 30, and the content of ODF's, which is not compressed, behind it.
    if head.startswith((_RTF, _OLE)) or (head.startswith(_ZIP) and head[30:].startswith((_ODF, *_OOXML))):
        return Kind.OFFICE
    marked = head.startswith((b"\xff\xfe", b"\xfe\xff"))
    if head and not head.startswith(_PROGRAMS) and (marked or not _NO_TEXT.search(head)):
        return Kind.TEXT
    raise NotPrintable


class Converter:
    """Makes PDF, one document of a kind at a time: it takes much memory, and the machine has other things to do."""

    def __init__(self, program: Path, media: str, clock: Clock, service: Path | None = None) -> None:
        """*media* is the paper for what has none of its own (PWG 5101.1)."""
        self._program = program
        self._media = media
        self._clock = clock
        self._service = service
        self._turns = {kind: asyncio.Semaphore(1) for kind in Kind}

    async def pdf(self, document: int, kind: Kind) -> int:
        """A descriptor, the caller's to close, of what is printed for *document*, which is in memory: itself if PDF.

        Raises NotPrintable, NeedsPassword, BrokenDocument, TooManyPages, NoOffice, NoConverter, NoMemoryFile, OSError.
        """
        made = memory_file("pdf")
        try:
            await self._make(document, kind, made)
            return os.dup(document if kind is Kind.PDF else made)
        finally:
            os.close(made)

    async def _make(self, document: int, kind: Kind, made: int) -> None:
        # Opened again, for reading only: the program shares no position with us and cannot write to it.
        source = reopen(document)
        try:
            async with self._turns[kind]:
                status = await self._run(source, kind, made)
        finally:
            os.close(source)
        if status or not (kind is Kind.PDF or os.fstat(made).st_size):
            raise _FAILURES.get(status, BrokenDocument)

    async def _run(self, source: int, kind: Kind, made: int) -> int:
        office = kind is Kind.OFFICE
        limits = _OFFICE_LIMITS if office else _LIMITS
        deadline = self._clock.monotonic() + limits.wall_seconds
        what = "office" if office else "convert"
        sandbox = Sandbox(what, self._program, source, kind.value, limits, deadline, self._service)
        try:
            return await sandbox.run_into(lambda data: _write(made, data), f"media={self._media}", self._clock)
        except (TimeoutError, TooMuchSaid) as error:
            raise TooManyPages from error
        except NoSandbox as error:
            raise NoConverter from error


def _write(fd: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]
