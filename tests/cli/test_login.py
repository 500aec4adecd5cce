"""``pullprint login``: what it shows, how long it waits, and how it ends."""

import asyncio
import json
import os
import re
import signal
from pathlib import Path

import pytest
import zxingcpp
from PIL import Image
from tests.cli.command import COMMAND, Ended, environment, on_pipes, on_terminal
from tests.cli.standin import Standin

from pullprint.base.errors import PullprintError

URI = "https://print.example.com/login?code=7KQ2-M9XD"
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_DARK = {"█": (0, 0), "▀": (0, 1), "▄": (1, 0), " ": (1, 1)}


async def answered(daemon: Standin, state: str, user: str = "") -> None:
    """Somebody answers on the page, as soon as the command waits for it."""
    async with asyncio.timeout(20):
        while not any(request.startswith("GET /v1/login") for request in daemon.requests):
            await asyncio.sleep(0.02)
    daemon.answer_login(state, user)


async def logged_in(socket: Path, daemon: Standin, *words: str, terminal: bool = False, **more: str) -> Ended:
    run = on_terminal if terminal else on_pipes
    ended, _ = await asyncio.gather(
        run(socket, "login", *words, **more), answered(daemon, "allowed", "ada@example.com")
    )
    return ended


def scanned(shown: str) -> list[str]:
    """What a phone reads off the screen: light modules are drawn, the ground is dark."""
    lines = [line for line in _ESCAPE.sub("", shown).splitlines() if len(line) > 20 and set(line) <= set(_DARK)]
    rows = [bytes(0 if _DARK[half][n] else 255 for half in line) for line in lines for n in (0, 1)]
    image = Image.frombytes("L", (len(rows[0]), len(rows)), b"".join(rows)) if rows else Image.new("L", (1, 1))
    big = image.resize((image.width * 8, image.height * 8), Image.Resampling.NEAREST)
    return [found.text for found in zxingcpp.read_barcodes(big, try_invert=False)]


async def test_on_a_terminal_address_code_and_qr_code_are_shown(socket: Path, daemon: Standin) -> None:
    ended = await logged_in(socket, daemon, terminal=True)
    plain = _ESCAPE.sub("", ended.out)
    assert ended.code == 0 and "https://print.example.com/login " in plain and "    7KQ2-M9XD" in plain
    assert scanned(ended.out) == [URI]
    assert "9 minutes" in plain and "You are ada@example.com on this host." in plain
    assert "\x1b[38;2;255;255;255" in ended.out or "\x1b[97" in ended.out or "38;5;" in ended.out, (
        "whatever its colours"
    )


async def test_a_terminal_that_is_too_narrow_or_has_no_blocks_shows_the_code_alone(
    socket: Path, daemon: Standin
) -> None:
    narrow = await logged_in(socket, daemon, terminal=True, width=30)  # type: ignore[arg-type]
    assert narrow.code == 0 and "7KQ2-M9XD" in narrow.out and "▀" not in narrow.out
    daemon.requests.clear()
    ascii_only = await logged_in(socket, daemon, "--qr", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert ascii_only.code == 0 and "7KQ2-M9XD" in ascii_only.out and "??" not in ascii_only.out


async def test_on_a_pipe_the_qr_code_is_shown_when_it_is_asked_for(socket: Path, daemon: Standin) -> None:
    ended = await logged_in(socket, daemon)
    assert "▀" not in ended.out and ended.out.endswith("You are ada@example.com on this host.\n")
    daemon.requests.clear()
    ended = await logged_in(socket, daemon, "--qr")
    assert scanned(ended.out) == [URI] and "\x1b" not in ended.out


async def test_json_tells_the_code_and_then_the_end(socket: Path, daemon: Standin) -> None:
    ended = await logged_in(socket, daemon, "--json")
    first, last = (json.loads(line) for line in ended.out.splitlines())
    assert (first["state"], first["user_code"]) == ("pending", "7KQ2-M9XD")
    assert (last["state"], last["user"]) == ("allowed", "ada@example.com")
    assert (ended.code, ended.err) == (0, "")


@pytest.mark.parametrize(
    ("state", "code"), [("denied", "login-denied"), ("expired", "login-expired"), ("odd", "login-expired")]
)
async def test_a_login_that_was_not_allowed_says_so(socket: Path, daemon: Standin, state: str, code: str) -> None:
    ended, _ = await asyncio.gather(on_pipes(socket, "login", "--json"), answered(daemon, state))
    assert ended.code == 4 and json.loads(ended.err)["code"] == code
    assert json.loads(ended.out.splitlines()[1])["state"] == state
    assert "DELETE /v1/login" not in daemon.requests


@pytest.mark.parametrize("when", ["at once", "waiting"])
async def test_interrupted_it_takes_the_code_back(socket: Path, daemon: Standin, when: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *COMMAND, "login", env=environment(socket, {}), stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    awaited = "POST /v1/login" if when == "at once" else "GET /v1/login"
    async with asyncio.timeout(20):
        while not any(request.startswith(awaited) for request in daemon.requests):
            await asyncio.sleep(0.005)
    os.kill(process.pid, signal.SIGINT)
    _, err = await process.communicate()
    assert process.returncode == 130 and b"stopped" in err and b"Traceback" not in err
    assert daemon.requests[-1] == "DELETE /v1/login"


async def test_a_refusal_is_said_in_the_daemons_words(socket: Path, daemon: Standin) -> None:
    class Away(PullprintError):
        """The cloud does not answer.\x1b[31m"""

        code = "cloud-away"
        http_status = 503

    daemon.refusal = Away()
    ended = await on_pipes(socket, "login")
    assert (ended.code, ended.out) == (4, "") and "The cloud does not answer." in ended.err and "\x1b" not in ended.err


async def test_hostile_answers_reach_no_terminal_raw(socket: Path, daemon: Standin) -> None:
    evil = "https://x/\x1b]0;owned\x07" + "y" * 5_000
    daemon.refusal = None

    async def spoil() -> None:
        async with asyncio.timeout(20):
            while daemon.login is None:
                await asyncio.sleep(0)
        daemon.login = daemon.login.model_copy(
            update={"state": "allowed", "user": "a\x1b[31m\u202eb", "verification_uri": evil}
        )

    ended, _ = await asyncio.gather(on_pipes(socket, "login"), spoil())
    assert "\x1b" not in ended.out and "\u202e" not in ended.out and "\x07" not in ended.out
