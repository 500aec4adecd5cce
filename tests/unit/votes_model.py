"""Every history that a few voters and a few attempts can have, walked through with the real functions of `votes`.

A message, once sent, stays under way for ever: it may arrive never, late, or any number of times. A voter's record is
durable, so a crash of a voter is a message that did not arrive or an answer that was not heard. A releaser that crashes
forgets what it heard and starts the same order again, until it has decided; then its own record makes it print or prove
that it did not. A loss replaces a voter's record by ``Vote(lost=True)``. Voters are alike, so states are sorted.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from types import ModuleType, SimpleNamespace
from typing import TypeVar

from pullprint.model import votes as real
from pullprint.model.votes import Vote

Value = TypeVar("Value")

IDLE, PREPARING, COMMITTING, DECIDED, PRINTED, PROVED = range(6)
_COMMIT_SENT = 8
Rules = ModuleType | SimpleNamespace


@dataclass(frozen=True, slots=True)
class Voter:
    """One voter, and what each attempt has heard from it."""

    vote: Vote
    stale: int
    """Bits of the attempts whose orders were out when its record was lost."""
    promises: tuple[Vote | None, ...]
    acks: int
    """Bits of the attempts that heard its COMMIT answered."""


State = tuple[tuple[int, ...], tuple[int, ...], int]
"""Voters (numbers of `Voter` values, sorted), attempts (status, and whether COMMIT was ever sent), losses to come."""


class Model:
    """*voters* voters, and one attempt (ballots 1, 2, …) for each of *forces*: the ballots that its order names.

    With *losses*, orders are made in the order of their ballots, and a voter that lost its record gets no PREPARE of an
    order from before the loss; `votes.promise` asks for both. *guarded* False takes the latter away.
    """

    def __init__(
        self,
        voters: int,
        forces: tuple[tuple[int, ...], ...],
        *,
        losses: int = 0,
        rules: Rules = real,
        guarded: bool = True,
    ) -> None:
        self._voters, self._forces, self._losses, self._rules, self._guarded = voters, forces, losses, rules, guarded
        self._values: list[Voter] = []
        self._numbers: dict[Voter, int] = {}
        self._delivered: dict[tuple[int, int, int], tuple[int, ...]] = {}
        self._judged: dict[tuple[int, tuple[Vote | None, ...]], bool] = {}

    def walk(self, limit: int = 1_000_000) -> tuple[State | None, int]:
        """A reachable state in which an attempt printed that should not have, and how many attempts printed at most
        in one state that was reached: a model that prints nothing proves nothing."""
        nobody = Voter(Vote(), 0, (None,) * len(self._forces), 0)
        start = (self._number(nobody),) * self._voters, (IDLE,) * len(self._forces), self._losses
        seen, open_states, most = {start}, [start], 0
        while open_states:
            state = open_states.pop()
            printed = {number + 1 for number, attempt in enumerate(state[1]) if attempt & 7 == PRINTED}
            if self._wrong(printed):
                return state, len(printed)
            most = max(most, len(printed))
            for following in self._steps(state):
                if following not in seen:
                    seen.add(following)
                    open_states.append(following)
            assert len(seen) < limit, "the model is too large to be walked through"
        return None, most

    def _wrong(self, printed: set[int]) -> bool:
        for ballot in printed:
            forces = self._forces[ballot - 1]
            unnamed = {earlier for earlier in printed if earlier < ballot} - set(forces)
            # After a loss nobody can name what is not known any more; an unforced print must still be the first.
            if unnamed and (not forces or not self._losses):
                return True
        return False

    def _number(self, voter: Voter) -> int:
        number = self._numbers.get(voter)
        if number is None:
            number = self._numbers[voter] = len(self._values)
            self._values.append(voter)
        return number

    def _steps(self, state: State) -> Iterator[State]:
        voters, attempts, losses = state
        for number, attempt in enumerate(attempts):
            if attempt == IDLE:
                if not self._losses or number == 0 or attempts[number - 1] != IDLE:
                    yield voters, _replaced(attempts, number, PREPARING), losses
                continue
            yield from self._releaser(state, number, attempt)
            for index, voter in enumerate(voters):
                for answered in self._deliver(voter, number, attempt):
                    yield _sorted(voters, index, answered), attempts, losses
        if losses:
            started = sum(1 << number for number, attempt in enumerate(attempts) if attempt != IDLE)
            for index, voter in enumerate(voters):
                old = self._values[voter]
                if old.vote.promised:
                    gone = self._number(Voter(Vote(lost=True), started, old.promises, old.acks))
                    yield _sorted(voters, index, gone), attempts, losses - 1

    def _releaser(self, state: State, number: int, attempt: int) -> Iterator[State]:
        voters, attempts, losses = state
        status, sent = attempt & 7, attempt & _COMMIT_SENT
        if status == PREPARING and self._may_commit(voters, number):
            yield voters, _replaced(attempts, number, COMMITTING | _COMMIT_SENT), losses
        acks = sum(self._values[voter].acks >> number & 1 for voter in voters)
        if status == COMMITTING and acks >= self._rules.quorum(len(voters)):
            yield voters, _replaced(attempts, number, DECIDED | sent), losses
        if status == DECIDED:
            yield voters, _replaced(attempts, number, PRINTED | sent), losses
        if status in (PREPARING, COMMITTING, DECIDED):
            yield voters, _replaced(attempts, number, PROVED | sent), losses
        if status in (PREPARING, COMMITTING):
            forgotten = tuple(sorted(self._forgotten(voter, number) for voter in voters))
            yield forgotten, _replaced(attempts, number, PREPARING | sent), losses

    def _may_commit(self, voters: tuple[int, ...], number: int) -> bool:
        heard = tuple(self._values[voter].promises[number] for voter in voters)
        if (number, heard) not in self._judged:
            promises = {str(index): vote for index, vote in enumerate(heard) if vote is not None}
            names = [str(index) for index in range(len(voters))]
            verdict = self._rules.judge(promises, names, number + 1, self._forces[number])
            self._judged[number, heard] = verdict is real.Verdict.GO
        return self._judged[number, heard]

    def _deliver(self, voter: int, number: int, attempt: int) -> tuple[int, ...]:
        """*voter* after any one message of *attempt*, its answer heard or not."""
        key = voter, number, attempt
        if key not in self._delivered:
            answers = {self._number(answer) for answer in self._answers(self._values[voter], number, attempt)}
            self._delivered[key] = tuple(answers - {voter})
        return self._delivered[key]

    def _answers(self, voter: Voter, number: int, attempt: int) -> Iterator[Voter]:
        vote, ballot, bit, status = voter.vote, number + 1, 1 << number, attempt & 7
        if not (self._guarded and voter.stale & bit):
            promised = self._rules.promise(vote, ballot, forced=bool(self._forces[number]))
            if isinstance(promised, Vote):
                yield replace(voter, vote=promised)
                if status == PREPARING:
                    yield replace(voter, vote=promised, promises=_replaced(voter.promises, number, promised))
        if attempt & _COMMIT_SENT:
            committed = self._rules.commit(vote, ballot, f"order {ballot}")
            if isinstance(committed, Vote):
                yield replace(voter, vote=committed)
                if status == COMMITTING:
                    yield replace(voter, vote=committed, acks=voter.acks | bit)
        if status == PROVED:
            yield replace(voter, vote=self._rules.prove_nothing_sent(vote, ballot))

    def _forgotten(self, voter: int, number: int) -> int:
        old = self._values[voter]
        promises = _replaced(old.promises, number, None)
        return self._number(replace(old, promises=promises, acks=old.acks & ~(1 << number)))


def _replaced(values: tuple[Value, ...], index: int, value: Value) -> tuple[Value, ...]:
    return (*values[:index], value, *values[index + 1 :])


def _sorted(voters: tuple[int, ...], index: int, changed: int) -> tuple[int, ...]:
    return tuple(sorted((*voters[:index], changed, *voters[index + 1 :])))


def mutant(**functions: Callable[..., object]) -> SimpleNamespace:
    """The rules with some *functions* replaced; `judge` and `doubtful` see a replaced `quorum` and `doubtful`."""
    rules = SimpleNamespace(quorum=real.quorum, doubtful=real.doubtful, promise=real.promise, commit=real.commit,
                            prove_nothing_sent=real.prove_nothing_sent)  # fmt: skip
    vars(rules).update(functions)

    def judge(
        promises: Mapping[str, Vote], voters: Collection[str], ballot: int, forces: Collection[int] = ()
    ) -> real.Verdict:
        if len(promises) < rules.quorum(len(voters)):
            return real.Verdict.NO_QUORUM
        if rules.doubtful(promises, voters, ballot) - set(forces):
            return real.Verdict.IN_DOUBT
        return real.Verdict.GO

    if "judge" not in functions:
        rules.judge = judge
    return rules
