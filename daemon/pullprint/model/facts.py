"""What was counted in a document: pages, pages with colour, page sizes.

Facts inform prices, quotas and the owner's eyes; nothing that keeps a job safe depends on them, and any of
them may be unknown.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from pullprint.base.errors import PullprintError

PAGE_LIMIT = 1_000_000
SIZE_LIMIT = 64
"""Page sizes that are told apart; the pages of any further size are in ``pages`` only."""
LENGTH_LIMIT_MM = 100_000.0

_PROBLEM = re.compile(r"[a-z][a-z-]{0,31}")


class BadFacts(PullprintError):
    """The facts of a document make no sense: {reason}. The document is held all the same, with its pages
    uncounted; release it as usual."""

    code = "bad-facts"


@dataclass(frozen=True, slots=True)
class SheetSize:
    """*count* pages of one size, as they are seen: a page turned by its own /Rotate is measured turned."""

    width_mm: float
    height_mm: float
    count: int

    def __post_init__(self) -> None:
        for length in (self.width_mm, self.height_mm):
            if isinstance(length, bool) or not isinstance(length, int | float) or not 0 < length <= LENGTH_LIMIT_MM:
                raise BadFacts(reason="a page size is out of range")
        _number("the count of a page size", self.count, 1)


@dataclass(frozen=True, slots=True)
class Facts:
    """The counts of one document; None is «not known», never zero."""

    pages: int | None = None
    """0 to 1,000,000."""
    color_pages: int | None = None
    """Pages with visible colour; at most ``pages``, and unknown where those are."""
    sheets: tuple[SheetSize, ...] = ()
    """At most 64 page sizes, those within 2 mm of each other merged; they add up to at most ``pages``."""
    problem: str | None = None
    """Why something is unknown, a word such as ``broken``, ``encrypted``, ``too-large``, ``unsupported``,
    ``timeout``, ``crashed``, ``invalid`` (the counting program lied) or ``no-sandbox``; readers take words
    that they do not know for ``broken``."""

    def __post_init__(self) -> None:
        if self.pages is not None:
            _number("the number of pages", self.pages, 0)
        if self.color_pages is not None and _number("the number of colour pages", self.color_pages, 0) > (
            self.pages or 0
        ):
            raise BadFacts(reason="there are more colour pages than pages")
        if len(self.sheets) > SIZE_LIMIT:
            raise BadFacts(reason="there are too many page sizes")
        if sum(size.count for size in self.sheets) > (self.pages or 0):
            raise BadFacts(reason="there are more sized pages than pages")
        if self.problem is not None and not (isinstance(self.problem, str) and _PROBLEM.fullmatch(self.problem)):
            raise BadFacts(reason="the problem is not a short word")

    @classmethod
    def unknown(cls, problem: str | None = None) -> Self:
        """Nothing could be counted, because of *problem*."""
        return cls(problem=problem)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The reverse of `to_dict`, for values from anywhere; missing keys are unknown, others ignored.

        Raises BadFacts.
        """
        sizes = values.get("sheets", [])
        if not isinstance(sizes, list) or len(sizes) > SIZE_LIMIT:
            raise BadFacts(reason="the page sizes are not a short list")
        if not all(isinstance(size, list) and len(size) == 3 for size in sizes):
            raise BadFacts(reason="a page size is not width, height and count")
        return cls(
            pages=values.get("pages"),
            color_pages=values.get("color_pages"),
            sheets=tuple(SheetSize(*size) for size in sizes),
            problem=values.get("problem"),
        )

    def to_dict(self) -> dict[str, Any]:
        """The fields in JSON's types; each of ``sheets`` is ``[width_mm, height_mm, count]``."""
        return {
            "pages": self.pages,
            "color_pages": self.color_pages,
            "sheets": [[size.width_mm, size.height_mm, size.count] for size in self.sheets],
            "problem": self.problem,
        }

    def sheets_of_paper(self, sides: str = "one-sided", copies: int = 1, number_up: int = 1) -> int | None:
        """An estimate of the paper that a print takes; None when the pages are not known.

        *sides* is IPP's ``sides`` (RFC 8011, 5.2.8), *number_up* the pages on one side. An estimate, because
        a printer starts a new sheet where the paper's size changes.
        """
        if self.pages is None:
            return None
        printed_sides = math.ceil(self.pages / max(1, number_up))
        per_copy = math.ceil(printed_sides / 2) if sides.startswith("two-sided") else printed_sides
        return per_copy * max(1, copies)


def _number(what: str, value: object, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= PAGE_LIMIT:
        raise BadFacts(reason=f"{what} is not between {least} and {PAGE_LIMIT}")
    return value
