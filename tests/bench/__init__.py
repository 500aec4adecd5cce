"""The figures that this version is held to, each measured beside its baseline in the same run.

``python -m tests.bench`` (``make bench``) prints a table; ``--json FILE`` also writes everything that was measured.
Every benchmark takes turns with its baseline, because a machine is not equally fast all day. What each figure means,
what it leaves out and why its baseline is a fair one stands in ``docs/benchmarks.md``.
"""
