"""``pullprint-cloud setup`` as root of a system of its own: all of it, or a sentence and nothing changed."""

import os
import pty
import re
import subprocess
import time
import tomllib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tests.rig.namespaced import ACCOUNT, ENVIRONMENT, HOST, PYTHON, Machine

from pullprint.cloud import tls

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a machine")

URL = f"https://{HOST}"
FLAGS = (
    "setup", "--url", URL, "--organisation", "Acme Ltd", "--slug", "acme", "--site", "hq", "--network", "192.0.2.0/24",
    "--network", "2001:db8::/32", "--user", "ada@example.com",
)  # fmt: skip
DAY = 86_400


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with Machine(tmp_path) as running:
        yield running


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """One for all tests of what is refused, and so leaves nothing for the next."""
    with Machine(tmp_path_factory.mktemp("machine")) as running:
        yield running


def refused(machine: Machine, *words: str, reason: str) -> None:
    """The command ends with one sentence that has *reason* in it, and nothing is changed."""
    before = kept(machine)
    done = machine.command(*words)
    assert (done.returncode, done.stdout) in ((1, ""), (78, "")), done
    assert done.stderr.startswith("pullprint-cloud: ") and done.stderr.count("\n") == 1, done.stderr
    assert reason in done.stderr and "secret" not in done.stderr, done.stderr
    assert kept(machine) == before


def kept(machine: Machine) -> dict[str, tuple[int, int, int, bytes]]:
    """The machine's state; of a database that is in use, not how it is stored."""
    return {
        name: value for name, value in machine.state().items() if not name.endswith((".sqlite", "-wal", "-shm"))
    } | {name: (*value[:3], b"") for name, value in machine.state().items() if name.endswith(".sqlite")}


def fetch(machine: Machine, path: str, *words: str) -> str:
    """What the server answers at its own address to whoever trusts its CA."""
    trust = "/etc/pullprint/cloud/ca.pem"
    return machine.run("curl", "--silent", "--fail", "--cacert", trust, *words, f"{URL}{path}").stdout


def brought(machine: Machine, name: str = HOST, begin: float | None = None) -> tuple[str, str]:
    """A certificate as somebody else's CA makes it, and its key: names of files in the machine."""
    now = time.time() if begin is None else begin
    pair = tls.new_server(tls.new_authority("Elsewhere", now), [name], now)
    (machine.etc / "their.pem").write_text(pair.certificate)
    (machine.etc / "their.key").write_text(pair.key)
    return "/etc/their.pem", "/etc/their.key"


def test_from_nothing_to_a_page_that_answers(machine: Machine) -> None:
    machine.service()
    done = machine.command(*FLAGS)
    assert (done.returncode, done.stderr) == (0, "")
    assert "<html" in fetch(machine, "/")
    state = machine.state()
    uid, gid = (int(machine.run("id", flag, ACCOUNT).stdout) for flag in ("-u", "-g"))
    modes = {name: (mode & 0o7777, user, group) for name, (mode, user, group, _) in state.items()}
    assert modes["etc/pullprint/cloud.toml"] == (0o640, 0, gid)
    assert modes["etc/pullprint/cloud/ca.key"] == (0o600, 0, 0)
    assert modes["etc/pullprint/cloud/server.key"] == (0o640, 0, gid)
    assert modes["lib/pullprint-cloud"] == (0o700, uid, gid)
    assert all(own == [uid, gid] for name, (_, *own) in modes.items() if name.startswith("lib/"))
    # The link lets its user in, and the code a host.
    link = re.search(rf"{URL}/welcome#(\S+)", done.stdout)
    assert link and re.search(rf"pullprint join {URL} \w{{4}}-\w{{4}} --ca ca.pem\n", done.stdout)
    shown = fetch(
        machine, "/api/v1/welcome", "--header", "Content-Type: application/json", "--data", f'{{"token": "{link[1]}"}}'
    )
    assert '"ada@example.com"' in shown and '"Acme Ltd"' in shown
    sites = machine.command("site", "list", "acme", "--json").stdout
    assert '["192.0.2.0/24", "2001:db8::/32"]' in sites and '"{user}@example.com"' in sites


def test_again_it_changes_nothing_and_says_what_is_there(machine: Machine) -> None:
    machine.service()
    assert machine.command(*FLAGS).returncode == 0
    before = kept(machine)
    server = machine.run("cat", "/run/server.pid").stdout
    for words in (FLAGS, ("setup",), ("setup", "--yes")):
        again = machine.command(*words)
        assert (again.returncode, again.stderr) == (0, "")
        assert "There already: Acme Ltd (acme), 1 users, 0 hosts." in again.stdout and "New:" not in again.stdout
        assert "welcome#" not in again.stdout
    assert kept(machine) == before
    assert machine.run("cat", "/run/server.pid").stdout == server, "it was not even started again"
    # A second site and user come to what is there.
    more = machine.command(
        "setup", "--yes", "--organisation", "Acme Ltd", "--slug", "acme", "--site", "b", "--user", "bob"
    )
    assert "New: site b, user bob." in more.stdout


def test_what_can_be_found_out_need_not_be_said(machine: Machine) -> None:
    assert "--organisation" in machine.command("setup", "--yes").stderr, "whose office it is, nobody can find out"
    done = machine.command("setup", "--yes", "--organisation", "Example", "--user", "ada@example.com")
    assert (done.returncode, done.stderr) == (0, "")
    assert "organisation example, site hq, user ada@example.com" in done.stdout
    assert "No systemd runs here" in done.stdout
    assert '"10.20.30.0/24"' in machine.command("site", "list", "example", "--json").stdout


@pytest.mark.parametrize("flag", ["--url", "--organisation", "--site", "--network", "--user"])
def test_without_a_terminal_the_flag_that_is_missing_is_named(untouched: Machine, flag: str) -> None:
    words = list(FLAGS)
    while flag in words:
        del words[words.index(flag) : words.index(flag) + 2]
    refused(untouched, *words, reason=f"{flag} is missing")


def test_at_a_terminal_it_asks_and_takes_what_it_found_for_an_empty_answer(machine: Machine) -> None:
    answers = ["", "", "Acme Ltd", "", "", "", "", "", "", "y"]
    outer, inner = pty.openpty()
    try:
        command = machine.enter(PYTHON, "-m", "pullprint.cloud.main", "setup")
        with subprocess.Popen(
            command, stdin=inner, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=ENVIRONMENT
        ) as asked:
            os.write(outer, "".join(f"{answer}\n" for answer in answers).encode())
            assert asked.stdout
            said = asked.stdout.read().decode()
        assert asked.returncode == 0, said
    finally:
        os.close(outer)
        os.close(inner)
    assert "New: organisation acme-ltd, site hq, user admin@example.com." in said
    assert "[https://print.example.com]" in said and "[10.20.30.0/24]" in said and "Go ahead?" in said


def test_other_settings_are_replaced_by_force_only(machine: Machine) -> None:
    assert machine.command(*FLAGS).returncode == 0
    refused(machine, "setup", "--url", "https://other.example.com", reason="public_url is not as asked for")
    refused(machine, "setup", "--proxy", reason="proxy is not as asked for")
    refused(machine, "setup", "--database", "postgresql:///x", reason="database is not as asked for")
    before = kept(machine)
    assert machine.command("setup", "--force").returncode == 0
    assert kept(machine) == before, "nothing was named"
    words = [word.replace(HOST, "other.example.com") for word in FLAGS]
    assert machine.command(*words, "--force").returncode == 0
    assert 'public-url = "https://other.example.com"' in (machine.etc / "pullprint/cloud.toml").read_text()
    assert "other.example.com" in _names(machine.etc / "pullprint/cloud/server.pem")


def test_force_replaces_what_is_named_and_keeps_every_other_setting(machine: Machine) -> None:
    machine.service()
    config, backup = (machine.etc / "pullprint" / name for name in ("cloud.toml", "cloud.toml.before-setup"))
    config.parent.mkdir()
    by_hand = "upload_limit_mib = 7  # mine\ndatabase = 'sqlite:////var/lib/pullprint-cloud/mine.sqlite'\n"
    config.write_text(by_hand)
    done = machine.command(*FLAGS, "--force")
    assert (done.returncode, done.stderr) == (0, "")
    first = settings(config)
    kept_settings = {"upload-limit-mib": 7, "database": "sqlite:////var/lib/pullprint-cloud/mine.sqlite"}
    assert first == {"public-url": URL, **kept_settings} and backup.read_text() == by_hand
    gid = int(machine.run("id", "-g", ACCOUNT).stdout)
    assert machine.state()["etc/pullprint/cloud.toml"][1:3] == (0, gid)
    assert machine.state()["etc/pullprint/cloud.toml.before-setup"][0] & 0o7777 == 0o600

    # The port follows its address, unless another was chosen for it.
    assert machine.command("setup", "--url", f"{URL}:8443", "--force").returncode == 0
    moved = {"public-url": f"{URL}:8443", "port": 8443, **kept_settings}
    assert settings(config) == moved
    machine.run("sh", "-c", "echo 'pullprint-cloud: No.' >/run/broken")
    refused(machine, "setup", "--proxy", "--force", reason="The server does not start: No.")
    assert machine.command("setup", "--proxy", "--force").returncode == 0
    behind = {**moved, "proxy": True, "host": "127.0.0.1", "port": 9265}
    assert settings(config) == behind
    assert machine.command("setup", "--url", URL, "--force").returncode == 0
    assert settings(config) == {**behind, "public-url": URL}
    assert machine.command("setup", "--listen", "/run/cloud.sock", "--force").returncode == 0
    assert settings(config) == {**behind, "public-url": URL, "socket": "/run/cloud.sock"}
    assert machine.command("setup", "--listen", "127.0.0.1:9265", "--force").returncode == 0
    assert settings(config) == {**behind, "public-url": URL}

    # A certificate for the server itself is the end of the proxy.
    flags = ("setup", "--certificate", *brought(machine)[:1], "--key", "/etc/their.key")
    refused(machine, *flags, reason="proxy is not as asked for")
    refused(machine, *flags, "--listen", "127.0.0.1:1", reason="the proxy's")
    done = machine.command(*flags, "--force")
    assert (done.returncode, done.stderr) == (0, "")
    assert settings(config) == first and "<html" in machine.run("curl", "-sk", URL).stdout
    config.write_text("nonsense\n")
    refused(machine, "setup", "--url", f"{URL}:8443", "--force", reason="line 1")


def settings(path: Path) -> dict[str, object]:
    return tomllib.loads(path.read_text())


def test_settings_made_by_hand_stay(machine: Machine) -> None:
    assert machine.command(*FLAGS).returncode == 0
    config = machine.etc / "pullprint/cloud.toml"
    config.write_text(config.read_text() + 'log-level = "debug"  # mine\n')
    before = config.read_bytes()
    assert machine.command(*FLAGS).returncode == 0
    assert config.read_bytes() == before
    config.write_text("nonsense\n")
    refused(machine, *FLAGS, reason="line 1")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--url", "http://print.example.com"), "is not an address such as"),
        (("--url", "https://a@print.example.com"), "is not an address such as"),
        (("--url", "https://print.example.com/print"), "is not an address such as"),
        (("--url", "https://print.example.com:99999"), "is not an address such as"),
        (("--url", "https://[::1"), "is not an address such as"),
        (("--slug", "Bad Slug"), "short name"),
        (("--site", "../hq"), "short name"),
        (("--organisation", "\x1b[31m"), "characters that can be shown"),
        (("--network", "192.0.2.1/24"), "is not a network"),
        (("--user", "a b"), "a user's name"),
        (("--owner-rule", "nobody"), "owner rule"),
        (("--certificate", "/etc/hosts"), "--key is missing"),
        (("--key", "/etc/hosts"), "--certificate is missing"),
        (("--certificate", "/etc/hosts", "--key", "/etc/hosts"), "not a certificate in PEM"),
        (("--certificate", "/nowhere", "--key", "/etc/hosts"), "No such file"),
        (("--certificate", "/dev/zero", "--key", "/etc/hosts"), "larger than 1 MiB"),
        (("--certificate", "/x", "--key", "/x", "--proxy"), "the proxy's"),
        (("--listen", "0.0.0.0:80"), "loopback"),
        (("--listen", "80x"), "nor a socket's path"),
        (("--database", "mysql://localhost/x"), "neither PostgreSQL nor SQLite"),
        (("--database", "nonsense"), "not a database URL"),
        (("--database", "postgresql://x:secret@127.0.0.1:1/x"), "refused"),
        (("--database", "postgresql://x:secret@nowhere.invalid/x"), "nowhere.invalid"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_before_anything_is_written(
    untouched: Machine, words: tuple[str, ...], reason: str
) -> None:
    refused(untouched, *FLAGS, *words, reason=reason)
    assert untouched.state().keys() == {"lib"}


def test_certificates_that_do_not_fit_are_refused(machine: Machine) -> None:
    certificate, key = brought(machine, "other.example.com")
    flags = (*FLAGS, "--certificate", certificate, "--key", key)
    refused(machine, *flags, reason=f"it is for other.example.com, and not for {HOST}")
    brought(machine, begin=time.time() - 400 * DAY)
    refused(machine, *flags, reason="it ended on 20")
    brought(machine, begin=time.time() + DAY)
    refused(machine, *flags, reason="it begins on 20")
    brought(machine)
    theirs = ec.generate_private_key(ec.SECP256R1())
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (machine.etc / "their.key").write_bytes(theirs.private_bytes(pem, pkcs8, serialization.NoEncryption()))
    refused(machine, *flags, reason="is not its key")
    (machine.etc / "their.key").write_bytes(
        theirs.private_bytes(pem, pkcs8, serialization.BestAvailableEncryption(b"x"))
    )
    refused(machine, *flags, reason="has a passphrase")
    (machine.etc / "their.key").write_text("x")
    refused(machine, *flags, reason="is not a private key in PEM")


def test_a_certificate_that_was_brought_serves_and_a_newer_one_replaces_it(machine: Machine) -> None:
    machine.service()
    flags = ("--certificate", *brought(machine, "*.example.com")[:1], "--key", "/etc/their.key")
    done = machine.command(*FLAGS, *flags)
    assert (done.returncode, done.stderr) == (0, "") and "--ca" not in done.stdout
    copied = machine.etc / "pullprint/cloud/server.pem"
    assert copied.read_bytes() == (machine.etc / "their.pem").read_bytes()
    assert not (machine.etc / "pullprint/cloud/ca.key").exists()
    assert "nothing to renew" in machine.command("certificate", "--renew").stdout
    brought(machine)
    machine.run("sh", "-c", "echo 'pullprint-cloud: The port is on fire. Do not panic.' >/run/broken")
    refused(machine, "setup", *flags, reason="The server does not start: The port is on fire. Do not panic.")
    assert "<html" in machine.run("curl", "-sk", URL).stdout, "the one of before serves again"
    assert machine.command("setup", *flags).returncode == 0
    assert copied.read_bytes() == (machine.etc / "their.pem").read_bytes()


def test_a_server_that_does_not_start_leaves_nothing(machine: Machine) -> None:
    machine.service()
    machine.run("sh", "-c", "echo 'pullprint-cloud: The port is on fire. Do not panic.' >/run/broken")
    refused(
        machine, *FLAGS, reason="The server does not start: The port is on fire. Do not panic. The system is as it was"
    )
    assert machine.run("/run/bin/systemctl", "is-enabled", check=False).returncode == 1
    assert machine.command(*FLAGS).returncode == 0, "the next time it works"


def test_a_link_to_somebodys_certificate_is_put_back(machine: Machine) -> None:
    machine.service()
    link = machine.etc / "pullprint/cloud/server.pem"
    link.parent.mkdir(parents=True)
    brought(machine, begin=time.time() - 400 * DAY)
    link.symlink_to("../../their.pem")
    machine.run("sh", "-c", "echo 'pullprint-cloud: No.' >/run/broken")
    refused(machine, *FLAGS, reason="The server does not start: No.")
    assert link.is_symlink() and str(link.readlink()) == "../../their.pem"


def test_a_port_of_another_program_is_named(machine: Machine) -> None:
    other = subprocess.Popen(
        machine.enter(PYTHON, "-m", "http.server", "443"),
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        until = time.monotonic() + 10
        while "443" not in machine.run("ss", "-Hltn").stdout:
            assert time.monotonic() < until
        refused(machine, *FLAGS, reason="listens on port 443")
        assert "(python3" in machine.command(*FLAGS).stderr
        assert machine.command(*FLAGS, "--proxy").returncode == 0
    finally:
        other.kill()
        other.communicate()


def test_only_root_on_a_server_with_the_package(machine: Machine) -> None:
    words = ["setpriv", "--reuid=65534", "--clear-groups", PYTHON, "-m", "pullprint.cloud.main", *FLAGS]
    done = machine.run(*words, check=False)
    assert done.returncode == 1 and "Only root can set this server up" in done.stderr
    machine.run("userdel", ACCOUNT)
    refused(machine, *FLAGS, reason="install it")


@pytest.mark.parametrize("full", ["/etc/pullprint", "/var/lib/pullprint-cloud"])
def test_a_full_disk_is_said_and_leaves_nothing(machine: Machine, full: str) -> None:
    owner = "root" if full.startswith("/etc") else ACCOUNT
    machine.run("install", "-d", "-o", owner, "-m", "0755" if owner == "root" else "0700", full)
    machine.run(
        "mount",
        "-t",
        "tmpfs",
        "-o",
        f"size=8k,mode=0755,uid={machine.run('id', '-u', owner).stdout.strip()}",
        "x",
        full,
    )
    before = machine.run("ls", "-lAR", full, "/etc/pullprint", check=False).stdout
    done = machine.command(*FLAGS)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "No space left on device" in done.stderr or "disk is full" in done.stderr or "disk I/O error" in done.stderr
    assert "The system is as it was" in done.stderr
    assert machine.run("ls", "-lAR", full, "/etc/pullprint", check=False).stdout == before
    machine.run("umount", full)
    assert machine.command(*FLAGS).returncode == 0


def test_a_database_that_cannot_be_read_is_said(machine: Machine) -> None:
    state = machine.lib / ACCOUNT
    state.mkdir(mode=0o700)
    refused(machine, *FLAGS, reason="belongs to root")
    machine.run("chown", f"{ACCOUNT}:{ACCOUNT}", f"/var/lib/{ACCOUNT}")
    (state / "cloud.sqlite").write_bytes(b"nonsense" * 1_000)
    (state / "cloud.sqlite").chmod(0o600)
    refused(machine, *FLAGS, reason="The database cannot be used")
    machine.run("chown", f"{ACCOUNT}:{ACCOUNT}", f"/var/lib/{ACCOUNT}/cloud.sqlite")
    refused(machine, *FLAGS, reason="file is not a database")


def test_behind_a_proxy_it_listens_for_that_alone(machine: Machine) -> None:
    machine.service()
    done = machine.command(*FLAGS, "--proxy")
    assert (done.returncode, done.stderr) == (0, "")
    assert "has to pass on everything to http://127.0.0.1:9265" in done.stdout and "--ca" not in done.stdout
    assert not (machine.etc / "pullprint/cloud").exists(), "no certificate is made"
    listening = machine.run("ss", "-Hltn").stdout
    assert "127.0.0.1:9265" in listening and ":443" not in listening
    assert "<html" in machine.run("curl", "--silent", "--fail", "http://127.0.0.1:9265/").stdout
    assert machine.command("setup").returncode == 0


def test_commands_of_root_leave_nothing_that_the_server_cannot_write(machine: Machine) -> None:
    assert machine.command(*FLAGS).returncode == 0
    assert machine.command("user", "add", "acme", "bob@example.com", "--invite").returncode == 0
    assert owners(machine) == {int(machine.run("id", "-u", ACCOUNT).stdout)}
    machine.run("rm", "-r", f"/var/lib/{ACCOUNT}")
    assert machine.command("organisation", "add", "acme", "Acme Ltd").returncode == 0, "before the server ever ran"
    assert owners(machine) == {int(machine.run("id", "-u", ACCOUNT).stdout)}
    machine.run("userdel", ACCOUNT)
    assert machine.command("organisation", "list").returncode == 0, "its number is enough"
    machine.run("rm", "-r", f"/var/lib/{ACCOUNT}")
    assert machine.command("organisation", "add", "acme", "Acme Ltd").returncode == 0
    assert owners(machine) == {0}, "there is no account to be"


def owners(machine: Machine) -> set[int]:
    return {user for name, (_, user, _, _) in machine.state().items() if name.startswith("lib/")}


def test_the_servers_account_cannot_make_root_write_where_it_may_not(machine: Machine) -> None:
    """All that root does at the database is that account's doing: SQLite follows a link, and makes what it leads to."""
    assert machine.command(*FLAGS).returncode == 0
    database = machine.lib / ACCOUNT / "cloud.sqlite"
    sign = ("printer", "sign", "acme", "P", "--out", "/etc/P.svg")
    away = machine.lib / ACCOUNT / "away"
    database.rename(away)
    database.symlink_to("/etc/cron.d/planted")
    for words in (("user", "list", "acme"), sign):
        done = machine.command(*words)
        assert done.returncode == 1 and "database" in done.stderr, done
    assert not (machine.etc / "cron.d/planted").exists() and not (machine.etc / "P.svg").exists()
    database.unlink()
    away.rename(database)
    # What a command needs of root it still has: what it reads, and the file that it makes.
    done = machine.command("user", "add", "acme", "bob", "--password-stdin", "--json", data="correct horse battery\n")
    assert (done.returncode, done.stdout) == (0, '{"user": "bob"}\n'), done
    assert machine.command("printer", "add", "acme", "hq", "P", "ipp://192.0.2.9/ipp/print").returncode == 0
    assert machine.command(*sign).returncode == 0
    made = (machine.etc / "P.svg").stat()
    assert (made.st_uid, made.st_gid, made.st_mode & 0o7777) == (0, 0, 0o644)
    done = machine.command("printer", "sign", "acme", "nowhere", "--out", "/etc/Q.svg")
    assert done.returncode == 1 and "There is no such printer" in done.stderr


def test_a_certificate_made_here_is_renewed_in_its_last_month(machine: Machine) -> None:
    assert machine.command(*FLAGS).returncode == 0
    folder = machine.etc / "pullprint/cloud"
    assert "nothing to renew" in machine.command("certificate", "--renew").stdout
    refused(machine, "certificate", reason="either --host or --renew")
    authority = tls.Pair((folder / "ca.pem").read_text(), (folder / "ca.key").read_text())
    old = tls.new_server(authority, [HOST, "10.20.30.5"], time.time() - (tls.SERVER_DAYS - 20) * DAY)
    (folder / "server.pem").write_text(old.certificate)
    (folder / "server.key").write_text(old.key)
    before = machine.state()
    done = machine.command("certificate", "--renew")
    assert (done.returncode, done.stdout) == (0, "Renewed /etc/pullprint/cloud/server.pem.\n")
    renewed = x509.load_pem_x509_certificate((folder / "server.pem").read_bytes())
    left = renewed.not_valid_after_utc.timestamp() - datetime.now().timestamp()
    assert left > 390 * DAY and _names(folder / "server.pem") == [HOST, "10.20.30.5"]
    after = machine.state()
    assert {name for name in after if after[name] != before[name]} == {
        "etc/pullprint/cloud/server.key", "etc/pullprint/cloud/server.pem"
    }  # fmt: skip
    assert after["etc/pullprint/cloud/server.key"][:3] == before["etc/pullprint/cloud/server.key"][:3]


def _names(path: Path) -> list[str]:
    names = x509.load_pem_x509_certificate(path.read_bytes()).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    return [str(name.value) for name in names.value]
