"""The states of a job, and the one table of how they follow each other."""

from enum import StrEnum

from pullprint.base.errors import PullprintError


class State(StrEnum):
    """Where a job is on its way. Stored and sent by these words."""

    RECEIVING = "receiving"
    HELD = "held"
    PREPARED = "prepared"
    """The voters promised; nothing is decided."""
    COMMITTED = "committed"
    """The voters decided for one attempt; no byte has left."""
    SENDING = "sending"
    """The first byte may have left; from here on nothing is repeated by itself."""
    UNCERTAIN = "uncertain"
    """It may have been printed; the printer's word or the owner's decides."""
    DONE = "done"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class Event(StrEnum):
    """What happens to a job."""

    STORED = "stored"
    PREPARE = "prepare"
    ABANDON = "abandon"
    COMMIT = "commit"
    SEND = "send"
    NOTHING_SENT = "nothing-sent"
    DELIVERED = "delivered"
    LOST_TRACK = "lost-track"
    CAME_OUT = "came-out"
    PRINTED_ELSEWHERE = "printed-elsewhere"
    """Another holder printed it, or the owner says that what another holder printed came out."""
    CANCEL = "cancel"
    EXPIRE = "expire"


ENDED = frozenset({State.DONE, State.CANCELLED, State.EXPIRED})
"""Nothing follows these; the sealed job and its keys are destroyed."""

UNDER_WAY = frozenset({State.PREPARED, State.COMMITTED, State.SENDING})
"""A releaser is at work; nobody else may end or release the job."""

TABLE: dict[State, dict[Event, State]] = {
    State.RECEIVING: {Event.STORED: State.HELD},
    State.HELD: {
        Event.PREPARE: State.PREPARED,
        Event.CANCEL: State.CANCELLED,
        Event.EXPIRE: State.EXPIRED,
        Event.LOST_TRACK: State.UNCERTAIN,  # what became of an earlier attempt, here or elsewhere, nobody can tell
        Event.PRINTED_ELSEWHERE: State.DONE,
    },
    State.PREPARED: {Event.COMMIT: State.COMMITTED, Event.ABANDON: State.HELD},
    State.COMMITTED: {Event.SEND: State.SENDING, Event.NOTHING_SENT: State.HELD},
    State.SENDING: {
        Event.DELIVERED: State.DONE,
        Event.LOST_TRACK: State.UNCERTAIN,
        Event.NOTHING_SENT: State.HELD,
    },
    State.UNCERTAIN: {
        Event.CAME_OUT: State.DONE,
        Event.PRINTED_ELSEWHERE: State.DONE,
        Event.NOTHING_SENT: State.HELD,
        Event.PREPARE: State.PREPARED,  # only under an order that names the doubtful attempt: see votes.py
        Event.CANCEL: State.CANCELLED,
        Event.EXPIRE: State.EXPIRED,
    },
    State.DONE: {},
    State.CANCELLED: {},
    State.EXPIRED: {},
}


class WrongState(PullprintError):
    """This job is {state}, so it cannot be changed that way now. Nothing was changed; look at its trace."""

    code = "wrong-state"
    http_status = 409


def follow(state: State, event: Event) -> State:
    """The state after *event*; raises WrongState where the table has none."""
    try:
        return TABLE[state][event]
    except KeyError:
        raise WrongState(state=state.value, event=event.value) from None
