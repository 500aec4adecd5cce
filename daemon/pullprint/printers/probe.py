"""How a printer is, and what it can do: asked before a release, shown beside its name.

A hint, never a promise: what a printer says may have changed by the time that the document comes. For socket
and lpd all that can be known is whether something listens, and connecting is all that is done.
"""

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyipp.enums import IppOperation

from pullprint.base.clock import Clock
from pullprint.model.uri import PrinterUri
from pullprint.printers.ipp import CONNECT_SECONDS, USER, IppClient, NoAnswer, NotReached, number, text, words

_WANTED = (
    "printer-name",
    "printer-make-and-model",
    "printer-state",
    "printer-state-reasons",
    "printer-state-message",
    "printer-is-accepting-jobs",
    "document-format-supported",
    "color-supported",
    "print-color-mode-supported",
    "sides-supported",
    "media-supported",
    "media-ready",
    "finishings-supported",
    "copies-supported",
    "page-ranges-supported",
    "output-bin-supported",
    "print-quality-supported",
)
_STOPPED = 5
STRANGE = "The printer answers, but not as a printer does. Tell who looks after the printers."
OCTET_STREAM = "application/octet-stream"

# RFC 8011 5.4.12, PWG 5100.9; the suffixes -error, -warning and -report are taken off first.
_TROUBLES: Mapping[str, str] = {
    "media-empty": "The printer is out of paper.",
    "media-needed": "The printer waits for paper.",
    "media-low": "The printer will soon be out of paper.",
    "media-jam": "Paper is jammed in the printer.",
    "cover-open": "A cover of the printer is open.",
    "door-open": "A door of the printer is open.",
    "interlock-open": "A part of the printer is not closed.",
    "input-tray-missing": "A paper tray is missing.",
    "output-area-full": "The output tray is full.",
    "output-tray-missing": "The output tray is missing.",
    "toner-empty": "The printer is out of toner.",
    "toner-low": "The toner is running low.",
    "marker-supply-empty": "The printer is out of ink or toner.",
    "marker-supply-low": "Ink or toner is running low.",
    "marker-waste-full": "The waste toner container is full.",
    "paused": "The printer is paused.",
    "moving-to-paused": "The printer is being paused.",
    "shutdown": "The printer is switching off.",
    "offline": "The printer is offline.",
    "spool-area-full": "The printer's memory is full.",
    "timed-out": "The printer does not answer the server that speaks for it.",
    "connecting-to-device": "The server that speaks for the printer is still connecting to it.",
}


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What was learned; empty tuples and None mean «not known», never «cannot»."""

    answers: bool
    checked: float
    """Seconds since the epoch."""
    name: str = ""
    model: str = ""
    state: str = ""
    """idle, processing, stopped or empty."""
    reasons: tuple[str, ...] = ()
    """printer-state-reasons as the printer gives them."""
    message: str = ""
    accepting: bool | None = None
    formats: tuple[str, ...] = ()
    color: bool | None = None
    color_modes: tuple[str, ...] = ()
    sides: tuple[str, ...] = ()
    media: tuple[str, ...] = ()
    media_ready: tuple[str, ...] = ()
    output_bins: tuple[str, ...] = ()
    finishings: tuple[int, ...] = ()
    """Enum values of RFC 8011 5.2.6 and PWG 5100.1, also unknown ones."""
    qualities: tuple[int, ...] = ()
    copies: int | None = None
    """The most that it makes by itself."""
    page_ranges: bool | None = None
    """Whether it prints a part of a document."""
    trouble: str = ""
    """Why it does not answer."""

    def accepts(self, content_type: str) -> bool:
        """Whether a document of *content_type* may be sent; yes where the printer does not say.

        application/octet-stream in a printer's list (RFC 8011 5.1.10: «find out by yourself») is taken for
        formats that only printers read, not for PDF, images or text, which a printer that can read them would
        list.
        """
        wanted = content_type.lower().partition(";")[0].strip()
        if not self.formats or wanted in self.formats:
            return True
        if wanted == "application/vnd.cups-pdf":
            return "application/pdf" in self.formats
        return OCTET_STREAM in self.formats and _for_printers_only(wanted)

    def unmet(self, options: Mapping[str, str], copies: int = 1) -> tuple[str, ...]:
        """Names of *options* (IPP names and values) that the printer says it cannot do."""
        known: Mapping[str, tuple[str, ...]] = {
            "sides": self.sides,
            "print-color-mode": self.color_modes,
            "media": (*self.media, *self.media_ready),
            "output-bin": self.output_bins,
            "finishings": tuple(str(value) for value in self.finishings),
            "print-quality": tuple(str(value) for value in self.qualities),
        }
        names = [
            name
            for name, allowed in known.items()
            if allowed and name in options and not set(options[name].split(",")) <= set(allowed)
        ]
        return (*names, *(("copies",) if self.copies is not None and copies > self.copies else ()))

    @property
    def troubles(self) -> tuple[str, ...]:
        """Sentences for the owner, the worst first; empty when all is well."""
        if not self.answers:
            return (self.trouble or "The printer does not answer: it is switched off or not on the network.",)
        found = [sentence for reason in self.reasons if (sentence := _TROUBLES.get(_bare(reason)))]
        if self.state == "stopped" and not found:
            found = ["The printer has stopped."]
        if self.accepting is False:
            found.append("The printer takes no jobs at the moment.")
        return tuple(dict.fromkeys(found))

    @property
    def ready(self) -> bool:
        """Whether a document sent now is likely to come out."""
        return self.answers and self.accepting is not False and self.state != "stopped"


async def probe(uri: PrinterUri, clock: Clock, trust: Path | None = None) -> Capabilities:
    """Ask the printer; never raises for what a printer does or does not say. At most 8 s for ipp, 4 s for
    others.
    """
    if uri.scheme not in {"ipp", "ipps"}:
        return Capabilities(answers=await _listens(uri), checked=clock.now())
    try:
        async with IppClient(uri, trust) as client:
            answer = await client.ask(
                IppOperation.GET_PRINTER_ATTRIBUTES,
                {"requesting-user-name": USER, "requested-attributes": list(_WANTED)},
            )
    except NotReached:
        return Capabilities(answers=False, checked=clock.now())
    except NoAnswer:
        return Capabilities(answers=False, checked=clock.now(), trouble=STRANGE)
    if not answer.ok or not answer.printers:
        trouble = "The printer's address leads to a device that has no such printer."
        return Capabilities(answers=False, checked=clock.now(), trouble=trouble)
    return _capabilities(answer.printers[0], clock.now())


def _capabilities(group: Mapping[str, Any], now: float) -> Capabilities:
    copies = group.get("copies-supported")
    reasons = tuple(reason for reason in words(group, "printer-state-reasons", 64) if reason != "none")
    return Capabilities(
        answers=True,
        checked=now,
        name=text(group, "printer-name", 127),
        model=text(group, "printer-make-and-model", 127),
        state={3: "idle", 4: "processing", _STOPPED: "stopped"}.get(number(group, "printer-state") or 0, ""),
        reasons=reasons,
        message=text(group, "printer-state-message"),
        accepting=_flag(group, "printer-is-accepting-jobs"),
        formats=tuple(word.lower() for word in words(group, "document-format-supported")),
        color=_flag(group, "color-supported"),
        color_modes=words(group, "print-color-mode-supported"),
        sides=words(group, "sides-supported"),
        media=words(group, "media-supported"),
        media_ready=words(group, "media-ready"),
        output_bins=words(group, "output-bin-supported"),
        finishings=_numbers(group, "finishings-supported"),
        qualities=_numbers(group, "print-quality-supported"),
        copies=copies[1] if isinstance(copies, list) and len(copies) == 2 and isinstance(copies[1], int) else None,
        page_ranges=_flag(group, "page-ranges-supported"),
    )


async def _listens(uri: PrinterUri) -> bool:
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(uri.host, uri.port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


def _flag(group: Mapping[str, Any], name: str) -> bool | None:
    value = group.get(name)
    return value if isinstance(value, bool) else None


def _numbers(group: Mapping[str, Any], name: str) -> tuple[int, ...]:
    value = group.get(name)
    values = value if isinstance(value, list) else [value]
    return tuple(item for item in values[:256] if isinstance(item, int) and not isinstance(item, bool))


def _bare(reason: str) -> str:
    for suffix in ("-error", "-warning", "-report"):
        reason = reason.removesuffix(suffix)
    return reason


def _for_printers_only(content_type: str) -> bool:
    kind, _, name = content_type.partition("/")
    return content_type in {OCTET_STREAM, "application/vnd.cups-raw"} or (
        kind == "printer" or (kind == "application" and name.startswith(("vnd.", "x-", "pcl")))
    )
