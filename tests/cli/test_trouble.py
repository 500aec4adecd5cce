"""Daemons that are away, slow, broken or hostile; command lines that are wrong. Never a traceback."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from tests.cli.command import COMMAND, on_pipes
from tests.cli.standin import Standin, job

from pullprint.base.errors import NotAllowed
from pullprint.cli import client
from pullprint.cli.client import Client
from pullprint.cli.errors import BrokenAnswer, DaemonSlow
from pullprint.wire.local import ANSWER_LIMIT

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
READING = [("jobs",), ("release",), ("trace", "1"), ("printers",), ("status",), ("doctor",)]
CHANGING = [("cancel", "1"), ("settle", "1"), ("release", "00000001")]


@asynccontextmanager
async def speaker(path: Path, talk: Talk) -> AsyncIterator[None]:
    """Something at *path* that does not speak as the daemon does."""

    writers: list[asyncio.StreamWriter] = []

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        try:
            await reader.readuntil(b"\r\n\r\n")
            await talk(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_unix_server(one, str(path))
    try:
        yield
    finally:
        server.close()
        for writer in writers:
            writer.close()
        await server.wait_closed()


@pytest.mark.parametrize("command", READING + CHANGING)
async def test_a_daemon_that_is_away_is_named(socket: Path, command: tuple[str, ...]) -> None:
    missing = await on_pipes(socket, *command)
    assert (missing.code, missing.out) == (3, "")
    assert "systemctl start pullprintd" in missing.err and str(socket) in missing.err and "Traceback" not in missing.err


async def test_a_dead_socket_and_one_too_long_are_away_too(socket: Path, tmp_path: Path) -> None:
    server = await asyncio.start_unix_server(lambda *_: None, str(socket))
    server.close()
    await server.wait_closed()
    socket.touch()
    assert (await on_pipes(socket, "jobs")).code == 3
    assert (await on_pipes(tmp_path / ("x" * 200), "jobs")).code == 3
    failure = await on_pipes(socket, "--socket", str(tmp_path / "other"), "jobs", "--json")
    assert json.loads(failure.err)["code"] == "daemon-away" and "other" in failure.err


async def test_a_socket_that_is_forbidden_says_so(socket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbid(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    # Root, as whom these tests may run, is never refused by a mode.
    monkeypatch.setattr(client._UnixConnection, "connect", forbid)
    with pytest.raises(client.SocketForbidden, match="Ask an administrator"):
        Client(socket).get("/v1/status")


@pytest.mark.parametrize("command", READING + CHANGING)
async def test_the_daemons_refusal_is_told_in_its_own_words(
    daemon: Standin, socket: Path, command: tuple[str, ...]
) -> None:
    async def refuse(_: web.Request) -> web.Response:
        error = NotAllowed(reason="\x1b[2Jit is \u202enot yours")
        return web.json_response({"code": error.code, "sentence": "\x1b[2J" + error.sentence}, status=403)

    daemon.raw = refuse
    ended = await on_pipes(socket, *command)
    assert ended.code == 4 and "it is �not yours" in ended.err and "\x1b" not in ended.err


BROKEN = {
    "no http": b"hello\r\n\r\n",
    "nothing": b"",
    "half a header": b"HTTP/1.1 200 OK\r\nContent-Le",
    "half a body": b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n[",
    "no json": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n<htm>",
    "no text": b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n\xff\xfe\x00[",
    "deep json": b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b"[" * 200_000,
    "other json": b'HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n[{"id": null}]'[:-1],
    "an object": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    "a number": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n7",
    "bare error": b"HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\n{}",
    "page error": b"HTTP/1.1 502 Oh\r\nContent-Length: 6\r\n\r\n<html>",
    "header flood": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 5_000 + b"\r\n[]",
    "bad length": b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n[]x",
}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_answer_is_a_sentence_and_no_traceback(socket: Path, name: str) -> None:
    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(BROKEN[name])
        await writer.drain()

    async with speaker(socket, talk):
        ended = await on_pipes(socket, "jobs")
    assert (ended.code, ended.out) == (3, "")
    assert "cannot be understood" in ended.err and "Traceback" not in ended.err


@pytest.mark.parametrize("field", ["id", "title", "state", "ticket", "created", "facts", "doubtful"])
async def test_a_job_with_a_field_of_the_wrong_type_is_refused(daemon: Standin, socket: Path, field: str) -> None:
    async def answer(_: web.Request) -> web.Response:
        view = json.loads(job().model_dump_json())
        return web.json_response([view | {field: {"pages": -1, "options": [["a"]], "copies": 1}}])

    daemon.raw = answer
    ended = await on_pipes(socket, "jobs")
    assert ended.code == 3 and "cannot be understood" in ended.err and "Traceback" not in ended.err


async def test_an_endless_answer_is_cut_off(socket: Path) -> None:
    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n[")
        for _ in range(ANSWER_LIMIT // 65_536 + 16):
            writer.write(b" " * 65_536)
            await writer.drain()

    async with speaker(socket, talk):
        with pytest.raises(BrokenAnswer, match="longer than 16 MiB"):
            await asyncio.to_thread(Client(socket).get, "/v1/jobs")


@pytest.mark.parametrize("opening", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\n\r\n["])
async def test_an_answer_that_trickles_ends_at_the_deadline(socket: Path, opening: bytes) -> None:
    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(opening)
        for _ in range(200):
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.05)

    async with speaker(socket, talk):
        began = time.monotonic()
        with pytest.raises(DaemonSlow, match=r"no answer in 0\.5 seconds"):
            await asyncio.to_thread(Client(socket).get, "/v1/jobs", 0.5)
        assert time.monotonic() - began < 2.0


@pytest.mark.parametrize(
    "line",
    [
        (), ("frobnicate",), ("release", "../../etc"), ("release", "xyz"), ("release", "1", "--all"), ("cancel",),
        ("release", "--copies", "0"), ("release", "--copies", "10000"), ("release", "--sides", "both"),
        ("release", "-o", "novalue"), ("release", "-o", "=x"), ("jobs", "extra"), ("jobs", "--al"),
        ("settle", "1", "2"), ("trace", "1\x1b[2J"), ("release", "1", "-P", "Lobby", "zz"), ("join", "https://c"),
        ("release", "--copies", "٣"),
    ],
)  # fmt: skip
async def test_a_wrong_command_line_ends_with_2_before_anything_is_asked(
    daemon: Standin, socket: Path, line: tuple[str, ...]
) -> None:
    ended = await on_pipes(socket, *line)
    assert (ended.code, ended.out) == (2, "")
    assert "usage: pullprint" in ended.err and "\x1b" not in ended.err and daemon.requests == []


async def test_a_terminal_of_another_encoding_and_a_closed_pipe_are_no_trouble(daemon: Standin, socket: Path) -> None:
    daemon.add(*(job(n, "Größe – 文書.pdf") for n in range(1, 2_000)))
    assert (await on_pipes(socket, "jobs", PYTHONIOENCODING="ascii")).code == 0
    shell = await asyncio.create_subprocess_shell(
        f"{' '.join(COMMAND)} jobs | head -1",
        env=os.environ | {"PULLPRINT_SOCKET": str(socket)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await shell.communicate()
    assert out.startswith(b"JOB") and err == b""


async def test_an_ambiguous_or_unknown_beginning_changes_nothing(daemon: Standin, socket: Path) -> None:
    daemon.add(job(0x11), job(0x12))
    assert "several" in (await on_pipes(socket, "cancel", "0000001")).err
    assert "no such job" in (await on_pipes(socket, "release", "beef")).err
    assert daemon.releases == [] and {view.state for view in daemon.jobs.values()} == {"held"}
