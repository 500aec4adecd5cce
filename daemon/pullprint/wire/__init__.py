"""Every message between processes, documented field by field.

Versions of the protocol between node and cloud; each side ignores fields that it does not know, and a number is
raised only when an old peer would do the wrong thing:

* 1 (2026-11-21): enrolment, inbox, events, reconcile, orders.
"""

PROTOCOL = 1
