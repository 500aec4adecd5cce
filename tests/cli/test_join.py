"""``pullprint join`` with a real pullprintd and a real cloud: what goes wrong is told, and leaves everything as it was."""

import asyncio
import errno
import hashlib
import json
import os
import signal
import socket as sockets
import sqlite3
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.cli.command import Ended, on_pipes, on_terminal
from tests.cloud.office import ShiftedClock
from tests.rig.cups import PPD, PrivateCups
from tests.rig.office import ORGANISATION, SITE, Cloud, CommandFailed, Node, cups_paths
from tests.rig.processes import free_port

from pullprint.base import files
from pullprint.base.clock import SystemClock
from pullprint.base.files import sync_directory
from pullprint.node.client import ClockWrong
from pullprint.node.join import CannotKeep, join
from pullprint.node.settings import Settings
from pullprint.node.site import Site
from pullprint.vault.keyring import Keyring
from pullprint.wire.views import JoinRequest

NOBODY = 65_534


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("join")


@pytest.fixture(scope="module")
def cloud(root: Path) -> Iterator[Cloud]:
    cloud = Cloud(root)
    cloud.admin("organisation", "add", ORGANISATION, "Demo Office")
    cloud.admin("site", "add", ORGANISATION, SITE, "--network", "127.0.0.0/8", "--owner-rule", "{user}@example.com")
    cloud.admin("printer", "add", ORGANISATION, SITE, "Lobby", "ipp://127.0.0.1/ipp/print", "--place", "Ground floor")
    cloud.start()
    yield cloud
    cloud.process.stop()


@pytest.fixture(scope="module")
def cups() -> Iterator[PrivateCups]:
    with PrivateCups(settings="PreserveJobFiles 3600\n") as running:
        running.add_queue("office", "socket://192.0.2.1")
        yield running


@pytest.fixture(scope="module")
def node(root: Path, cups: PrivateCups) -> Iterator[Node]:
    """A host that has not joined, and that no test of this module but the last ones makes join."""
    node = Node(root)
    node.configure({"cups_server": str(cups.socket), **cups_paths(cups)})
    node.start()
    yield node
    node.close()


def code(cloud: Cloud) -> str:
    return str(json.loads(cloud.admin("join-code", ORGANISATION, SITE, "--json"))["code"])


def as_it_is(node: Node, cups: PrivateCups) -> dict[str, str]:
    """Everything that a failed join must leave alone: the node's files, CUPS's settings and queues."""
    files = [path for path in node.state.rglob("*") if path.is_file() and "index.sqlite" not in path.name]
    files.append(cups.root / "etc" / "cupsd.conf")
    found = {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    return found | {name: str(queue["device-uri"]) for name, queue in cups.connection().getPrinters().items()}


@pytest.fixture
def unchanged(node: Node, cups: PrivateCups) -> Iterator[None]:
    before = as_it_is(node, cups)
    yield
    assert as_it_is(node, cups) == before


async def join_at(node: Node, cups: PrivateCups, url: str, code: str, *more: str) -> Ended:
    """Root on a host, who says yes to everything in advance."""
    words = ("--yes", "--cups", str(cups.socket), "--ppd", str(PPD), "--cups-conf", str(cups.root / "etc/cupsd.conf"))
    return await on_pipes(node.control, "join", url, code, *words, *more)


@contextmanager
def listener(answer: bytes | None, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """Somebody at a port who is no cloud of ours: says *answer* to every request; None: nothing, for ever."""
    with sockets.create_server(("127.0.0.1", 0)) as server:
        held: list[sockets.socket] = []

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                held.append(connection)
                if answer is None:
                    continue
                connection.settimeout(5)
                try:
                    with tls.wrap_socket(connection, server_side=True) if tls else connection as stream:
                        stream.recv(65_536)
                        stream.sendall(answer)
                except OSError:
                    continue  # it did not trust us

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(sockets.SHUT_RDWR)
            thread.join()
            for connection in held:
                connection.close()


def certificate(folder: Path, name: str, *, days: tuple[int, int] = (-1, 1)) -> tuple[Path, ssl.SSLContext]:
    """A self-signed certificate, good for *days* from now, and a server that shows it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Somebody")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject).issuer_name(subject).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now + timedelta(days=days[0])).not_valid_after(now + timedelta(days=days[1]))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    pem, path = made.public_bytes(serialization.Encoding.PEM), folder / f"{name}{days[1]}.pem"
    path.write_bytes(pem)
    both = folder / f"{name}{days[1]}.both.pem"
    both.write_bytes(pem + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    return path, context


def http(status: str, body: str, more: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{more}"
    return f"{head}Connection: close\r\n\r\n{body}".encode()


@pytest.mark.usefixtures("unchanged")
async def test_codes_that_are_no_good(node: Node, cups: PrivateCups, cloud: Cloud) -> None:
    authority = ("--ca", str(cloud.authority))
    for wrong, reason in (("7KQ2-M9XD", "wrong, used or too old"), ("x", "looks like"), ("\x1b[2J" * 9, "looks like")):
        refused = await join_at(node, cups, cloud.url, wrong, *authority)
        assert refused.code == 4 and reason in refused.err and "\x1b" not in refused.err and refused.out == ""
    expired = code(cloud)
    with sqlite3.connect(cloud.state / "cloud.sqlite", timeout=10) as database:
        database.execute("UPDATE join_code SET expires = 1")
    database.close()
    refused = await join_at(node, cups, cloud.url, expired, *authority)
    assert refused.code == 4 and "ask your administrator for a new one" in refused.err


@pytest.mark.usefixtures("unchanged")
async def test_a_code_that_another_host_has_used(node: Node, cups: PrivateCups, cloud: Cloud, root: Path) -> None:
    used = code(cloud)
    other = Node(root, "node2")
    try:
        other.start()
        other.pullprint("join", cloud.url, used, "--no-queue", "--ca", str(cloud.authority))
    finally:
        other.close()
    refused = await join_at(node, cups, cloud.url, used, "--ca", str(cloud.authority))
    assert refused.code == 4 and "wrong, used or too old" in refused.err


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https://print.invalid", "its name is not known here"),
        ("https://localhost:{port}", "nothing listens at that port"),
        ("http://localhost", "looks like https://"),
        ("https://a/b", "looks like https://"),
        ("https://\x1b[2J", "is not a URL"),
    ],
)
async def test_addresses_where_there_is_no_cloud(node: Node, cups: PrivateCups, url: str, reason: str) -> None:
    refused = await join_at(node, cups, url.format(port=free_port()), "7KQ2-M9XD")
    assert refused.code == 4 and reason in refused.err and "\x1b" not in refused.err
    assert "being tried again" not in refused.err, "nobody does"


@pytest.mark.usefixtures("unchanged")
async def test_certificates_that_are_not_trusted(node: Node, cups: PrivateCups, cloud: Cloud, tmp_path: Path) -> None:
    bare = await join_at(node, cups, cloud.url, code(cloud))
    assert bare.code == 4 and "--ca FILE" in bare.err
    for name, days, reason in (
        ("elsewhere", (-1, 1), "is for another name"),
        ("localhost", (-9, -2), "expired or is not valid yet by this host's clock"),
        ("localhost", (2, 9), "expired or is not valid yet by this host's clock"),
    ):
        path, tls = certificate(tmp_path, name, days=days)
        with listener(b"", tls) as port:
            refused = await join_at(node, cups, f"https://localhost:{port}", "7KQ2-M9XD", "--ca", str(path))
        assert refused.code == 4 and reason in refused.err, refused.err
    with listener(b"SSH-2.0-OpenSSH_9.2\r\n") as port:
        refused = await join_at(node, cups, f"https://localhost:{port}", "7KQ2-M9XD")
    assert refused.code == 4 and "does not speak TLS" in refused.err, refused.err


@pytest.mark.usefixtures("unchanged")
async def test_what_answers_is_older_newer_or_no_cloud_at_all(node: Node, cups: PrivateCups, tmp_path: Path) -> None:
    path, tls = certificate(tmp_path, "localhost")
    for answer in (
        http("404 Not Found", '{"code": "not-found", "sentence": "There is nothing at this address."}'),
        http("404 Not Found", "<html>"),
        http("200 OK", '{"welcome": "to version 99"}'),
        http("200 OK", "<html>"),
        http("302 Found", "", "Location: https://localhost/login\r\n"),
    ):
        with listener(answer, tls) as port:
            refused = await join_at(node, cups, f"https://localhost:{port}", "7KQ2-M9XD", "--ca", str(path))
        assert refused.code == 4 and "update the older of the two" in refused.err, refused.err
    newer = http("400 Bad Request", '{"code": "too-old", "sentence": "Update this host first."}')
    with listener(newer, tls) as port:
        refused = await join_at(node, cups, f"https://localhost:{port}", "7KQ2-M9XD", "--ca", str(path))
    assert refused.code == 4 and "Update this host first." in refused.err


@pytest.mark.usefixtures("unchanged")
async def test_a_cloud_that_is_silent(node: Node, cups: PrivateCups) -> None:
    with listener(None) as port:
        refused = await join_at(node, cups, f"https://localhost:{port}", "7KQ2-M9XD")
    assert refused.code == 4 and "it is silent" in refused.err


async def test_a_clock_that_is_hours_off(cloud: Cloud, tmp_path: Path) -> None:
    clock = ShiftedClock()
    clock.shift = 3 * 3_600
    keyring, site = Keyring(tmp_path / "keys"), Site(tmp_path, clock)
    identity = keyring.identity()
    before = sorted(tmp_path.rglob("*"))
    request = JoinRequest(cloud=cloud.url, code=code(cloud), authority=cloud.authority.read_text())
    with pytest.raises(ClockWrong, match=r"The clock of this host shows .*timedatectl set-ntp true") as refused:
        await join(request, Settings(name="late", state_dir=tmp_path), keyring, identity, site, clock)
    here, there = (datetime.fromisoformat(refused.value.fields[word]) for word in ("here", "there"))
    assert abs((here - there).total_seconds() - clock.shift) <= 60
    assert sorted(tmp_path.rglob("*")) == before and not site.member


async def test_keys_stay_where_the_membership_may_have_come(
    cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A membership without its keys would be a host that can neither work nor join."""
    renamed = threading.Event()

    def fails_once(folder: Path) -> None:
        if folder == tmp_path and not renamed.is_set():
            renamed.set()
            raise OSError(errno.EIO, "Input/output error")
        sync_directory(folder)

    monkeypatch.setattr(files, "sync_directory", fails_once)
    clock = SystemClock()
    keyring, site = Keyring(tmp_path / "keys"), Site(tmp_path, clock)
    identity, settings = keyring.identity(), Settings(name="worn", state_dir=tmp_path)
    request = JoinRequest(cloud=cloud.url, code=code(cloud), authority=cloud.authority.read_text())
    with pytest.raises(CannotKeep, match="Input/output error"):
        await join(request, settings, keyring, identity, site, clock)
    kept = {path: path.read_bytes() for path in (tmp_path / "keys").iterdir()}
    assert (tmp_path / "keys" / "mesh.pem") in kept and (tmp_path / "membership.json").exists()
    await join(request, settings, keyring, identity, site, clock)
    assert site.member and {path: path.read_bytes() for path in (tmp_path / "keys").iterdir()} == kept


async def test_keys_stay_when_nobody_waits_for_the_membership_any_more(
    cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing, go_on, written = threading.Event(), threading.Event(), threading.Event()

    def slow(path: Path, data: bytes) -> None:
        writing.set()
        assert go_on.wait(30)
        files.replace(path, data)
        written.set()

    monkeypatch.setattr("pullprint.node.site.replace", slow)
    clock = SystemClock()
    keyring, site = Keyring(tmp_path / "keys"), Site(tmp_path, clock)
    request = JoinRequest(cloud=cloud.url, code=code(cloud), authority=cloud.authority.read_text())
    settings = Settings(name="hasty", state_dir=tmp_path)
    joining = asyncio.create_task(join(request, settings, keyring, keyring.identity(), site, clock))
    assert await asyncio.to_thread(writing.wait, 30)
    joining.cancel()
    with pytest.raises(asyncio.CancelledError):
        await joining
    go_on.set()
    assert await asyncio.to_thread(written.wait, 30)
    assert (tmp_path / "keys" / "mesh.pem").exists() and (tmp_path / "membership.json").exists()


@pytest.mark.usefixtures("unchanged")
async def test_the_queues_name_is_taken_and_the_code_is_still_good(node: Node, cups: PrivateCups, cloud: Cloud) -> None:
    words = (cloud.url, code(cloud), "--ca", str(cloud.authority))
    refused = await join_at(node, cups, *words, "--queue", "office")
    assert refused.code == 4 and "not Pullprint's" in refused.err
    refused = await join_at(node, cups, *words, "--queue", "a b")
    assert refused.code == 2 and "cannot be a queue's name" in refused.err


@pytest.mark.usefixtures("unchanged")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
async def test_who_is_not_root_joins_nothing(node: Node, cups: PrivateCups, cloud: Cloud) -> None:
    words = ("join", cloud.url, code(cloud), "--no-queue")
    with pytest.raises(CommandFailed, match="Try again with sudo"):
        node.pullprint(*words, uid=NOBODY)
    node.control.chmod(0o600)
    try:
        with pytest.raises(CommandFailed, match="may not talk to pullprintd"):
            node.pullprint(*words, uid=NOBODY)
    finally:
        node.control.chmod(0o666)


@pytest.mark.usefixtures("unchanged")
async def test_a_daemon_that_is_away_or_hangs(node: Node, cups: PrivateCups, cloud: Cloud, tmp_path: Path) -> None:
    away = await on_pipes(tmp_path / "none", "join", cloud.url, "7KQ2-M9XD", "--queue", "new",
                          "--cups", str(cups.socket), "--ppd", str(PPD))  # fmt: skip
    assert away.code == 3 and "systemctl start pullprintd" in away.err


def limit_files(node: Node, size: str) -> None:
    """What a disk does that is full: nothing longer than *size* bytes can be written."""
    subprocess.run(["prlimit", "--pid", str(node.process.pid), f"--fsize={size}:"], check=True)


async def test_a_full_disk_then_room_then_the_same_code_once_more(node: Node, cups: PrivateCups, cloud: Cloud) -> None:
    before, words = as_it_is(node, cups), (cloud.url, code(cloud), "--ca", str(cloud.authority))
    # Before the cloud has heard of this host, and after it has said welcome.
    for size in ("16", "400"):
        limit_files(node, size)
        try:
            refused = await join_at(node, cups, *words)
        finally:
            limit_files(node, "unlimited")
        assert refused.code == 4 and f"cannot keep what it was told in {node.state}" in refused.err, refused.err
        assert as_it_is(node, cups) == before
    terminal = await on_terminal(
        node.control, "join", *words, "--cups", str(cups.socket), "--ppd", str(PPD), "--cups-conf",
        str(cups.root / "etc" / "cupsd.conf"), typed="\n" + "n\n", width=200,
    )  # fmt: skip
    assert terminal.code == 0, terminal.out
    for said in (
        "has joined demo at office", "— connected", "Lobby", "Ground floor", "Make the hold queue pullprint",
        "Queue pullprint is ready", "PreserveJobFiles No", "Nothing was changed.", "sudo pullprint doctor --repair",
    ):  # fmt: skip
        assert said in terminal.out, terminal.out
    assert "cupsd answers" not in terminal.out, "only what is not right is shown"
    assert cups.printer("pullprint")["device-uri"] == "pullprint:/"
    after = as_it_is(node, cups)
    again = await join_at(node, cups, cloud.url, code(cloud), "--ca", str(cloud.authority))
    assert again.code == 4 and "belongs to demo already" in again.err and again.out == ""
    assert as_it_is(node, cups) == after
    # What it was told outlasts the daemon.
    node.process.kill(signal.SIGKILL)
    node.start()
    node.wait_connected()
