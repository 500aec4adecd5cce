"""The real parts that tests, the demo and the benchmarks are built from.

A private cupsd, printers that really take documents, and processes that can be started, killed and frozen.
Everything lives on loopback and in folders of its own, and ends with its ``with`` block.
"""
