"""``pullprint queue`` on a real cupsd: what it makes is ours, works, and nothing else is touched."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli.command import Ended, on_pipes
from tests.cli.standin import Standin
from tests.rig.cups import PPD, PrivateCups
from tests.rig.processes import wait_until

from pullprint.cli.queues import Cups, CupsAway
from pullprint.printers import cups_jobs
from pullprint.printers.cups_check import Level, check_cups
from pullprint.wire import views

PDF = b"%PDF-1.4 waits\n"


@pytest.fixture(scope="module")
def cups() -> Iterator[PrivateCups]:
    with PrivateCups({"PULLPRINT_INTAKE": "/nonexistent/intake.sock", "PULLPRINT_WAIT": "1"}) as running:
        yield running


@pytest.fixture(autouse=True)
def _no_queues(cups: PrivateCups) -> Iterator[None]:
    yield
    for name in cups.connection().getPrinters():
        cups.run("cancel", "-a", name)
        cups.run("lpadmin", "-x", name)


async def queue(socket: Path, cups: PrivateCups, *words: str) -> Ended:
    action, *rest = words
    return await on_pipes(socket, "queue", action, "--ppd", str(PPD), "--cups", str(cups.socket), *rest)


async def test_a_hold_queue_is_made_as_it_should_be_and_again_without_harm(socket: Path, cups: PrivateCups) -> None:
    made = await queue(socket, cups, "add")
    assert (made.code, made.err) == (0, "")
    assert made.out == (
        "Queue pullprint is ready: it holds documents until their owner releases them.\n"
        "Print: lp -d pullprint FILE   Then: pullprint release\n"
    )
    attributes = cups.printer("pullprint")
    assert attributes["device-uri"] == "pullprint:/"
    assert attributes["printer-error-policy"] == "retry-job"
    assert attributes["printer-is-shared"] is False and attributes["printer-is-accepting-jobs"] is True
    assert attributes["printer-make-and-model"] == "Pullprint Pull Printing, hold and release"
    cups.run("lpadmin", "-p", "pullprint", "-o", "printer-error-policy=abort-job")
    cups.run("cupsdisable", "pullprint")
    again = await queue(socket, cups, "add")
    assert again.code == 0 and "was there already and is as it should be" in again.out
    assert cups.printer("pullprint")["printer-error-policy"] == "retry-job"
    assert cups.printer("pullprint")["printer-state"] == 3


async def test_cups_server_of_the_environment_is_heard(socket: Path, cups: PrivateCups) -> None:
    made = await on_pipes(socket, "queue", "add", "viaenv", "--ppd", str(PPD), CUPS_SERVER=str(cups.socket))
    assert made.code == 0 and "viaenv" in cups.connection().getPrinters()


async def test_a_direct_queue_names_a_printer_of_the_site(daemon: Standin, socket: Path, cups: PrivateCups) -> None:
    daemon.printers.append(views.PrinterView(id="p2", name="Büro 3/4 %41"))
    daemon.printers.append(views.PrinterView(id="p3", name="-o x; y?\"'&#"))
    made = await queue(socket, cups, "add", "foyer", "--printer", "lOBBY", "--default")
    assert made.code == 0 and "prints at Lobby at once" in made.out and "Print: lp FILE\n" in made.out
    assert cups.printer("foyer")["device-uri"] == "pullprint:/printer/Lobby"
    assert (await queue(socket, cups, "add", "büro", "-P", "Büro 3/4 %41")).code == 0
    # Intake takes no slash in a name: the printer's id does as well there.
    assert cups.printer("büro")["device-uri"] == "pullprint:/printer/p2"
    assert (await queue(socket, cups, "add", "odd", "--printer=-o x; y?\"'&#")).code == 0
    assert cups.printer("odd")["device-uri"] == "pullprint:/printer/-o%20x%3B%20y%3F%22%27%26%23"
    listed = json.loads((await queue(socket, cups, "list", "--json")).out)
    assert {row["name"]: row["default"] for row in listed} == {"foyer": True, "büro": False, "odd": False}
    unknown = await queue(socket, cups, "add", "cellar", "--printer", "Cellar\x1b[2J")
    assert unknown.code == 4 and "no printer called Cellar" in unknown.err and "\x1b" not in unknown.err
    assert "cellar" not in cups.connection().getPrinters()


async def test_without_pullprintd_no_direct_queue_is_made(socket: Path, cups: PrivateCups) -> None:
    away = await queue(socket, cups, "add", "foyer", "--printer", "Lobby")
    assert away.code == 3 and "does not answer" in away.err
    assert cups.connection().getPrinters() == {}


@pytest.mark.parametrize(
    "name",
    ["a b", "a/b", "a#b", "../etc", "a;b", "a\nb", "$(id)", "a'b", 'a"b', ".hidden", "a@b", "x" * 128, "é" * 64,
     "a\u202eb", "a\x1b[2J"],
)  # fmt: skip
async def test_a_hostile_name_is_refused_before_cups_hears_of_it(socket: Path, cups: PrivateCups, name: str) -> None:
    for action in ("add", "remove"):
        refused = await queue(socket, cups, action, name)
        assert refused.code == 2 and "cannot be a queue's name" in refused.err and "\x1b" not in refused.err
    assert cups.connection().getPrinters() == {}


async def test_a_name_that_looks_like_an_option_is_one(socket: Path, cups: PrivateCups) -> None:
    for words in (("add", "-x"), ("remove", "-a"), ("add", "--", "-x")):
        refused = await queue(socket, cups, *words)
        assert refused.code == 2
    assert cups.connection().getPrinters() == {}


async def test_a_queue_that_is_not_ours_is_left_alone(daemon: Standin, socket: Path, cups: PrivateCups) -> None:
    cups.add_queue("pullprint", "socket://192.0.2.1")
    before = cups.printer("pullprint")
    for words in (("add",), ("remove", "pullprint"), ("add", "pullprint", "--printer", "Lobby")):
        refused = await queue(socket, cups, *words)
        assert refused.code == 4 and "not Pullprint's" in refused.err
    assert cups.printer("pullprint")["device-uri"] == before["device-uri"] == "socket://192.0.2.1"
    assert "Make one" in (await queue(socket, cups, "list")).out


async def test_a_class_is_not_ours_either(socket: Path, cups: PrivateCups) -> None:
    cups.add_queue("member", "socket://192.0.2.1")
    cups.run("lpadmin", "-p", "member", "-c", "pullprint")
    assert (await queue(socket, cups, "add")).code == 4
    assert cups.connection().getClasses() == {"pullprint": ["member"]}


async def test_a_queue_keeps_what_it_is_for(daemon: Standin, socket: Path, cups: PrivateCups) -> None:
    assert (await queue(socket, cups, "add")).code == 0
    other = await queue(socket, cups, "add", "pullprint", "--printer", "Lobby")
    assert other.code == 4 and "holds documents" in other.err and "pullprint queue remove pullprint" in other.err
    assert cups.printer("pullprint")["device-uri"] == "pullprint:/"


async def test_a_queue_with_waiting_documents_stays(socket: Path, cups: PrivateCups) -> None:
    assert (await queue(socket, cups, "add")).code == 0
    job = cups.lp("pullprint", b"%PDF-1.4 waits")
    busy = await queue(socket, cups, "remove", "pullprint")
    assert busy.code == 4 and f"pullprint-{job}" in busy.err
    assert cups.printer("pullprint")["printer-is-accepting-jobs"] is True
    assert cups.job_states()[job] in ("pending", "processing")
    cups.run("cancel", "-a", "pullprint")
    wait_until("the job's end", lambda: cups.job_states()[job] == "canceled")
    assert (await queue(socket, cups, "remove", "pullprint")).code == 0
    assert "no queue pullprint" in (await queue(socket, cups, "remove", "pullprint")).err


async def test_a_description_or_backend_that_is_missing_is_named(socket: Path, cups: PrivateCups) -> None:
    words = ("queue", "add", "--cups", str(cups.socket), "--ppd", "/nonexistent.ppd")
    missing = await on_pipes(socket, *words)
    assert missing.code == 4 and "apt install --reinstall pullprint" in missing.err
    backend = cups.root / "lib" / "backend" / "pullprint"
    backend.rename(backend.with_name("away"))
    try:
        refused = await queue(socket, cups, "add")
    finally:
        backend.with_name("away").rename(backend)
    assert refused.code == 4 and 'Bad device-uri scheme "pullprint"' in refused.err and "deprecated" not in refused.err
    assert cups.connection().getPrinters() == {}


async def test_cupsd_that_is_away_is_named_and_no_password_is_asked_for(socket: Path, tmp_path: Path) -> None:
    for words in (("add",), ("list",), ("resume",), ("remove", "pullprint")):
        away = await on_pipes(socket, "queue", *words, "--cups", str(tmp_path / "none"), "--ppd", str(PPD))
        assert away.code == 3 and "systemctl start cups" in away.err and "Traceback" not in away.err
    none = await on_pipes(socket, "queue", "list", "--cups", str(tmp_path / "none"), "--json")
    assert json.loads(none.err)["code"] == "cups-away"


async def test_what_cups_set_aside_while_the_backend_was_away_is_printed(socket: Path, cups: PrivateCups) -> None:
    backend = cups.root / "lib" / "backend" / "pullprint"
    ours = backend.read_text()
    backend.write_text(f"#!/bin/sh\n[ $# = 0 ] || cat ${{6:+$6}} >{cups.root}/tmp/$PRINTER-$1\n")
    assert (await queue(socket, cups, "add")).code == (await queue(socket, cups, "add", "büro")).code == 0
    cups.add_queue("other", "socket://127.0.0.1:9", PPD)
    quiet = await queue(socket, cups, "resume")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")
    gone = [(backend, backend.with_name("away")), (backend.with_name("socket"), backend.with_name("socket-away"))]
    for path, away in gone:
        path.rename(away)
    jobs = {name: cups.lp(name, PDF) for name in ("pullprint", "büro", "other")}
    held = int(cups.run("lp", "-d", "pullprint", "-H", "hold", data=PDF).split("-")[1].split()[0])
    wait_until("CUPS's decision", lambda: {cups.job_states()[job] for job in jobs.values()} == {"stopped"})
    for path, away in gone:
        away.rename(path)
    before = cups.job_states()
    [told] = [f for f in await check_cups(str(cups.socket)) if "1 document of queue pullprint" in f.what]
    assert told.level is Level.BAD and "`sudo pullprint queue resume`" in told.advice
    resumed = await queue(socket, cups, "resume")
    assert resumed.code == 0 and resumed.out == (
        f"CUPS tries again what it had set aside: pullprint-{jobs['pullprint']}, büro-{jobs['büro']}.\n"
    )
    for name in ("pullprint", "büro"):
        assert cups.wait_job(jobs[name]) == "completed"
        assert (cups.root / "tmp" / f"{name}-{jobs[name]}").read_bytes().startswith(b"%PDF")
    after = cups.job_states()
    kept = [jobs["other"], held]
    assert [after[job] for job in kept] == [before[job] for job in kept] == ["stopped", "held"]
    assert json.loads((await queue(socket, cups, "resume", "--json")).out) == []
    assert not [f for f in await check_cups(str(cups.socket)) if "set aside" in f.what]
    backend.write_text(ours)


@pytest.mark.parametrize(
    ("state", "reasons", "waits"),
    [(6, "job-stopped", True), (6, "job-completed-with-errors", False), (4, "none", False), (9, "none", False)],
)
def test_what_a_filter_could_not_read_and_what_somebody_holds_is_left_alone(
    state: int, reasons: str, waits: bool
) -> None:
    about = {"job-state": state, "job-state-reasons": reasons, "job-printer-uri": "ipp://localhost/printers/pullprint"}

    class Connection:
        def getPrinters(self) -> dict[str, dict[str, str]]:
            return {"pullprint": {"device-uri": "pullprint:/"}}

        def getJobs(self, **_: object) -> dict[int, dict[str, object]]:
            return {7: dict(about)}

    assert cups_jobs.set_aside(Connection()) == ({7: "pullprint"} if waits else {})


async def test_a_cupsd_that_hangs_is_not_waited_for(cups: PrivateCups) -> None:
    cups.kill(signal.SIGSTOP)
    try:
        begin = time.monotonic()
        with pytest.raises(CupsAway):
            Cups(str(cups.socket), PPD, seconds=1.0).resume()
        assert time.monotonic() - begin < 5
    finally:
        cups.kill(signal.SIGCONT)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
async def test_who_may_not_change_queues_is_told_so(socket: Path) -> None:
    # As an installed cupsd has it: changes are for its administrators, and nobody is asked for a password.
    with PrivateCups() as cups:
        cups.stop()
        path = cups.root / "etc" / "cupsd.conf"
        policy = (
            "<Limit CUPS-Add-Modify-Printer>\n    AuthType Default\n    Require user @SYSTEM\n  </Limit>\n  <Limit All>"
        )
        path.write_text(
            path.read_text().replace("DefaultAuthType None", "DefaultAuthType Basic").replace("<Limit All>", policy)
        )
        cups.start()
        argv = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/usr/bin/python3", "-c", _AS_NOBODY]
        code = {"CUPS_SERVER": str(cups.socket), "PATH": os.environ["PATH"]}
        done = subprocess.run(argv, env=code, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode and "lpadmin: " in done.stderr
        from pullprint.cli.queues import CupsForbids, _refusal

        assert isinstance(_refusal(done.stderr), CupsForbids), done.stderr
        assert cups.connection().getPrinters() == {}


# What `queues.Cups` starts, as an account that could not read this tree.
_AS_NOBODY = """
import subprocess, sys
argv = ["lpadmin", "-p", "pullprint", "-E", "-v", "pullprint:/", "-m", "raw"]
done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, start_new_session=True)
sys.stderr.write(done.stderr)
sys.exit(done.returncode)
"""
