"""The backend alone, against a stand-in intake: what it sends, and how each ending looks to cupsd."""

import ast
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.rig.cups import BACKEND
from tests.rig.intake import Intake, Received, stored
from tests.rig.processes import Process, wait_until

from pullprint.wire.intake import LINE_LIMIT, read_line

UUID = "5e79e947-6d20-3011-4c81-617421fd5d57"
OPTIONS = (
    f"sides=two-sided-long-edge some-unknown=a\\ b job-uuid=urn:uuid:{UUID}"
    " job-originating-host-name=desk time-at-creation=7"
)
DOCUMENT = b"%PDF-1.4\n" + bytes(range(256)) * 1_000
OK, FAILED, CANCEL, RETRY_CURRENT = 0, 1, 5, 7
WAITING = "STATE: +pullprint-waiting-warning"
WAITED = "STATE: -pullprint-waiting-warning"


@pytest.fixture
def intake(tmp_path: Path) -> Iterator[Intake]:
    with Intake(tmp_path / "intake.sock") as running:
        yield running


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "d00012-001"
    path.write_bytes(DOCUMENT)
    return path


def environment(folder: Path, **more: str) -> dict[str, str]:
    return {
        "PULLPRINT_INTAKE": str(folder / "intake.sock"),
        "PULLPRINT_WAIT": "5",
        "DEVICE_URI": "pullprint:/",
        "PRINTER": "hold",
        "CONTENT_TYPE": "text/plain",
        "FINAL_CONTENT_TYPE": "application/pdf",
        "CUPS_REQUESTROOT": str(folder),
        "LANG": "C",
    } | more


def run(
    folder: Path,
    *file: Path,
    title: str | bytes = "Plan",
    options: str | bytes = OPTIONS,
    data: bytes = b"",
    **more: str,
) -> tuple[int, list[str]]:
    """Exit status and stderr's lines."""
    done = subprocess.run(
        [BACKEND, "12", "ada", title, "3", options, *file],
        input=data,
        capture_output=True,
        env=environment(folder, **more),
        timeout=30,
        check=False,
    )
    assert done.stdout == b""
    assert done.stderr == b"" or done.stderr.endswith(b"\n")
    return done.returncode, done.stderr.decode("utf-8").splitlines()


def test_discovery_line_is_what_cups_deviced_reads() -> None:
    done = subprocess.run([BACKEND], capture_output=True, check=True, timeout=10)
    assert done.stdout.startswith(b'direct pullprint:/ "')
    assert done.stdout.count(b"\n") == 1
    assert done.stderr == b""


@pytest.mark.parametrize("words", [("1",), ("1", "u", "t", "1"), ("1", "u", "t", "1", "", "f", "g")])
def test_wrong_usage_is_not_success(words: tuple[str, ...]) -> None:
    done = subprocess.run([BACKEND, *words], capture_output=True, check=False, timeout=10)
    assert done.returncode == FAILED
    assert done.stderr.startswith(b"ERROR: Usage")


@pytest.mark.parametrize(("job", "copies"), [("x", "1"), ("1", "-1"), ("1", ""), ("²", "1")])
def test_numbers_that_are_none_are_not_success(tmp_path: Path, document: Path, job: str, copies: str) -> None:
    argv = [BACKEND, job, "ada", "t", copies, OPTIONS, document]
    done = subprocess.run(argv, capture_output=True, env=environment(tmp_path), check=False, timeout=10)
    assert done.returncode == FAILED
    assert done.stderr.startswith(b"ERROR: ")


def test_a_file_arrives_whole_with_every_field(tmp_path: Path, intake: Intake, document: Path) -> None:
    status, lines = run(tmp_path, document)
    assert (status, lines) == (OK, ["WARNING: Held: release it at any printer."])
    [received] = intake.received
    assert received.document == DOCUMENT
    assert received.is_file
    assert received.fields == {
        "v": 1,
        "job_uuid": UUID,
        "cups_job_id": 12,
        "device_uri": "pullprint:/",
        "queue": "hold",
        "user": "ada",
        "title": "Plan",
        "copies": 3,
        "options": OPTIONS,
        "content_type": "application/pdf",
        "host": "desk",
    }


def test_the_daemon_understands_the_line(tmp_path: Path, intake: Intake, document: Path) -> None:
    run(tmp_path, document)
    submission = read_line(intake.received[0].line)
    assert (submission.job_uuid, submission.queue, submission.host) == (UUID, "hold", "desk")
    assert submission.ticket.get("some-unknown") == "a b"


def test_a_pipe_arrives_whole(tmp_path: Path, intake: Intake) -> None:
    status, _ = run(tmp_path, data=DOCUMENT)
    assert status == OK
    assert intake.received[0].document == DOCUMENT
    assert not intake.received[0].is_file


def test_a_raw_job_keeps_its_own_type(tmp_path: Path, intake: Intake, document: Path) -> None:
    run(tmp_path, document, FINAL_CONTENT_TYPE="printer/hold", CONTENT_TYPE="application/vnd.cups-raw")
    assert intake.received[0].fields["content_type"] == "application/vnd.cups-raw"


def test_a_refusal_cancels_and_says_why(tmp_path: Path, intake: Intake, document: Path) -> None:
    intake.answer = lambda _: b"refused Colour is not allowed here.\n"
    assert run(tmp_path, document) == (CANCEL, ["ERROR: Colour is not allowed here."])


def test_later_is_asked_again_until_it_is_stored(tmp_path: Path, intake: Intake, document: Path) -> None:
    intake.answer = lambda received: stored(received) if len(intake.received) == 3 else b"later Disk is full.\n"
    status, lines = run(tmp_path, document)
    assert status == OK
    assert [received.document for received in intake.received] == [DOCUMENT] * 3
    assert lines.index(WAITING) < lines.index("INFO: Disk is full.") < lines.index(WAITED)


def test_later_for_good_leaves_the_job_queued(tmp_path: Path, intake: Intake, document: Path) -> None:
    intake.answer = lambda _: b"later Disk is full.\n"
    status, lines = run(tmp_path, document, PULLPRINT_WAIT="0.2")
    assert status == RETRY_CURRENT
    assert WAITING in lines
    assert WAITED not in lines


@pytest.mark.parametrize("answer", [b"later Disk is full.\n", None])
def test_a_pipe_is_never_sent_twice_in_one_run(tmp_path: Path, intake: Intake, answer: bytes | None) -> None:
    intake.answer = lambda _: answer
    status, _ = run(tmp_path, data=DOCUMENT, PULLPRINT_WAIT="1")
    assert status == RETRY_CURRENT
    assert len(intake.received) == 1


def test_daemon_away_waits_and_then_delivers(tmp_path: Path, document: Path) -> None:
    late = Intake(tmp_path / "intake.sock")
    backend = subprocess.Popen(
        [BACKEND, "12", "ada", "Plan", "1", OPTIONS, document],
        env=environment(tmp_path),
        stderr=subprocess.PIPE,
    )
    time.sleep(0.4)
    with late:
        _, said = backend.communicate(timeout=10)
    assert backend.returncode == OK
    assert late.received[0].document == DOCUMENT
    lines = said.decode().splitlines()
    assert lines[0] == WAITING
    assert lines[-1].startswith("WARNING: Held")
    assert WAITED in lines


def test_daemon_away_for_good_leaves_the_job_queued(tmp_path: Path, document: Path) -> None:
    started = time.monotonic()
    status, lines = run(tmp_path, document, PULLPRINT_WAIT="0.5")
    assert status == RETRY_CURRENT
    assert time.monotonic() - started < 5
    assert any(line.startswith("INFO: ") for line in lines)


GOOD_ID = b"0" * 32


@pytest.mark.parametrize(
    "answer",
    [
        None,
        b"",
        b"\n",
        b"stored\n",
        b"stored \n",
        b"stored " + GOOD_ID,
        b"stored " + GOOD_ID[1:] + b" ok\n",
        b"stored " + GOOD_ID.replace(b"0", b"G") + b" ok\n",
        b"STORED " + GOOD_ID + b" ok\n",
        b"stored " + GOOD_ID + b" \xff\n",
        b"stored " + GOOD_ID + b" two\nlines\n",
        b"stored " + GOOD_ID + b" " + b"x" * 4_096 + b"\n",
        b"refused\n",
        b"\0" * 10_000,
    ],
)
def test_an_answer_that_is_none_is_never_success(
    tmp_path: Path, intake: Intake, document: Path, answer: bytes | None
) -> None:
    intake.answer = lambda _: answer
    status, _ = run(tmp_path, document, PULLPRINT_WAIT="0.1")
    assert status == RETRY_CURRENT


def test_kill_9_of_the_daemon_before_its_answer_is_not_success(tmp_path: Path, document: Path) -> None:
    code = (
        "import socket, sys, time\n"
        "s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen()\n"
        "c, _ = s.accept(); line, fds, _, _ = socket.recv_fds(c, 65536, 4); print('taken', flush=True)\n"
        "time.sleep(60)\n"
    )
    daemon = Process([sys.executable, "-c", code, tmp_path / "intake.sock"], tmp_path / "log")
    with daemon:
        wait_until("socket", (tmp_path / "intake.sock").exists)
        argv = [BACKEND, "12", "ada", "Plan", "1", OPTIONS, document]
        backend = subprocess.Popen(argv, env=environment(tmp_path, PULLPRINT_WAIT="1"), stderr=subprocess.PIPE)
        wait_until("line taken", lambda: "taken" in daemon.log_tail())
        assert backend.poll() is None
        daemon.kill()
        _, said = backend.communicate(timeout=10)
    assert backend.returncode == RETRY_CURRENT
    assert b"safe in this queue" in said


@pytest.mark.parametrize("title", [b"T" * 65_536, b"\xff" * 65_536, "😀".encode() * 16_384])
def test_a_title_of_64_kib_still_gives_a_line_that_is_read(
    tmp_path: Path, intake: Intake, document: Path, title: bytes
) -> None:
    assert run(tmp_path, document, title=title)[0] == OK
    [received] = intake.received
    assert len(received.line) <= LINE_LIMIT
    assert received.line.isascii()
    assert received.fields["options"] == OPTIONS
    assert read_line(received.line).title


def test_options_too_long_for_the_line_are_refused_not_cut(tmp_path: Path, intake: Intake, document: Path) -> None:
    status, lines = run(tmp_path, document, options=OPTIONS.encode() + b" x=" + b"\xff" * 100_000)
    assert status == CANCEL
    assert lines == ["ERROR: This job's print options are too long. Print it with fewer options."]
    assert intake.received == []


def test_control_characters_and_bytes_that_are_not_utf8_stay_inside_the_line(
    tmp_path: Path, intake: Intake, document: Path
) -> None:
    title = b'a\nSTATE: +x\r\x1b[31m"\\\x7f\xe9\xff'
    status, lines = run(tmp_path, document, title=title)
    assert (status, len(lines)) == (OK, 1)
    [received] = intake.received
    assert received.line.count(b"\n") == 1
    assert received.fields["title"].encode("utf-8", "surrogateescape") == title


def test_what_the_daemon_says_cannot_command_the_scheduler(tmp_path: Path, intake: Intake, document: Path) -> None:
    text = "nice\r\x0b\x85\u2028STATE: +x\x1b[31m\u202e" + "é" * 1_900
    intake.answer = lambda _: b"stored " + GOOD_ID + f" {text}\n".encode()
    done = subprocess.run(
        [BACKEND, "12", "ada", "t", "1", OPTIONS, document],
        capture_output=True,
        env=environment(tmp_path),
        check=False,
        timeout=10,
    )
    assert done.returncode == OK
    assert done.stderr.count(b"\n") == 1
    assert len(done.stderr) < 1_024
    assert done.stderr.startswith(b"WARNING: nice")
    assert all(char.isprintable() for char in done.stderr.decode()[:-1])


def test_no_stdin_at_all_is_not_success(tmp_path: Path, intake: Intake) -> None:
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&-', "sh", BACKEND, "12", "ada", "t", "1", OPTIONS],
        capture_output=True,
        env=environment(tmp_path),
        check=False,
        timeout=10,
    )
    assert done.returncode == FAILED
    assert intake.received == []


def test_a_document_that_is_missing_linked_or_no_file_is_not_success(
    tmp_path: Path, intake: Intake, document: Path
) -> None:
    link = tmp_path / "link"
    link.symlink_to(document)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (tmp_path / "missing", link, fifo, tmp_path):
        assert run(tmp_path, path)[0] == FAILED
    assert intake.received == []


def test_a_second_run_sends_the_same_key(tmp_path: Path, intake: Intake, document: Path) -> None:
    without = OPTIONS.replace(f"job-uuid=urn:uuid:{UUID} ", "")
    for options in (OPTIONS, without):
        run(tmp_path, document, options=options)
        run(tmp_path, document, options=options)
    keys = [received.fields["job_uuid"] for received in intake.received]
    assert keys[0] == keys[1] == UUID
    assert keys[2] == keys[3] != UUID
    assert read_line(intake.received[2].line).job_uuid == keys[2]


def test_a_job_uuid_inside_another_options_value_is_not_believed(
    tmp_path: Path, intake: Intake, document: Path
) -> None:
    forged = "job-uuid=urn:uuid:00000000-0000-0000-0000-000000000000"
    run(tmp_path, document, options=f"a=\\ {forged} my{forged} {OPTIONS}")
    assert intake.received[0].fields["job_uuid"] == UUID


def test_every_file_of_a_job_has_a_key_of_its_own(tmp_path: Path, intake: Intake, document: Path) -> None:
    second = tmp_path / "d00012-002"
    second.write_bytes(b"%PDF second")
    for path in (document, second, second):
        assert run(tmp_path, path)[0] == OK
    keys = [received.fields["job_uuid"] for received in intake.received]
    assert keys[0] == UUID
    assert keys[1] == keys[2] != UUID


def test_one_of_several_converted_files_is_refused_because_its_number_is_unknown(
    tmp_path: Path, intake: Intake, document: Path
) -> None:
    (tmp_path / "d00012-002").write_bytes(b"text")
    status, lines = run(tmp_path, data=DOCUMENT)
    assert status == CANCEL
    assert "one by one" in lines[0]
    assert intake.received == []


def test_banner_pages_are_neither_kept_nor_counted(tmp_path: Path, intake: Intake, document: Path) -> None:
    (tmp_path / "d00012-002").write_bytes(document.read_bytes())
    document.write_bytes(b"#PDF-BANNER\nTemplate default.pdf\n")
    assert run(tmp_path, data=DOCUMENT, CUPS_FILETYPE="job-sheet") == (OK, [])
    assert intake.received == []
    assert run(tmp_path, data=DOCUMENT)[0] == OK
    assert run(tmp_path, tmp_path / "d00012-002")[0] == OK
    assert [received.fields["job_uuid"] for received in intake.received] == [UUID, UUID]


def test_cancelling_a_waiting_job_ends_at_once_and_takes_the_warning_back(tmp_path: Path, document: Path) -> None:
    argv = [BACKEND, "12", "ada", "Plan", "1", OPTIONS, document]
    backend = subprocess.Popen(argv, env=environment(tmp_path, PULLPRINT_WAIT="60"), stderr=subprocess.PIPE)
    assert backend.stderr is not None
    assert backend.stderr.readline().decode().strip() == WAITING
    backend.terminate()
    _, said = backend.communicate(timeout=5)
    assert backend.returncode == RETRY_CURRENT
    assert WAITED in said.decode().splitlines()
    assert b"Traceback" not in said


def test_a_fault_of_ours_stops_the_queue_instead_of_losing_the_job(tmp_path: Path, document: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text(BACKEND.read_text().replace("def job_line(argv):", "def job_line(argv):\n    1 / 0", 1))
    broken.chmod(0o755)
    argv = [broken, "12", "ada", "Plan", "1", OPTIONS, document]
    done = subprocess.run(argv, capture_output=True, env=environment(tmp_path), check=False, timeout=10)
    assert done.returncode == 4
    assert done.stderr.startswith(b"ERROR: The pullprint backend has a fault (ZeroDivisionError)")
    assert done.stderr.count(b"\n") == 1


def test_two_runs_at_once_for_one_job_are_both_answered(tmp_path: Path, intake: Intake, document: Path) -> None:
    def slowly(received: Received) -> bytes:
        time.sleep(0.1)
        return stored(received)

    intake.answer = slowly
    argv = [BACKEND, "12", "ada", "Plan", "1", OPTIONS, document]
    runs = [
        subprocess.Popen(argv, env=environment(tmp_path), stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
        for _ in range(2)
    ]
    said = [backend.communicate(timeout=10)[1] for backend in runs]
    assert [backend.returncode for backend in runs] == [OK, OK]
    assert said[0] == said[1]


def test_nothing_is_imported_that_the_interpreter_has_to_look_for() -> None:
    tree = list(ast.walk(ast.parse(BACKEND.read_text())))
    imported = {alias.name for node in tree if isinstance(node, ast.Import) for alias in node.names}
    program = "import sys; print(*sys.builtin_module_names)"
    built_in = subprocess.run(["/usr/bin/python3", "-c", program], capture_output=True, text=True, check=True)
    assert imported <= set(built_in.stdout.split())
    assert not [node for node in tree if isinstance(node, ast.ImportFrom)]


def test_it_is_installed_so_that_cupsd_runs_it_as_lp() -> None:
    assert BACKEND.stat().st_mode & 0o777 == 0o755
    assert not BACKEND.is_symlink()
