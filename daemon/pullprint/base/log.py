"""One line per event on stderr, where journald picks it up with its priority.

Fields are cleaned here, once: nothing from outside reaches a log raw. Titles, keys and document bytes are
never passed to a logger in the first place.
"""

import logging
import sys

from pullprint.base.text import printable

LINE_LIMIT = 2_000
# sd-daemon(3): the prefix that tells journald the priority of a line.
_PRIORITY = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


class _LineFormatter(logging.Formatter):
    def __init__(self, *, journal: bool) -> None:
        super().__init__("%(name)s: %(message)s" if journal else "%(asctime)s %(levelname)-7s %(name)s: %(message)s")
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        line = printable(super().format(record).replace("\n", " ⏎ "), LINE_LIMIT)
        return f"<{_PRIORITY.get(record.levelno, 6)}>{line}" if self._journal else line


def set_up(level: str, *, journal: bool) -> None:
    """Send every logger to stderr; *journal* adds journald's priorities and leaves the time to it."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_LineFormatter(journal=journal))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
