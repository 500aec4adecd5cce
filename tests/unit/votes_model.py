"""Every history that a few voters and a few attempts can have, walked through with the real functions of `votes`.

A message, once sent, stays under way for ever: it may arrive never, late, or any number of times. A voter's record is
durable, so a crash of a voter is a message that did not arrive or an answer that was not heard. A releaser that crashes
forgets what it heard and starts the same order again, until it has decided; then its own record makes it print or prove
that it did not. A loss replaces a voter's record by ``Vote(lost=True)``. Voters are alike, so states are sorted.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace

from pullprint.model import votes as real
from pullprint.model.votes import Vote

IDLE, PREPARING, COMMITTING, DECIDED, PRINTED, PROVED = range(6)
Rules = ModuleType | SimpleNamespace


@dataclass(frozen=True, slots=True)
class Voter:
    """One voter, and what each attempt has heard from it."""

    vote: Vote
    stale: int = 0
    """Bits of the attempts that were under way when its record was lost."""
    promises: tuple[Vote | None, ...] = ()
    acks: int = 0
    """Bits of the attempts that heard its COMMIT answered."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One releaser at work on one order."""

    status: int = IDLE
    commit_sent: bool = False


State = tuple[tuple[Voter, ...], tuple[Attempt, ...], int]
"""Voters, attempts, losses that may still happen."""


@dataclass(frozen=True)
class Model:
    """*voters* voters and one attempt (ballots 1, 2, …) for each of *forces*: the ballots that its order names."""

    voters: int
    forces: tuple[tuple[int, ...], ...]
    losses: int = 0
    rules: Rules = real
    guarded: bool = True
    """Messages of orders from before a loss do not reach the voter that lost its record (see `votes.promise`)."""

    def double_print(self, limit: int = 3_000_000) -> State | None:
        """A reachable state in which an attempt printed that should not have; None when there is none."""
        start = self._start()
        seen, open_states = {start}, [start]
        while open_states:
            state = open_states.pop()
            if self._wrong(state):
                return state
            for following in self._steps(state):
                if following not in seen:
                    seen.add(following)
                    open_states.append(following)
            assert len(seen) < limit, "the model is too large to be walked through"
        return None

    def count(self) -> int:
        """How many attempts of some reachable state have printed at most; a model that prints nothing proves nothing."""
        best, seen, open_states = 0, {self._start()}, [self._start()]
        while open_states and best < len(self.forces):
            state = open_states.pop()
            best = max(best, sum(attempt.status == PRINTED for attempt in state[1]))
            fresh = set(self._steps(state)) - seen
            seen |= fresh
            open_states.extend(fresh)
        return best

    def _start(self) -> State:
        nobody = Voter(Vote(), promises=(None,) * len(self.forces))
        return (nobody,) * self.voters, (Attempt(),) * len(self.forces), self.losses

    def _wrong(self, state: State) -> bool:
        printed = {number + 1 for number, attempt in enumerate(state[1]) if attempt.status == PRINTED}
        for ballot in printed:
            forces = self.forces[ballot - 1]
            unnamed = {earlier for earlier in printed if earlier < ballot} - set(forces)
            if unnamed and (not forces or not self.losses):
                return True
        return False

    def _steps(self, state: State) -> Iterator[State]:
        voters, attempts, losses = state
        for number, attempt in enumerate(attempts):
            yield from self._releaser(state, number, attempt)
            if attempt.status != IDLE:
                for index, voter in enumerate(voters):
                    for answered in self._deliver(voter, number, attempt):
                        yield _sorted(voters, index, answered), attempts, losses
        if losses:
            started = sum(1 << number for number, attempt in enumerate(attempts) if attempt.status != IDLE)
            for index, voter in enumerate(voters):
                if voter.vote.promised:
                    gone = Voter(Vote(lost=True), started, voter.promises, voter.acks)
                    yield _sorted(voters, index, gone), attempts, losses - 1

    def _releaser(self, state: State, number: int, attempt: Attempt) -> Iterator[State]:
        voters, attempts, losses = state

        def become(status: int, *, sent: bool = False) -> State:
            changed = Attempt(status, sent or attempt.commit_sent)
            return voters, (*attempts[:number], changed, *attempts[number + 1 :]), losses

        if attempt.status == IDLE:
            yield become(PREPARING)
        elif attempt.status == PREPARING:
            heard = {str(i): v.promises[number] for i, v in enumerate(voters) if v.promises[number] is not None}
            names = [str(i) for i in range(len(voters))]
            if self.rules.judge(heard, names, number + 1, self.forces[number]) is real.Verdict.GO:
                yield become(COMMITTING, sent=True)
        elif attempt.status == COMMITTING:
            if sum(voter.acks >> number & 1 for voter in voters) >= self.rules.quorum(len(voters)):
                yield become(DECIDED)
        elif attempt.status == DECIDED:
            yield become(PRINTED)
        if attempt.status in (PREPARING, COMMITTING, DECIDED):
            yield become(PROVED)
        if attempt.status in (PREPARING, COMMITTING):
            _, others, _ = become(PREPARING)
            yield tuple(sorted((_forgotten(voter, number) for voter in voters), key=repr_of)), others, losses

    def _deliver(self, voter: Voter, number: int, attempt: Attempt) -> Iterator[Voter]:
        """*voter* after any one message of *attempt*, its answer heard or not."""
        vote, ballot, bit = voter.vote, number + 1, 1 << number
        forced = bool(self.forces[number])
        if not (self.guarded and vote.lost and voter.stale & bit and not forced):
            promised = self.rules.promise(vote, ballot, forced=forced)
            if isinstance(promised, Vote):
                yield Voter(promised, voter.stale, voter.promises, voter.acks)
                if attempt.status == PREPARING:
                    heard = (*voter.promises[:number], promised, *voter.promises[number + 1 :])
                    yield Voter(promised, voter.stale, heard, voter.acks)
        if attempt.commit_sent:
            committed = self.rules.commit(vote, ballot, f"order {ballot}")
            if isinstance(committed, Vote):
                yield Voter(committed, voter.stale, voter.promises, voter.acks)
                if attempt.status == COMMITTING:
                    yield Voter(committed, voter.stale, voter.promises, voter.acks | bit)
        if attempt.status == PROVED:
            yield Voter(self.rules.prove_nothing_sent(vote, ballot), voter.stale, voter.promises, voter.acks)


_TEXTS: dict[Voter, str] = {}


def repr_of(voter: Voter) -> str:
    """A text to sort voters by."""
    text = _TEXTS.get(voter)
    if text is None:
        text = _TEXTS[voter] = repr(voter)
    return text


def _sorted(voters: tuple[Voter, ...], index: int, changed: Voter) -> tuple[Voter, ...]:
    return tuple(sorted((*voters[:index], changed, *voters[index + 1 :]), key=repr_of))


def _forgotten(voter: Voter, number: int) -> Voter:
    promises = (*voter.promises[:number], None, *voter.promises[number + 1 :])
    return Voter(voter.vote, voter.stale, promises, voter.acks & ~(1 << number))


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
