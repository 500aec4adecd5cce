"""What became of a job: the printer is asked until it says, and its words are weighed.

A printer's «aborted, 0 impressions» alone is not taken as proof that no sheet was printed: many count nothing
and always say 0. It counts together with a reason that comes before any drawing, or with a job that never
started.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pyipp.enums import IppOperation

from pullprint.base.clock import Clock
from pullprint.printers.ipp import USER, Answer, IppClient, NoAnswer, number, text, words

# RFC 8011 5.3.7.
PENDING, HELD, CANCELED, ABORTED, COMPLETED = 3, 4, 7, 8, 9
_STATES = {
    3: "pending",
    4: "pending-held",
    5: "processing",
    6: "processing-stopped",
    7: "canceled",
    8: "aborted",
    9: "completed",
}
_WANTED = (
    "job-id",
    "job-name",
    "job-state",
    "job-state-reasons",
    "job-state-message",
    "job-impressions-completed",
    "job-media-sheets-completed",
    "time-at-processing",
)
_FIRST_PAUSE, _LAST_PAUSE = 0.1, 2.0
_JOBS_LIMIT = 200
# Reasons for which a document is put aside before anything of it is drawn (RFC 8011 5.3.8, PWG 5100.13).
_BEFORE_DRAWING = frozenset(
    {"unsupported-document-format", "unsupported-compression", "unsupported-attributes-or-values",
     "document-password-error", "document-permission-error", "document-security-error", "document-access-error",
     "account-authorization-failed", "account-closed", "account-info-needed", "account-limit-reached"}
)  # fmt: skip
FORMAT_REASONS = frozenset(
    {
        "unsupported-document-format",
        "unsupported-compression",
        "document-format-error",
        "document-unprintable-error",
    }
)


@dataclass(frozen=True, slots=True)
class Testimony:
    """What the printer says of one job."""

    job_id: int | None
    state: int | None
    """job-state; None when the printer answers, but knows no such job (any more)."""
    reasons: tuple[str, ...] = ()
    message: str = ""
    impressions: int | None = None
    sheets: int | None = None
    never_started: bool = False
    """time-at-processing is there, and is «no-value»."""

    @property
    def ended(self) -> bool:
        return self.state in {CANCELED, ABORTED, COMPLETED}

    @property
    def pages(self) -> int | None:
        """Impressions, or sheets where only those are counted."""
        return self.impressions if self.impressions is not None else self.sheets

    @property
    def nothing_printed(self) -> bool:
        """Whether the printer's own attributes prove that not one page was printed."""
        counts = [count for count in (self.impressions, self.sheets) if count is not None]
        if self.state != ABORTED or not counts or any(counts):
            # Who cancels a job at the printer does not want it again by itself, whatever was drawn of it.
            return False
        return self.never_started or bool(_BEFORE_DRAWING & set(self.reasons))

    @property
    def waits_for_data(self) -> bool:
        """Whether the printer made the job, refused its document, and waits for another (RFC 8011, 5.3.8)."""
        counts = (self.impressions or 0) + (self.sheets or 0)
        return self.state in {PENDING, HELD} and "job-data-insufficient" in self.reasons and not counts

    @property
    def never_begun(self) -> bool:
        """Whether it was cancelled before the printer did anything with it."""
        return self.state == CANCELED and self.never_started and not (self.impressions or self.sheets)

    def words(self) -> dict[str, str]:
        """For the job's trace; every value is clean text."""
        said = {
            "job-id": str(self.job_id or ""),
            "job-state": _STATES.get(self.state, str(self.state)) if self.state is not None else "",
            "job-state-reasons": " ".join(self.reasons),
            "job-state-message": self.message,
            "job-impressions-completed": "" if self.impressions is None else str(self.impressions),
            "job-media-sheets-completed": "" if self.sheets is None else str(self.sheets),
        }
        return {name: value for name, value in said.items() if value}


async def withdraw(client: IppClient, tag: str, job_id: int | None) -> bool:
    """Cancel the job at the printer if it is one that waits for a document, which will not come; whether it was."""
    try:
        look = await testimony_of(client, tag, job_id)
        if not look.waits_for_data or look.job_id is None:
            return False
        cancel = {"job-id": look.job_id, "requesting-user-name": USER}
        return (await client.ask(IppOperation.CANCEL_JOB, cancel)).ok
    except NoAnswer:
        return False


async def testimony_of(client: IppClient, tag: str, job_id: int | None) -> Testimony:
    """One look at the job that was sent as *tag*; raises NoAnswer. *job_id* is where to look first."""
    if job_id is not None:
        answer = await client.ask(
            IppOperation.GET_JOB_ATTRIBUTES,
            {"job-id": job_id, "requesting-user-name": USER, "requested-attributes": list(_WANTED)},
        )
        if found := _find(answer, tag, job_id):
            return _testimony(found, job_id)
    for which in ("not-completed", "completed"):
        answer = await client.ask(
            IppOperation.GET_JOBS,
            {"requesting-user-name": USER, "which-jobs": which, "requested-attributes": list(_WANTED)},
        )
        if found := _find(answer, tag, None):
            return _testimony(found, number(found, "job-id"))
    return Testimony(job_id=job_id, state=None)


async def follow(
    client: IppClient,
    tag: str,
    job_id: int | None,
    *,
    clock: Clock,
    finish: float,
    silence: float,
    seen: Callable[[Testimony], None],
) -> Testimony | None:
    """Look again and again until the job has ended or is unknown; *seen* is told of every look.

    Gives up after *finish* seconds without any change in what the printer says (the last testimony is
    returned), or after *silence* seconds without an answer (the last one, or None).
    """
    last: Testimony | None = None
    changed = answered = clock.monotonic()
    pause = _FIRST_PAUSE
    while True:
        try:
            look = await testimony_of(client, tag, job_id)
        except NoAnswer:
            if clock.monotonic() - answered >= silence:
                return last
        else:
            answered = clock.monotonic()
            if look.state is None or look.ended:
                return look
            if look != last:
                changed = answered
                seen(look)
            last, job_id = look, look.job_id
            if answered - changed >= finish:
                return last
        await clock.sleep(pause)
        pause = min(pause * 2, _LAST_PAUSE)


def _find(answer: Answer, tag: str, job_id: int | None) -> Mapping[str, Any] | None:
    if not answer.ok:
        return None
    for job in answer.jobs[:_JOBS_LIMIT]:
        name = job.get("job-name")
        # Where there is no Create-Job, the backend calls the job «<argv[1]> - <tag>».
        ours = isinstance(name, str) and (name == tag or name.endswith(f" - {tag}"))
        # Some printers do not tell a job's name even to its owner; its number, from this run, then has to do.
        if ours or (job_id is not None and not name and number(job, "job-id") in {None, job_id}):
            return job
    return None


def _testimony(job: Mapping[str, Any], job_id: int | None) -> Testimony:
    return Testimony(
        job_id=job_id,
        state=number(job, "job-state"),
        reasons=words(job, "job-state-reasons", 32),
        message=text(job, "job-state-message"),
        impressions=number(job, "job-impressions-completed"),
        sheets=number(job, "job-media-sheets-completed"),
        never_started="time-at-processing" in job and number(job, "time-at-processing") is None,
    )
