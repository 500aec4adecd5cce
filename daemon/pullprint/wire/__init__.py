"""Every message between processes, documented field by field.

Node and cloud are updated at different times, so each release reads what the one before it and the one after it write:

* A field that a reader does not know is ignored (`types.Message`). A new field therefore has a default, which means
  what was meant before the field existed.
* An item or a report of a kind that a reader does not know is passed over with a line in its log, and acknowledged
  (`types.by_kind`). So a new meaning gets a new kind, and whoever depends on its effect must see it in a later report.
* A word that a reader does not know, such as a state, a finding's level or the code of a failure, is shown as it is or
  passed over; no reader takes it for one that it knows.
* A limit is never widened, a field never made optional, and none gets another meaning: an older reader would refuse
  the whole message. What must be that different has a new name.
* What is signed (orders, configurations, account statements) is read by the same rules. A restriction that an older
  reader would ignore is not a new field but a new kind of statement.

`PROTOCOL` is raised only when an older peer would do the wrong thing all the same. The cloud is updated first then, and
accepts everything from `OLDEST` on; a node and a cloud that do not fit refuse each other at connect, in a sentence.

Versions of the protocol between node and cloud:

* 1 (2026-11-21): enrolment, inbox, events, reconcile, orders.
"""

from pullprint.base.errors import PullprintError

PROTOCOL = 1
OLDEST = 1
"""The oldest version of the protocol that the cloud of this release still speaks."""


class ProtocolRefused(PullprintError):
    """The host and its cloud do not understand each other: the host speaks version {node} of their protocol, the cloud
    version {cloud}. Update Pullprint on the one with the lower number. Held jobs are safe."""

    code = "protocol-refused"
    http_status = 409


def check_protocol(node: int, oldest: int, newest: int) -> None:
    """A node that speaks *node* and a cloud that speaks *oldest* to *newest*. Raises ProtocolRefused."""
    if not oldest <= node <= newest:
        raise ProtocolRefused(node=node, cloud=newest)
