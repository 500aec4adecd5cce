"""From the command line to an exit code."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from pullprint.base.errors import PullprintError
from pullprint.cli import arguments, host, jobs
from pullprint.cli.daemon import Daemon
from pullprint.cli.errors import Exit, exit_code
from pullprint.cli.terminal import Terminal, forgiving_streams

INTERRUPTED = 130


def main() -> NoReturn:
    """The entry point ``pullprint``."""
    try:
        code = run(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read has enough (`pullprint jobs | head -1`); Python's own flush at exit must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = Exit.DONE
    sys.exit(code)


def run(argv: Sequence[str]) -> int:
    """Carry out one command line; SystemExit for ``--help``, ``--version`` and bad usage, as argparse does it."""
    forgiving_streams()
    if argv[:1] == ["__complete"]:
        from pullprint.cli.completion import complete

        complete(argv[1:])
        return Exit.DONE
    asked = arguments.parse(argv)
    terminal = Terminal(json=asked.json)
    try:
        return _carry_out(asked, Daemon(asked.socket), terminal)
    except PullprintError as error:
        terminal.fail(error)
        return exit_code(error)
    except KeyboardInterrupt:
        terminal.interrupted(going_on=asked.command == "release")
        return INTERRUPTED


def _carry_out(asked: argparse.Namespace, daemon: Daemon, terminal: Terminal) -> Exit:
    match asked.command:
        case "jobs":
            return jobs.show(daemon, terminal, everyone=asked.everyone, ended=asked.ended)
        case "release":
            from pullprint.cli.release import Wish, release

            wish = Wish(
                ids=tuple(asked.job),
                everything=asked.everything,
                printer=asked.printer,
                changes=arguments.changes(asked),
                again=asked.again,
                wait=asked.wait,
            )
            return release(daemon, terminal, wish)
        case "cancel":
            return jobs.cancel(daemon, terminal, asked.job)
        case "settle":
            return jobs.settle(daemon, terminal, asked.job)
        case "trace":
            return jobs.trace(daemon, terminal, asked.job, follow=asked.follow)
        case "printers":
            return host.printers(daemon, terminal)
        case "status":
            return host.status(daemon, terminal)
        case "mesh":
            from pullprint.cli.mesh import mesh

            return mesh(daemon, terminal, jobs=asked.jobs)
        case "sleep" | "wake":
            from pullprint.cli import sleep

            return (sleep.sleep if asked.command == "sleep" else sleep.wake)(daemon, terminal)
        case "login":
            from pullprint.cli.login import login

            return login(daemon, terminal, qr=asked.qr)
        case "doctor":
            if asked.repair:
                from pullprint.cli.repair import repair

                repair(terminal, asked.cups_conf, yes=asked.yes)
            return host.doctor(daemon, terminal)
        case "queue":
            from pullprint.cli import queues

            cups = queues.Cups(asked.cups, asked.ppd)
            if asked.action == "list":
                return queues.show(terminal, cups)
            if asked.action == "resume":
                return queues.resume(terminal, cups)
            if asked.action == "remove":
                return queues.remove(terminal, cups, asked.name)
            return queues.add(daemon, terminal, cups, asked.name, printer=asked.printer, default=asked.default)
        case _:
            from pullprint.cli.join import Wish as JoinWish
            from pullprint.cli.join import join
            from pullprint.cli.queues import Cups

            return join(
                daemon,
                terminal,
                JoinWish(
                    cloud=asked.cloud, code=asked.code, authority=asked.ca, queue=asked.queue, no_queue=asked.no_queue,
                    yes=asked.yes, cups=Cups(asked.cups, asked.ppd), configuration=asked.cups_conf,
                ),
            )  # fmt: skip


if __name__ == "__main__":
    main()
