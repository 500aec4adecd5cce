"""Printed once: every history of a small mesh is walked through, and broken rules must be caught at it."""

import os
from collections.abc import Collection, Mapping
from dataclasses import replace
from types import SimpleNamespace

import pytest
from tests.unit.votes_model import Model, Order, mutant

from pullprint.model import votes
from pullprint.model.votes import FIRST, Attempt, Borrowed, Refusal, Verdict, Vote

LONG = pytest.mark.skipif(not os.environ.get("N"), reason="minutes long: set N=1 in the environment")


def orders(ballots: str, releasers: str = "000", *forces: tuple[int, ...]) -> tuple[Order, ...]:
    named = (*forces, *((),) * len(ballots))
    return tuple(
        Order(int(ballot), int(releaser), by) for ballot, releaser, by in zip(ballots, releasers, named, strict=False)
    )


ONE_AFTER_THE_OTHER = orders("12", "01")
FORCED = orders("12", "01", (), (1,))


@pytest.mark.parametrize(
    ("voters", "asked", "losses", "most"),
    [
        (1, orders("123"), 0, 1),
        (1, orders("112"), 0, 1),
        (1, orders("123", "000", (), (1,), (1, 2)), 0, 3),
        (1, orders("123", "000", (), (1,)), 1, 2),
        (1, orders("123"), 1, 1),
        (2, ONE_AFTER_THE_OTHER, 1, 1),
        (2, orders("11", "01"), 1, 1),
        (2, FORCED, 1, 2),
        (2, orders("123", "010", (), (1,)), 0, 2),
        (2, orders("123", "011", (), (), (1, 2)), 0, 2),
        (3, ONE_AFTER_THE_OTHER, 0, 1),
        (3, FORCED, 0, 2),
        (3, ONE_AFTER_THE_OTHER, 1, 1),
        (3, orders("11", "01"), 1, 1),
        (3, orders("22", "01"), 1, 1),
        (3, orders("111", "012"), 0, 1),
        (3, orders("112", "012"), 0, 1),
        pytest.param(3, orders("122", "012"), 0, 1, marks=LONG),
        pytest.param(3, orders("112", "000"), 0, 1, marks=LONG),
        (3, orders("12", "30"), 0, 1),
        pytest.param(3, orders("123", "000"), 0, 1, marks=LONG),
        pytest.param(3, orders("123", "011"), 0, 1, marks=LONG),
        pytest.param(3, orders("123", "012"), 0, 1, marks=LONG),
        pytest.param(3, orders("122", "001"), 0, 1, marks=LONG),
        pytest.param(3, orders("112", "012", (), (), (1,)), 0, 2, marks=LONG),
        pytest.param(3, FORCED, 1, 2, marks=LONG),
    ],
)
def test_no_history_prints_twice_unless_the_owner_said_so(
    voters: int, asked: tuple[Order, ...], losses: int, most: int
) -> None:
    walk = Model(voters, asked, losses=losses).walk()
    print(f"{walk.states} states")
    assert walk.wrong is None
    assert walk.most == most, "the model must be able to print, or it proves nothing"


@pytest.mark.parametrize(
    ("voters", "loans", "lender"),
    [(1, 2, 0), (2, 2, 0), (2, 1, 1), (3, 1, 0), pytest.param(3, 1, 1, marks=LONG), pytest.param(3, 1, 2, marks=LONG)],
)
def test_no_history_prints_twice_while_a_vote_is_lent_and_given_back(voters: int, loans: int, lender: int) -> None:
    asked = orders("12", "01" if voters > 1 else "00")
    walk = Model(voters, asked, loans=loans, lender=lender).walk()
    print(f"{walk.states} states")
    assert (walk.wrong, walk.most) == (None, 1)


@pytest.mark.parametrize("asked", [orders("112", "011"), orders("123", "010")])
def test_what_is_proven_and_past_may_be_forgotten(asked: tuple[Order, ...]) -> None:
    walk = Model(
        2 if asked[2].ballot == 3 else 3, asked, rules=mutant(prove_nothing_sent=_keeps_no_proof_of_the_past)
    ).walk()
    assert (walk.wrong, walk.most) == (None, 1)


def _keeps_no_proof_of_the_past(vote: Vote, ballot: int, order: str, releaser: str = "") -> Vote:
    return votes.forget(votes.prove_nothing_sent(vote, ballot, order, releaser), 0)


def _keeps_no_proof(vote: Vote, ballot: int, order: str, releaser: str = "") -> Vote:
    proven = votes.prove_nothing_sent(vote, ballot, order, releaser)
    return replace(proven, attempts=tuple(attempt for attempt in proven.attempts if not attempt.nothing_sent))


def _keeps_the_last(vote: Vote, ballot: int, order: str, releaser: str = "") -> Vote:
    proven = votes.prove_nothing_sent(vote, ballot, order, releaser)
    return replace(proven, attempts=proven.attempts[-1:])


def _notes_no_proof_without_commit(vote: Vote, ballot: int, order: str, releaser: str = "") -> Vote:
    return replace(
        vote, attempts=tuple(replace(a, nothing_sent=a.nothing_sent or a.order == order) for a in vote.attempts)
    )


def _proves_all(vote: Vote, ballot: int, order: str, releaser: str = "") -> Vote:
    proven = votes.prove_nothing_sent(vote, ballot, order, releaser)
    return replace(proven, attempts=tuple(replace(attempt, nothing_sent=True) for attempt in proven.attempts))


def _promises_anything(vote: Vote, ballot: int, *, forced: bool = False, alone: bool = False) -> Vote | Refusal:
    if vote.lost and ballot > FIRST and not forced:
        return Refusal.VOTE_LOST
    return replace(vote, promised=ballot)


def _forgets_its_loss(vote: Vote, ballot: int, *, forced: bool = False, alone: bool = False) -> Vote | Refusal:
    return votes.promise(replace(vote, lost=False), ballot, forced=forced)


def _healed_by_force(vote: Vote, ballot: int, *, forced: bool = False, alone: bool = False) -> Vote | Refusal:
    promised = votes.promise(vote, ballot, forced=forced, alone=alone)
    return replace(promised, lost=False) if isinstance(promised, Vote) else promised


def _votes_though_lent(vote: Vote, ballot: int, *, forced: bool = False, alone: bool = False) -> Vote | Refusal:
    promised = votes.promise(replace(vote, lent=False), ballot, forced=forced, alone=alone)
    return replace(promised, lent=vote.lent) if isinstance(promised, Vote) else promised


def _commits_though_lent(vote: Vote, ballot: int, order: str, releaser: str = "") -> Vote | Refusal:
    committed = votes.commit(replace(vote, lent=False), ballot, order, releaser)
    return replace(committed, lent=vote.lent) if isinstance(committed, Vote) else committed


def _commits_unpromised(vote: Vote, ballot: int, order: str, releaser: str = "") -> Vote | Refusal:
    return votes.commit(replace(vote, promised=ballot), ballot, order, releaser)


def _commits_outdated(vote: Vote, ballot: int, order: str, releaser: str = "") -> Vote | Refusal:
    committed = votes.commit(replace(vote, promised=ballot), ballot, order, releaser)
    return replace(committed, promised=vote.promised) if isinstance(committed, Vote) else committed


def _commits_fast_to_all(vote: Vote, ballot: int, order: str, releaser: str = "") -> Vote | Refusal:
    """The first ballot, though a COMMIT that needed no PREPARE took it."""
    if ballot != FIRST or vote.promised > FIRST:
        return votes.commit(vote, ballot, order, releaser)
    if any(attempt.order == order for attempt in vote.attempts):
        return votes.commit(vote, ballot, order, releaser)
    return replace(vote, promised=FIRST, attempts=(*vote.attempts, Attempt(ballot, order, releaser)))


def _commits_fast_late(vote: Vote, ballot: int, order: str, releaser: str = "") -> Vote | Refusal:
    """The first ballot, though a later one was promised."""
    fresh = replace(vote, promised=0) if ballot == FIRST else vote
    committed = votes.commit(fresh, ballot, order, releaser)
    return replace(committed, promised=max(ballot, vote.promised)) if isinstance(committed, Vote) else committed


def _commits_fast_after_a_loss(vote: Vote, ballot: int, order: str, releaser: str = "") -> Vote | Refusal:
    return votes.commit(replace(vote, lost=vote.lost and ballot != FIRST), ballot, order, releaser)


def _remembers_the_last_only(vote: Vote, ballot: int, order: str, releaser: str = "") -> Vote | Refusal:
    committed = votes.commit(vote, ballot, order, releaser)
    return replace(committed, attempts=committed.attempts[-1:]) if isinstance(committed, Vote) else committed


def _keeps_no_commit(vote: Vote, ballot: int, order: str, releaser: str = "") -> Vote | Refusal:
    committed = votes.commit(vote, ballot, order, releaser)
    return vote if isinstance(committed, Vote) else committed


def _trusts_the_silent(promises: Mapping[str, Vote], voters: Collection[str], ballot: int) -> frozenset[int]:
    return votes.doubtful(promises, set(promises), ballot) if len(promises) == len(voters) else frozenset()


def _never_doubts(promises: Mapping[str, Vote], voters: Collection[str], ballot: int) -> frozenset[int]:
    return frozenset()


def _doubts_the_last_only(promises: Mapping[str, Vote], voters: Collection[str], ballot: int) -> frozenset[int]:
    return votes.doubtful(promises, voters, ballot) & {ballot - 1}


def _knows_one_order_a_ballot(promises: Mapping[str, Vote], voters: Collection[str], ballot: int) -> frozenset[int]:
    """Counts only the votes for the order that it came across first."""
    first: dict[int, str] = {}
    for voter in sorted(promises):
        for attempt in promises[voter].attempts:
            first.setdefault(attempt.ballot, attempt.order)
    seen = {
        voter: replace(vote, attempts=tuple(a for a in vote.attempts if first[a.ballot] == a.order))
        for voter, vote in promises.items()
    }
    return votes.doubtful(seen, voters, ballot)


def _frees_the_ballot(promises: Mapping[str, Vote], voters: Collection[str], ballot: int) -> frozenset[int]:
    proven = {attempt.ballot for vote in promises.values() for attempt in vote.attempts if attempt.nothing_sent}
    return votes.doubtful(promises, voters, ballot) - proven


def _half(voters: int) -> int:
    return max(1, voters // 2)


def _prints_without_its_own(vote: Vote, ballot: int, order: str, releaser: str = "") -> Vote | Refusal:
    return vote


def _anybody(committed: Collection[str], voters: Collection[str], releaser: str) -> bool:
    return len(set(committed) | ({releaser} & set(voters))) >= votes.quorum(len(voters))


def _first_of_all(committed: Collection[str], voters: Collection[str], releaser: str) -> bool:
    return releaser in voters


def _borrows_what_never_came(borrowed: Borrowed, vote: Vote) -> Borrowed | Refusal:
    return votes.borrow(borrowed if borrowed.vote else Borrowed(), vote)


def _gives_back_and_keeps(borrowed: Borrowed, loan: int) -> Borrowed | Refusal:
    return votes.give_back(borrowed, loan) if loan != borrowed.loan else borrowed


def _takes_its_own(vote: Vote, loan: int, returned: Vote | None) -> Vote | Refusal:
    return votes.take_back(vote, loan, None)


def _takes_back_without_proofs(vote: Vote, loan: int, returned: Vote | None) -> Vote | Refusal:
    back = votes.take_back(vote, loan, returned)
    return replace(returned, lent=False) if isinstance(back, Vote) and returned is not None else back


TRIED = ((3, "11", "12"), (3, "11", "01"), (2, "12", "01"))
"""What broken loans are tried with."""
THREE = (3, ONE_AFTER_THE_OTHER, 0)
TWO = (2, ONE_AFTER_THE_OTHER, 0)
SHARED = (3, orders("112", "012"), 0)


@pytest.mark.parametrize(
    ("rules", "model"),
    [
        pytest.param(mutant(promise=_promises_anything), (3, orders("23", "01"), 0), id="promises lower ballots"),
        pytest.param(mutant(promise=_forgets_its_loss), (1, ONE_AFTER_THE_OTHER, 1), id="lost record votes on, one"),
        pytest.param(mutant(promise=_forgets_its_loss), (3, ONE_AFTER_THE_OTHER, 1), id="lost record votes on, three"),
        pytest.param(mutant(promise=_healed_by_force), (1, orders("123", "000", (), (1,)), 1), id="force heals a loss"),
        pytest.param(mutant(commit=_commits_unpromised), TWO, id="commits what it did not promise"),
        pytest.param(mutant(commit=_commits_outdated), THREE, id="commits an outdated ballot"),
        pytest.param(
            mutant(commit=_remembers_the_last_only), (1, orders("123", "000", (), (1,), (2,)), 0), id="forgets commits"
        ),
        pytest.param(mutant(commit=_keeps_no_commit), (1, orders("12"), 0), id="commits without a record"),
        pytest.param(
            mutant(prove_nothing_sent=_proves_all), (1, orders("123", "000", (), (1,)), 0), id="one proof for all"
        ),
        pytest.param(mutant(doubtful=_trusts_the_silent), THREE, id="the silent committed nothing"),
        pytest.param(mutant(doubtful=_never_doubts), (1, orders("12"), 0), id="never in doubt"),
        pytest.param(mutant(doubtful=_doubts_the_last_only), (1, orders("123"), 0), id="only the last is in doubt"),
        pytest.param(mutant(quorum=_half), TWO, id="one of two is enough"),
        pytest.param(mutant(quorum=_half), THREE, id="one of three is enough"),
        pytest.param(mutant(commit=_commits_fast_to_all), (3, orders("11", "01"), 0), id="fast though another was"),
        pytest.param(mutant(commit=_commits_fast_late), THREE, id="fast though a later ballot was promised"),
        pytest.param(mutant(commit=_commits_fast_after_a_loss), (3, orders("11", "01"), 1), id="fast though lost"),
        pytest.param(mutant(doubtful=_knows_one_order_a_ballot), SHARED, id="doubt about one order of a ballot only"),
        pytest.param(mutant(doubtful=_frees_the_ballot), SHARED, id="proof for one frees the other"),
        pytest.param(mutant(prove_nothing_sent=_keeps_no_proof), TWO, id="proof forgotten, late commit counts"),
        pytest.param(
            mutant(prove_nothing_sent=_notes_no_proof_without_commit), TWO, id="proof noted with a commit only"
        ),
        pytest.param(
            mutant(prove_nothing_sent=_keeps_the_last), (1, orders("123", "000", (), (1,)), 0), id="forgets unproven"
        ),
        pytest.param(mutant(own_commit=_prints_without_its_own), TWO, id="prints without its own commit"),
        pytest.param(mutant(own_turn=_anybody), (3, orders("12", "30"), 0), id="releaser that is no voter"),
        pytest.param(mutant(own_turn=_first_of_all), THREE, id="its own commit first"),
    ],
)
def test_a_broken_rule_is_caught(rules: SimpleNamespace, model: tuple[int, tuple[Order, ...], int]) -> None:
    voters, asked, losses = model
    if voters == 1:
        asked = tuple(replace(order, releaser=0) for order in asked)
    assert Model(voters, asked, losses=losses, rules=rules).walk().wrong is not None


@pytest.mark.parametrize(
    ("rules", "tried"),
    [
        pytest.param(
            mutant(promise=_votes_though_lent, commit=_commits_though_lent), TRIED[2:], id="lent vote votes on"
        ),
        pytest.param(mutant(give_back=_gives_back_and_keeps), TRIED[2:], id="both vote after it was given back"),
        pytest.param(mutant(borrow=_borrows_what_never_came), TRIED[:2], id="late message lends what was never lent"),
        pytest.param(mutant(take_back=_takes_its_own), TRIED[:2], id="what the borrower did is forgotten"),
        pytest.param(mutant(take_back=_takes_back_without_proofs), TRIED[:2], id="a proof meanwhile is forgotten"),
    ],
)
def test_a_broken_loan_is_caught(rules: SimpleNamespace, tried: tuple[tuple[int, str, str], ...]) -> None:
    walks = (
        Model(voters, orders(ballots, releasers), loans=1, lender=0, rules=rules).walk(150_000)
        for voters, ballots, releasers in tried
    )
    assert any(walk.wrong for walk in walks)


def test_the_late_message_of_a_loan_that_is_over_lends_nothing() -> None:
    lent = votes.lend(Vote(), 1)
    assert isinstance(lent, Vote)
    borrowed = votes.borrow(Borrowed(), lent)
    assert isinstance(borrowed, Borrowed)
    over = votes.give_back(borrowed, 1)
    assert isinstance(over, Borrowed) and over.vote is not None
    assert votes.borrow(over, lent) is Refusal.OUTDATED
    assert votes.commit(over.vote, 1, "one") is Refusal.LENT
    back = votes.take_back(lent, 1, over.vote)
    assert isinstance(back, Vote)
    again = votes.lend(back, 2)
    assert isinstance(again, Vote)
    assert votes.take_back(again, 1, over.vote) is Refusal.OUTDATED


def test_an_order_from_before_a_loss_must_not_be_carried_out_after_it() -> None:
    """Why `promise` asks its callers for that: without it, a rebuilt index would print the same order once more."""
    assert Model(1, orders("12"), losses=1, guarded=False).walk().wrong is not None


def test_alone_must_not_heal_where_orders_number_their_ballots_themselves() -> None:
    """Why `promise` asks its callers for that: the second order of the first ballot would find a record made whole."""
    assert Model(1, orders("11"), losses=1).walk().wrong is not None


def test_one_of_one_both_of_two_two_of_three_decide() -> None:
    assert [votes.quorum(voters) for voters in (1, 2, 3, 4, 5)] == [1, 2, 2, 3, 3]
    with pytest.raises(ValueError, match="at least one"):
        votes.quorum(0)


def test_strangers_do_not_make_a_quorum_and_do_not_settle_a_doubt() -> None:
    stranger = {"x": Vote(2), "y": Vote(2)}
    assert votes.judge(stranger | {"a": Vote(2)}, ["a", "b", "c"], 2) is Verdict.NO_QUORUM
    committed = Vote(2, (Attempt(1, "o"),))
    proof = {"x": Vote(2, (Attempt(1, "o", nothing_sent=True),))}
    assert votes.judge(proof | {"a": committed, "b": Vote(2)}, ["a", "b", "c"], 2) is Verdict.IN_DOUBT


def test_a_lost_record_counts_as_one_that_may_have_committed() -> None:
    promises = {"a": Vote(3, (Attempt(1, "o"),)), "b": Vote(3, lost=True), "c": Vote(3)}
    assert votes.doubtful(promises, ["a", "b", "c"], 3) == {1}
    assert votes.doubtful(promises | {"b": Vote(3)}, ["a", "b", "c"], 3) == frozenset()


def test_a_repeated_commit_changes_nothing_and_another_order_does_not_get_its_ballot() -> None:
    committed = votes.commit(Vote(1), 1, "one")
    assert isinstance(committed, Vote)
    assert votes.commit(committed, 1, "one") == committed
    assert votes.commit(committed, 1, "two") is Refusal.OUTDATED
    assert votes.commit(votes.prove_nothing_sent(committed, 1, "one"), 1, "one") is Refusal.OUTDATED


def test_a_refused_release_every_minute_does_not_grow_the_record() -> None:
    vote = Vote()
    for ballot in range(1, 10_000):
        vote = votes.burn(vote, ballot, f"order-{ballot}", "r")
    assert len(vote.attempts) == votes.KEPT + 1
    assert vote.attempts[-1] == Attempt(9_999, "order-9999", "r", nothing_sent=True)


def test_an_attempt_without_proof_is_never_forgotten() -> None:
    vote = votes.commit(Vote(), 1, "printed", "r")
    assert isinstance(vote, Vote)
    for ballot in range(2, 200):
        vote = votes.burn(vote, ballot, f"order-{ballot}", "r")
    assert vote.attempts[0] == Attempt(1, "printed", "r")


def test_a_burnt_first_ballot_is_not_taken_by_the_late_copy_of_its_order() -> None:
    assert votes.commit(votes.burn(Vote(), FIRST, "one", "r"), FIRST, "one", "r") is Refusal.OUTDATED


def test_the_proof_of_one_order_is_none_for_another_in_its_ballot() -> None:
    vote = votes.commit(Vote(), 1, "one", "r")
    assert isinstance(vote, Vote)
    vote = votes.prove_nothing_sent(vote, 1, "two", "s")
    assert votes.sent_nothing(vote, 1, "two")
    assert not votes.sent_nothing(vote, 1, "one")
    assert not votes.sent_nothing(vote, 1)


def test_a_lost_record_does_not_act_upon_what_it_promised_before() -> None:
    lost = votes.lose(Vote(2, (Attempt(1, "one", "r"),)))
    assert votes.commit(lost, 2, "two", "r") is Refusal.VOTE_LOST
    assert votes.commit(votes.lose(Vote(1)), FIRST, "one", "r") is Refusal.VOTE_LOST


def test_a_lent_and_a_closed_vote_refuse_even_a_forced_order() -> None:
    lent, closed = votes.lend(Vote(), 1), votes.close(Vote(), 1)
    assert isinstance(lent, Vote) and isinstance(closed, Vote)
    assert votes.promise(lent, 1, forced=True) is Refusal.LENT
    assert votes.commit(lent, 1, "one") is Refusal.LENT
    assert votes.close(lent, 1) is Refusal.LENT
    assert votes.promise(closed, 1, forced=True) is Refusal.CLOSED
    assert votes.commit(closed, 1, "one") is Refusal.CLOSED


def test_a_question_about_an_earlier_loan_does_not_end_the_present_one() -> None:
    lent = votes.lend(Vote(loan=1), 2)
    assert isinstance(lent, Vote)
    borrowed = votes.borrow(Borrowed(1), lent)
    assert isinstance(borrowed, Borrowed)
    assert votes.give_back(borrowed, 1) is Refusal.OUTDATED
    assert votes.borrow(borrowed, lent) == borrowed


def test_a_record_that_was_lost_while_it_was_lent_stays_lost() -> None:
    lent = votes.lend(Vote(3), 1)
    assert isinstance(lent, Vote)
    back = votes.take_back(replace(lent, lost=True), 1, Vote(3, loan=1, lent=True))
    assert isinstance(back, Vote) and back.lost
