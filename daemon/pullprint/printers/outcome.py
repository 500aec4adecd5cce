"""What became of a delivery, and the sentence that its owner reads."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Result(StrEnum):
    """The three things that matter to «printed once»."""

    DELIVERED = "delivered"
    NOTHING_SENT = "nothing-sent"
    """Proven: no byte of the document left, or the printer itself says that it drew nothing. It may be sent again."""
    UNCERTAIN = "uncertain"
    """Anything else. Only the owner, or a later word of the printer, can decide."""


class Reason(StrEnum):
    """Why. Stable words for programs."""

    DONE = "done"
    PRINTER_OFF = "printer-off"
    PRINTER_BUSY = "printer-busy"
    PRINTER_REFUSED = "printer-refused"
    NEEDS_PASSWORD = "needs-password"  # noqa: S105
    CERTIFICATE_CHANGED = "certificate-changed"
    FORMAT_REFUSED = "format-refused"
    OPTIONS_REFUSED = "options-refused"
    EMPTY_DOCUMENT = "empty-document"
    DOCUMENT_BROKEN = "document-broken"
    SPOOL_FULL = "spool-full"
    BACKEND_MISSING = "backend-missing"
    BACKEND_FAILED = "backend-failed"
    CONNECTION_LOST = "connection-lost"
    JOB_ABORTED = "job-aborted"
    JOB_CANCELLED = "job-cancelled"
    TIMED_OUT = "timed-out"
    NO_ANSWER = "no-answer"


_WHAT: Mapping[Reason, str] = {
    Reason.DONE: "The printer has taken the whole document.",
    Reason.PRINTER_OFF: "The printer does not answer: it is switched off, asleep or not on the network.",
    Reason.PRINTER_BUSY: "The printer is busy with something else and did not take the document.",
    Reason.PRINTER_REFUSED: "The printer refused the document.",
    Reason.NEEDS_PASSWORD: "The printer wants a name and a password, which Pullprint does not have.",
    Reason.CERTIFICATE_CHANGED: "The printer's certificate has changed, so it may be another machine.",
    Reason.FORMAT_REFUSED: "The printer does not understand this kind of document.",
    Reason.OPTIONS_REFUSED: "The printer cannot do what was chosen: sides, colour, paper or the like.",
    Reason.EMPTY_DOCUMENT: "The document is empty.",
    Reason.DOCUMENT_BROKEN: "The document could not be read to its end.",
    Reason.SPOOL_FULL: "The node has not enough memory for what this printer's protocol asks of it.",
    Reason.BACKEND_MISSING: "The CUPS program for this kind of printer is missing on the node.",
    Reason.BACKEND_FAILED: "The CUPS program that talks to the printer failed.",
    Reason.CONNECTION_LOST: "The connection to the printer broke off while the document was being sent.",
    Reason.JOB_ABORTED: "The printer gave up on the document.",
    Reason.JOB_CANCELLED: "Somebody cancelled the document at the printer.",
    Reason.TIMED_OUT: "The printer stopped taking the document, or did not finish it in time.",
    Reason.NO_ANSWER: "The printer took the document but does not say what became of it.",
}

_DO: Mapping[Reason, str] = {
    Reason.PRINTER_OFF: "Switch it on or wake it, then release it again.",
    Reason.PRINTER_BUSY: "Release it again in a moment, or at another printer.",
    Reason.FORMAT_REFUSED: "Release it at another printer.",
    Reason.OPTIONS_REFUSED: "Change the options and release it again, or release it at another printer.",
    Reason.EMPTY_DOCUMENT: "Print it again from the program that made it.",
    Reason.CERTIFICATE_CHANGED: "Tell who looks after the printers, and release it at another one.",
    Reason.NEEDS_PASSWORD: "Tell who looks after the printers, and release it at another one.",
    Reason.BACKEND_MISSING: "Tell who looks after this node, and release it at another printer.",
}

_SAFE = "Nothing was printed and the document is still held."
_UNSURE = (
    "Some or all of it may have been printed, so it is not sent again by itself and is still held. "
    "Look at the printer, then choose “print again” or “it came out”."
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of one delivery."""

    result: Result
    reason: Reason
    bytes_sent: int = 0
    """Octets that the backend took; with NOTHING_SENT none of them reached paper."""
    printer_job_id: int | None = None
    pages_completed: int | None = None
    """Impressions that the printer counted; None where it does not count."""
    testimony: Mapping[str, str] = field(default_factory=dict)
    """What the printer itself said of the job, cleaned: job-state, job-state-reasons, job-state-message,
    counters.
    """

    @property
    def sentence(self) -> str:
        """What happened, whether the document is safe, what to do next."""
        what = _WHAT[self.reason]
        if self.result is Result.DELIVERED:
            return what
        if self.result is Result.UNCERTAIN:
            return f"{what} {_UNSURE}"
        return f"{what} {_SAFE} {_DO.get(self.reason, 'Release it again, or at another printer.')}"


class Phase(StrEnum):
    """Where a delivery is."""

    CONNECTING = "connecting"
    SENDING = "sending"
    PRINTING = "printing"


@dataclass(frozen=True, slots=True)
class Progress:
    """A glimpse of a delivery under way."""

    phase: Phase
    bytes_sent: int = 0
    pages_completed: int | None = None
    waiting: bool = False
    """The printer is off or busy, and is being tried again."""
