"""The command line: what may stand on it, with examples, and what it means."""

import argparse
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from pullprint import __version__
from pullprint.base.platform import QUEUE_DESCRIPTION
from pullprint.base.text import printable
from pullprint.printers.cups_settings import CONFIGURATION
from pullprint.wire.local import SOCKET

JOB = re.compile(r"[0-9a-f]{1,32}")
"""A job id, or the beginning of one."""
_SEVERAL_JOBS = frozenset({"release", "cancel"})
_OPTION = re.compile(r"[A-Za-z0-9_.-]{1,255}")
_SIDES = {"one": "one-sided", "long": "two-sided-long-edge", "short": "two-sided-short-edge"}
_COLOR = {"color": "color", "mono": "monochrome", "auto": "auto"}

_EPILOG = """\
examples:
  lp -d pullprint report.pdf           print: the job is held
  pullprint jobs                       what is held
  pullprint release                    release it (one job, one printer: no more to say)
  pullprint release 3f2a -P Lobby      release a job by the beginning of its id
  pullprint release --all -P Lobby --sides long --copies 2
  pullprint jobs --json | jq -r '.[].title'

exit codes:
  0  done (release: it is printed)     3  pullprintd does not answer, or not intelligibly
  1  doctor found something to repair; 4  refused; nothing was printed by this command
     mesh: a job waits for copies      5  uncertain: it may have been printed
  2  the command line is wrong

--json prints the answer of pullprintd as it is, one JSON document on one line (`trace --follow`: one for each
step; `login`: one when it begins and one when it ends); failures are then {"code": …, "sentence": …} on standard error.

environment: PULLPRINT_SOCKET (like --socket), NO_COLOR, COLUMNS
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """As argparse does it, but what was typed may have come out of a script: it is cleaned."""
        self.exit(2, f"{self.format_usage()}{self.prog}: {printable(message, 500)}\n")


def job_id(text: str) -> str:
    """The beginning of a job id, or all of it."""
    if not JOB.fullmatch(text.lower()):
        raise argparse.ArgumentTypeError(
            f"{printable(text, 40)} is not the beginning of a job id; see `pullprint jobs`"
        )
    return text.lower()


def _copies(text: str) -> str:
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and int(text) > 0):
        raise argparse.ArgumentTypeError("copies is a number from 1 to 9999")
    return text


def _option(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not _OPTION.fullmatch(name):
        raise argparse.ArgumentTypeError(f"{printable(text, 40)} is not name=value")
    return name, value


def _choices(words: dict[str, str]) -> list[str]:
    """Our short words and IPP's own."""
    return list(dict.fromkeys([*words, *words.values()]))


def parser() -> argparse.ArgumentParser:
    """The whole command line; ``command`` in its result is the subcommand's name."""
    plain = argparse.RawDescriptionHelpFormatter
    common = _Parser(add_help=False)
    common.add_argument("--json", action="store_true", help="answer in JSON")
    top = _Parser(
        prog="pullprint",
        description="Print now, release later: jobs wait sealed until you release them at a printer.",
        epilog=_EPILOG,
        formatter_class=plain,
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"pullprint {__version__}")
    top.add_argument(
        "--socket",
        type=Path,
        metavar="PATH",
        default=Path(os.environ.get("PULLPRINT_SOCKET") or SOCKET),
        help=f"where pullprintd listens (default: $PULLPRINT_SOCKET or {SOCKET})",
    )
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, summary: str, examples: str = "") -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            epilog=examples and f"examples:\n{examples}",
            formatter_class=plain,
            parents=[common],
            allow_abbrev=False,
        )

    jobs = command("jobs", "list the jobs that are held for you", "  pullprint jobs\n  sudo pullprint jobs --all\n")
    jobs.add_argument("--all", action="store_true", dest="everyone", help="everybody's (root only)")
    jobs.add_argument("--ended", action="store_true", help="also those that ended in the last day")

    release = command(
        "release",
        "print jobs and wait until they are on paper",
        "  pullprint release\n  pullprint release 3f2a 77bb --printer Lobby\n"
        "  pullprint release --all -P Lobby --sides long --color mono\n"
        "  pullprint release 3f2a -P Lobby -o finishings=4 -o media=iso_a3_297x420mm\n",
    )
    release.add_argument("job", nargs="*", type=job_id, metavar="JOB", help="the beginning of its id is enough")
    release.add_argument("--all", action="store_true", dest="everything", help="every job of yours that is held")
    release.add_argument("-P", "--printer", default="", metavar="NAME", help="needed if there are several")
    release.add_argument("-n", "--copies", type=_copies, metavar="N", help="instead of the job's own number")
    release.add_argument("--sides", choices=_choices(_SIDES), metavar="SIDES", help="one, long, short, or IPP's words")
    release.add_argument("--color", choices=_choices(_COLOR), metavar="MODE", help="color, mono or auto")
    release.add_argument("-o", type=_option, action="append", default=[], dest="options", metavar="NAME=VALUE",
                         help="any other IPP attribute")  # fmt: skip
    release.add_argument("--again", action="store_true", help="also if it may have been printed already")
    release.add_argument("--no-wait", action="store_false", dest="wait", help="do not wait for the paper")

    cancel = command("cancel", "delete jobs without printing them", "  pullprint cancel 3f2a 77bb\n")
    cancel.add_argument("job", nargs="+", type=job_id, metavar="JOB")
    settle = command("settle", "say that an uncertain job came out", "  pullprint settle 3f2a\n")
    settle.add_argument("job", type=job_id, metavar="JOB")
    trace = command("trace", "tell every step of a job", "  pullprint trace 3f2a --follow\n")
    trace.add_argument("job", type=job_id, metavar="JOB")
    trace.add_argument("-f", "--follow", action="store_true", help="go on until the job has ended")
    command("printers", "list the printers of this site")
    command("status", "tell how this host and its way to the cloud are")
    mesh = command(
        "mesh",
        "list the hosts of this site that keep each other's jobs",
        "  pullprint mesh\n  sudo pullprint mesh --jobs\n",
    )
    mesh.add_argument("--jobs", action="store_true", help="also each job held here: its copies and votes (root only)")
    command("sleep", "have the cloud vote for this host, which is about to be away (root)", "  sudo pullprint sleep\n")
    command("wake", "take the votes back that the cloud has for this host (root)", "  sudo pullprint wake\n")
    doctor = command(
        "doctor",
        "look for what is wrong with printing on this host",
        "  pullprint doctor\n  sudo pullprint doctor --repair\n",
    )
    doctor.add_argument("--repair", action="store_true", help="put right what in CUPS's settings leaves documents "
                        "readable or loses jobs (root); asks first")  # fmt: skip
    _add_cups(doctor, "--yes", "--cups-conf")
    _add_queue(commands, common)
    login = command(
        "login",
        "say on the page that your account on this host is you",
        "  pullprint login            shows a code, and a QR code for your phone\n",
    )
    login.add_argument("--qr", action="store_true", help="the QR code also where standard output is not a terminal")
    join = command(
        "join",
        "make this host a node of an organisation, and ready to print (root)",
        "  sudo pullprint join https://print.example.com 7KQ2-M9XD\n"
        "  sudo pullprint join https://localhost:8443 7KQ2-M9XD --ca demo-ca.pem\n",
    )
    join.add_argument("cloud", metavar="CLOUD", help="the cloud's address")
    join.add_argument("code", metavar="CODE", help="the join code that an administrator made")
    join.add_argument("--ca", type=Path, metavar="FILE", help="certificate of a private CA, PEM")
    which = join.add_mutually_exclusive_group()
    which.add_argument("--queue", default="", metavar="NAME", help="make the hold queue, under this name")
    which.add_argument("--no-queue", action="store_true", help="make none, and do not ask")
    _add_cups(join, "--yes", "--cups-conf", "--cups", "--ppd")
    return top


def _add_queue(commands: "argparse._SubParsersAction[_Parser]", common: _Parser) -> None:
    """``queue`` and what can be done with one."""
    plain = argparse.RawDescriptionHelpFormatter
    queue = commands.add_parser(
        "queue",
        help="make, list, resume or remove queues that print to Pullprint (root)",
        description="Queues of this host's CUPS that print to Pullprint. Others are never changed.",
        epilog="examples:\n  sudo pullprint queue add\n  sudo pullprint queue add lobby --printer Lobby\n"
        "  pullprint queue list\n  sudo pullprint queue resume\n  sudo pullprint queue remove lobby\n",
        formatter_class=plain,
        allow_abbrev=False,
    )
    actions = queue.add_subparsers(dest="action", metavar="ACTION", required=True)

    def action(name: str, summary: str) -> argparse.ArgumentParser:
        line = actions.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".",
                                  parents=[common], allow_abbrev=False)  # fmt: skip
        _add_cups(line, "--cups", "--ppd")
        return line

    add = action("add", "make a hold queue, or with --printer one that prints there at once (root)")
    add.add_argument("name", nargs="?", default="", metavar="NAME", help="the queue's name (default: pullprint)")
    add.add_argument("-P", "--printer", default="", metavar="PRINTER", help="print there at once; see `printers`")
    add.add_argument("--default", action="store_true", help="make it what lp prints to when no queue is named")
    action("list", "list the queues that print to Pullprint")
    action("resume", "have CUPS try again what it has set aside in them (root)")
    remove = action("remove", "remove one of them, in which nothing waits (root)")
    remove.add_argument("name", metavar="NAME")


def _add_cups(line: argparse.ArgumentParser, *options: str) -> None:
    """Options about CUPS that several commands have. Those without help are for a cupsd that is not the system's."""
    known: dict[str, dict[str, Any]] = {
        "--yes": {"action": "store_true", "help": "answer every question by yes"},
        "--cups": {"default": "", "metavar": "SERVER", "help": "CUPS's socket or host (default: $CUPS_SERVER)"},
        "--ppd": {"type": Path, "default": QUEUE_DESCRIPTION, "help": argparse.SUPPRESS},
        "--cups-conf": {"type": Path, "default": CONFIGURATION, "help": argparse.SUPPRESS},
    }
    for option in options:
        line.add_argument(option, **known[option])


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """What *argv* asks for. Raises SystemExit: for help and version with 0, for anything that is wrong with 2."""
    line = parser()
    asked, rest = line.parse_known_args(argv)
    # argparse takes the positionals up to the first option only: `release 3f2a -P Lobby 77bb`.
    if rest and (asked.command not in _SEVERAL_JOBS or any(word.startswith("-") for word in rest)):
        line.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        try:
            asked.job += [job_id(word) for word in rest]
        except argparse.ArgumentTypeError as error:
            line.error(str(error))
    if asked.command == "release" and asked.everything and asked.job:
        line.error("name jobs or say --all, not both")
    return asked


def changes(arguments: argparse.Namespace) -> dict[str, str]:
    """The release's options as IPP names and values; the named ones win over ``-o``."""
    chosen = dict(arguments.options)
    if arguments.copies:
        chosen["copies"] = arguments.copies
    if arguments.sides:
        chosen["sides"] = _SIDES.get(arguments.sides, arguments.sides)
    if arguments.color:
        chosen["print-color-mode"] = _COLOR.get(arguments.color, arguments.color)
    return chosen
