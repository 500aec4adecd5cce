"""The real ``pullprintd`` as a service: what it tells systemd, and how it starts with what it finds on its disk."""

import asyncio
import json
import os
import socket
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.rig.notify import Notified, notify_socket
from tests.rig.office import BIN, ENVIRONMENT, Node
from tests.rig.processes import wait_until

from pullprint.base import systemd
from pullprint.base.clock import SystemClock
from pullprint.base.config import ConfigFile
from pullprint.node.app import Node as PullprintNode
from pullprint.node.intake import IntakeSilent
from pullprint.node.settings import Settings


@pytest.fixture
def told() -> Iterator[Notified]:
    with notify_socket() as notified:
        yield notified


@pytest.fixture
def node(tmp_path: Path, told: Notified) -> Iterator[Node]:
    node = Node(tmp_path)
    (tmp_path / "kept").mkdir()
    node.process.env = {
        **ENVIRONMENT,
        "NOTIFY_SOCKET": str(told.path),
        "WATCHDOG_USEC": "400000",
        "STATE_DIRECTORY": str(tmp_path / "kept"),
    }
    yield node
    node.close()


def start(node: Node, told: Notified) -> None:
    """As systemd does: until it says that it is ready."""
    count = len(told.lines("READY=1"))
    node.process.start()
    told.wait_for("READY=1", count + 1)


def failed(node: Node) -> tuple[int | None, str]:
    """The exit status and the last line of a start that comes to nothing."""
    node.process.start()
    wait_until("the end of pullprintd", lambda: not node.process.running)
    return node.process.stop(), node.process.log_tail().splitlines()[-1]


def check(node: Node) -> subprocess.CompletedProcess[str]:
    """``pullprintd --check``."""
    return subprocess.run(
        [BIN / "pullprintd", "--check", "--config", node.config],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_it_is_ready_when_its_intake_answers_and_beats_until_it_is_frozen(node: Node, told: Notified) -> None:
    start(node, told)
    with socket.socket(socket.AF_UNIX) as backend:
        backend.settimeout(5)
        backend.connect(str(node.intake))
        backend.sendall(b"check\n")
        assert backend.recv(100) == b"here\n"
    assert told.wait_for("STATUS=not joined") == "STATUS=not joined"
    told.wait_for("WATCHDOG=1", 3)
    order = [line for _, line in told.told]
    assert order.index("READY=1") < order.index("WATCHDOG=1")
    assert [line for line in order[: order.index("READY=1")] if line.startswith("EXTEND_TIMEOUT_USEC=")]
    node.process.freeze()
    count = len(told.lines("WATCHDOG=1"))
    with pytest.raises(TimeoutError):
        told.wait_for("WATCHDOG=1", count + 2, timeout=1.0)  # one may have been on its way
    node.process.thaw()
    told.wait_for("WATCHDOG=1", count + 2)
    assert node.process.stop() == 0 and told.lines("STOPPING=1")


async def test_an_intake_that_no_backend_reaches_is_a_start_that_failed(
    root: Path, told: Notified, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when somebody has removed the socket that systemd listens on."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(told.path))
    settings = Settings(
        state_dir=root / "state", runtime_dir=root, intake_socket=root / "intake", control_socket=root / "control"
    )
    config = ConfigFile(Settings, root / "none", optional=True, kept_in=root)
    taken = socket.socket(socket.AF_UNIX)
    taken.bind(str(root / "taken"))
    taken.listen()
    (root / "taken").unlink()
    monkeypatch.setattr(systemd, "inherited_sockets", lambda: {"intake": taken})
    daemon = await asyncio.to_thread(PullprintNode, settings, SystemClock(), config)
    with pytest.raises(IntakeSilent, match="Restart pullprintd.socket"):
        await daemon.run(asyncio.Event())
    assert not told.lines("READY") and not (root / "last-good.toml").exists()


def test_a_broken_file_is_named_everywhere_and_the_last_good_one_goes_on(
    node: Node, told: Notified, tmp_path: Path
) -> None:
    start(node, told)
    wait_until("the copy", (tmp_path / "kept" / "last-good.toml").exists)
    assert json.loads(node.pullprint("status", "--json"))["config_trouble"] == ""
    node.process.stop()
    good = node.config.read_text()
    node.config.write_text(good + "document_limit_mib = 0\n")
    line = len(good.splitlines()) + 1

    answer = check(node)
    assert answer.returncode == 78 and f"line {line}: document_limit_mib must be 1 or more" in answer.stderr
    start(node, told)
    assert f"line {line}: document_limit_mib must be 1 or more" in node.process.log_tail()
    told.wait_for("STATUS=not joined; with the last good configuration")
    shown = node.pullprint("status")
    assert f"line {line}: document_limit_mib" in " ".join(shown.split()) and "last-good.toml" in shown
    findings = json.loads(run_doctor(node))
    assert [f["level"] for f in findings if f"line {line}: document_limit_mib" in f["what"]] == ["bad"]

    node.config.write_text(good)
    assert "good again" in json.loads(node.pullprint("status", "--json"))["config_trouble"]
    node.process.stop()
    assert check(node).returncode == 0
    start(node, told)
    assert json.loads(node.pullprint("status", "--json"))["config_trouble"] == ""


def run_doctor(node: Node) -> str:
    argv, env = node.command("doctor", "--json")
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False).stdout


def test_without_a_good_one_it_ends_with_the_sentence_and_systemd_lets_it_be(node: Node, tmp_path: Path) -> None:
    good = node.config.read_text()
    node.config.write_text(good + "frob = 1\n")
    status, said = failed(node)
    assert status == 78 and "there is no setting named frob" in said
    (tmp_path / "kept" / "last-good.toml").write_bytes(b"\0")
    status, said = failed(node)
    assert status == 78 and "last-good.toml" in said and "Defaults are not used" in said


def test_what_a_newer_version_wrote_is_refused_by_name_and_left_alone(node: Node, told: Notified) -> None:
    start(node, told)
    node.process.stop()
    with sqlite3.connect(node.state / "index.sqlite") as index:
        index.executescript("UPDATE meta SET value = '7.8.9' WHERE name = 'schema_by'; PRAGMA user_version = 99;")
    index.close()
    before = {path.name: path.read_bytes() for path in node.state.iterdir() if path.is_file()}
    status, said = failed(node)
    assert status == 78 and "newer Pullprint (7.8.9)" in said and "Nothing was changed" in said
    assert {path.name: path.read_bytes() for path in node.state.iterdir() if path.is_file()} == before
    for name in os.listdir(node.state):
        if name.startswith("index"):
            (node.state / name).unlink()

    (node.state / "membership.json").write_text('{"format": 2, "written_by": "7.8.9", "cloud": 1}')
    status, said = failed(node)
    assert status == 78 and "membership.json" in said and "7.8.9" in said
    for damaged in ("{", "[]", "null", '{"format": "x"}', '{"cloud": "https://x"}', "\udcff"):
        (node.state / "membership.json").write_bytes(damaged.encode("utf-8", "surrogateescape"))
        status, said = failed(node)
        assert status == 78 and "membership.json" in said and "join again" in said, damaged
    (node.state / "membership.json").unlink()
    start(node, told)
