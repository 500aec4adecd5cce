"""What people and programs are shown of jobs and of the host."""

import asyncio
import json
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from tests.cli.command import on_pipes, on_terminal
from tests.cli.standin import Standin, job

from pullprint import __version__
from pullprint.cli import answers
from pullprint.model.states import State
from pullprint.wire import loans, views

HOSTILE = {
    "escape": "\x1b]0;owned\x07\x1b[2J\x1b[31mred.pdf",
    "c1": "\x9b31mred\x9d0;owned\x9c.pdf",
    "markup": "[bold red]x[/] [link=https://evil.example]here[/link] :smile: <b>&amp;",
    "override": "invoice\u202efdp.exe\u2066",
    "lines": "one\r\ntwo\x0b\x0cthree\u2028four\u2029five",
    "long": "w" * 4_096,
    "nothing": "",
}
ID = "00000001"
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


async def test_a_table_fits_the_terminal(daemon: Standin, socket: Path) -> None:
    daemon.add(job(1, "A title that is far too long for most of the terminals that there are.pdf"), job(2, "b.pdf"))
    for width in (32, 40, 60, 80, 140):
        shown = await on_terminal(socket, "jobs", width=width)
        lines = COLOUR.sub("", shown.out).splitlines()
        assert shown.code == 0
        assert max(len(line) for line in lines) <= width
        assert lines[0].startswith("JOB")
        assert any("00000001" in line and "A ti" in line and "held" in line for line in lines)
        assert ("OPTIONS" in lines[0]) == (width >= 90)
        assert "2 jobs  Release it at a" in " ".join(lines)


async def test_a_pipe_gets_one_plain_whole_line_for_each_job(daemon: Standin, socket: Path) -> None:
    title = "A title that is far too long for most of the terminals that there are.pdf"
    daemon.add(job(1, title), job(2, owner="", claim_code="7KQ2-M9XD", facts=None))
    shown = await on_pipes(socket, "jobs", FORCE_COLOR="1", COLUMNS="30")
    first, second = shown.out.splitlines()[1:]
    assert title in first and "2 copies, two-sided" in first and "Release it at a printer." in first
    assert "unclaimed" in second and "7KQ2-M9XD" in second and " ? " in second
    assert "\x1b" not in shown.out and not shown.err


@pytest.mark.parametrize("variable", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
async def test_colours_can_be_switched_off(daemon: Standin, socket: Path, variable: dict[str, str]) -> None:
    daemon.add(job())
    assert "\x1b[36m" in (await on_terminal(socket, "jobs")).out
    assert not re.search(r"\x1b\[[0-9;]*3\dm", (await on_terminal(socket, "jobs", **variable)).out)


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("command", [("jobs",), ("trace", ID), ("release",), ("cancel", ID), ("settle", ID)])
async def test_hostile_text_never_reaches_the_terminal(
    daemon: Standin, socket: Path, name: str, command: tuple[str, ...]
) -> None:
    text = HOSTILE[name]
    daemon.way = [(State.DONE, "printed", text)]
    for run in (on_terminal, on_pipes):
        daemon.add(job(1, text, sentence=text, submitter=text, host=text))
        daemon.move(job().id, State.HELD, "stored", text)
        shown = await run(socket, *command)
        assert shown.code == 0
        # What is left after colours, and the spinner's own cursor movements, is text on lines.
        rest = re.sub(r"\x1b\[(\?25[lh]|2K|1A|[0-9;]*m)|\r", "", shown.out + shown.err)
        assert [c for c in rest if unicodedata.category(c) in {"Cc", "Cf", "Zl", "Zp"} and c != "\n"] == []
        assert "\x1b[31m" not in shown.out
        if name == "markup":
            assert "[bold red]x[/]" in rest.replace("\n", "") and "😄" not in rest


async def test_json_is_the_daemons_answer_and_cannot_move_the_cursor(daemon: Standin, socket: Path) -> None:
    daemon.add(*(job(n, text) for n, text in enumerate(HOSTILE.values(), 1)))
    shown = await on_terminal(socket, "jobs", "--json")
    assert shown.out.isascii() and "\x1b" not in shown.out
    assert json.loads(shown.out) == [json.loads(view.model_dump_json()) for view in daemon.jobs.values()]


async def test_jobs_that_ended_are_listed_on_request_only(daemon: Standin, socket: Path) -> None:
    daemon.add(job(1, "old.pdf", state=State.DONE), job(2, "new.pdf"))
    assert "old.pdf" not in (await on_pipes(socket, "jobs")).out
    assert "printed" in (await on_pipes(socket, "jobs", "--ended")).out
    await on_pipes(socket, "jobs", "--all")
    assert daemon.requests[-1] == "GET /v1/jobs?all=1"


async def test_no_jobs_tells_how_to_print(daemon: Standin, socket: Path) -> None:
    assert "lp -d pullprint" in (await on_terminal(socket, "jobs")).out


async def test_a_trace_is_told_and_followed_to_the_end(daemon: Standin, socket: Path) -> None:
    daemon.add(job(state=State.DONE))
    shown = await on_pipes(socket, "trace", ID)
    assert shown.out == "14 Nov 22:13:20.250  desk  Stored and sealed.\n"
    daemon.move(job().id, State.DONE, "printed", "Printed at Lobby.")
    followed = await on_pipes(socket, "trace", ID, "--follow", "--json")
    assert [json.loads(line)["event"] for line in followed.out.splitlines()] == ["stored", "printed"]


async def test_printers_status_and_doctor(daemon: Standin, socket: Path) -> None:
    assert "ground floor" in (await on_terminal(socket, "printers", width=50)).out
    assert "Lobby" in (await on_terminal(socket, "printers", width=20)).out
    assert "not joined" in (await on_pipes(socket, "status")).out
    assert "Nothing is wrong." in (await on_pipes(socket, "doctor")).out
    daemon.findings = [
        views.FindingView(level="ok", what="The backend is installed."),
        views.FindingView(level="bad", what="PreserveJobFiles is on.", advice="Set it to No in cupsd.conf."),
    ]
    doctor = await on_pipes(socket, "doctor")
    assert doctor.code == 1 and "BAD   PreserveJobFiles is on. Set it to No" in doctor.out
    assert json.loads((await on_pipes(socket, "doctor", "--json")).out)[1]["level"] == "bad"


async def test_join_sends_the_ca_and_tells_where_the_host_is_now(daemon: Standin, socket: Path, tmp_path: Path) -> None:
    authority = tmp_path / "ca.pem"
    authority.write_text("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n")
    joined = await on_pipes(socket, "join", "https://print.example.com", "7KQ2-M9XD", "--ca", str(authority))
    assert joined.code == 0 and "has joined Example at Berlin" in joined.out
    assert daemon.joins == [
        views.JoinRequest(cloud="https://print.example.com", code="7KQ2-M9XD", authority=authority.read_text())
    ]
    for bad in ("nothing-here", "."):
        assert (await on_pipes(socket, "join", "https://c", "x", "--ca", str(tmp_path / bad))).code == 2
    authority.write_bytes(b"\x00" * 100_000)
    assert "not a file with a CA" in (await on_pipes(socket, "join", "https://c", "x", "--ca", str(authority))).err


async def test_version_and_help(socket: Path) -> None:
    assert (await on_pipes(socket, "--version")).out == f"pullprint {__version__}\n"
    for command in (
        "",
        "jobs",
        "release",
        "cancel",
        "settle",
        "trace",
        "printers",
        "status",
        "doctor",
        "mesh",
        "login",
        "join",
    ):
        shown = await on_pipes(socket, *([command] if command else []), "--help")
        assert shown.code == 0 and "usage: pullprint" in shown.out


def test_the_commands_answers_have_the_fields_of_the_views() -> None:
    pairs = [
        (answers.Job, views.JobView, {"site", "trouble", "printer", "printed", "picture", "ended"}),
        (answers.Step, views.StepView, {"detail"}),
        (answers.Printer, views.PrinterView, {"site", "code", "ready", "trouble", "can"}),
        (answers.Finding, views.FindingView, set()),
        (answers.Status, views.StatusView, set()),
        (answers.Login, views.LoginView, set()),
        (answers.Mesh, views.MeshView, set()),
        (answers.Slept, loans.SleepView, set()),
        (answers.MeshNode, views.MeshNodeView, set()),
        (answers.MeshJob, views.MeshJobView, set()),
    ]
    for ours, wire, left_out in pairs:
        assert set(ours.__dataclass_fields__) - {"raw"} == set(wire.model_fields) - left_out


async def test_a_start_on_a_pipe_loads_nothing_heavy() -> None:
    # Each of these takes longer to import than all the rest of the command to run.
    code = "import sys, pullprint.cli.main; print(*{n.partition('.')[0] for n in sys.modules})"
    ran = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", code], capture_output=True, text=True, timeout=30
    )
    assert set(ran.stdout.split()) & {"pullprint", "aiohttp", "pydantic", "asyncio", "typer", "rich", "segno"} == {
        "pullprint"
    }
