"""What must hold on every database: the schema's way up, and everything that two do at once."""

import secrets
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Boolean, LargeBinary, MetaData, Text, create_engine, func, select, text
from sqlalchemy.dialects import postgresql as sa_postgresql
from tests.cloud import postgresql
from tests.cloud.office import Office, open_office
from tests.cloud.test_channel import (  # noqa: F401  (run here again, on each database)
    test_events_are_applied_once_in_order_whatever_is_repeated,
    test_events_that_make_no_sense_are_passed_over_and_stop_nothing,
    test_inbox_wakes_at_once_and_keeps_items_until_they_are_acknowledged,
    test_reconcile_tells_what_to_report_and_what_was_cancelled,
    test_replayed_many_times_at_once_is_taken_once,
    test_same_events_many_times_at_once_are_applied_once,
)
from tests.cloud.test_enrolment import test_one_code_used_by_two_at_once_makes_one_node  # noqa: F401
from tests.cloud.test_invitations import (  # noqa: F401
    test_housekeeping_forgets_links_whose_time_is_over,
    test_invited_many_times_at_once_the_last_link_is_good,
    test_link_works_once_and_ends_what_the_old_password_opened,
    test_password_and_link_at_once_leave_one_password_and_no_link,
    test_removed_users_link_is_not_their_successors,
    test_two_who_accept_at_once_one_of_them_wins,
)
from tests.cloud.test_loans import (  # noqa: F401
    test_cloud_votes_for_a_node_that_sleeps_until_it_wakes,
    test_loan_that_comes_after_its_return_is_refused,
    test_loans_go_with_their_job,
    test_many_that_lend_and_wake_at_once_do_not_wait_for_each_other,
    test_nobody_gets_a_vote_without_an_order_of_its_own,
    test_node_that_lost_its_records_has_no_loans,
    test_vote_and_return_at_once_are_told_one_after_the_other,
)
from tests.cloud.test_logins import (  # noqa: F401
    test_account_becomes_the_user_who_allows_it_and_its_node_is_told_with_a_signature,
    test_account_is_listed_beside_sessions_and_can_be_taken_back,
    test_code_is_answered_once,
    test_latest_login_of_an_account_counts,
    test_new_code_replaces_the_accounts_older_one,
    test_node_has_a_limited_number_of_pending_logins,
    test_removed_user_has_no_accounts_and_gets_no_token,
    test_token_is_given_once,
)
from tests.cloud.test_mesh import (  # noqa: F401
    test_both_report_a_new_job_at_once,
    test_candidates_are_awake_have_room_and_are_somebody_else,
    test_everything_at_once_makes_nobody_wait_for_each_other,
    test_holder_that_lacks_a_job_is_one_no_more_and_the_job_is_gone_with_the_last,
    test_job_that_was_placed_is_shown_with_its_copies_and_released_with_its_new_part,
    test_of_two_tables_the_later_generation_counts_and_an_old_one_changes_nothing,
    test_peers_are_told_at_once_of_a_new_node_and_of_one_that_is_shut_out,
    test_traces_and_states_of_all_holders_count_and_of_nobody_else,
    test_two_that_change_at_once_do_not_wait_for_each_other,
)
from tests.cloud.test_metrics import test_figures_are_what_the_database_says  # noqa: F401
from tests.cloud.test_orders import (  # noqa: F401
    test_order_reaches_the_holder_with_a_part_that_only_it_can_open,
    test_released_by_two_browsers_at_once_gives_one_order,
    test_uncertain_job_prints_again_only_under_an_order_that_names_the_doubtful_attempt,
)
from tests.cloud.test_replacement import (  # noqa: F401
    test_holder_that_is_silent_for_long_is_replaced_by_who_is_left,
    test_instances_that_look_at_once_order_once,
    test_job_that_is_short_of_copies_gets_more_when_another_node_turns_up,
    test_on_monday_morning_not_everything_moves_at_once,
)
from tests.cloud.test_sessions import (  # noqa: F401
    test_list_names_each_place_and_one_of_them_can_be_ended,
    test_nobody_else_sees_or_ends_a_session,
    test_what_is_parked_under_a_session_ends_with_it,
)
from tests.cloud.test_takeover import (  # noqa: F401
    test_holder_that_cannot_reach_the_printer_leaves_it_to_one_that_can,
    test_holder_that_is_not_heard_of_is_replaced_by_the_next,
    test_releaser_that_dies_when_it_has_prepared_is_replaced,
    test_several_instances_that_look_at_once_issue_one_order,
)
from tests.cloud.test_web import (  # noqa: F401
    test_claim_gives_the_job_to_whoever_has_its_code_and_guessing_is_throttled,
    test_wrong_password_and_unknown_user_look_alike_and_are_throttled,
)

from pullprint.base.clock import ManualClock
from pullprint.base.errors import TooMany
from pullprint.cloud import housekeeping, keys, migrations, organisations, throttle
from pullprint.cloud.store import Store
from pullprint.cloud.tables import holder, job, metadata, node, party_key, release

POSTGRESQL = postgresql.programs()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A PostgreSQL for this file; only asked for where there is one."""
    assert POSTGRESQL is not None
    with postgresql.running(POSTGRESQL) as url:
        yield url


@pytest.fixture(params=["sqlite", *(["postgresql"] if POSTGRESQL else [])])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'cloud.sqlite'}"
    url: str = request.getfixturevalue("server")
    name = f"test_{secrets.token_hex(4)}"
    engine = create_engine(url.format("postgres"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return url.format(name)


@pytest.fixture
async def office(database: str, tmp_path: Path) -> AsyncIterator[Office]:
    async with open_office(tmp_path, database) as running:
        yield running


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    opened = Store(database, ManualClock())
    migrations.upgrade(opened.engine)
    yield opened
    opened.close_now()


def test_schema_is_brought_up_by_many_at_once_and_is_the_one_in_the_code(database: str) -> None:
    stores = [Store(database, ManualClock()) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda store: migrations.upgrade(store.engine), stores))
    with stores[0].engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all() == [migrations.HEAD]
    for store in stores:
        store.close_now()


def test_rows_of_the_schema_before_the_mesh_are_kept(database: str) -> None:
    store = Store(database, ManualClock())
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    before = MetaData()
    with store.engine.connect() as connection, connection.begin():
        config.attributes["connection"] = connection
        command.upgrade(config, "0003")
        before.reflect(connection)
        for name in ("organisation", "site", "node", "job", "holder", "release"):
            table, blob = before.tables[name], (LargeBinary, sa_postgresql.BYTEA)
            values = {
                column.name: b"" if isinstance(column.type, blob) else "x" if isinstance(column.type, Text) else 1
                for column in table.columns
            }
            booleans = {column.name: True for column in table.columns if isinstance(column.type, Boolean)}
            connection.execute(table.insert().values(**values | booleans | ({"missing": 7.5} if name == "job" else {})))
    store.upgrade()
    with store.engine.connect() as connection:
        assert connection.execute(select(holder.c.missing, holder.c.node)).all() == [(7.5, "x")]
        row = connection.execute(select(node)).one()
        assert (row.role, row.endpoints, row.room) == ("normal", "[]", 0)
        row = connection.execute(select(release)).one()
        assert (row.acknowledged, row.due, row.wished, row.tried) == (None, None, 0, "[]")
        assert connection.execute(select(job.c.state_ballot)).scalar() == 0
    store.close_now()


def test_transaction_that_fails_changes_nothing_and_wakes_nobody(store: Store) -> None:
    woken: list[set[str]] = []
    store.on_commit = woken.append

    def fail(t: object) -> None:
        organisations.add(t, "acme", "Acme")  # type: ignore[arg-type]
        t.wake("node:x")  # type: ignore[attr-defined]
        raise TooMany(seconds=1)

    with pytest.raises(TooMany):
        store.transact(fail)
    assert store.transact(organisations.lines) == [] and woken == []


def test_attempts_made_at_once_are_all_counted(store: Store) -> None:
    def attempt(_: int) -> bool:
        try:
            store.transact(throttle.attempt, throttle.CLAIM_USER, "acme", "ada")
        except TooMany:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, range(40))) == throttle.CLAIM_USER.attempts


def test_day_keys_follow_each_other_and_are_destroyed_when_nothing_needs_them(database: str) -> None:
    clock = ManualClock(time.time())
    store = Store(database, clock)
    migrations.upgrade(store.engine)
    store.transact(organisations.add, "acme", "Acme")
    count = select(func.count()).select_from(party_key)
    assert store.transact(keys.current, "acme") is False
    first = store.transact(keys.newest, "acme")
    for _ in range(41):
        clock.advance(keys.DAY + 1)
        store.transact(housekeeping.make_keys)
        store.transact(housekeeping.forget)
    assert store.transact(lambda t: t.run(count).scalar()) == 40
    assert store.transact(keys.newest, "acme").id != first.id
    kept = store.transact(lambda t: t.run(select(party_key.c.id)).scalars().all())
    assert first.id not in kept
    store.close_now()
