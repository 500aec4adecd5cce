"""``pullprint-cloud``: users, orders, the web page; it knows of jobs, and can read none.

It holds one key part of each job and hands it, re-sealed, to the host that an order names. `vault.opening`, which
could open a job, is never imported here.

From the outside in: `main` (commands), `app` (wires a server), `routes_node` and `routes_web` (HTTP), `gate` (who
may call), then a file for each thing the cloud knows of, whose functions take a `store.Transaction`.
"""
