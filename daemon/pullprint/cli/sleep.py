"""``pullprint sleep`` and ``pullprint wake``: this host's votes go to the cloud, and come back."""

from pullprint.cli.answers import Slept
from pullprint.cli.daemon import Daemon
from pullprint.cli.errors import Exit
from pullprint.cli.terminal import Terminal


def sleep(daemon: Daemon, terminal: Terminal) -> Exit:
    """This host is about to be away."""
    return _tell(terminal, daemon.sleep())


def wake(daemon: Daemon, terminal: Terminal) -> Exit:
    """It is back."""
    return _tell(terminal, daemon.wake())


def _tell(terminal: Terminal, slept: Slept) -> Exit:
    if terminal.json:
        terminal.dump(slept.raw)
    else:
        terminal.say(slept.sentence)
    return Exit.DONE
