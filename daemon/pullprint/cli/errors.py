"""What the command says when it cannot do what was asked, and with which exit code it ends."""

from enum import IntEnum

from pullprint.base.errors import DaemonAway, PullprintError
from pullprint.base.text import printable

SENTENCE_LIMIT = 1_000


class Exit(IntEnum):
    """The command's exit codes; documented in ``pullprint --help``, so they never change their meaning."""

    DONE = 0
    FOUND = 1
    """``pullprint doctor`` found something that needs repair, or ``pullprint mesh`` a job that waits for copies."""
    USAGE = 2
    """The command line was not understood, or needs an answer that nobody is there to give."""
    AWAY = 3
    """pullprintd does not answer, or not in a way that can be understood."""
    REFUSED = 4
    """pullprintd or the printer said no; the document was not printed by this command."""
    UNCERTAIN = 5
    """The document may have been printed; only its owner can tell."""


class CommandError(PullprintError):
    """The command could not be carried out. Nothing was changed."""

    exit = Exit.REFUSED


class Usage(CommandError):
    """{reason}"""

    code = "usage"
    exit = Exit.USAGE


class SocketForbidden(CommandError):
    """You may not talk to pullprintd at {path}. Ask an administrator to give your account access. Held jobs are
    safe.
    """

    code = "socket-forbidden"


class DaemonSlow(CommandError):
    """pullprintd took the request at {path} but gave no answer in {seconds} seconds. It may still be carried out: look
    with `pullprint jobs` before you try again. Held jobs are safe.
    """

    code = "daemon-slow"
    exit = Exit.AWAY


class BrokenAnswer(CommandError):
    """What answered at {path} cannot be understood: {reason}. Restart pullprintd, or update the older of it and this
    command. Held jobs are safe.
    """

    code = "broken-answer"
    exit = Exit.AWAY


class Refused(CommandError):
    """pullprintd refused, in its own words."""

    def __init__(self, code: str, sentence: str) -> None:
        self.code = printable(code, 64)
        self._sentence = printable(sentence, SENTENCE_LIMIT)
        super().__init__()

    @property
    def sentence(self) -> str:
        return self._sentence


class MaybePrinted(CommandError):
    """{title} may have come out at an earlier try. Look at the printer, then say `pullprint settle {job}` if it came
    out, or `pullprint release {job} --again` if it did not. It is still held.
    """

    code = "uncertain"
    exit = Exit.UNCERTAIN


class NothingToRelease(CommandError):
    """No job of yours is held here. Print to the hold queue first, for example `lp -d pullprint report.pdf`."""

    code = "nothing-held"


class NoPrinter(CommandError):
    """This site has no printer to choose from. Ask an administrator to add one. Your job is still held."""

    code = "no-printer"


def exit_code(error: PullprintError) -> Exit:
    """With which code the command ends because of *error*."""
    if isinstance(error, DaemonAway):
        return Exit.AWAY
    return error.exit if isinstance(error, CommandError) else Exit.REFUSED
