"""The real process: killed, stopped, kept waiting, and changed by commands beside it."""

import asyncio
import json
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from tests.cloud.office import Office, ShiftedClock, make_settings
from tests.rig.processes import Process, wait_until

from pullprint.cloud.config import Settings
from pullprint.cloud.main import main
from pullprint.cloud.store import opened


def command(folder: Path, *words: str, check: bool = True, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run ``pullprint-cloud`` with the folder's settings."""
    argv = [sys.executable, "-m", "pullprint.cloud.main", *words]
    env = {**os.environ, "PULLPRINT_CLOUD_CONFIG": str(folder / "cloud.toml")}
    return subprocess.run(argv, env=env, check=check, input=stdin, capture_output=True, text=True, timeout=60)


def write_settings(folder: Path) -> None:
    made = make_settings(folder)
    text = "".join(
        f'{name} = "{value}"\n'
        for name, value in {
            "host": made.host, "certificate": made.certificate, "key": made.key, "state-dir": made.state_dir,
            "port-file": made.port_file,
        }.items()
    )  # fmt: skip
    (folder / "cloud.toml").write_text(text + "port = 0\n")


@asynccontextmanager
async def process_office(folder: Path) -> AsyncIterator[tuple[Office, Process]]:
    """An office whose cloud is a process."""
    if not (folder / "cloud.toml").exists():
        write_settings(folder)
    server = Process(
        [sys.executable, "-m", "pullprint.cloud.main", "serve", "--config", folder / "cloud.toml"], folder / "log"
    )
    port_file = folder / "port"
    port_file.unlink(missing_ok=True)
    server.start()
    try:
        await asyncio.to_thread(wait_until, f"the cloud: {server.log_tail()}", port_file.exists)
        url = f"https://127.0.0.1:{port_file.read_text().strip()}"
        clock = ShiftedClock()
        context = ssl.create_default_context(cafile=folder / "ca.pem")
        with opened(f"sqlite:///{folder / 'state' / 'cloud.sqlite'}", clock) as store:
            connector = aiohttp.TCPConnector(ssl=context, limit=0)
            async with aiohttp.ClientSession(connector=connector) as http:
                yield Office(url, store, clock, http, Settings(), folder / "ca.pem"), server
    finally:
        await asyncio.to_thread(server.stop)


async def test_killed_while_busy_it_loses_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    acknowledged: list[str] = []
    async with process_office(tmp_path) as (office, server):
        office.add_organisation("acme")
        office.add_printer("acme", "Foyer")
        node = await office.join()

        async def keep_reporting() -> None:
            while True:
                report = node.job_report()
                answer = await node.call("POST", "/node/v1/events", node.events(report))
                assert answer.body == {"n": node.n}
                acknowledged.append(report["job"])

        reporting = asyncio.create_task(keep_reporting())
        await asyncio.sleep(0.8)
        server.kill(signal.SIGKILL)
        with pytest.raises(aiohttp.ClientError):
            await reporting
    async with process_office(tmp_path) as (office, _):
        node.office = office
        token = await office.sign_in()
        known = {view["id"] for view in (await office.ask("GET", "/api/v1/jobs", token=token)).body["jobs"]}
        assert len(acknowledged) > 5 and set(acknowledged) <= known
        assert len(known) - len(acknowledged) <= 1, "the one whose answer was lost may be there"
        # Its node repeats what was not acknowledged, and goes on.
        node.n -= 1
        held = await node.hold()
        assert (await office.ask("POST", f"/api/v1/jobs/{held}/release", {"printer": "Foyer"}, token)).status == 202
        assert node.open(await node.poll_for("order"))[0].job == held


async def test_order_survives_a_kill_between_its_issue_and_its_delivery(tmp_path: Path) -> None:
    async with process_office(tmp_path) as (office, server):
        office.add_organisation("acme")
        office.add_printer("acme", "Foyer")
        node, token = await office.join(), await office.sign_in()
        held = await node.hold()
        assert (await office.ask("POST", f"/api/v1/jobs/{held}/release", {"printer": "Foyer"}, token)).status == 202
        server.kill(signal.SIGKILL)
    async with process_office(tmp_path) as (office, _):
        node.office = office
        order, part = node.open(await node.poll_for("order"))
        assert (order.job, part) == (held, node.parts[held])
        refused = await office.ask("POST", f"/api/v1/jobs/{held}/release", {"printer": "Foyer"}, token)
        assert refused.code == "being-printed"


async def test_stops_at_once_with_polls_parked_and_leaves_none_hanging(tmp_path: Path) -> None:
    async with process_office(tmp_path) as (office, server):
        office.add_organisation("acme")
        node = await office.join()
        polls = [asyncio.create_task(node.call("GET", "/node/v1/inbox", query="since=0")) for _ in range(20)]
        await asyncio.sleep(1)
        begin = time.monotonic()
        assert await asyncio.to_thread(server.stop) == 0
        assert time.monotonic() - begin < 3
        assert {answer.status for answer in await asyncio.gather(*polls)} == {204}
        assert "Traceback" not in server.log_tail()


async def test_running_server_tells_nodes_of_what_a_command_changed(tmp_path: Path) -> None:
    async with process_office(tmp_path) as (office, _):
        office.add_organisation("acme")
        node = await office.join()
        parked = asyncio.create_task(node.poll_for("config"))
        await asyncio.sleep(0.3)
        uri = "ipp://127.0.0.1:8631/ipp/print"
        words = ("printer", "add", "acme", "hq", "Foyer", uri, "--place", "Ground floor", "--json")
        await asyncio.to_thread(command, tmp_path, *words)
        async with asyncio.timeout(3):
            await parked
        config = await node.fetch_config()
        assert [(printer.name, printer.place) for printer in config.printers] == [("Foyer", "Ground floor")]


async def test_peers_refuse_a_stolen_host_within_seconds_of_the_command(tmp_path: Path) -> None:
    async with process_office(tmp_path) as (office, _):
        office.add_organisation("acme")
        desk, stolen = await office.join(name="desk"), await office.join(name="laptop")
        await desk.poll()
        parked, theirs = asyncio.create_task(desk.poll_for("config")), asyncio.create_task(stolen.poll())
        await asyncio.sleep(0.3)
        await asyncio.to_thread(command, tmp_path, "node", "revoke", "acme", "laptop")
        async with asyncio.timeout(5):
            await parked
            roster = await desk.fetch_roster()
        assert roster.revoked == (stolen.id,) and [peer.node for peer in roster.peers] == [desk.id]
        with pytest.raises(AssertionError, match="shut out"):
            await theirs
        shown = await asyncio.to_thread(command, tmp_path, "node", "list", "acme", "--json")
        listed = {line["name"]: (line["role"], line["awake"]) for line in json.loads(shown.stdout)}
        assert listed == {"desk": ("normal", True), "laptop": ("normal", False)}


async def test_connection_that_sends_half_a_body_is_given_up(tmp_path: Path) -> None:
    async with process_office(tmp_path) as (office, _):
        context = ssl.create_default_context(cafile=tmp_path / "ca.pem")
        port = int(office.url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="127.0.0.1")
        writer.write(
            b"POST /api/v1/session HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
        )
        async with asyncio.timeout(15):
            answer = await reader.read(4_096)
        assert answer.startswith(b"HTTP/1.1 400 ") and b"did not arrive in time" in answer
        writer.close()
        await writer.wait_closed()


def test_commands_say_what_is_wrong_in_one_sentence_and_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_settings(tmp_path)
    command(tmp_path, "organisation", "add", "acme", "Acme")
    command(tmp_path, "site", "add", "acme", "hq", "--network", "192.0.2.0/24", "--owner-rule", "{user}@example.com")
    refused = [
        ("organisation", "add", "acme", "Acme"),
        ("organisation", "add", "Bad Slug", "Acme"),
        ("organisation", "add", "ok", "\x1b[31m"),
        ("site", "add", "nobody", "hq", "--network", "192.0.2.0/24"),
        ("site", "add", "acme", "x", "--network", "192.0.2.1/24"),
        ("site", "add", "acme", "x", "--network", "192.0.2.0/24", "--hold", "31d"),
        ("site", "add", "acme", "x", "--network", "192.0.2.0/24", "--hold", "soon"),
        ("site", "add", "acme", "x", "--network", "192.0.2.0/24", "--owner-rule", "nobody"),
        ("user", "add", "acme", "a b"),
        ("user", "add", "nobody", "a"),
        ("join-code", "acme", "nowhere"),
        ("join-code", "acme", "hq", "--minutes", "0"),
        ("node", "revoke", "acme", "nobody"),
        ("printer", "remove", "acme", "hq", "nothing"),
        ("serve", "--config", "/nowhere/cloud.toml"),
    ]
    uris = (
        "file:///etc/passwd", "http://192.0.2.7/", "ipp://user:secret@192.0.2.7/", "ipp://198.51.100.7/", "ipp:",
        "socket://192.0.2.7:0", "ipp://192.0.2.7/\n", "ipp://3221225991/", "ipp://[::1]/", "ipp://[::1", "ipp://-x/",
        "ipp://192.0.2.7/" + "a" * 1_100,
    )  # fmt: skip
    refused += [("printer", "add", "acme", "hq", "Foyer", uri) for uri in uris]
    monkeypatch.setenv("PULLPRINT_CLOUD_CONFIG", str(tmp_path / "cloud.toml"))
    for words in refused:
        monkeypatch.setattr(sys, "argv", ["pullprint-cloud", *words])
        with pytest.raises(SystemExit, match="^78$" if words[0] == "serve" else "^1$"):
            main()
        said = capsys.readouterr().err
        assert said.startswith("pullprint-cloud: ") and said.count("\n") == 1, (words, said)
        assert "secret" not in said and "\x1b" not in said
    assert command(tmp_path, "site", "frobnicate", check=False).returncode == 2
    assert command(tmp_path, "printer", "list", "acme", "--json").stdout == "[]\n"


def test_commands_of_a_whole_office(tmp_path: Path) -> None:
    write_settings(tmp_path)
    command(tmp_path, "organisation", "add", "acme", "Acme")
    command(tmp_path, "site", "add", "acme", "hq", "--network", "192.0.2.0/24", "--network", "2001:db8::/32")
    made = command(tmp_path, "user", "add", "acme", "Ada@example.com")
    assert "Password" in made.stdout
    command(tmp_path, "user", "add", "acme", "bob@example.com", "--password-stdin", stdin="a long enough one\n")
    assert (
        command(tmp_path, "user", "add", "acme", "eve", "--password-stdin", stdin="short\n", check=False).returncode
        == 1
    )
    command(tmp_path, "printer", "add", "acme", "hq", "Foyer", "ipps://[2001:db8::7]/ipp/print")
    command(tmp_path, "printer", "add", "acme", "hq", "Attic", "socket://attic.example.com:9100")
    command(tmp_path, "printer", "remove", "acme", "hq", "attic")
    for noun, marker in (("user", "ada@example.com"), ("printer", "Foyer"), ("site", "hq"), ("node", "None yet.")):
        assert marker in command(tmp_path, noun, "list", "acme").stdout
    assert "Attic" not in command(tmp_path, "printer", "list", "acme").stdout
    out = tmp_path / "certificates"
    command(tmp_path, "certificate", "--host", "cloud.example.com", "--host", "192.0.2.9", "--out", str(out))
    assert (out / "ca.key").stat().st_mode & 0o777 == 0o600
    (out / "ca.key").unlink()
    half = command(tmp_path, "certificate", "--host", "cloud.example.com", "--out", str(out), check=False)
    assert half.returncode == 1 and "ca.pem is there without ca.key" in half.stderr


def test_database_is_nobody_elses_to_read_and_has_no_codes_or_passwords(tmp_path: Path) -> None:
    write_settings(tmp_path)
    command(tmp_path, "organisation", "add", "acme", "Acme")
    command(tmp_path, "site", "add", "acme", "hq", "--network", "192.0.2.0/24")
    code = command(tmp_path, "join-code", "acme", "hq").stdout.splitlines()[0]
    command(tmp_path, "user", "add", "acme", "bob@example.com", "--password-stdin", stdin="a long enough one\n")
    state = tmp_path / "state"
    assert state.stat().st_mode & 0o777 == 0o700
    stored = b"".join(path.read_bytes() for path in state.iterdir())
    assert b"bob@example.com" in stored and code.encode() not in stored and b"a long enough" not in stored
