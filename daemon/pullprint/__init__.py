"""Pullprint: print to a CUPS queue, release at the printer you stand in front of.

The rooms, lowest first; imports go down only (``make lint`` checks it):

``base``      clock, errors, configuration, log, back-off, files: standard library only
``model``     job, ticket, states, votes, policy: pure, no I/O, no clock
``wire``      every message between processes, documented field by field
``vault``     the sealed job: format, keys, files, index
``printers``  what talks to printers and to CUPS
``node``      ``pullprintd``: catches, seals, holds, releases
``cloud``     ``pullprint-cloud``: users, orders, the web page; can read no job
``cli``       the ``pullprint`` command
"""

__version__ = "0.1.0"
