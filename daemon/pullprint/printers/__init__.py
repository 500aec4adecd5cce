"""What talks to printers and to CUPS: addresses, health, delivery, and what became of a job.

Documents reach paper through CUPS's own backends only; questions go over IPP. Nothing here knows users,
orders, votes or keys, and nothing here tries a second time once a byte of a document may have left.
"""
