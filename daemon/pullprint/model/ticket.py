"""The ticket: the options that the user chose, unchanged, and what the known ones mean.

CUPS gives a backend all options in one string (cups(1), ``argv[5]``), quoted as cupsParseOptions(3) reads them.
Nothing in it is dropped or renamed here, also what nobody has heard of; IPP names are looked up at delivery.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pullprint.base.errors import PullprintError

OPTIONS_LIMIT = 512
NAME_LIMIT = 255
TEXT_LIMIT = 65_536
"""Bytes of all names and values together, as UTF-8."""
COPIES_LIMIT = 9_999

# Set by cupsd itself, not chosen by the user (scheduler/job.c, get_options).
_SCHEDULER_OPTIONS = frozenset(
    {"job-uuid", "job-originating-host-name", "job-originating-user-name", "document-name-supplied",
    "attributes-charset",
     "attributes-natural-language", "job-impressions", "job-impressions-completed", "job-media-sheets-completed",
     "document-format-supplied", "job-more-info", "finishing-template-used"}
)  # fmt: skip
_SCHEDULER_PREFIXES = ("time-at-", "date-time-at-")

_SPACE = " \f\n\r\t\v"
"""White space to libcups; ``str.isspace`` would also split at a no-break space."""

# PPD spelling → IPP attribute and value; a PPD option without an entry here goes to the printer as it is.
_PPD_CHOICES: dict[str, tuple[str, dict[str, str]]] = {
    "Duplex": (
        "sides",
        {"None": "one-sided", "DuplexNoTumble": "two-sided-long-edge", "DuplexTumble": "two-sided-short-edge"},
    ),
    "ColorModel": (
        "print-color-mode",
        {"Gray": "monochrome", "Grayscale": "monochrome", "KGray": "monochrome", "RGB": "color", "CMYK": "color"},
    ),
    "PageSize": (
        "media",
        {"A3": "iso_a3_297x420mm", "A4": "iso_a4_210x297mm", "A5": "iso_a5_148x210mm", "Letter": "na_letter_8.5x11in",
         "Legal": "na_legal_8.5x14in", "Tabloid": "na_ledger_11x17in", "Executive": "na_executive_7.25x10.5in"},
    ),
}  # fmt: skip


class TicketRefused(PullprintError):
    """This job's print options were refused: {reason}. Nothing was printed or kept; print again with fewer options."""

    code = "ticket-refused"
    http_status = 400


@dataclass(frozen=True, slots=True)
class Ticket:
    """Copies and options of one job, in the order in which the user gave them."""

    copies: int = 1
    options: tuple[tuple[str, str], ...] = field(default=())

    def __post_init__(self) -> None:
        if not 1 <= self.copies <= COPIES_LIMIT:
            raise TicketRefused(reason=f"copies must be between 1 and {COPIES_LIMIT}")
        if len(self.options) > OPTIONS_LIMIT:
            raise TicketRefused(reason=f"it has more than {OPTIONS_LIMIT} options")
        for name, value in self.options:
            if not name or len(name) > NAME_LIMIT:
                raise TicketRefused(reason=f"an option's name is empty or longer than {NAME_LIMIT} characters")
            if any(ord(char) < 0x20 or ord(char) == 0x7F or 0xD800 <= ord(char) <= 0xDFFF for char in name + value):
                raise TicketRefused(reason="an option contains control characters")
        # In bytes: the header's JSON writes one emoji as twelve, and an order must still fit its own limit.
        if sum(len(name.encode()) + len(value.encode()) for name, value in self.options) > TEXT_LIMIT:
            raise TicketRefused(reason=f"its options are longer than {TEXT_LIMIT} bytes")

    @classmethod
    def from_cups(cls, copies: int, options: str) -> "Ticket":
        """The ticket in CUPS's own words: ``argv[4]`` and ``argv[5]``. Raises TicketRefused."""
        if len(options) > 2 * TEXT_LIMIT:
            raise TicketRefused(reason=f"its options are longer than {TEXT_LIMIT} bytes")
        chosen = tuple((n, v) for n, v in parse_options(options) if not set_by_scheduler(n) and n != "copies")
        return cls(copies=copies, options=chosen)

    def get(self, name: str, default: str = "") -> str:
        """The value of the IPP attribute *name*, also when it was given in a PPD's words; the last one counts."""
        for given, value in reversed(self.options):
            if given == name:
                return value
            attribute, values = _PPD_CHOICES.get(given, ("", {}))
            if attribute == name:
                return values.get(value, value)
        return default

    def ipp_options(self) -> dict[str, str]:
        """Options as IPP names them, for a printer; unknown ones unchanged, the last of a name counts."""
        result: dict[str, str] = {}
        for name, value in self.options:
            attribute, values = _PPD_CHOICES.get(name, (name, {}))
            result[attribute] = values.get(value, value)
        return result

    def changed(self, changes: Mapping[str, str]) -> "Ticket":
        """This ticket with the owner's changes at release; ``copies`` is one of them. Raises TicketRefused."""
        copies = self.copies
        rest = dict(changes)
        if "copies" in rest:
            text = rest.pop("copies")
            if not text.isascii() or not text.isdigit() or len(text) > 5:
                raise TicketRefused(reason="copies must be a number")
            copies = int(text)
        kept = tuple((n, v) for n, v in self.options if _PPD_CHOICES.get(n, (n,))[0] not in rest)
        return Ticket(copies=copies, options=kept + tuple(rest.items()))


def set_by_scheduler(name: str) -> bool:
    """Whether cupsd put the option *name* there by itself."""
    return name in _SCHEDULER_OPTIONS or name.startswith(_SCHEDULER_PREFIXES)


def parse_options(text: str) -> Iterable[tuple[str, str]]:
    """Names and values in their order, read as libcups reads them (cups/options.c, cupsParseOptions of 2.4).

    A value is made of pieces: a quoted one or a ``{collection}`` begins right after ``=``, a comma or another such
    piece; anything else runs to the next white space, quotes and braces included. A bare ``name`` is true and a bare
    ``noname`` false (so ``normal`` turns ``rmal`` off, as it does in CUPS); an empty name ends the parsing. libcups
    then keeps the last of each name, in any case of letters; that is left to who looks names up.
    """
    if text.startswith("{") and text.endswith("}") and len(text) > 1:
        text = text[1:-1]
    position, end = _skip_space(text, 0), len(text)
    while position < end:
        start = position
        while position < end and text[position] != "=" and text[position] not in _SPACE:
            position += 1
        name = text[start:position]
        if not name:
            return
        position = _skip_space(text, position)
        if position < end and text[position] == "=":
            value, position = _parse_value(text, position + 1)
            yield name, value
            position = _skip_space(text, position)
        elif name[:2].lower() != "no":
            yield name, "true"
        elif len(name) > 2:
            yield name[2:], "false"


def _skip_space(text: str, position: int) -> int:
    while position < len(text) and text[position] in _SPACE:
        position += 1
    return position


def _parse_value(text: str, position: int) -> tuple[str, int]:
    value: list[str] = []
    end = len(text)
    while position < end and text[position] not in _SPACE:
        if text[position] == ",":
            value.append(",")
            position += 1
        elif text[position] in "'\"":
            position = _take(text, position + 1, text[position], value) + 1
        elif text[position] == "{":
            position = _take_collection(text, position, value)
        else:
            position = _take(text, position, _SPACE, value)
    return "".join(value), position


def _take(text: str, position: int, stops: str, value: list[str]) -> int:
    """Append to *value* up to any of *stops*, backslashes taken away; the position of the stop."""
    while position < len(text) and text[position] not in stops:
        if text[position] == "\\" and position + 1 < len(text):
            position += 1
        value.append(text[position])
        position += 1
    return position


def _take_collection(text: str, position: int, value: list[str]) -> int:
    depth = 0
    while position < len(text):
        char = text[position]
        depth += (char == "{") - (char == "}")
        if char == "\\" and position + 1 < len(text):
            position += 1
        value.append(text[position])
        position += 1
        if char == "}" and depth == 0:
            break
    return position
