"""``pullprint doctor``: what it finds on real systems, and that what it advises puts them right."""

import os
import re
import shlex
import socketserver
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cli.command import Ended, on_pipes, on_terminal
from tests.cli.standin import Standin
from tests.rig.cups import BACKEND, PPD, REPOSITORY, PrivateCups
from tests.rig.office import CommandFailed, Node, cups_paths
from tests.rig.processes import wait_until

from pullprint import __version__
from pullprint.base.clock import SystemClock
from pullprint.cli import repair as cups_repair
from pullprint.cli.terminal import Terminal
from pullprint.node import doctor
from pullprint.node.channel import Channel
from pullprint.node.settings import Settings
from pullprint.node.site import Site
from pullprint.printers.cups_check import Finding, Level, _version, check_cups
from pullprint.printers.cups_settings import RULES, parse_configuration, repaired, wrong

NOBODY = 65_534
STOCK = "PreserveJobFiles 3600\nMaxJobTime 3h\nDirtyCleanInterval 30\n"


@pytest.fixture
def cups() -> Iterator[PrivateCups]:
    with PrivateCups({"PULLPRINT_INTAKE": "/nonexistent", "PULLPRINT_WAIT": "1"}, settings=STOCK) as running:
        yield running


def configuration(cups: PrivateCups) -> Path:
    return cups.root / "etc" / "cupsd.conf"


async def look(cups: PrivateCups) -> list[Finding]:
    backend = cups.root / "lib" / "backend" / "pullprint"
    return await check_cups(str(cups.socket), backend=backend, configuration=configuration(cups))


def found(findings: list[Finding], words: str) -> Finding:
    """The one finding that says *words*."""
    [one] = [finding for finding in findings if words in finding.what]
    return one


def follow(finding: Finding, **variables: str) -> None:
    """Do what it advises: the first command in its advice."""
    command = re.findall(r"`([^`]+)`", finding.advice)[0].replace("sudo ", "").replace(
        "/usr/share/ppd/pullprint/pullprint.ppd", str(PPD)
    )  # fmt: skip
    subprocess.run(command, shell=True, check=True, env=os.environ | variables, timeout=60)


async def repair(socket: Path, cups: PrivateCups, *more: str) -> Ended:
    return await on_pipes(socket, "doctor", "--repair", "--cups-conf", str(configuration(cups)), *more)


async def test_repair_sets_what_is_wrong_and_cupsd_runs_with_it(
    daemon: Standin, socket: Path, cups: PrivateCups
) -> None:
    path = configuration(cups)
    path.chmod(0o640)
    os.chown(path, -1, os.getegid())
    before, status = path.read_bytes(), path.stat()
    levels = {finding.level for finding in await look(cups)}
    assert Level.BAD in levels
    done = await repair(socket, cups, "--yes")
    assert done.code == 0 and "restart its cupsd" in done.out, done.err
    after = path.read_bytes()
    assert after.startswith(before)
    assert wrong(after.decode()) == []
    assert (path.stat().st_mode, path.stat().st_uid, path.stat().st_gid) == (
        status.st_mode, status.st_uid, status.st_gid,
    )  # fmt: skip
    backup = path.with_name("cupsd.conf.before-pullprint")
    assert backup.read_bytes() == before and backup.stat().st_mode == status.st_mode
    again = await repair(socket, cups, "--yes")
    assert again.code == 0 and "right already" in again.out and path.read_bytes() == after
    assert sorted(p.name for p in path.parent.iterdir() if p.name.startswith((".", "cupsd.conf."))) == [backup.name]
    cups.restart()
    cups.add_queue("pullprint", "pullprint:/", PPD)
    assert [finding for finding in await look(cups) if finding.level is not Level.OK] == []


async def test_repair_asks_and_takes_a_no(daemon: Standin, socket: Path, cups: PrivateCups) -> None:
    before = configuration(cups).read_bytes()
    unasked = await repair(socket, cups)
    assert unasked.code == 2 and "say so with --yes" in unasked.err
    words = ("doctor", "--repair", "--cups-conf", str(configuration(cups)))
    asked = await on_terminal(socket, *words, typed="n\n", width=300)
    assert "`PreserveJobFiles No`" in asked.out and "[Y/n]" in asked.out and "Nothing was changed." in asked.out
    assert configuration(cups).read_bytes() == before
    assert (await on_terminal(socket, *words, typed="\n", width=300)).code == 0
    assert wrong(configuration(cups).read_text()) == []


@pytest.mark.parametrize("tail", ["<Location /x>\n", "Listen nowhere:port:7\n<Policy a>\n</Policy\n"])
async def test_a_configuration_that_cupsd_would_not_start_with_stays(
    daemon: Standin, socket: Path, cups: PrivateCups, tail: str
) -> None:
    path = configuration(cups)
    path.write_text(path.read_text() + tail)
    before = {file: file.read_bytes() for file in path.parent.iterdir() if file.is_file()}
    refused = await repair(socket, cups, "--yes")
    assert refused.code == 4 and "was left as it is" in refused.err and "PreserveJobFiles No" in refused.err
    assert {file: file.read_bytes() for file in path.parent.iterdir() if file.is_file()} == before


async def test_a_configuration_that_is_missing_or_somebody_elses(daemon: Standin, socket: Path, tmp_path: Path) -> None:
    missing = await on_pipes(socket, "doctor", "--repair", "--yes", "--cups-conf", str(tmp_path / "none"))
    assert missing.code == 4 and "No such file" in missing.err
    if os.geteuid() == 0:
        (tmp_path / "cupsd.conf").write_text(STOCK)
        for folder in (tmp_path, *tmp_path.parents[:2]):
            folder.chmod(0o755)
        argv = [sys.executable, "-m", "tests.rig.as_account", str(NOBODY), "doctor", "--repair", "--yes"]
        argv += ["--cups-conf", str(tmp_path / "cupsd.conf")]
        env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), "PULLPRINT_SOCKET": str(socket)}
        done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 4 and "Only root may change" in done.stderr, done.stderr
        assert (tmp_path / "cupsd.conf").read_text() == STOCK


_LINES = st.sampled_from(
    ["PreserveJobFiles Yes", "preservejobfiles No", "JobRetryLimit 500", "JobRetryLimit 5", "MaxJobTime 0", "# é\xff",
     "<Location />", "</Location>", "DirtyCleanInterval 0", "", "# pullprint begin", "# pullprint end", "Listen 631"]
)  # fmt: skip


@given(st.lists(_LINES, max_size=12), st.booleans())
def test_what_is_repaired_breaks_no_rule_and_is_not_repaired_again(lines: list[str], newline: bool) -> None:
    text = "\n".join(lines) + ("\n" if newline else "")
    once = repaired(text)
    assert repaired(once) == once or wrong(once)
    if "# pullprint begin" in lines:
        return
    # Only within a section that is never closed does nothing count.
    if sum(line.startswith("<L") for line in lines) <= sum(line.startswith("</") for line in lines):
        assert repaired(once) == once
    kept, now = parse_configuration(text), parse_configuration(once)
    right = {rule.name.lower() for rule in RULES if rule not in wrong(text)}
    assert all(now[name] == kept[name] for name in right & kept.keys())


def test_a_block_that_somebody_changed_is_made_anew() -> None:
    text = repaired("JobRetryLimit 500\n")
    assert "JobRetryLimit" not in text.partition("# pullprint begin")[2].partition("\n")[2]
    changed = text.replace("PreserveJobFiles No", "PreserveJobFiles Yes")
    assert repaired(changed) == text


@pytest.mark.parametrize("blank", [" ", "\t", " \t ", "\v"])
def test_a_setting_counts_whatever_blank_is_in_it(blank: str) -> None:
    """cupsFileGetConf takes what isspace(3) does."""
    text = f"PreserveJobFiles No\n{blank}PreserveJobFiles{blank}Yes{blank}\n"
    assert parse_configuration(text) == {"preservejobfiles": "Yes"}
    assert "PreserveJobFiles" in {rule.name for rule in wrong(text)} - {rule.name for rule in wrong(repaired(text))}


class Sink:
    """A printer that takes its time, and keeps what each connection brought."""

    def __init__(self) -> None:
        self.slow = True
        self.got: list[int] = []
        self._listener = socketserver.ThreadingTCPServer(("127.0.0.1", 0), self._take)
        self._listener.daemon_threads = True
        self.port = self._listener.server_address[1]
        threading.Thread(target=self._listener.serve_forever, daemon=True).start()

    def _take(self, connection: Any, *_: object) -> None:
        number = len(self.got)
        self.got.append(0)
        while data := connection.recv(65_536):
            self.got[number] += len(data)
            time.sleep(0.02 if self.slow else 0)

    def close(self) -> None:
        self._listener.shutdown()
        self._listener.server_close()


@pytest.mark.parametrize("patient", [True, False])
def test_what_is_printed_meanwhile_is_not_cut_off(
    patient: bool, cups: PrivateCups, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """cupsd, when it ends, stops what it prints, and then prints it from the start."""
    restarts: list[dict[int, str]] = []

    def restart() -> str:
        restarts.append(cups.job_states())
        cups.restart()
        return ""

    monkeypatch.setattr(cups_repair, "CONFIGURATION", configuration(cups))
    monkeypatch.setattr(cups_repair, "BOOTED", tmp_path)
    monkeypatch.setattr(cups_repair, "LOCAL", cups.socket)
    monkeypatch.setattr(cups_repair, "IDLE_SECONDS", 60.0 if patient else 1.0)
    monkeypatch.setattr(cups_repair, "_restarted", restart)
    monkeypatch.setenv("CUPS_SERVER", "/nonexistent")
    sink = Sink()
    try:
        cups.add_queue("paper", f"socket://127.0.0.1:{sink.port}")
        size = 4_000_000 if patient else 30_000_000
        job = cups.lp("paper", b"A" * size)
        wait_until("printing", lambda: sum(sink.got) > 0)
        cups_repair.repair(Terminal(json=False), configuration(cups), yes=True)
        assert wrong(configuration(cups).read_text()) == []
        told = capsys.readouterr()
        assert "Waiting for what is being printed: paper" in told.err
        if patient:
            assert restarts == [{job: "completed"}] and "and cupsd restarted" in told.out
        else:
            assert restarts == [] and "`sudo systemctl restart cups`" in told.out and "does not know it yet" in told.out
            assert cups.job_states() == {job: "processing"}
        sink.slow = False
        assert cups.wait_job(job) == "completed"
        assert sink.got == [size]
    finally:
        sink.close()


async def test_queues_that_lose_or_hold_up_jobs_are_put_right_by_the_advice(cups: PrivateCups) -> None:
    none = found(await look(cups), "No queue prints to Pullprint")
    assert none.level is Level.WARN and "sudo pullprint queue add" in none.advice
    cups.add_queue("direct", "pullprint:/printer/Lobby", PPD)
    assert found(await look(cups), "no hold queue").level is Level.OK
    cups.add_queue("hold", "pullprint:/")
    server = str(cups.socket)
    for wreck, words, level in (
        ((), "has no description", Level.BAD),
        (("lpadmin", "-p", "hold", "-o", "printer-error-policy=abort-job"), "policy abort-job", Level.BAD),
        (("lpadmin", "-p", "hold", "-o", "printer-error-policy=stop-printer"), "policy stop-printer", Level.WARN),
        (("cupsdisable", "hold"), "is stopped", Level.BAD),
        (("cupsreject", "hold"), "takes no jobs", Level.BAD),
    ):
        if wreck:
            cups.run(*wreck)
        finding = found(await look(cups), words)
        assert finding.level is level and "hold" in finding.what
        follow(finding, CUPS_SERVER=server)
        assert found(await look(cups), "Queue hold").level is Level.OK


async def test_a_backend_that_is_wrong_in_any_way(cups: PrivateCups) -> None:
    path = cups.root / "lib" / "backend" / "pullprint"
    assert found(await look(cups), "backend").level is Level.OK
    path.chmod(0o700)
    other = found(await look(cups), "another mode")
    follow(other)
    assert found(await look(cups), "backend").level is Level.OK
    path.write_text(BACKEND.read_text().replace(f'VERSION = "{__version__}"', 'VERSION = "0.0.9"'))
    assert "of version 0.0.9" in found(await look(cups), "backend").what
    path.write_text("#!/nonexistent\n")
    assert "does not start" in found(await look(cups), "backend").what
    path.unlink()
    path.symlink_to(BACKEND)
    assert "symbolic link" in found(await look(cups), "backend").what
    path.unlink()
    assert "is missing" in found(await look(cups), "backend").what
    if os.geteuid() == 0:
        path.write_text(BACKEND.read_text())
        path.chmod(0o755)
        os.chown(path, NOBODY, NOBODY)
        follow(found(await look(cups), "does not belong to root"))
        assert found(await look(cups), "backend").level is Level.OK


def test_the_backend_tells_the_version_of_the_package() -> None:
    said = subprocess.run([BACKEND, "--version"], capture_output=True, text=True, check=True, timeout=20).stdout
    assert said == f"pullprint {__version__}\n"


async def test_cups_tells_its_version_also_without_a_queue_of_ours(cups: PrivateCups) -> None:
    assert "version 2." in (await look(cups))[0].what
    old = _version("2.3.3op2")
    assert old.level is Level.BAD and "2.4 or newer" in old.what
    for text in ("2.4.2", "2.4", "3.0.0", "10.1", ""):
        assert _version(text).level is Level.OK


# A user entry without rights, in a mode that shows 0666: an access denied that the mode does not explain.
_NOBODY_ELSE = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, rights, who)
    for tag, rights, who in ((1, 6, 0xFFFFFFFF), (2, 0, 7), (4, 6, 0xFFFFFFFF), (16, 6, 0xFFFFFFFF), (32, 6, 0xFFFFFFFF))
)  # fmt: skip


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's cupsd runs its backends as lp")
async def test_an_access_that_the_system_denies_is_told_and_the_job_waits() -> None:
    import pwd
    import socket as sockets
    import tempfile

    entry = _NOBODY_ELSE.replace(struct.pack("<HHI", 2, 0, 7), struct.pack("<HHI", 2, 0, pwd.getpwnam("lp").pw_uid))
    with (
        tempfile.TemporaryDirectory(prefix="pullprint-denied-", dir="/dev/shm") as name,
        sockets.socket(sockets.AF_UNIX) as listener,
    ):
        Path(name).chmod(0o755)
        intake = Path(name) / "intake.sock"
        listener.bind(str(intake))
        listener.listen()
        intake.chmod(0o666)
        os.setxattr(intake, "system.posix_acl_access", entry)
        assert intake.stat().st_mode & 0o777 == 0o666
        with PrivateCups({"PULLPRINT_INTAKE": str(intake), "PULLPRINT_WAIT": "2"}, settings=STOCK) as cups:
            cups.add_queue("hold", "pullprint:/", PPD)
            job = cups.lp("hold", b"%PDF-1.4 waits")
            wait_until("reason", lambda: "pullprint-denied-warning" in cups.printer("hold")["printer-state-reasons"])
            assert "SELinux or AppArmor keeps CUPS from pullprintd" in cups.run("lpstat", "-p", "hold", "-l")
            denied = found(await look(cups), "keeps the print backend of queue hold from pullprintd")
            assert denied.level is Level.BAD and denied.advice
            assert cups.job_states()[job] in ("pending", "processing")
            # Once it is let in, both reasons go.
            os.removexattr(intake, "system.posix_acl_access")
            listener.settimeout(20)
            connection, _ = listener.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(b"stored " + b"a" * 32 + b" Held.\n")
                assert cups.wait_job(job) == "completed"
            assert cups.printer("hold")["printer-state-reasons"] == ["none"]


async def test_the_sandbox_is_really_tried(tmp_path: Path) -> None:
    works = Settings(name="a", facts_program=REPOSITORY / "filters" / "pullprint-facts")
    assert (await doctor._sandbox(works)).level is Level.OK
    missing = await doctor._sandbox(Settings(name="a", facts_program=tmp_path / "none"))
    assert missing.level is Level.WARN and "held all the same" in missing.advice
    liar = tmp_path / "pullprint-facts"
    liar.write_text("print('nothing')\n")
    assert (await doctor._sandbox(Settings(name="a", facts_program=liar))).level is Level.WARN


def test_units_that_the_next_start_leaves_out(tmp_path: Path) -> None:
    assert list(doctor._units(tmp_path)) == []
    units = tmp_path / "usr" / "lib" / "systemd" / "system"
    units.mkdir(parents=True)
    (tmp_path / "etc" / "systemd" / "system").mkdir(parents=True)
    debian = REPOSITORY / "packaging" / "debian"
    for name in doctor.UNITS:
        (units / name).write_text((debian / f"pullprint.{name}").read_text())
    [off] = doctor._units(tmp_path)
    assert off.level is Level.BAD and all(name in off.what for name in doctor.UNITS)
    command = shlex.split(
        re.findall(r"`([^`]+)`", off.advice)[0].replace("sudo systemctl", f"systemctl --root={tmp_path}")
    )
    subprocess.run([word for word in command if word != "--now"], check=True, capture_output=True)
    assert [finding.level for finding in doctor._units(tmp_path)] == [Level.OK]
    subprocess.run(["systemctl", f"--root={tmp_path}", "mask", "pullprintd.socket"], check=False, capture_output=True)


def test_a_socket_that_is_closed_or_gone(tmp_path: Path) -> None:
    import socket as sockets

    path = tmp_path / "intake.sock"
    assert "is gone" in next(doctor._intake(path)).what
    with sockets.socket(sockets.AF_UNIX) as listener:
        listener.bind(str(path))
        path.chmod(0o600)
        [closed] = doctor._intake(path)
        follow(closed)
        assert list(doctor._intake(path)) == []


def test_a_clock_that_drifts_away_from_the_clouds(tmp_path: Path) -> None:
    clock = SystemClock()
    site = Site(tmp_path, clock)
    channel = object.__new__(Channel)
    channel.connected_since = 1.0
    for off, level in ((0, Level.OK), (-20, Level.OK), (120, Level.WARN), (-120, Level.WARN), (4_000, Level.BAD)):
        site.cloud_says(clock.now() + off)
        [finding] = doctor._clock(site, channel, clock.now())
        assert finding.level is level
    assert doctor._clock(site, None, clock.now()) == []


def test_a_host_that_has_not_joined_is_told_all_that_is_missing(tmp_path: Path) -> None:
    with PrivateCups(settings=STOCK) as cups:
        node = Node(tmp_path)
        node.configure({"cups_server": str(cups.socket), **cups_paths(cups)})
        try:
            node.start()
            with pytest.raises(CommandFailed) as refused:
                node.pullprint("doctor")
        finally:
            node.close()
    assert refused.value.status == 1
    for words in ("BAD   This host belongs to no organisation.", "Pages are counted in a sandbox.", "queue add",
                  "The pullprint backend is installed."):  # fmt: skip
        assert words in refused.value.output
