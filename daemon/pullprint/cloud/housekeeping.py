"""What is done every minute: new day keys, and forgetting what need not be known any more."""

import logging

from sqlalchemy import delete, update

from pullprint.base.clock import Clock
from pullprint.base.errors import PullprintError
from pullprint.cloud import (
    enrolment,
    inbox,
    invitations,
    jobs,
    keys,
    logins,
    nodes,
    organisations,
    sessions,
    sites,
    throttle,
)
from pullprint.cloud.store import Store, Transaction
from pullprint.cloud.tables import job
from pullprint.model.states import ENDED, State

EVERY = 60.0
OVERDUE = 86_400
"""Seconds after its end at which the cloud calls a job expired although its node has not said so."""
KEEP_ENDED = 40 * 86_400
"""Seconds after which an ended job and its trace are forgotten."""

_log = logging.getLogger(__name__)


async def run(store: Store, clock: Clock) -> None:
    """Keep house until cancelled."""
    while True:
        try:
            await store.run(make_keys)
            await store.run(end_overdue_jobs)
            await store.run(forget)
        except PullprintError as error:
            _log.warning("housekeeping: %s", error.sentence)
        except Exception:  # noqa: BLE001  (the root of a task: it goes on)
            _log.exception("housekeeping failed")
        await clock.sleep(EVERY)


def make_keys(t: Transaction) -> None:
    """Today's key for each organisation; nodes are told of new ones."""
    for organisation_id in organisations.identities(t):
        if keys.current(t, organisation_id):
            sites.changed(t, organisation_id)


def end_overdue_jobs(t: Transaction) -> None:
    """Jobs whose node has gone for good do not stay for ever; the cloud's part of them is forgotten."""
    overdue = (
        update(job)
        .where(job.c.ended.is_(None), job.c.expires < t.now - OVERDUE)
        .values(
            state=State.EXPIRED.value,
            ended=t.now,
            cloud_slot=b"",
            picture=None,
            sentence="It was held for as long as it may be, and was not printed.",
        )
        .returning(job.c.organisation, job.c.owner)
    )
    for row in t.all(overdue):
        jobs.changed(t, row.organisation, row.owner)


def forget(t: Transaction) -> None:
    """Drop what has had its time."""
    nodes.forget_nonces(t)
    sessions.forget_ended(t)
    logins.forget_old(t)
    throttle.forget_old(t)
    enrolment.forget_codes(t)
    invitations.forget_expired(t)
    inbox.forget_expired(t)
    keys.destroy_old(t)
    t.run(delete(job).where(job.c.ended < t.now - KEEP_ENDED, job.c.state.in_([state.value for state in ENDED])))
