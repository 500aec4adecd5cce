"""What a node knows of a job that it holds; one row of its index."""

from dataclasses import dataclass, field

from pullprint.model.facts import Facts
from pullprint.model.states import State
from pullprint.model.ticket import Ticket
from pullprint.model.votes import Vote


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a job's way, for its trace."""

    event: str
    """A stable word."""
    text: str
    """A sentence that the owner reads."""
    detail: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TracedStep:
    """A step with its place and time."""

    seq: int
    at: float
    step: Step


@dataclass(frozen=True, slots=True)
class Record:
    """A held job. What stands in its sealed file's header is repeated here only to be found quickly."""

    id: str
    job_uuid: str
    cups_job_id: int
    queue: str
    owner: str
    """Empty while nobody owns the job."""
    submitter: str
    host: str
    title: str
    content_type: str
    size: int
    ticket: Ticket
    facts: Facts | None
    state: State
    sentence: str
    """What its owner reads beside the state."""
    created: int
    expires: int
    direct_printer: str
    claim_code: str
    generation: int
    own_key: str
    """Which of this node's day keys its part is sealed to."""
    cloud_key: str
    cloud_slot: bytes
    vote: Vote
    printer: str
    """The printer (its id) of the latest attempt, or empty."""
    changed: float
    """Seconds since the epoch."""
    holders: tuple[str, ...] = ()
    """The nodes that hold it and vote on it; empty in the first generation, in which that is its origin alone."""
    replica: bool = False
    """It came from another node of the site, which tells the cloud of it."""
    last_order: str = ""
    last_ballot: int = 0
    last_token: str = ""
    """Order (its id), ballot and order (JWS) of this node's own latest attempt."""

    def voters(self, own: str) -> tuple[str, ...]:
        """Who votes on it; *own* is this node."""
        return self.holders or (own,)

    @property
    def doubtful(self) -> tuple[int, ...]:
        """Ballots that may have printed: what a forced order has to name."""
        if self.state is not State.UNCERTAIN:
            return ()
        return tuple(attempt.ballot for attempt in self.vote.attempts if not attempt.nothing_sent)
