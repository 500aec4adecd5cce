"""``pullprint release``: what it chooses, what it says, and that it claims success only for paper."""

import asyncio
import json
import signal
from pathlib import Path

import pytest
from tests.cli.command import COMMAND, environment, on_pipes, on_terminal
from tests.cli.standin import CUT_OFF, OUT_OF_PAPER, PRINTED, REFUSED, Standin, Way, job

from pullprint.base.errors import NotAllowed
from pullprint.model.states import State
from pullprint.wire.views import PrinterView


async def test_one_job_and_one_printer_need_no_arguments(daemon: Standin, socket: Path) -> None:
    daemon.add(job(), job(2, state=State.UNCERTAIN), job(3, state=State.DONE))
    ended = await on_pipes(socket, "release")
    assert (ended.code, ended.out) == (0, "“report.pdf” (00000001) is printed at Lobby.\n")
    assert [line.partition(": ")[2] for line in ended.err.splitlines()] == [
        "waiting for Lobby", "sending to Lobby", "printing at Lobby", "printed",
    ]  # fmt: skip
    assert [name for name, _ in daemon.releases] == [job().id]


async def test_changes_reach_the_daemon_under_ipps_names(daemon: Standin, socket: Path) -> None:
    daemon.add(job(1), job(0xAB))
    ended = await on_pipes(
        socket, "release", "00000001", "-P", "p1", "--copies", "3", "--sides", "long", "--color", "mono",
        "-o", "finishings=4", "-o", "x=a=b", "000000AB",
    )  # fmt: skip
    assert ended.code == 0
    (first, wanted), (second, _) = daemon.releases
    assert (first, second) == (job(1).id, job(0xAB).id)
    assert wanted.changes == {"copies": "3", "sides": "two-sided-long-edge", "print-color-mode": "monochrome",
                              "finishings": "4", "x": "a=b"}  # fmt: skip


@pytest.mark.parametrize(
    ("way", "code", "told"),
    [
        (OUT_OF_PAPER, 4, "was not printed; it is still held. Lobby has no paper."),
        (REFUSED, 4, "was not printed; it is still held. Lobby does not take this format."),
        (CUT_OFF, 5, "may have been printed. The line to Lobby broke. If it came out: pullprint settle 00000001."),
        ([(State.EXPIRED, "expired", "Too late.")], 4, "was expired, not printed. Too late."),
    ],
)
async def test_what_is_not_on_paper_is_never_a_success(
    daemon: Standin, socket: Path, way: Way, code: int, told: str
) -> None:
    daemon.add(job())
    daemon.way = way
    for mode in ((), ("--json",)):
        ended = await on_pipes(socket, "release", "00000001", *mode)
        assert ended.code == code
        if mode:
            assert json.loads(ended.out)[0]["state"] == way[-1][0]
        else:
            assert told in ended.err and not ended.out
        daemon.add(job())


async def test_without_waiting_it_ends_at_once_and_says_how_to_follow(daemon: Standin, socket: Path) -> None:
    daemon.add(job())
    daemon.pace = 5.0
    ended = await on_pipes(socket, "release", "--no-wait")
    assert ended.code == 0 and "trace 00000001 --follow" in ended.out


async def test_an_uncertain_job_is_printed_again_only_after_the_owner_was_asked(daemon: Standin, socket: Path) -> None:
    daemon.add(job(state=State.UNCERTAIN, sentence="The line broke.", doubtful=(1,)))
    refused = await on_pipes(socket, "release", "00000001")
    assert refused.code == 5 and "pullprint settle 00000001" in refused.err and daemon.releases == []
    assert (await on_terminal(socket, "release", "00000001", typed="n\n")).code == 5
    assert daemon.releases == []
    asked = await on_terminal(socket, "release", "00000001", typed="y\n")
    assert asked.code == 0 and "may have come out already. The line broke." in asked.out.replace("\n", "")
    daemon.add(job(state=State.UNCERTAIN, sentence="The line broke.", doubtful=(1,)))
    assert (await on_pipes(socket, "release", "00000001", "--again")).code == 0
    assert [wanted.again for _, wanted in daemon.releases] == [True, True]


async def test_several_are_asked_about_on_a_terminal_and_never_on_a_pipe(daemon: Standin, socket: Path) -> None:
    daemon.add(job(1, "a.pdf"), job(2, "b.pdf"))
    daemon.printers.append(PrinterView(id="p2", name="Attic"))
    piped = await on_pipes(socket, "release")
    assert piped.code == 2 and "2 jobs are held" in piped.err
    piped = await on_pipes(socket, "release", "--all")
    assert piped.code == 2 and "There are 2 printers" in piped.err and daemon.releases == []
    asked = await on_terminal(socket, "release", typed="9\n2\n2\n")
    assert asked.code == 0 and "“b.pdf” (00000002) is printed at Attic." in asked.out
    assert (await on_terminal(socket, "release", typed="\n\n\n")).code == 2
    assert len(daemon.releases) == 1


async def test_one_refusal_does_not_keep_the_others_from_printing(daemon: Standin, socket: Path) -> None:
    daemon.add(job(1), job(2, state=State.UNCERTAIN), job(3))
    ended = await on_pipes(socket, "release", "00000002", "00000001", "00000003")
    assert ended.code == 5
    assert ended.out.count("is printed") == 2
    everything = await on_pipes(socket, "release", "--all")
    assert everything.code == 0 and "nothing was released" in everything.out


async def test_a_job_of_nobody_says_how_to_claim_it(daemon: Standin, socket: Path) -> None:
    daemon.add(job(owner="", claim_code="7KQ2-M9XD"))
    daemon.refusal = NotAllowed(reason="claim it with 7KQ2-M9XD")
    ended = await on_pipes(socket, "release")
    assert ended.code == 4 and "7KQ2-M9XD" in ended.err


async def test_nothing_held_no_printer_and_an_unknown_printer(daemon: Standin, socket: Path) -> None:
    assert "lp -d pullprint" in (await on_pipes(socket, "release")).err
    daemon.add(job())
    unknown = await on_pipes(socket, "release", "-P", "Atlantis")
    assert unknown.code == 4 and "no such printer" in unknown.err
    daemon.printers = []
    assert (await on_pipes(socket, "release")).code == 4


async def test_ctrl_c_ends_the_command_and_not_the_release(daemon: Standin, socket: Path) -> None:
    daemon.add(job())
    daemon.way = PRINTED[:3]
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        "release",
        env=environment(socket, {}),
        stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stderr
    while b"sending" not in await process.stderr.readline():
        pass
    process.send_signal(signal.SIGINT)
    _, err = await process.communicate()
    assert process.returncode == 130
    assert "goes on without this command" in err.decode() and "Traceback" not in err.decode()
    assert daemon.jobs[job().id].state == State.SENDING


async def test_cancel_and_settle_tell_what_they_did(daemon: Standin, socket: Path) -> None:
    daemon.add(job(1), job(2), job(0xB0, state=State.UNCERTAIN))
    ended = await on_pipes(socket, "cancel", "00000001", "ffff", "00000002")
    assert ended.code == 4 and ended.out.count("Deleted") == 2 and "no such job" in ended.err
    settled = await on_pipes(socket, "settle", "000000b", "--json")
    assert settled.code == 0 and json.loads(settled.out)[0]["state"] == "done"
