"""What people and programs are shown of the site's hosts and of the copies of jobs."""

import json
import re
import unicodedata
from pathlib import Path

import pytest
from tests.cli.command import on_pipes, on_terminal
from tests.cli.standin import Standin, job

from pullprint.wire.views import MeshJobView, MeshNodeView, MeshView, StatusView

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
RECEPTION, WORKSHOP, LAPTOP = "1" * 32, "2" * 32, "3" * 32
NODES = (
    MeshNodeView(
        node=WORKSHOP, name="workshop", role="super", awake=True, endpoint="192.0.2.7:9264", version="0.1.0", held=7,
        room=9 << 30, lag=0.0021,
    ),
    MeshNodeView(
        node=LAPTOP, name="laptop-of-ada", role="client", endpoint="192.0.2.9:9264", lag=0.4, owed=3,
        trouble="It does not answer.",
    ),
    MeshNodeView(node=RECEPTION, name="reception", role="normal", here=True, awake=True, version="0.1.0", held=12),
)  # fmt: skip
JOBS = (
    MeshJobView(id="f" * 32, state="held", generation=2, holders=(RECEPTION, WORKSHOP, "9" * 32), promised=3,
                attempts=("3 by reception: nothing sent",)),
    MeshJobView(id="e" * 32, state="held", generation=1, holders=(RECEPTION,)),
)  # fmt: skip


def mesh(placed: int = 11, short: int = 1, jobs: tuple[MeshJobView, ...] = ()) -> MeshView:
    return MeshView(site="hq", revision=4, nodes=NODES, jobs=jobs, placed=placed, short=short)


async def test_hosts_fit_any_terminal_and_this_one_comes_first(daemon: Standin, socket: Path) -> None:
    daemon.mesh = mesh(jobs=JOBS)
    for width in (24, 32, 40, 60, 80, 140):
        shown = await on_terminal(socket, "mesh", "--jobs", width=width)
        lines = COLOUR.sub("", shown.out).splitlines()
        assert max(len(line) for line in lines) <= width, width
        assert lines[0].startswith("HOST") and lines[1].startswith("recept") and "this host" in lines[1]
        assert any("laptop" in line and "away" in line for line in lines)
        assert ("ADDRESS" in lines[0]) == (width >= 110)
        assert "1 waits for more" in " ".join(" ".join(lines).split())


async def test_a_pipe_gets_one_whole_line_for_each_host(daemon: Standin, socket: Path) -> None:
    daemon.mesh = mesh()
    shown = await on_pipes(socket, "mesh")
    title, here, laptop, workshop, summary = shown.out.splitlines()
    assert title.split()[:3] == ["HOST", "STATE", "ROLE"]
    assert "this host" in here and "2 ms" in workshop and "9 GiB" in workshop and "192.0.2.7:9264" in workshop
    assert "It does not answer." in laptop and " 3 " in laptop and "400 ms" not in laptop
    assert summary == "12 jobs held here: 11 with all copies, 1 waits for more."


@pytest.mark.parametrize(
    ("placed", "short", "code", "said"),
    [
        (0, 0, 0, "No job is held here."),
        (1, 0, 0, "1 job held here, with all its copies."),
        (5, 0, 0, "5 jobs held here, all with all their copies."),
        (0, 1, 1, "1 job held here: 0 with all copies, 1 waits for more."),
        (5, 2, 1, "7 jobs held here: 5 with all copies, 2 wait for more."),
    ],
)
async def test_a_job_without_its_copies_shows_in_the_exit_status(
    daemon: Standin, socket: Path, placed: int, short: int, code: int, said: str
) -> None:
    daemon.mesh = mesh(placed, short)
    shown = await on_pipes(socket, "mesh")
    assert (shown.code, shown.out.splitlines()[-1]) == (code, said)
    assert (await on_pipes(socket, "mesh", "--json")).code == code


async def test_each_job_tells_its_holders_and_votes(daemon: Standin, socket: Path) -> None:
    daemon.mesh = mesh(jobs=JOBS)
    shown = await on_pipes(socket, "mesh", "--jobs")
    first = next(line for line in shown.out.splitlines() if line.startswith("ffffffff"))
    assert "reception, workshop, 99999999" in first and first.endswith("3  3 by reception: nothing sent")
    assert daemon.requests[-1] == "GET /v1/mesh?jobs=1"
    await on_pipes(socket, "mesh")
    assert daemon.requests[-1] == "GET /v1/mesh"


async def test_json_is_the_daemons_answer(daemon: Standin, socket: Path) -> None:
    daemon.mesh = mesh(jobs=JOBS)
    shown = await on_terminal(socket, "mesh", "--json")
    assert json.loads(shown.out) == json.loads(daemon.mesh.model_dump_json())


async def test_hostile_names_never_reach_the_terminal(daemon: Standin, socket: Path) -> None:
    text = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e[bold red]x[/]"
    node = NODES[1].model_copy(update={"name": text, "role": text, "trouble": text, "endpoint": text, "version": text})
    odd = JOBS[0].model_copy(update={"holders": (text,), "attempts": (text,), "state": text})
    daemon.mesh = MeshView(site=text, revision=1, nodes=(node,), jobs=(odd,), placed=1)
    for run in (on_terminal, on_pipes):
        shown = await run(socket, "mesh", "--jobs")
        rest = COLOUR.sub("", shown.out)
        assert [c for c in rest if unicodedata.category(c) in {"Cc", "Cf"} and c != "\n"] == []
        assert "[bold red]" in rest.replace("\n", "")


async def test_status_tells_of_copies_in_one_line_and_does_without(daemon: Standin, socket: Path) -> None:
    daemon.status = StatusView(version="0.1.0", joined=True, name="reception", connected=True, held=12)
    before = await on_pipes(socket, "status")
    assert before.code == 0 and "copies" not in before.out and not before.err  # an older pullprintd
    daemon.mesh = mesh()
    shown = await on_pipes(socket, "status")
    (line,) = [line for line in shown.out.splitlines() if line.startswith("copies")]
    assert "11 with all copies, 1 waits for more. 2 of 3 hosts of this site awake." in line


async def test_jobs_say_how_many_copies_there_are_where_that_is_known(daemon: Standin, socket: Path) -> None:
    daemon.add(job(1, copies=3, awake=2, holders=("desk", "workshop", "attic")), job(2, copies=1, awake=1), job(3))
    one, two, three = (await on_pipes(socket, "jobs")).out.splitlines()[1:]
    assert "3 copies, 2 awake" in one and "1 copy, 1 awake" in two and "awake" not in three


async def test_a_trace_tells_votes_and_copies_as_any_step(daemon: Standin, socket: Path) -> None:
    daemon.add(job())
    for event, text in (
        ("copied", "Copies at workshop and attic."),
        ("promised", "Its vote is promised to workshop."),
        ("voted", "Voted for workshop to print it."),
        ("takes-over", "workshop takes over."),
    ):
        daemon.move(job().id, job().state, event, text)
    shown = await on_pipes(socket, "trace", "00000001")
    assert [line.split("  desk  ")[1] for line in shown.out.splitlines()[1:]] == [
        "Copies at workshop and attic.", "Its vote is promised to workshop.", "Voted for workshop to print it.",
        "workshop takes over.",
    ]  # fmt: skip
