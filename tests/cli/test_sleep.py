"""What is said to a host that is about to sleep, by its admin and by systemd."""

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import web
from tests.cli.command import on_pipes
from tests.cli.standin import serve
from tests.node.host import Host, Organisation

from pullprint.node.local import LocalApi
from pullprint.node.sleep import Sleeper

HOOK = Path(__file__).parents[2] / "packaging" / "debian" / "system-sleep" / "pullprint"


@pytest.fixture
async def runner(tmp_path: Path, socket: Path) -> AsyncIterator[web.AppRunner]:
    """A node's own local API; its cloud is away."""
    host = Host(tmp_path, Organisation(), {})
    await host.holder.start(3_600)
    sleeper = Sleeper(host.holder, host.clock, lambda: None)
    api = LocalApi(cast(Any, SimpleNamespace(sleeper=sleeper)), host.holder, host.site, "desk")
    runner = await serve(api.app(), socket)
    yield runner
    await runner.cleanup()
    host.holder.close()


@pytest.mark.parametrize(
    ("command", "says"),
    [("sleep", "The cloud is away, so this host keeps its votes."), ("wake", "This host has its votes.")],
)
async def test_admin_is_told_what_became_of_the_votes(
    runner: web.AppRunner, socket: Path, command: str, says: str
) -> None:
    shown = await on_pipes(socket, command)
    assert (shown.code, shown.out, shown.err) == (0, says + "\n", "")
    shown = await on_pipes(socket, command, "--json")
    assert json.loads(shown.out) == {"lent": 0, "own": 0, "sentence": says}


@pytest.mark.parametrize("command", ["sleep", "wake"])
async def test_nobody_else_puts_a_host_to_sleep_or_wakes_it(
    runner: web.AppRunner, socket: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pullprint.node.local.peer_uid", lambda _: 65_534)
    monkeypatch.setattr("pullprint.node.site.Site.joined", False)
    shown = await on_pipes(socket, command)
    assert shown.code == 4 and "Only root" in shown.err


def suspended(folder: Path, program: str, *words: str) -> list[str]:
    """The hook runs while ``pullprint`` is *program*; the words that this was given."""
    fake = folder / "pullprint"
    fake.write_text(f'#!/bin/sh\necho "$@" >>"{folder}/words"\n{program}\n')
    fake.chmod(0o755)
    environment = {"PATH": f"{folder}:{os.environ['PATH']}"}
    ran = subprocess.run([HOOK, *words], env=environment, capture_output=True, timeout=10)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"", b"")
    return (folder / "words").read_text().splitlines() if (folder / "words").exists() else []


@pytest.mark.parametrize("program", ["echo done", "echo no >&2; exit 3"])
async def test_hook_of_systemd_says_it_and_never_fails(tmp_path: Path, program: str) -> None:
    def both() -> list[str]:
        suspended(tmp_path, program, "pre", "suspend")
        suspended(tmp_path, program, "nonsense")
        return suspended(tmp_path, program, "post", "suspend")

    assert await asyncio.to_thread(both) == ["sleep", "wake"]


async def test_hook_does_not_hold_up_a_host_that_wakes(tmp_path: Path) -> None:
    assert await asyncio.to_thread(suspended, tmp_path, "exec sleep 60", "post", "suspend") == ["wake"]
