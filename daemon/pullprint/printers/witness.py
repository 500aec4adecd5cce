"""What a backend says on stderr, read for evidence of how far a document got.

The lines are those of CUPS 2.4 (backend/ipp.c, socket.c, lpd.c) with LC_ALL=C. Most are printed whatever the
log level. A line *before* an act proves nothing by being there, but its absence proves that the act did not
happen: «Connected to printer.» comes before socket's first write, «Sending file» before ipp's document,
«Sending data file» before lpd's. Whether this machine's backends still speak these words is checked in their
binaries (`speaks`), because a CUPS that says it differently would turn silence into a false proof.

Lines carry text of the printer (marker-message even with line feeds). A lying line can open the gate early or
make an outcome uncertain; it can never take evidence away.
"""

import functools
import os
import re
from collections.abc import Callable
from pathlib import Path

LINE_LIMIT = 2_048
"""Octets of a line that are looked at; the rest of it is dropped."""
TOTAL_LIMIT = 256 << 20
"""Octets that are looked at; socket writes about 12 MiB of them for a 1 GiB document."""

_MARKS = {
    "ipp": b"DEBUG: Sending file ",
    "socket": b"INFO: Connected to printer.",
    "lpd": b"DEBUG: Sending data file",
}
_SPOKEN = {
    "ipp": (b"DEBUG: Sending file %d using", b"DEBUG: Sending file using HTTP/1.1"),
    "socket": (b"Connected to printer.",),
    "lpd": (b"DEBUG: Sending data file (",),
}
_JOB_ID = re.compile(rb"DEBUG: Print job accepted - job ID ([0-9]{1,9})\.")
_PAGES = re.compile(rb"PAGE: total ([0-9]{1,7})$")


class Witness:
    """Evidence from one run of a backend; every field only ever goes from no to yes."""

    def __init__(self, scheme: str, changed: Callable[[], None]) -> None:
        """*changed* is called after lines that matter."""
        self._mark = _MARKS["ipp" if scheme == "ipps" else scheme]
        self._changed = changed
        self._rest = b""
        self._total = 0
        self.lines = 0
        self.connected = False
        self.sending = False
        """The line that comes before the document was seen."""
        self.deaf = False
        """Too much was said to hear all of it: absence proves nothing any more."""
        self.job_id: int | None = None
        self.accepted = False
        """ipp: the printer answered the document with successful-ok. lpd: it acknowledged the data file."""
        self.refused = False
        """A connection was refused or found no way; the backend will try again. (ipp calls any of it «Host is
        down».)
        """
        self.busy = False
        self.formats_listed = False
        self.format_unknown = False
        """ipp: the printer lists its formats, and this one is not among them."""
        self.format_refused = False
        """ipp: the printer said so itself, when it was asked whether it would take the job."""
        self.options_refused = False
        self.broken = False
        """Writing to the printer failed, or it said no to data that it had taken."""
        self.unanswered = False
        """lpd: no acknowledgement came."""
        self.certificate = False
        self.temporary_failed = False
        self.pages: int | None = None

    def feed(self, data: bytes) -> None:
        """The next octets of stderr."""
        self._total += len(data)
        if self._total > TOTAL_LIMIT:
            self.deaf = True
            return
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[:LINE_LIMIT]
        matters = False
        for line in lines:
            self.lines += 1
            matters |= self._hear(line[:LINE_LIMIT])
        if matters:
            self._changed()

    def _hear(self, line: bytes) -> bool:
        if line.startswith(self._mark):
            self.sending = True
            self.connected |= line == b"INFO: Connected to printer."
            return True
        if line.startswith((b"DEBUG: Read ", b"DEBUG: Wrote ", b"INFO: Spooling job")):
            return False
        if line == b"INFO: Connected to printer.":
            self.connected = True
        elif match := _JOB_ID.match(line):
            self.job_id = int(match[1])
        elif match := _PAGES.match(line):
            self.pages = int(match[1])
        elif line.startswith(
            (
                b"DEBUG: Send-Document: successful-ok",
                b"DEBUG: Print-Job: successful-ok",
                b"INFO: Data file sent succ",
            )
        ):
            self.accepted = True
        elif line.startswith(
            (
                b"WARNING: The printer is in use.",
                b"WARNING: The printer may not exist",
                b"WARNING: The printer is unreachable",
            )
        ):
            self.refused = True
        elif line == b"INFO: The printer is in use.":
            self.busy = True
        elif line.startswith(b"DEBUG: document-format-supported ("):
            self.formats_listed = True
        elif line.startswith(b"DEBUG: final_content_type=") and line.endswith(b'document_format="(null)"'):
            self.format_unknown = self.formats_listed
        elif line == b"ERROR: Printer cannot print supplied content.":
            self.format_refused = True
        elif line == b"ERROR: Printer cannot print with supplied options.":
            self.options_refused = True
        elif line.startswith(
            (
                b"ERROR: Unable to write print data",
                b"DEBUG: Error writing document data",
                b"DEBUG: Unable to send print file",
                b"DEBUG: Unable to send trailing nul",
                b"ERROR: Remote host did not accept",
            )
        ):
            self.broken = True
        elif line == b"WARNING: The printer did not respond.":
            self.unanswered = True
        elif line.startswith(b"STATE: +cups-pki-") or line == b"STATE: +cups-certificate-error":
            self.certificate = True
        elif line.startswith(b"DEBUG: Unable to create temporary file"):
            self.temporary_failed = True
        else:
            return False
        return True


def speaks(program: Path, scheme: str) -> bool:
    """Whether *program* contains the words whose absence is taken as proof. Reads the file once; OSError
    passes.
    """
    status = program.stat()
    return _speaks(program, "ipp" if scheme == "ipps" else scheme, (status.st_ino, status.st_mtime_ns, status.st_size))


@functools.lru_cache(maxsize=32)
def _speaks(program: Path, scheme: str, _version: tuple[int, int, int]) -> bool:
    with program.open("rb") as file:
        if os.fstat(file.fileno()).st_size > 16 << 20:
            return False
        text = file.read()
    return all(phrase in text for phrase in _SPOKEN[scheme])
