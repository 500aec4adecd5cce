"""The ``pullprint`` command: lists, releases and follows jobs through pullprintd's local socket (`wire.local`).

People wait for every start of this command, so it stands on the standard library: argparse instead of typer, whose
parameters load pydantic, and plain dataclasses instead of the wire's models. An application of typer without a
single command of ours took 130 ms to start where Python takes 13; all of ``pullprint jobs`` takes half of that.
rich is imported only to draw on a terminal. Nothing here reads the vault or talks to the cloud.
"""
