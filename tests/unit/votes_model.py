"""Every history that a few voters and a few orders can have, walked through with the real functions of `votes`.

Orders are out from the start, and a message, once sent, stays under way for ever: it may arrive never, late, or any
number of times, so a crash, an answer that was not heard, and a cut network are messages that do not arrive. A loss
replaces a voter's record by one that knows nothing. What is left out changes nothing that could be seen:

* A releaser that crashes and starts over hears less than one that did not crash; it is not walked through by itself.
* It sends COMMIT as soon as it may: promises of a quorum that allow it never cease to (`_allowed`), and a COMMIT may
  still arrive late. What a voter had committed below a ballot it had when it promised that one; only proofs are added,
  and they allow more. So a releaser judges the records as they are.
* It prints at once when it committed in its own record. One that crashes then, and prints nothing, looks the same to
  all others. One that finds, then, that it sent nothing might as well have proven it without committing.
* Voters that are to release nothing are alike, so they are sorted.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations
from types import ModuleType, SimpleNamespace

from pullprint.model import votes as real
from pullprint.model.votes import FIRST, Borrowed, Vote

Rules = ModuleType | SimpleNamespace


@dataclass(frozen=True, slots=True)
class Order:
    """One order, to be carried out once."""

    ballot: int
    releaser: int
    """A voter; or a number that no voter has."""
    forces: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Seat:
    """One voter. Bits stand for orders."""

    vote: Vote = field(default_factory=Vote)
    promised: int = 0
    """Orders that it promised their ballot to."""
    committed: int = 0
    """Orders that it ever committed to."""
    stale: int = 0
    """Orders that were out when its record was lost."""
    before: Vote | None = None
    """The record that was lost."""
    borrowed: Borrowed = field(default_factory=Borrowed)
    """What another has of its vote."""
    letters: tuple[Vote, ...] = ()
    """The messages that lent it, sent once and for ever under way."""
    returns: tuple[tuple[int, Vote | None], ...] = ()
    """The answers that gave it back."""


@dataclass(frozen=True, slots=True)
class Moves:
    """What a seat may become: by itself, or by an order's message. Numbers of seats."""

    free: tuple[int, ...]
    prepares: tuple[tuple[int, int], ...]
    commits: tuple[tuple[int, int], ...]
    news: tuple[tuple[int, int], ...]
    prints: tuple[tuple[int, int], ...]
    proves: tuple[tuple[int, int], ...]


State = tuple[tuple[int, ...], int, int, int, int, int]
"""Seats; bits of the orders that may send COMMIT, printed, proved that they did not, were started; losses to come."""


@dataclass(frozen=True, slots=True)
class Walk:
    wrong: State | None
    """A state that must not be: printed twice, or printed what was proven not to have been."""
    most: int
    """How many orders printed at most in one state: a model that prints nothing proves nothing."""
    states: int


class Model:
    """*voters* voters and some *orders*.

    With *losses*, orders are started in the order in which they stand there, and a voter that lost its record gets no
    PREPARE of an order from before the loss, nor releases it; `votes.promise` asks for both. *guarded* False takes the
    latter away. Voter number *lender* may lend its vote *loans* times.
    """

    def __init__(
        self,
        voters: int,
        orders: tuple[Order, ...],
        *,
        losses: int = 0,
        loans: int = 0,
        lender: int = 0,
        rules: Rules | None = None,
        guarded: bool = True,
    ) -> None:
        self._voters, self._orders, self._losses = voters, orders, losses
        self._rules = rules = rules or mutant()
        self._loans, self._lender, self._guarded = loans, lender, guarded
        self._names = [str(index) for index in range(voters)]
        self._quorum = rules.quorum(voters)
        special = [order.releaser + 1 for order in orders if order.releaser < voters] + [lender + 1] * bool(loans)
        self._alike = max(special)
        """From this voter on they are interchangeable."""
        self._seats: list[Seat] = []
        self._numbers: dict[Seat, int] = {}
        self._moves: dict[tuple[int, int], Moves] = {}
        self._judged: dict[tuple[int, ...], bool] = {}
        self._turns: dict[tuple[int, int], bool] = {}
        self._settled: dict[tuple[int, int], int] = {}

    def walk(self, limit: int = 4_000_000) -> Walk:
        """All states that can be reached, or those until one is wrong."""
        self._number(Seat(committed=-1))  # number 0 is nobody's
        start = self._allowed((self._number(Seat()),) * self._voters, 0, 0, 0, 0, self._losses)
        seen, open_states, most = {start}, [start], 0
        while open_states:
            state = open_states.pop()
            if self._wrong(state[2], state[3]):
                return Walk(state, most, len(seen))
            most = max(most, state[2].bit_count())
            for following in self._steps(state):
                if following not in seen:
                    seen.add(following)
                    open_states.append(following)
            assert len(seen) < limit, "the model is too large to be walked through"
        return Walk(None, most, len(seen))

    def _wrong(self, printed: int, proved: int) -> bool:
        if printed & proved:
            return True
        orders = [order for number, order in enumerate(self._orders) if printed >> number & 1]
        for one, other in combinations(sorted(orders, key=lambda order: order.ballot), 2):
            # After a loss nobody can name what is not known any more; an unforced print must still be the first.
            excused = self._losses and other.forces
            if one.ballot == other.ballot or (one.ballot not in other.forces and not excused):
                return True
        return False

    def _steps(self, state: State) -> Iterator[State]:
        seats, go, printed, proved, made, losses = state
        for voter, seat in enumerate(seats):
            moves = self._moves.get((seat, voter)) or self._moves_of(seat, voter)
            for after in moves.free:
                yield self._allowed(self._with(seats, voter, after), go, printed, proved, made, losses)
            for order, after in moves.prepares:
                if self._may_start(order, made):
                    yield self._allowed(self._with(seats, voter, after), go, printed, proved, made | 1 << order, losses)
            for order, after in moves.commits:
                if go >> order & 1 and self._may_start(order, made):
                    yield self._allowed(self._with(seats, voter, after), go, printed, proved, made | 1 << order, losses)
            for order, after in moves.news:
                if proved >> order & 1:
                    yield self._allowed(self._with(seats, voter, after), go, printed, proved, made, losses)
            for order, after in moves.prints:
                if go >> order & 1 and self._may_start(order, made) and self._own_turn(seats, order):
                    yield self._allowed(
                        self._with(seats, voter, after), go, printed | 1 << order, proved, made | 1 << order, losses
                    )
            for order, after in moves.proves:
                if not proved >> order & 1 and self._may_start(order, made):
                    yield self._allowed(
                        self._with(seats, voter, after), go, printed, proved | 1 << order, made | 1 << order, losses
                    )
            if losses and self._seats[seat].vote != Vote():
                gone = self._lost(self._seats[seat], made)
                yield self._allowed(self._with(seats, voter, gone), go, printed, proved, made, losses - 1)
        for number, order in enumerate(self._orders):
            if order.releaser >= self._voters:  # it has no record of its own
                if go >> number & 1 and self._own_turn(seats, number):
                    yield seats, go, printed | 1 << number, proved, made, losses
                yield seats, go, printed, proved | 1 << number, made, losses

    def _may_start(self, order: int, made: int) -> bool:
        return not self._losses or not order or bool(made >> (order - 1) & 1)

    def _with(self, seats: tuple[int, ...], index: int, changed: int) -> tuple[int, ...]:
        return (*seats[:index], changed, *seats[index + 1 :])

    def _allowed(self, seats: tuple[int, ...], go: int, printed: int, proved: int, made: int, losses: int) -> State:
        """The state with every order that may send COMMIT marked."""
        for number, order in enumerate(self._orders):
            if not go >> number & 1 and (order.ballot == FIRST or self._may_commit(seats, number)):
                go |= 1 << number
        seats = tuple(self._settled.get((seat, go)) or self._settle(seat, go) for seat in seats)
        seats = (*seats[: self._alike], *sorted(seats[self._alike :]))
        return seats, go, printed, proved, made if self._losses else 0, losses

    def _settle(self, number: int, go: int) -> int:
        """The seat without the promises that were of use already."""
        seat = self._seats[number]
        settled = self._number(replace(seat, promised=seat.promised & ~go)) if seat.promised & go else number
        self._settled[number, go] = settled
        return settled

    def _may_commit(self, seats: tuple[int, ...], number: int) -> bool:
        heard = [seat if self._seats[seat].promised >> number & 1 else -1 for seat in seats]
        if len(heard) - heard.count(-1) < self._quorum:
            return False
        key = (number, *heard)
        if key not in self._judged:
            answers = {self._names[i]: _view(self._seats[seat], number) for i, seat in enumerate(heard) if seat >= 0}
            order = self._orders[number]
            self._judged[key] = any(
                self._rules.judge(dict(some), self._names, order.ballot, order.forces) is real.Verdict.GO
                for count in range(self._quorum, len(answers) + 1)
                for some in combinations(answers.items(), count)
            )
        return self._judged[key]

    def _own_turn(self, seats: tuple[int, ...], number: int) -> bool:
        committed = sum(1 << index for index, seat in enumerate(seats) if self._seats[seat].committed >> number & 1)
        key = committed, self._orders[number].releaser
        if key not in self._turns:
            names = [name for index, name in enumerate(self._names) if committed >> index & 1]
            self._turns[key] = self._rules.own_turn(names, self._names, str(key[1]))
        return self._turns[key]

    def _number(self, seat: Seat) -> int:
        number = self._numbers.get(seat)
        if number is None:
            number = self._numbers[seat] = len(self._seats)
            self._seats.append(seat)
        return number

    def _lost(self, seat: Seat, made: int) -> int:
        return self._number(replace(seat, vote=Vote(lost=True), stale=made, before=seat.before or seat.vote))

    def _moves_of(self, number: int, voter: int) -> Moves:
        seat = self._seats[number]
        prepares, commits, news, prints, proves = [], [], [], [], []
        for index, order in enumerate(self._orders):
            name, stale = _name(index), self._guarded and seat.stale >> index & 1
            if (order.ballot > FIRST or self._losses) and not stale:
                prepares += [(index, after) for after in self._promised(seat, index, order)]
            own = order.releaser == voter
            if not own:
                commits += [(index, after) for after in self._committed(seat, index, order)]
            elif not stale and isinstance(vote := self._rules.own_commit(seat.vote, order.ballot, name, name), Vote):
                prints.append((index, self._number(replace(seat, vote=vote, committed=seat.committed | 1 << index))))
            news += [(index, after) for after in self._told(seat, index, order)]
            if (
                own
                and not seat.vote.lost
                and not any(a.order == name and not a.nothing_sent for a in seat.vote.attempts)
            ):
                vote = self._rules.prove_nothing_sent(seat.vote, order.ballot, name, name)
                proves.append((index, self._number(replace(seat, vote=vote))))
        free = (
            {self._number(after) for after in self._lending(seat)} if self._loans and voter == self._lender else set()
        )
        moves = Moves(
            tuple(free - {number}), *(
                tuple({move for move in some if move[1] != number}) for some in (prepares, commits, news)
            ), tuple(prints), tuple(proves),
        )  # fmt: skip
        self._moves[number, voter] = moves
        return moves

    def _promised(self, seat: Seat, index: int, order: Order) -> Iterator[int]:
        for vote, put in _records(seat):
            promised = self._rules.promise(vote, order.ballot, forced=bool(order.forces), alone=self._voters == 1)
            if isinstance(promised, Vote):
                yield self._number(replace(put(promised), promised=seat.promised | 1 << index))

    def _committed(self, seat: Seat, index: int, order: Order) -> Iterator[int]:
        for vote, put in _records(seat):
            committed = self._rules.commit(vote, order.ballot, _name(index), _name(index))
            if isinstance(committed, Vote):
                yield self._number(replace(put(committed), committed=seat.committed | 1 << index))

    def _told(self, seat: Seat, index: int, order: Order) -> Iterator[int]:
        for vote, put in _records(seat):
            yield self._number(put(self._rules.prove_nothing_sent(vote, order.ballot, _name(index), _name(index))))

    def _lending(self, seat: Seat) -> Iterator[Seat]:
        """The voter lends its vote or asks for it back, the borrower hears of it, or its answer comes."""
        vote, borrowed = seat.vote, seat.borrowed
        if vote.loan < self._loans and isinstance(lent := self._rules.lend(vote, vote.loan + 1), Vote) and lent != vote:
            yield replace(seat, vote=lent, letters=(*seat.letters, lent))
        for letter in seat.letters:
            if isinstance(taken := self._rules.borrow(borrowed, letter), Borrowed):
                yield replace(seat, borrowed=taken)
        if vote.lent and isinstance(over := self._rules.give_back(borrowed, vote.loan), Borrowed):
            answer = vote.loan, over.vote
            returns = seat.returns if answer in seat.returns else (*seat.returns, answer)
            yield replace(seat, borrowed=over, returns=returns)
        for loan, returned in seat.returns:
            if isinstance(back := self._rules.take_back(vote, loan, returned), Vote):
                yield replace(seat, vote=back)


def _name(index: int) -> str:
    return "abcdefg"[index]


def _records(seat: Seat) -> Iterator[tuple[Vote, Callable[[Vote], Seat]]]:
    """Where a message to this voter may arrive: at itself, or at who has its vote."""
    yield seat.vote, lambda vote: replace(seat, vote=vote)
    borrowed = seat.borrowed.vote
    if borrowed is not None:
        yield borrowed, lambda vote: replace(seat, borrowed=replace(seat.borrowed, vote=vote))


def _view(seat: Seat, order: int) -> Vote:
    """The record of a voter that promised."""
    if seat.before is not None and seat.stale >> order & 1:
        return seat.before
    lent = seat.vote.lent and seat.borrowed.loan == seat.vote.loan
    return seat.borrowed.vote if lent and seat.borrowed.vote is not None else seat.vote


def mutant(**functions: Callable[..., object]) -> SimpleNamespace:
    """The rules with some *functions* replaced; those that call one another see the replaced ones."""
    names = (
        "quorum doubtful promise commit prove_nothing_sent own_turn lend borrow give_back take_back close propose accept "
        "decided open_generation carry_over"
    )
    rules = SimpleNamespace(**{name: getattr(real, name) for name in names.split()})
    vars(rules).update(functions)

    def judge(
        promises: Mapping[str, Vote], voters: Collection[str], ballot: int, forces: Collection[int] = ()
    ) -> real.Verdict:
        if len(promises) < rules.quorum(len(voters)):
            return real.Verdict.NO_QUORUM
        if rules.doubtful(promises, voters, ballot) - set(forces):
            return real.Verdict.IN_DOUBT
        return real.Verdict.GO

    def own_turn(committed: Collection[str], voters: Collection[str], releaser: str) -> bool:
        return releaser in voters and len({*committed, releaser}) >= rules.quorum(len(voters))

    for name, default in (("judge", judge), ("own_turn", own_turn), ("own_commit", rules.commit)):
        if name not in functions:
            setattr(rules, name, default)
    return rules
