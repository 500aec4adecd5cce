"""``pullprint release``: chooses what was left open, asks for the release, and follows it to its end."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from pullprint.cli import words
from pullprint.cli.answers import Job, Printer, Step
from pullprint.cli.daemon import Daemon
from pullprint.cli.errors import Exit, MaybePrinted, NoPrinter, NothingToRelease, Refused, Usage
from pullprint.cli.jobs import is_candidate, named
from pullprint.cli.terminal import Progress, Terminal
from pullprint.model.states import ENDED, State
from pullprint.wire.local import WAIT_LIMIT

PATIENCE = 75.0
"""Seconds in which an order must have shown itself in the trace: it is void after 60 (`wire.order.LIFETIME`)."""
PAUSE = 0.25
"""Seconds between two questions to a daemon that does not park them."""

_RESTING = frozenset({State.HELD, State.UNCERTAIN})
_OVER = frozenset({"refused", "nothing-sent", "uncertain", "lost-track", "vote-lost", "interrupted"})
"""Steps with which an attempt ends and leaves the job to its owner again."""


@dataclass(frozen=True)
class Wish:
    """What was asked for on the command line."""

    ids: tuple[str, ...] = ()
    everything: bool = False
    printer: str = ""
    changes: dict[str, str] = field(default_factory=dict)
    again: bool = False
    wait: bool = True


def release(daemon: Daemon, terminal: Terminal, wish: Wish) -> Exit:
    """Release jobs one after the other; the exit code is that of the one that fared worst."""
    jobs = _chosen_jobs(daemon, terminal, wish)
    printer = _chosen_printer(daemon, terminal, wish, jobs) if jobs else ""
    code = Exit.DONE
    if not jobs:
        terminal.say("No job of yours is held here, so nothing was released.")
    agreed = []
    for job in jobs:
        if wish.again or job.state != State.UNCERTAIN or _print_again(terminal, job):
            agreed.append(job)
        else:
            error = MaybePrinted(title=named(job), job=job.id[: words.SHORT])
            terminal.fail(error)
            code = max(code, error.exit)
    attempts: list[_Attempt] = []
    with terminal.progress() as progress:
        for job in agreed:
            progress(f"{job.title}: waiting for {printer}")
            try:
                attempts.append(_start(daemon, wish, job, printer))
            except Refused as error:
                terminal.fail(error)
                code = max(code, error.exit)
        for n, attempt in enumerate(attempts if wish.wait else (), 1):
            counted = f"{n} of {len(attempts)}  " if len(attempts) > 1 else ""
            _follow(daemon, attempt, counted, progress)
    ends = [attempt.job for attempt in attempts]
    for job in ends:
        code = max(code, _tell_end(terminal, job, printer, waited=wish.wait))
    if terminal.json:
        terminal.dump([job.raw for job in ends])
    return code


def _chosen_jobs(daemon: Daemon, terminal: Terminal, wish: Wish) -> list[Job]:
    if wish.ids:
        return [daemon.job(job) for job in dict.fromkeys(wish.ids)]
    held = [job for job in daemon.jobs() if is_candidate(job)]
    # One that nobody owns cannot be released; alone, it is chosen all the same: the refusal tells how to claim it.
    held = [job for job in held if job.owner] or held
    if wish.everything or len(held) == 1:
        return held
    if not held:
        raise NothingToRelease
    if not terminal.asks or terminal.json:
        raise Usage(
            reason=f"{len(held)} jobs are held; name those to release, or say --all. `pullprint jobs` lists them."
        )
    return [held[terminal.choose("Which job?", [f"{job.id[: words.SHORT]}  {job.title}" for job in held])]]


def _chosen_printer(daemon: Daemon, terminal: Terminal, wish: Wish, jobs: Sequence[Job]) -> str:
    if wish.printer:
        return wish.printer
    printers = daemon.printers()
    if not printers:
        raise NoPrinter
    # The one that a direct queue could not reach is what its job is for.
    direct = {job.direct_printer for job in jobs}
    if len(direct) == 1 and direct <= {printer.name for printer in printers}:
        return direct.pop()
    if len(printers) == 1:
        return printers[0].name
    if not terminal.asks or terminal.json:
        raise Usage(
            reason=f"There are {len(printers)} printers; choose with --printer. `pullprint printers` lists them."
        )
    return printers[terminal.choose("Which printer?", [_placed(printer) for printer in printers])].name


def _placed(printer: Printer) -> str:
    return f"{printer.name}  ({printer.place})" if printer.place else printer.name


@dataclass
class _Attempt:
    """One release under way."""

    job: Job
    printer: str
    seen: int
    """Steps of the trace that are known."""
    over: bool = False


def _print_again(terminal: Terminal, job: Job) -> bool:
    """Ask the owner, where there is one to ask, about a job that may be on paper already."""
    if terminal.json or not terminal.asks:
        return False
    return terminal.confirm(f"{named(job)} may have come out already. {job.sentence} Print it again?")


def _start(daemon: Daemon, wish: Wish, job: Job, printer: str) -> _Attempt:
    seen = len(daemon.trace(job.id))
    # Whoever agreed to an uncertain job, on the command line or when asked, has agreed to print it again.
    again = wish.again or job.state == State.UNCERTAIN
    return _Attempt(daemon.release(job.id, printer, wish.changes, again=again), printer, seen)


def _follow(daemon: Daemon, attempt: _Attempt, counted: str, progress: Progress) -> None:
    """Wait until the attempt has ended, one way or the other."""
    last_news = time.monotonic()
    phase = f"waiting for {attempt.printer}"
    while not _has_ended(attempt) and not (attempt.job.state in _RESTING and time.monotonic() - last_news > PATIENCE):
        progress(f"{counted}{attempt.job.title}: {phase}")
        asked = time.monotonic()
        steps = daemon.trace(attempt.job.id, attempt.seen, int(WAIT_LIMIT))
        attempt.job = daemon.job(attempt.job.id)
        phase = _phase(attempt, steps, phase)
        attempt.seen += len(steps)
        attempt.over = attempt.over or any(step.event in _OVER for step in steps)
        if steps:
            last_news = time.monotonic()
        elif time.monotonic() - asked < PAUSE:
            time.sleep(PAUSE)
    progress(f"{counted}{attempt.job.title}: {words.state_word(attempt.job)[0]}")


def _has_ended(attempt: _Attempt) -> bool:
    return attempt.job.state in ENDED or (attempt.over and attempt.job.state in _RESTING)


def _phase(attempt: _Attempt, steps: Sequence[Step], phase: str) -> str:
    if attempt.job.state != State.SENDING:
        return phase
    printing = phase.startswith("printing") or any(step.event == "printing" for step in steps)
    return f"printing at {attempt.printer}" if printing else f"sending to {attempt.printer}"


def _tell_end(terminal: Terminal, job: Job, printer: str, *, waited: bool) -> Exit:
    """The last sentence about *job*, on the stream and with the exit code that belong to it."""
    if job.state == State.DONE:
        terminal.say(f"{named(job)} is printed at {printer}.", "green")
        return Exit.DONE
    if not waited:
        terminal.say(
            f"{named(job)} is released for {printer}. Follow it: pullprint trace {job.id[: words.SHORT]} --follow"
        )
        return Exit.DONE
    end = _End(job)
    if not terminal.json:
        terminal.fail(end)
    return end.exit


class _End(Refused):
    """An attempt that did not end on paper for certain, told in the daemon's sentence and what to do next."""

    def __init__(self, job: Job) -> None:
        short = job.id[: words.SHORT]
        if job.state == State.UNCERTAIN:
            self.exit = Exit.UNCERTAIN
            opening = "may have been printed."
            advice = f"If it came out: pullprint settle {short}. If not: pullprint release {short} --again."
        elif job.state in ENDED:
            opening, advice = f"was {words.state_word(job)[0]}, not printed.", ""
        else:
            opening, advice = "was not printed; it is still held.", f"What happened: pullprint trace {short}."
        super().__init__(job.state, " ".join(part for part in (named(job), opening, job.sentence, advice) if part))
