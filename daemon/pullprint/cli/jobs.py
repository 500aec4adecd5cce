"""``pullprint jobs``, ``cancel``, ``settle`` and ``trace``."""

import time
from collections.abc import Callable, Sequence

from pullprint.cli import words
from pullprint.cli.answers import Job, Step
from pullprint.cli.daemon import Daemon
from pullprint.cli.errors import Exit, Refused
from pullprint.cli.terminal import Cell, Column, Terminal
from pullprint.model.states import ENDED, State
from pullprint.wire.local import WAIT_LIMIT

_COLUMNS = (
    Column("JOB"),
    Column("TITLE", gives=True),
    Column("PAGES", at=50, right=True),
    Column("OPTIONS", at=90),
    Column("STATE"),
    Column("AGE", at=60, right=True),
    Column("HELD BY", at=100),
)
_PROGRAM_COLUMNS = (*_COLUMNS, Column("WHAT TO KNOW"))


def show(daemon: Daemon, terminal: Terminal, *, everyone: bool, ended: bool) -> Exit:
    """List jobs; those that ended lately only when *ended* asks for them."""
    jobs = [job for job in daemon.jobs(everyone=everyone) if ended or job.state not in ENDED]
    if terminal.json:
        terminal.dump([job.raw for job in jobs])
    elif not jobs:
        terminal.say("No job of yours is held here. To print one: lp -d pullprint report.pdf")
    else:
        table(terminal, jobs, time.time())
    return Exit.DONE


def table(terminal: Terminal, jobs: Sequence[Job], now: float) -> None:
    """*jobs* as a table; on a screen, what is to be said of them stands once below it."""
    rows = [_row(job, now) for job in jobs]
    if not terminal.draws:
        terminal.table(_PROGRAM_COLUMNS, [[*row, Cell(_sentence(job))] for row, job in zip(rows, jobs, strict=True)])
        return
    terminal.table(_COLUMNS, rows)
    subjects: dict[str, list[str]] = {}
    for job in jobs:
        if _sentence(job):
            subjects.setdefault(_sentence(job), []).append(job.id[: words.SHORT])
    if subjects:
        terminal.say("")
        terminal.notes([(Cell(_few(ids), "dim"), sentence) for sentence, ids in subjects.items()])


def _row(job: Job, now: float) -> list[Cell]:
    word, style = words.state_word(job)
    return [
        Cell(job.id[: words.SHORT], "bold"),
        Cell(job.title),
        Cell(words.pages(job)),
        Cell(words.options(job)),
        Cell(word, style),
        Cell(words.age(now - job.created), "dim"),
        Cell(words.copies(job), "yellow" if job.awake < job.copies else "dim"),
    ]


def _few(ids: Sequence[str]) -> str:
    return ids[0] if len(ids) == 1 else f"{len(ids)} jobs"


def _sentence(job: Job) -> str:
    if job.claim_code and not job.owner:
        return f"{job.sentence} Claim code: {job.claim_code}"
    return job.sentence


def named(job: Job) -> str:
    """A job in a sentence."""
    return f"“{job.title}” ({job.id[: words.SHORT]})"


def cancel(daemon: Daemon, terminal: Terminal, ids: Sequence[str]) -> Exit:
    """Delete jobs; one that cannot be deleted does not keep the others."""
    return _each(terminal, ids, daemon.cancel, "Deleted {job}. It cannot be printed any more.")


def settle(daemon: Daemon, terminal: Terminal, job: str) -> Exit:
    """The owner says that an uncertain job came out."""
    return _each(terminal, [job], daemon.settle, "Noted that {job} came out. It is not printed again.")


def _each(terminal: Terminal, ids: Sequence[str], change: Callable[[str], Job], sentence: str) -> Exit:
    changed, code = [], Exit.DONE
    for job_id in ids:
        try:
            job = change(job_id)
        except Refused as error:
            terminal.fail(error)
            code = error.exit
        else:
            changed.append(job)
            terminal.say(sentence.format(job=named(job)))
    if terminal.json:
        terminal.dump([job.raw for job in changed])
    return code


def trace(daemon: Daemon, terminal: Terminal, job_id: str, *, follow: bool) -> Exit:
    """Show a job's steps; with *follow*, also those that are still to come, until the job has ended."""
    job = daemon.job(job_id)
    steps = daemon.trace(job.id)
    if not follow:
        _show_steps(terminal, steps)
        if terminal.json:
            terminal.dump([step.raw for step in steps])
        return Exit.DONE
    seen = 0
    while True:
        seen += len(steps)
        _show_steps(terminal, steps)
        for step in steps if terminal.json else ():
            terminal.dump(step.raw)
        if job.state in ENDED:
            return Exit.DONE
        steps = daemon.trace(job.id, seen, int(WAIT_LIMIT))
        job = daemon.job(job.id)
        if job.state in ENDED:
            # What was written between the two answers.
            steps += daemon.trace(job.id, seen + len(steps))


def _show_steps(terminal: Terminal, steps: Sequence[Step]) -> None:
    if not terminal.json:
        terminal.notes([(Cell(f"{_time(step.at)}  {step.host}", "dim"), step.text) for step in steps])


def _time(at: float) -> str:
    """Local time to the millisecond; a time that no calendar has is shown as its number."""
    try:
        return time.strftime("%d %b %H:%M:%S", time.localtime(at)) + f".{int(at % 1 * 1_000):03d}"
    except (OverflowError, OSError, ValueError):
        return f"{at:g}"


def is_candidate(job: Job) -> bool:
    """Whether ``pullprint release`` may choose this job by itself; an uncertain one has to be named."""
    return job.state == State.HELD
