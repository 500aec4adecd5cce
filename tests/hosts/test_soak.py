"""``make soak``, in short."""

from tests.rig.soak import soak


def test_a_few_jobs_survive_everything() -> None:
    tally = soak(6, seed=20_260_727)
    assert tally.good, str(tally)
    assert tally.submitted == 6 == tally.once + tally.uncertain, str(tally)
