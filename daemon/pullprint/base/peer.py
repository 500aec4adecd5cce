"""Who is at the other end of a Unix socket."""

import socket
import struct
import sys


def peer_uid(sock: socket.socket) -> int:
    """The effective uid of the process that connected, as the kernel knows it."""
    if sys.platform == "darwin":
        # struct xucred of <sys/ucred.h>: version, uid, …; LOCAL_PEERCRED at level 0.
        raw = sock.getsockopt(0, 1, 76)
        return int(struct.unpack_from("=II", raw)[1])
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("iII"))
    return int(struct.unpack("iII", raw)[1])
