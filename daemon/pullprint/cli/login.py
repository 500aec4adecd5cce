"""``pullprint login``: shows a code and a QR code, and waits until somebody has answered on the page."""

import time
from contextlib import suppress

from pullprint.base.errors import PullprintError
from pullprint.cli.answers import Login
from pullprint.cli.daemon import Daemon
from pullprint.cli.errors import CommandError, Exit
from pullprint.cli.terminal import Terminal
from pullprint.wire.local import WAIT_LIMIT

PAUSE = 1.0
"""Seconds between two questions to a daemon that does not park them."""


class LoginDenied(CommandError):
    """The login was denied on the page. Nothing was changed; run `pullprint login` again if that was a mistake."""

    code = "login-denied"


class LoginExpired(CommandError):
    """Nobody allowed the login in time. Nothing was changed; run `pullprint login` again. Held jobs are safe."""

    code = "login-expired"


def login(daemon: Daemon, terminal: Terminal, *, qr: bool) -> Exit:
    """Bind this local account to a user. However this is cut short, the code is void then."""
    try:
        begun = daemon.login()
        _show(terminal, begun, qr=qr)
        ended = _wait(daemon, terminal, begun)
    except BaseException:
        with suppress(PullprintError):
            daemon.withdraw_login()
        raise
    if terminal.json:
        terminal.dump(ended.raw)
    if ended.state == "denied":
        raise LoginDenied
    if ended.state != "allowed":
        raise LoginExpired
    terminal.say(f"You are {ended.user} on this host.", "green")
    return Exit.DONE


def _show(terminal: Terminal, begun: Login, *, qr: bool) -> None:
    if terminal.json:
        terminal.dump(begun.raw)
        return
    terminal.say(f"Open {begun.verification_uri} where you are signed in, and type this code:")
    terminal.say("")
    terminal.say(f"    {begun.user_code}", "bold")
    terminal.say("")
    if qr or terminal.draws:
        # Takes as long to load as all the rest of this command.
        import segno

        with suppress(segno.DataOverflowError):
            dark = segno.make_qr(begun.verification_uri_complete, error="m").matrix_iter(border=2)
            terminal.qr_code([[bool(module) for module in row] for row in dark])


def _wait(daemon: Daemon, terminal: Terminal, begun: Login) -> Login:
    login = begun
    with terminal.progress() as progress:
        while login.state == "pending":
            progress(f"Waiting for the answer on the page; the code is good for {_minutes(login.expires_in)}.")
            asked = time.monotonic()
            login = daemon.login_state(int(WAIT_LIMIT))
            if login.state == "pending" and time.monotonic() - asked < PAUSE:
                time.sleep(PAUSE)
    return login


def _minutes(seconds: int) -> str:
    minutes = seconds // 60
    if minutes < 1:
        return "less than a minute"
    return "1 minute" if minutes == 1 else f"{minutes} minutes"
