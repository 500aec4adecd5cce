"""The cloud's own part of each job: HPKE day keys, and how a part is handed to the releaser.

A new key every day. Nodes seal to a key for `SEAL_FOR`, so that one that is cut off for a week still makes jobs
that the cloud can help to release; a job lives for 30 days at most. After `KEEP_FOR` nothing that was sealed to
the key can still be printed, and the key is destroyed: what it could have opened is gone from every backup of a
node, too.
"""

import secrets
import time
from typing import Any

from sqlalchemy import delete, insert, select

from pullprint.cloud.store import AnyRow, Transaction
from pullprint.cloud.tables import job, organisation, party_key
from pullprint.vault import parts
from pullprint.wire.node import CLOUD

DAY = 86_400
SEAL_FOR = 7 * DAY
KEEP_FOR = 40 * DAY


def current(t: Transaction, organisation_id: str) -> bool:
    """Make today's key if there is none yet; whether it was made."""
    t.run(select(organisation.c.id).where(organisation.c.id == organisation_id).with_for_update())
    row = t.one(_newest(organisation_id))
    if row is not None and row.created > t.now - DAY:
        return False
    private, public = parts.new_key()
    values = {
        "organisation": organisation_id,
        "id": f"cloud-{time.strftime('%Y%m%d', time.gmtime(t.now))}-{secrets.token_hex(4)}",
        "private": private,
        "public": public,
        "created": t.now,
        "expires": t.now + SEAL_FOR,
    }
    t.run(insert(party_key), values)
    return True


def newest(t: Transaction, organisation_id: str) -> AnyRow:
    """The key that new jobs are sealed to: ``id``, ``public``, ``expires``."""
    row = t.one(_newest(organisation_id))
    assert row is not None  # made with the organisation; housekeeping makes a new one before it destroys old ones
    return row


def destroy_old(t: Transaction) -> int:
    """Destroy keys that no job needs any more; how many."""
    needed = select(job.c.id).where(
        job.c.organisation == party_key.c.organisation,
        job.c.cloud_key == party_key.c.id,
        job.c.ended.is_(None),
        job.c.expires > t.now,
    )
    old = delete(party_key).where(party_key.c.created < t.now - KEEP_FOR, ~needed.exists())
    return t.run(old).rowcount


def hand_over(
    slot: bytes, private: bytes, *, job_id: str, key: str, generation: int, order: str, to: bytes, to_key: str
) -> bytes:
    """The cloud's part in *slot*, sealed for the releaser's key *to* and this *order* only. Raises PartRefused."""
    part = parts.open_part(slot, private, job=job_id, party=CLOUD, key=key, generation=generation)
    return parts.seal_for_release(part, to, job=job_id, order=order, key=to_key)


def _newest(organisation_id: str) -> Any:
    return (
        select(party_key.c.id, party_key.c.public, party_key.c.created, party_key.c.expires)
        .where(party_key.c.organisation == organisation_id)
        .order_by(party_key.c.created.desc())
        .limit(1)
    )
