"""The real ``pullprint-cloud serve`` as a service: what it tells systemd, and how it starts with a broken file."""

import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cloud.test_server import command, write_settings
from tests.rig.notify import Notified, notify_socket
from tests.rig.processes import Process, wait_until


@pytest.fixture
def told() -> Iterator[Notified]:
    with notify_socket() as notified:
        yield notified


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    folder = tmp_path / "kept"
    folder.mkdir()
    return folder


@pytest.fixture
def server(tmp_path: Path, told: Notified, kept: Path) -> Iterator[Process]:
    write_settings(tmp_path)
    env = {
        **os.environ,
        "NOTIFY_SOCKET": str(told.path),
        "WATCHDOG_USEC": "400000",
        "STATE_DIRECTORY": str(kept),
        "PULLPRINT_CLOUD_CONFIG": str(tmp_path / "cloud.toml"),
    }
    server = Process([sys.executable, "-m", "pullprint.cloud.main", "serve"], tmp_path / "log", env)
    yield server
    server.stop()


def start(server: Process, told: Notified) -> None:
    """As systemd does: until it says that it is ready."""
    count = len(told.lines("READY=1"))
    server.start()
    told.wait_for("READY=1", count + 1)


def test_it_beats_and_says_how_many_nodes_there_are_until_it_is_frozen(server: Process, told: Notified) -> None:
    start(server, told)
    assert told.wait_for("STATUS=0 of") == "STATUS=0 of 0 nodes connected"
    told.wait_for("WATCHDOG=1", 3)
    assert told.lines("EXTEND_TIMEOUT_USEC=") and told.lines("STATUS=")[0] == "STATUS=bringing the database up to date"
    server.freeze()
    count = len(told.lines("WATCHDOG=1"))
    with pytest.raises(TimeoutError):
        told.wait_for("WATCHDOG=1", count + 2, timeout=1.0)
    server.thaw()
    told.wait_for("WATCHDOG=1", count + 2)
    assert server.stop() == 0 and told.lines("STOPPING=1")


def test_a_broken_file_is_named_and_the_last_good_one_serves_on(
    server: Process, told: Notified, kept: Path, tmp_path: Path
) -> None:
    file, copy = tmp_path / "cloud.toml", kept / "last-good.toml"
    start(server, told)
    wait_until("the copy", copy.exists)
    server.stop()
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600 and copy.read_bytes() == file.read_bytes()
    assert command(tmp_path, "check").stdout == "The configuration is good.\n"

    good = file.read_text()
    file.write_text(f'database = "postgresql+psycopg://cloud:geheim@db/cloud\n{good}')
    answer = command(tmp_path, "check", check=False)
    assert answer.returncode == 78 and "line 1: " in answer.stderr and "geheim" not in answer.stderr
    start(server, told)
    log = server.log_tail()
    assert "cloud.toml cannot be used: line 1: " in log and str(copy) in log and "geheim" not in log
    server.stop()

    copy.write_bytes(b"")
    server.start()
    wait_until("the end of the cloud", lambda: not server.running)
    assert server.stop() == 78 and "Defaults are not used" in server.log_tail()
