"""``pullprintd``: catches jobs, seals and holds them, and releases them on a valid order.

A job's way through the files: `intake` → `holder` → `release`; `channel` speaks with the cloud, `local` with the
``pullprint`` command, `app` wires them.
"""
