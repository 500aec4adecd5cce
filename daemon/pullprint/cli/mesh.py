"""``pullprint mesh``: the hosts of this site, and what becomes of the copies of the jobs that are held here."""

from pullprint.cli import words
from pullprint.cli.answers import Mesh, MeshJob, MeshNode
from pullprint.cli.daemon import Daemon
from pullprint.cli.errors import Exit
from pullprint.cli.terminal import Cell, Column, Terminal

_COLUMNS = (
    Column("HOST", gives=True),
    Column("STATE"),
    Column("ROLE", at=50),
    Column("LAG", at=40, right=True),
    Column("JOBS", at=60, right=True),
    Column("ROOM", at=70, right=True),
    Column("WAITING", at=80, right=True),
    Column("ADDRESS", at=110),
    Column("VERSION", at=120),
)
_PROGRAM_COLUMNS = (*_COLUMNS, Column("WHAT TO KNOW"))
_JOB_COLUMNS = (
    Column("JOB"),
    Column("STATE"),
    Column("GENERATION", at=70, right=True),
    Column("HELD BY", gives=True),
    Column("PROMISED", at=50, right=True),
    Column("VOTED", at=60, gives=True),
)


def mesh(daemon: Daemon, terminal: Terminal, *, jobs: bool) -> Exit:
    """Tell how the site's hosts are; with *jobs*, also each job that is held here."""
    found = daemon.mesh(jobs=jobs)
    if terminal.json:
        terminal.dump(found.raw)
    else:
        show_nodes(terminal, found)
        if jobs and found.jobs:
            terminal.say("")
            show_jobs(terminal, found)
        if terminal.draws:
            terminal.say("")
        terminal.say(summary(found), "yellow" if found.short else "")
    return Exit.FOUND if found.short else Exit.DONE


def show_nodes(terminal: Terminal, found: Mesh) -> None:
    """A table of the hosts, this one first; on a screen, what is the matter with one stands once below it."""
    nodes = sorted(found.nodes, key=lambda node: (not node.here, node.name))
    rows = [_row(node) for node in nodes]
    if not terminal.draws:
        terminal.table(_PROGRAM_COLUMNS, [[*row, Cell(node.trouble)] for row, node in zip(rows, nodes, strict=True)])
        return
    terminal.table(_COLUMNS, rows)
    troubled = [(Cell(node.name, "dim"), node.trouble) for node in nodes if node.trouble]
    if troubled:
        terminal.say("")
        terminal.notes(troubled)


def _row(node: MeshNode) -> list[Cell]:
    state = Cell("this host", "bold") if node.here else Cell("awake", "green") if node.awake else Cell("away", "yellow")
    return [
        Cell(node.name, "bold"),
        state,
        Cell(node.role),
        Cell("" if node.lag is None or not node.awake else words.lag(node.lag)),
        Cell(str(node.held)),
        Cell(words.size(node.room)),
        Cell(str(node.owed) if node.owed else "", "yellow"),
        Cell(node.endpoint, "dim"),
        Cell(node.version, "dim"),
    ]


def show_jobs(terminal: Terminal, found: Mesh) -> None:
    """A table of the jobs that are held here, each with its holders and this host's votes on it."""
    names = {node.node: node.name for node in found.nodes}
    terminal.table(_JOB_COLUMNS, [_job_row(job, names) for job in found.jobs])


def _job_row(job: MeshJob, names: dict[str, str]) -> list[Cell]:
    return [
        Cell(job.id[: words.SHORT], "bold"),
        Cell(job.state),
        Cell(str(job.generation)),
        Cell(", ".join(names.get(holder, holder[: words.SHORT]) for holder in job.holders)),
        Cell(str(job.promised) if job.promised else ""),
        Cell("; ".join(job.attempts)),
    ]


def summary(found: Mesh) -> str:
    """How many jobs have their copies."""
    held = found.placed + found.short
    if not held:
        return "No job is held here."
    jobs = "1 job" if held == 1 else f"{held} jobs"
    if not found.short:
        whose = "with all its copies" if held == 1 else "all with all their copies"
        return f"{jobs} held here, {whose}."
    waits = "1 waits" if found.short == 1 else f"{found.short} wait"
    return f"{jobs} held here: {found.placed} with all copies, {waits} for more."


def nodes_awake(found: Mesh) -> str:
    """How many of the site's hosts can be reached."""
    awake = sum(node.awake or node.here for node in found.nodes)
    return f"{awake} of {len(found.nodes)} hosts of this site awake."
