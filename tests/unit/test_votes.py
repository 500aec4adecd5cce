"""Printed once: every history of a small mesh is walked through, and broken rules must be caught at it."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from types import SimpleNamespace

import pytest
from tests.unit.votes_model import Model, mutant

from pullprint.model import votes
from pullprint.model.votes import Attempt, Refusal, Verdict, Vote

NEVER_FORCED = ((), ())
FORCED = ((), (1,))


@pytest.mark.parametrize(
    ("voters", "forces", "losses", "most"),
    [
        (1, ((), (), ()), 0, 1),
        (1, ((), (1,), (1, 2)), 0, 3),
        (1, ((), (1,), ()), 1, 2),
        (1, ((), (), ()), 1, 1),
        (2, NEVER_FORCED, 1, 1),
        (2, FORCED, 1, 2),
        (2, ((), (1,), ()), 0, 2),
        (3, NEVER_FORCED, 0, 1),
        (3, FORCED, 0, 2),
        (3, NEVER_FORCED, 1, 1),
    ],
)
def test_no_history_prints_twice_unless_the_owner_said_so(
    voters: int, forces: tuple[tuple[int, ...], ...], losses: int, most: int
) -> None:
    wrong, printed = Model(voters, forces, losses=losses).walk()
    assert wrong is None
    assert printed == most, "the model must be able to print, or it proves nothing"


def _promises_anything(vote: Vote, ballot: int, *, forced: bool = False) -> Vote | Refusal:
    if vote.lost and ballot > 1 and not forced:
        return Refusal.VOTE_LOST
    return replace(vote, promised=ballot)


def _forgets_its_loss(vote: Vote, ballot: int, *, forced: bool = False) -> Vote | Refusal:
    return votes.promise(replace(vote, lost=False), ballot, forced=forced)


def _healed_by_force(vote: Vote, ballot: int, *, forced: bool = False) -> Vote | Refusal:
    promised = votes.promise(vote, ballot, forced=forced)
    return replace(promised, lost=False) if isinstance(promised, Vote) else promised


def _commits_unpromised(vote: Vote, ballot: int, order: str) -> Vote | Refusal:
    return votes.commit(replace(vote, promised=ballot), ballot, order)


def _commits_outdated(vote: Vote, ballot: int, order: str) -> Vote | Refusal:
    committed = votes.commit(replace(vote, promised=ballot), ballot, order)
    return replace(committed, promised=vote.promised) if isinstance(committed, Vote) else committed


def _remembers_the_last_only(vote: Vote, ballot: int, order: str) -> Vote | Refusal:
    committed = votes.commit(vote, ballot, order)
    return replace(committed, attempts=committed.attempts[-1:]) if isinstance(committed, Vote) else committed


def _keeps_no_commit(vote: Vote, ballot: int, order: str) -> Vote | Refusal:
    committed = votes.commit(vote, ballot, order)
    return vote if isinstance(committed, Vote) else committed


def _proves_all(vote: Vote, ballot: int) -> Vote:
    return replace(vote, attempts=tuple(replace(attempt, nothing_sent=True) for attempt in vote.attempts))


def _trusts_the_silent(promises: Mapping[str, Vote], voters: Collection[str], ballot: int) -> frozenset[int]:
    return votes.doubtful(promises, set(promises), ballot) if len(promises) == len(voters) else frozenset()


def _never_doubts(promises: Mapping[str, Vote], voters: Collection[str], ballot: int) -> frozenset[int]:
    return frozenset()


def _doubts_the_last_only(promises: Mapping[str, Vote], voters: Collection[str], ballot: int) -> frozenset[int]:
    return votes.doubtful(promises, voters, ballot) & {ballot - 1}


def _half(voters: int) -> int:
    return max(1, voters // 2)


@pytest.mark.parametrize(
    ("rules", "model"),
    [
        pytest.param(mutant(promise=_promises_anything), (3, NEVER_FORCED, 0), id="promises lower ballots"),
        pytest.param(mutant(promise=_forgets_its_loss), (1, NEVER_FORCED, 1), id="lost record votes on, one"),
        pytest.param(mutant(promise=_forgets_its_loss), (3, NEVER_FORCED, 1), id="lost record votes on, three"),
        pytest.param(mutant(promise=_healed_by_force), (1, ((), (1,), ()), 1), id="force heals a lost record"),
        pytest.param(mutant(commit=_commits_unpromised), (2, NEVER_FORCED, 0), id="commits what it did not promise"),
        pytest.param(mutant(commit=_commits_outdated), (3, NEVER_FORCED, 0), id="commits an outdated ballot"),
        pytest.param(mutant(commit=_remembers_the_last_only), (1, ((), (1,), (2,)), 0), id="forgets earlier commits"),
        pytest.param(mutant(commit=_keeps_no_commit), (1, NEVER_FORCED, 0), id="commits without a record"),
        pytest.param(mutant(prove_nothing_sent=_proves_all), (1, ((), (1,), ()), 0), id="one proof for all attempts"),
        pytest.param(mutant(doubtful=_trusts_the_silent), (3, NEVER_FORCED, 0), id="the silent committed nothing"),
        pytest.param(mutant(doubtful=_never_doubts), (1, NEVER_FORCED, 0), id="never in doubt"),
        pytest.param(mutant(doubtful=_doubts_the_last_only), (1, ((), (), ()), 0), id="only the last is in doubt"),
        pytest.param(mutant(quorum=_half), (2, NEVER_FORCED, 0), id="one of two is enough"),
        pytest.param(mutant(quorum=_half), (3, NEVER_FORCED, 0), id="one of three is enough"),
    ],
)
def test_a_broken_rule_is_caught(rules: SimpleNamespace, model: tuple[int, tuple[tuple[int, ...], ...], int]) -> None:
    voters, forces, losses = model
    wrong, _ = Model(voters, forces, losses=losses, rules=rules).walk()
    assert wrong is not None


def test_an_order_from_before_a_loss_must_not_be_carried_out_after_it() -> None:
    """Why `promise` asks its callers for that: without it, a rebuilt index would print the same order once more."""
    wrong, _ = Model(1, NEVER_FORCED, losses=1, guarded=False).walk()
    assert wrong is not None


def test_one_of_one_both_of_two_two_of_three_decide() -> None:
    assert [votes.quorum(voters) for voters in (1, 2, 3, 4, 5)] == [1, 2, 2, 3, 3]
    with pytest.raises(ValueError, match="at least one"):
        votes.quorum(0)


def test_strangers_do_not_make_a_quorum_and_do_not_settle_a_doubt() -> None:
    stranger = {"x": Vote(2), "y": Vote(2)}
    assert votes.judge(stranger | {"a": Vote(2)}, ["a", "b", "c"], 2) is Verdict.NO_QUORUM
    committed = Vote(2, (Attempt(1, "o"),))
    proof = {"x": Vote(2, (Attempt(1, "o", True),))}
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
    assert votes.commit(votes.prove_nothing_sent(committed, 1), 1, "one") is Refusal.OUTDATED
