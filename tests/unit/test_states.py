"""The states of a job: nothing follows an end, and nothing that may have printed is forgotten."""

import pytest

from pullprint.model.states import ENDED, TABLE, Event, State, WrongState, follow


def test_every_state_stands_in_the_table_and_every_move_leads_to_one() -> None:
    assert set(TABLE) == set(State)
    assert {state for moves in TABLE.values() for state in moves.values()} <= set(State)


def test_what_the_table_lacks_is_refused_with_the_jobs_state() -> None:
    for state in State:
        for event in Event:
            if event in TABLE[state]:
                assert follow(state, event) is TABLE[state][event]
            else:
                with pytest.raises(WrongState, match=state.value):
                    follow(state, event)


def test_nothing_follows_an_end_and_every_other_state_reaches_one() -> None:
    assert {state for state in State if not TABLE[state]} == ENDED
    reaching = set(ENDED)
    for _ in State:
        reaching |= {state for state in State if reaching & set(TABLE[state].values())}
    assert reaching == set(State)


def test_a_job_that_may_have_printed_is_held_again_only_on_proof() -> None:
    for state in (State.SENDING, State.UNCERTAIN):
        back = {event for event, after in TABLE[state].items() if after is State.HELD}
        assert back == {Event.NOTHING_SENT}


def test_a_job_is_sent_only_after_the_voters_decided() -> None:
    assert [state for state in State if Event.SEND in TABLE[state]] == [State.COMMITTED]
    assert [state for state in State if Event.COMMIT in TABLE[state]] == [State.PREPARED]
    assert not {Event.CANCEL, Event.EXPIRE} & set(TABLE[State.SENDING])
