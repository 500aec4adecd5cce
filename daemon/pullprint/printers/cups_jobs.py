"""Documents that the local cupsd has set aside, and does not touch until somebody says so.

That is what becomes of them when the backend was away, as it is between removal and installation; the queue looks idle
all the while. libcups keeps state per thread: use a connection in one thread only.
"""

from typing import Any
from urllib.parse import unquote

import cups

OUR_SCHEME = "pullprint:"
_STOPPED = 6
"""RFC 8011 section 5.3.7, processing-stopped; a job that somebody holds is pending-held."""
_FAILED = "job-completed-with-errors"
"""A reason for that state: a filter could not read the document, and will not the next time either. cupsd does not
always say so (2.4.2: it depends on which program ended first); then it is tried once more, and set aside again."""


class NotResumed(Exception):
    """In libcups's words, why not."""


def set_aside(connection: Any) -> dict[int, str]:
    """Jobs of our queues that wait for nothing but to be resumed, and the queue of each. Raises what pycups does."""
    queues = connection.getPrinters()
    ours = {name for name in queues if str(queues[name].get("device-uri", "")).startswith(OUR_SCHEME)}
    if not ours:
        return {}
    wanted = ["job-id", "job-state", "job-state-reasons", "job-printer-uri"]
    jobs = connection.getJobs(which_jobs="not-completed", my_jobs=False, requested_attributes=wanted)
    stopped = {job: _queue(about) for job, about in jobs.items() if _waits(about)}
    return {job: queue for job, queue in sorted(stopped.items()) if queue in ours}


def resume(server: str = "") -> dict[int, str]:
    """Have the cupsd at *server* (empty: the one that libcups finds) print what it has set aside; those jobs and their
    queues. Asks for no password. Raises NotResumed."""
    cups.setPasswordCB(lambda _: "")
    try:
        connection = cups.Connection(host=server) if server else cups.Connection()
        return {job: queue for job, queue in set_aside(connection).items() if _restart(connection, job)}
    except (RuntimeError, OSError, cups.HTTPError, cups.IPPError) as error:
        raise NotResumed(error.args[-1]) from error


def _restart(connection: Any, job: int) -> bool:
    """Whether it was still set aside. Raises what pycups does."""
    try:
        # Not Release-Job, nor a job-hold-until of no-hold (lp -H resume): they do it for held ones only.
        connection.restartJob(job)
    except cups.IPPError as error:
        if error.args[0] not in (cups.IPP_NOT_FOUND, cups.IPP_NOT_POSSIBLE):
            raise
        return False
    return True


def _waits(job: dict[str, Any]) -> bool:
    return job.get("job-state") == _STOPPED and _FAILED not in str(job.get("job-state-reasons", ""))


def _queue(job: dict[str, Any]) -> str:
    return unquote(str(job.get("job-printer-uri", "")).rpartition("/")[2])
