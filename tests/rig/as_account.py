"""``python -m tests.rig.as_account UID WORD…``: root runs the ``pullprint`` command as another account.

The interpreter may lie where only root can read, so all that the command needs is loaded before the account is changed.
"""

import encodings.idna  # noqa: F401  (http.client and argparse load these two late)
import os
import shutil  # noqa: F401
import sys

import pullprint.cli.join
import pullprint.cli.login
import pullprint.cli.release  # noqa: F401
from pullprint.cli.main import main

NOGROUP = 65_534


def become(uid: int) -> None:
    """Be that account, for good."""
    os.setgroups([])
    os.setresgid(NOGROUP, NOGROUP, NOGROUP)
    os.setresuid(uid, uid, uid)


if __name__ == "__main__":
    become(int(sys.argv.pop(1)))
    main()
