"""Long random histories of one to five voters, with the real functions of `votes` and nothing left out.

Unlike the exhaustive walk, which stops at three voters and three orders, this samples: releasers crash and start over,
answers get lost, messages come late and again, orders share ballots, the owner forces.
"""

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pullprint.model import votes
from pullprint.model.votes import FIRST, Verdict, Vote


@dataclass
class Release:
    """One order, and what its releaser knows; a crash takes all but what became of it."""

    order: str
    ballot: int
    releaser: str
    forces: frozenset[int]
    promises: dict[str, Vote] = field(default_factory=dict)
    committed: set[str] = field(default_factory=set)
    commit_sent: bool = False
    """Ever: such messages stay under way."""
    may_commit: bool = False
    crashed_after_commit: bool = False
    printed: bool = False
    proven: bool = False


class Site(RuleBasedStateMachine):
    @initialize(voters=st.integers(1, 5))
    def begin(self, voters: int) -> None:
        self.records = {f"n{index}": Vote() for index in range(voters)}
        self.names = list(self.records)
        self.releases: list[Release] = []

    def _one(self, number: int) -> Release | None:
        return self.releases[number % len(self.releases)] if self.releases else None

    @rule(ballot=st.integers(1, 5), at=st.integers(0, 5), force=st.booleans())
    def order(self, ballot: int, at: int, force: bool) -> None:
        if len(self.releases) < 8:
            forces = frozenset(range(1, ballot)) if force and ballot > FIRST else frozenset()
            releaser = [*self.names, "stranger"][at % (len(self.names) + 1)]
            self.releases.append(Release(f"o{len(self.releases)}", ballot, releaser, forces))

    @rule(number=st.integers(0, 7), at=st.integers(0, 4), heard=st.booleans())
    def prepare(self, number: int, at: int, heard: bool) -> None:
        release, name = self._one(number), self.names[at % len(self.names)]
        if release is None:
            return
        promised = votes.promise(self.records[name], release.ballot, forced=bool(release.forces))
        if isinstance(promised, Vote):
            self.records[name] = promised
            if heard:
                release.promises[name] = promised

    @rule(number=st.integers(0, 7))
    def judge(self, number: int) -> None:
        release = self._one(number)
        if release is None or release.proven:
            return
        verdict = votes.judge(release.promises, self.names, release.ballot, release.forces)
        if release.ballot == FIRST or verdict is Verdict.GO:
            release.commit_sent = release.may_commit = True

    @rule(number=st.integers(0, 7), at=st.integers(0, 4), heard=st.booleans())
    def commit(self, number: int, at: int, heard: bool) -> None:
        release, name = self._one(number), self.names[at % len(self.names)]
        if release is None or not release.commit_sent or name == release.releaser:
            return
        committed = votes.commit(self.records[name], release.ballot, release.order, release.releaser)
        if isinstance(committed, Vote):
            self.records[name] = committed
            if heard:
                release.committed.add(name)

    @rule(number=st.integers(0, 7), end=st.sampled_from(["prints", "crashes", "finds nothing sent"]))
    def commit_own(self, number: int, end: str) -> None:
        release = self._one(number)
        if release is None or not release.may_commit or self._has_own(release):
            return
        if not votes.own_turn(release.committed, self.names, release.releaser):
            return
        committed = votes.commit(self.records[release.releaser], release.ballot, release.order, release.releaser)
        if isinstance(committed, Vote):
            self.records[release.releaser] = committed
            release.printed = end == "prints"
            release.crashed_after_commit = end == "crashes"
            if end == "finds nothing sent":
                self._prove(release)

    @rule(number=st.integers(0, 7))
    def crash(self, number: int) -> None:
        release = self._one(number)
        if release is not None:
            release.promises, release.committed, release.may_commit = {}, set(), False

    @rule(number=st.integers(0, 7))
    def prove(self, number: int) -> None:
        """Its own record has no commit."""
        release = self._one(number)
        if release is not None and release.releaser in self.records and not self._has_own(release):
            self._prove(release)

    @rule(number=st.integers(0, 7), at=st.integers(0, 4))
    def news(self, number: int, at: int) -> None:
        release, name = self._one(number), self.names[at % len(self.names)]
        if release is not None and release.proven:
            self.records[name] = votes.prove_nothing_sent(
                self.records[name], release.ballot, release.order, release.releaser
            )

    @rule(at=st.integers(0, 4), keep=st.integers(0, 2))
    def forget(self, at: int, keep: int) -> None:
        name = self.names[at % len(self.names)]
        self.records[name] = votes.forget(self.records[name], keep)

    def _has_own(self, release: Release) -> bool:
        attempts = self.records[release.releaser].attempts if release.releaser in self.records else ()
        return any(a.order == release.order and not a.nothing_sent for a in attempts)

    def _prove(self, release: Release) -> None:
        release.proven = True
        self.records[release.releaser] = votes.prove_nothing_sent(
            self.records[release.releaser], release.ballot, release.order, release.releaser
        )

    @invariant()
    def at_most_one_print_that_the_owner_did_not_force(self) -> None:
        printed = [release for release in getattr(self, "releases", []) if release.printed]
        assert sum(not release.forces for release in printed) <= 1
        assert len({release.ballot for release in printed}) == len(printed)
        assert not any(other.ballot < release.ballot for release in printed if not release.forces for other in printed)

    @invariant()
    def no_proof_for_what_printed(self) -> None:
        for release in getattr(self, "releases", []):
            assert not (release.printed and release.proven)
            assert release.releaser != "stranger" or not release.printed


TestRandomHistories = Site.TestCase
TestRandomHistories.settings = settings(max_examples=120, stateful_step_count=60)
