"""A new generation of voters while releases are under way: every history is walked through, broken rules are caught.

As in `votes_model`, messages stay under way for ever, and a crash is a message that does not come. An author that dies
does nothing more; another one with a number of its own goes on. A voter that opened the new generation has given its
old record up. What a voter answered to `close` is remembered as it was; its author proposes upon any majority of that.
"""

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations
from types import SimpleNamespace
from typing import TypeVar

import pytest
from tests.unit.votes_model import mutant

from pullprint.model import votes
from pullprint.model.votes import FIRST, Acceptance, Attempt, Proposal, Refusal, Verdict, Vote

Value = TypeVar("Value")

PREPARE, COMMIT, PRINT, PROVE, NEWS = range(5)
LONG = pytest.mark.skipif(not os.environ.get("N"), reason="minutes long: set N=1 in the environment")


@dataclass(frozen=True, slots=True)
class Run:
    """One order in one generation; an order may be tried in both."""

    order: str
    ballot: int
    releaser: str
    generation: int


@dataclass(frozen=True, slots=True)
class Node:
    """Bits stand for runs (promised to, committed to) and for authors (accepted)."""

    old: Vote | None
    new: Vote | None = None
    opened: Proposal | None = None
    promised: int = 0
    committed: int = 0
    accepted: int = 0


@dataclass(frozen=True, slots=True)
class Author:
    heard: tuple[Vote | None, ...]
    """What the old voters answered."""
    proposal: Proposal | None = None


State = tuple[tuple[int, ...], tuple[int, ...], int, int, int]
"""Nodes and authors (numbers of them), bits of the runs that may send COMMIT and that printed, and of the runs whose
orders are proven to have sent nothing."""


class Change:
    """*old* voters; *authors*, each a number and the voters that it wants; and *runs*."""

    def __init__(
        self,
        old: str,
        authors: tuple[tuple[int, str], ...],
        runs: tuple[Run, ...],
        rules: SimpleNamespace | None = None,
    ) -> None:
        self._old, self._authors, self._runs, self._rules = old, authors, runs, rules or mutant()
        self._names = "".join(sorted({*old, *(name for _, new in authors for name in new)}))
        self._same = [sum(1 << number for number, other in enumerate(runs) if other.order == run.order) for run in runs]
        """Bits of the runs of the same order."""
        self._things: list[Node | Author] = []
        self._numbers: dict[Node | Author, int] = {}
        self._moves = cache(self._moves_of)
        self._authoring = cache(self._authoring_of)
        self._opened = cache(self._opened_by)
        self._allowed = cache(self._may_commit)
        self._settled = cache(self._settle)

    def walk(self, limit: int = 4_000_000) -> tuple[State | None, int, int, bool]:
        """A wrong state, how many runs printed at most, the number of states, and whether ever two different
        generations were opened."""
        fast = sum(1 << number for number, run in enumerate(self._runs) if run.ballot == FIRST)
        nodes = tuple(self._number(Node(Vote() if name in self._old else None)) for name in self._names)
        start = nodes, tuple(self._number(Author((None,) * len(self._old))) for _ in self._authors), fast, 0, 0
        seen, open_states, most, split = {start}, [start], 0, False
        while open_states:
            state = open_states.pop()
            nodes, _, _, printed, proved = state
            most = max(most, printed.bit_count())
            split = split or len({self._node(node).opened for node in nodes} - {None}) > 1
            if printed.bit_count() > 1 or printed & proved:
                return state, most, len(seen), split
            for following in self._steps(state):
                if following not in seen:
                    seen.add(following)
                    open_states.append(following)
            assert len(seen) < limit, "the model is too large to be walked through"
        return None, most, len(seen), split

    def _number(self, thing: Node | Author) -> int:
        number = self._numbers.get(thing)
        if number is None:
            number = self._numbers[thing] = len(self._things)
            self._things.append(thing)
        return number

    def _node(self, number: int) -> Node:
        node = self._things[number]
        assert isinstance(node, Node)
        return node

    def _author(self, number: int) -> Author:
        author = self._things[number]
        assert isinstance(author, Author)
        return author

    def _steps(self, state: State) -> Iterator[State]:
        nodes, authors, go, printed, proved = state
        for index, node in enumerate(nodes):
            for kind, number, after in self._moves(node, index):
                if kind == NEWS and not proved >> number & 1:
                    continue
                if kind in (COMMIT, PRINT) and not go >> number & 1:
                    continue
                if kind == PRINT:
                    if self._own_turn(nodes, number):
                        yield self._with(state, index, after, printed | 1 << number, proved, authors)
                elif kind == PROVE:
                    yield self._with(state, index, after, printed, proved | self._same[number], authors)
                else:
                    yield self._with(state, index, after, printed, proved, authors)
            for number, author in enumerate(authors):
                for after, then in self._authoring(node, index, number, author):
                    yield self._with(state, index, after, printed, proved, _replaced(authors, number, then))
                accepted = tuple(
                    name for name, one in zip(self._names, nodes, strict=True) if self._node(one).accepted >> number & 1
                )
                if accepted and (opened := self._opened(node, index, number, author, accepted)) is not None:
                    yield self._with(state, index, opened, printed, proved, authors)
        for number, author in enumerate(authors):
            for then in self._authoring(-1, -1, number, author):
                yield nodes, _replaced(authors, number, then[1]), go, printed, proved

    def _with(self, state: State, index: int, node: int, printed: int, proved: int, authors: tuple[int, ...]) -> State:
        nodes, go = _replaced(state[0], index, node), state[2]
        for number in range(len(self._runs)):
            if not go >> number & 1 and self._allowed(number, nodes):
                go |= 1 << number
        return tuple([self._settled(one, go) for one in nodes]), authors, go, printed, proved

    def _settle(self, number: int, go: int) -> int:
        """The node without the promises that were of use already."""
        node = self._node(number)
        return self._number(replace(node, promised=node.promised & ~go)) if node.promised & go else number

    def _voters(self, nodes: tuple[int, ...], run: Run) -> str:
        if run.generation == 1:
            return self._old
        opened = self._node(nodes[self._names.index(run.releaser)]).opened
        return "".join(opened.voters) if opened else ""

    def _may_commit(self, number: int, nodes: tuple[int, ...]) -> bool:
        run, voters = self._runs[number], self._voters(nodes, self._runs[number])
        heard = {}
        for name, one in zip(self._names, nodes, strict=True):
            node = self._node(one)
            vote = node.old if run.generation == 1 else node.new
            if node.promised >> number & 1 and vote is not None:
                heard[name] = vote
        return bool(voters) and any(
            self._rules.judge(dict(some), voters, run.ballot) is Verdict.GO
            for count in range(votes.quorum(len(voters)), len(heard) + 1)
            for some in combinations(heard.items(), count)
        )

    def _own_turn(self, nodes: tuple[int, ...], number: int) -> bool:
        run, voters = self._runs[number], self._voters(nodes, self._runs[number])
        pairs = zip(self._names, nodes, strict=True)
        committed = [name for name, node in pairs if self._node(node).committed >> number & 1]
        return bool(voters) and bool(self._rules.own_turn(committed, voters, run.releaser))

    def _moves_of(self, one: int, index: int) -> tuple[tuple[int, int, int], ...]:
        """The messages of releases: kind, run, the node after it."""
        name, rules, node = self._names[index], self._rules, self._node(one)
        vote, moves = node.old if node.new is None else node.new, set()
        if vote is None:
            return ()

        def after(record: Vote, *, promised: int = 0, committed: int = 0) -> int:
            bits = {"promised": node.promised | promised, "committed": node.committed | committed}
            return self._number(replace(node, **{"old" if node.new is None else "new": record}, **bits))

        for number, run in enumerate(self._runs):
            told = after(rules.prove_nothing_sent(vote, run.ballot, run.order, run.releaser))
            moves.add((NEWS, number, told))
            own = name == run.releaser
            if own and not any(a.order == run.order and not a.nothing_sent for a in vote.attempts):
                moves.add((PROVE, number, told))
            if (node.new is None) != (run.generation == 1):
                continue
            if run.ballot > FIRST and isinstance(promised := rules.promise(vote, run.ballot), Vote):
                moves.add((PREPARE, number, after(promised, promised=1 << number)))
            if isinstance(committed := rules.commit(vote, run.ballot, run.order, run.releaser), Vote):
                moves.add((PRINT if own else COMMIT, number, after(committed, committed=1 << number)))
        return tuple(move for move in moves if move[2] != one or move[0] in (PROVE, PRINT))

    def _authoring_of(self, one: int, index: int, number: int, which: int) -> tuple[tuple[int, int], ...]:
        """The messages of author *which*, and what becomes of it; without a node, what it proposes."""
        author, moves = self._author(which), []
        if one < 0:
            return tuple((-1, self._number(Author((), made))) for made in self._proposals(number, author))
        name, node, ballot = self._names[index], self._node(one), self._authors[number][0]
        if name not in self._old or node.new is not None:
            return ()
        if isinstance(closed := self._rules.close(node.old, ballot), Vote):
            heard = author.heard and _replaced(author.heard, self._old.index(name), closed)
            moves.append((self._number(replace(node, old=closed)), self._number(replace(author, heard=heard))))
        if author.proposal and isinstance(accepted := self._rules.accept(node.old, ballot, author.proposal), Vote):
            moves.append((self._number(replace(node, old=accepted, accepted=node.accepted | 1 << number)), which))
        return tuple(move for move in moves if move != (one, which))

    def _proposals(self, number: int, author: Author) -> frozenset[Proposal]:
        heard = [(name, vote) for name, vote in zip(self._old, author.heard, strict=False) if vote is not None]
        wanted = Proposal(2, f"table {number}", tuple(self._authors[number][1]), Vote())
        made = {
            self._rules.propose(dict(some), self._old, self._authors[number][0], wanted)
            for count in range(1, len(heard) + 1)
            for some in combinations(heard, count)
        }
        return frozenset(proposal for proposal in made if isinstance(proposal, Proposal))

    def _opened_by(self, one: int, index: int, number: int, which: int, accepted: tuple[str, ...]) -> int | None:
        node, proposal = self._node(one), self._author(which).proposal
        if proposal is None:
            return None
        acceptances = {name: Acceptance(self._authors[number][0], proposal) for name in accepted}
        generation = 2 if node.new is not None else 1 if node.old is not None else 0
        vote = node.old if node.new is None else node.new
        opened = self._rules.open_generation(vote, generation, acceptances, self._old, self._names[index])
        return self._number(replace(node, new=opened, opened=proposal)) if isinstance(opened, Vote) else None


def _replaced(values: tuple[Value, ...], index: int, value: Value) -> tuple[Value, ...]:
    return (*values[:index], value, *values[index + 1 :])


def runs(*said: str) -> tuple[Run, ...]:
    """``a1x2``: order a in ballot 1, released by x in generation 2."""
    return tuple(Run(one[0], int(one[1]), one[2], int(one[3])) for one in said)


@pytest.mark.parametrize(
    ("old", "authors", "asked", "most"),
    [
        ("x", ((1, "xyz"),), runs("a1x1", "a1x2", "b1y2"), 1),
        ("x", ((1, "xyz"),), runs("a1x1", "b2y2"), 1),
        ("xy", ((1, "xw"), (2, "yw")), runs("a1x1", "b1y2"), 1),
        ("xy", ((1, "xw"), (1, "yw")), runs("a1x1", "b1y2"), 1),
        ("xyz", ((1, "xyw"), (2, "xzw")), (), 0),
        ("xyz", ((1, "xyw"),), runs("a1x1", "a1x2"), 1),
        ("xy", ((1, "v"), (2, "w")), runs("a1v2", "b1w2"), 1),
        pytest.param("xyz", ((1, "x"), (2, "y")), runs("a1x2", "b1y2"), 1, marks=LONG),
        pytest.param("xyz", ((1, "xy"),), runs("a1z1", "b1y2"), 1, marks=LONG),
        pytest.param("xyz", ((1, "xyw"),), runs("a1z1", "b1y2"), 1, marks=LONG),
        pytest.param("xyz", ((1, "xyw"),), runs("a1z1", "b2y2"), 1, marks=LONG),
        pytest.param("xyz", ((1, "xy"), (2, "yz")), runs("a1x1", "b1y2"), 1, marks=LONG),
    ],
)
def test_no_history_prints_twice_while_the_voters_change(
    old: str, authors: tuple[tuple[int, str], ...], asked: tuple[Run, ...], most: int
) -> None:
    wrong, printed, states, split = Change(old, authors, asked).walk()
    print(f"{states} states")
    assert (wrong, printed, split) == (None, most, False)


def _opens_without_majority(
    vote: Vote | None, generation: int, acceptances: Mapping[str, Acceptance], voters: Collection[str], own: str
) -> Vote | Refusal:
    return votes.open_generation(vote, generation, acceptances, set(acceptances), own)


def _opens_again(
    vote: Vote | None, generation: int, acceptances: Mapping[str, Acceptance], voters: Collection[str], own: str
) -> Vote | Refusal:
    return votes.open_generation(None, 0, acceptances, voters, own)


def _opens_without_its_proofs(
    vote: Vote | None, generation: int, acceptances: Mapping[str, Acceptance], voters: Collection[str], own: str
) -> Vote | Refusal:
    return votes.open_generation(None, generation, acceptances, voters, own)


def _promises_though_closed(vote: Vote, ballot: int, *, forced: bool = False, alone: bool = False) -> Vote | Refusal:
    promised = votes.promise(replace(vote, closed=0), ballot, forced=forced, alone=alone)
    return replace(promised, closed=vote.closed) if isinstance(promised, Vote) else promised


def _commits_though_closed(vote: Vote, ballot: int, order: str, releaser: str = "") -> Vote | Refusal:
    committed = votes.commit(replace(vote, closed=0), ballot, order, releaser)
    return replace(committed, closed=vote.closed) if isinstance(committed, Vote) else committed


def _accepts_anything(vote: Vote, number: int, proposal: Proposal) -> Vote | Refusal:
    return votes.accept(replace(vote, closed=0), number, proposal)


def _closes_again(vote: Vote, number: int) -> Vote | Refusal:
    return votes.close(replace(vote, closed=0), number)


def _does_not_adopt(
    answers: Mapping[str, Vote], voters: Collection[str], number: int, proposal: Proposal
) -> Proposal | Verdict:
    return votes.propose(
        {voter: replace(vote, accepted=None) for voter, vote in answers.items()}, voters, number, proposal
    )


def _starting(attempts: Callable[[tuple[Attempt, ...]], tuple[Attempt, ...]]) -> SimpleNamespace:
    """Authors whose new generation starts with something else."""

    def propose(
        answers: Mapping[str, Vote], voters: Collection[str], number: int, proposal: Proposal
    ) -> Proposal | Verdict:
        made = votes.propose(answers, voters, number, proposal)
        if not isinstance(made, Proposal):
            return made
        promised = made.start.promised if attempts(made.start.attempts) else 0
        return replace(made, start=Vote(promised, attempts(made.start.attempts)))

    return mutant(propose=propose)


def _proven(attempts: tuple[Attempt, ...]) -> tuple[Attempt, ...]:
    return tuple(replace(attempt, nothing_sent=True, carried=False) for attempt in attempts)


def _of_its_own(attempts: tuple[Attempt, ...]) -> tuple[Attempt, ...]:
    return tuple(replace(attempt, carried=False) for attempt in attempts)


TWO_AUTHORS = ("xy", ((1, "v"), (2, "w")), runs("a1v2", "b1w2"))
ORIGIN = ("x", ((1, "xyz"),), runs("a1x1", "b1y2"))


@pytest.mark.parametrize(
    ("rules", "model"),
    [
        pytest.param(
            mutant(open_generation=_opens_without_majority),
            ("xyz", ((1, "x"), (2, "y")), runs("a1x2", "b1y2")),
            id="opens without a majority",
        ),
        pytest.param(mutant(open_generation=_opens_again), ("x", ((1, "x"),), runs("a1x2", "b1x2")), id="opens again"),
        pytest.param(
            mutant(open_generation=_opens_without_its_proofs),
            (
                "xyz",
                ((1, "z"),),
                runs(
                    "a1z2",
                ),
            ),
            id="forgets its proofs",
        ),
        pytest.param(mutant(commit=_commits_though_closed), ORIGIN, id="closed voter commits"),
        pytest.param(
            mutant(promise=_promises_though_closed, commit=_commits_though_closed),
            ("xy", ((1, "w"),), runs("a2x1", "b1w2")),
            id="closed voters vote",
        ),
        pytest.param(mutant(accept=_accepts_anything), TWO_AUTHORS, id="accepts an outdated proposal"),
        pytest.param(mutant(close=_closes_again), TWO_AUTHORS, id="closes for a lower number"),
        pytest.param(mutant(propose=_does_not_adopt), TWO_AUTHORS, id="does not adopt"),
        pytest.param(_starting(lambda attempts: ()), ORIGIN, id="forgets an attempt"),
        pytest.param(_starting(_proven), ("x", ((1, "xyz"),), runs("a1x1", "b2y2")), id="trusts the silent"),
        pytest.param(
            _starting(_of_its_own),
            ("xyz", ((1, "xy"),), runs("a1y1", "b1x1", "a1y2", "b1x2")),
            id="carried counts as commit",
        ),
    ],
)
def test_a_broken_change_of_voters_is_caught(
    rules: SimpleNamespace, model: tuple[str, tuple[tuple[int, str], ...], tuple[Run, ...]]
) -> None:
    wrong, _, _, _ = Change(*model, rules).walk()
    assert wrong is not None


def test_a_proposal_that_was_accepted_by_a_majority_is_adopted_by_the_next_author() -> None:
    mine, other = (Proposal(2, table, ("x",), Vote()) for table in ("mine", "other"))
    accepted = votes.accept(Vote(), 1, other)
    assert isinstance(accepted, Vote)
    closed = {"x": votes.close(accepted, 2), "y": votes.close(Vote(), 2)}
    answers = {voter: vote for voter, vote in closed.items() if isinstance(vote, Vote)}
    assert votes.propose(answers, "xyz", 2, mine) == other
    assert votes.propose({"y": answers["y"]}, "xyz", 2, mine) is Verdict.NO_QUORUM


def test_a_voter_that_lost_its_record_neither_closes_nor_accepts() -> None:
    assert votes.close(Vote(lost=True), 1) is Refusal.VOTE_LOST
    assert votes.accept(Vote(lost=True), 1, Proposal(2, "t", ("x",), Vote())) is Refusal.VOTE_LOST
