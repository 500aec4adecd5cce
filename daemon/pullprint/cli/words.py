"""States, ages, sizes and options in the words that people read."""

from pullprint.cli.answers import Job
from pullprint.model.states import State

SHORT = 8
"""Digits of a job id that tables show; pullprintd takes any beginning that is unique."""

_STATES = {
    State.RECEIVING: ("arriving", "dim"),
    State.HELD: ("held", "cyan"),
    State.PREPARED: ("printing", "blue"),
    State.COMMITTED: ("printing", "blue"),
    State.SENDING: ("printing", "blue"),
    State.UNCERTAIN: ("uncertain", "bold yellow"),
    State.DONE: ("printed", "green"),
    State.CANCELLED: ("deleted", "dim"),
    State.EXPIRED: ("expired", "dim"),
}


def state_word(job: Job) -> tuple[str, str]:
    """A job's state and the style to write it in; a state of a newer daemon is shown as it is."""
    if job.state == State.HELD and not job.owner:
        return "unclaimed", "magenta"
    for state, word in _STATES.items():
        if state == job.state:
            return word
    return job.state, ""


def age(seconds: float) -> str:
    """A length of time, in its largest unit."""
    for unit, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{int(seconds // unit)} {name}"
    return "now"


def size(count: int) -> str:
    """Bytes in the unit that needs at most four digits."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1_000:
            return f"{amount:.0f} {unit}"
        amount /= 1_024
    return f"{amount:.0f} TiB"


def copies(job: Job) -> str:
    """How many hosts hold it, and how many of them are awake; empty where that is not known."""
    if not job.copies:
        return ""
    return f"{job.copies} {'copy' if job.copies == 1 else 'copies'}, {job.awake} awake"


def lag(seconds: float) -> str:
    """How long an answer took, in milliseconds."""
    return "< 1 ms" if seconds < 0.001 else f"{seconds * 1_000:.0f} ms"


def pages(job: Job) -> str:
    """The number of pages, or that it is not known."""
    return "?" if job.facts is None or job.facts.pages is None else str(job.facts.pages)


def options(job: Job) -> str:
    """Copies, sides and colour, where they were chosen."""
    chosen = [f"{job.ticket.copies} copies"] if job.ticket.copies > 1 else []
    sides = job.ticket.get("sides")
    if sides.startswith("two-sided"):
        chosen.append("two-sided")
    elif sides == "one-sided":
        chosen.append("one-sided")
    color = job.ticket.get("print-color-mode")
    if color in {"color", "monochrome"}:
        chosen.append("mono" if color == "monochrome" else "color")
    return ", ".join(chosen)
