"""A node that goes to sleep lends its votes to the cloud (`model.votes.lend` and below; ``docs/mesh.md``).

=======================================  ======================  ===============================================
request                                  answer                  meaning
=======================================  ======================  ===============================================
``POST /node/v1/loans`` `Loans`          `LoansTaken`            the sender goes to sleep: vote in its stead
``POST /node/v1/loans/return`` `LoansTaken` `Loans`              these loans are over now; what is left of the votes
``POST /node/v1/loans/votes`` `ProxyVote` `Ballots`              a releaser asks for the vote of a node that sleeps
=======================================  ======================  ===============================================

All three may be repeated. What is left out of an answer was refused: of a loan that was not taken, and of one that may
have been, the sender asks for the return; a vote that is not returned stays lent.
"""

from dataclasses import replace
from typing import Annotated

from pydantic import Field, model_validator

from pullprint.model import votes
from pullprint.wire.mesh import Commit, Prepare, Vote, vote_from_wire
from pullprint.wire.types import Count, JobId, Message, NodeId, Text

LIMIT = 1_000
"""Loans in one message."""

Number = Annotated[int, Field(ge=1, le=1 << 53)]
"""`model.votes.Vote.loan`."""


class LoanName(Message):
    """One time that the sender lent its vote for one job."""

    job: JobId
    generation: Annotated[int, Field(ge=2, le=1 << 31)]
    number: Number


class Loan(LoanName):
    """A lent vote, on its way there or back."""

    vote: Vote | None = None
    """None, on its way back: it had never arrived, and will never be used."""


class Loans(Message):
    """Votes for the cloud, or back from it."""

    loans: Annotated[tuple[Loan, ...], Field(max_length=LIMIT)] = ()


class LoansTaken(Message):
    """The loans that the cloud took; or those that are to be over."""

    loans: Annotated[tuple[LoanName, ...], Field(max_length=LIMIT)] = ()


class ProxyVote(Message):
    """What the sender, who is to print a job, would ask *voter* if that were awake."""

    voter: NodeId
    prepare: Prepare | None = None
    commit: Commit | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> "ProxyVote":
        if (self.prepare is None) == (self.commit is None):
            raise ValueError("it is either a PREPARE or a COMMIT")
        return self

    @property
    def asked(self) -> Prepare | Commit:
        """The one of both that it is."""
        asked = self.prepare or self.commit
        assert asked is not None
        return asked


class SleepView(Message):
    """The answer of the local API to ``POST /v1/sleep`` and ``POST /v1/wake``."""

    lent: Count
    """Votes of this host that the cloud has now."""
    own: Count
    """Votes on jobs that other hosts hold too, which it has itself."""
    sentence: Text


def lent_vote(vote: Vote, number: int) -> votes.Vote:
    """The record out of a message about its loan *number*."""
    return replace(vote_from_wire(vote), loan=number)
