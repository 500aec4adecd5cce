"""What systemd is told, and what it hands over, where there is one.

systemd-python is the one thing in ``base`` from outside the standard library, and only if it is there:
macOS has no systemd, and then these do nothing.
"""

import socket

try:
    from systemd import daemon as _daemon
except ImportError:  # macOS
    _daemon = None


def notify(state: str) -> bool:
    """Send *state* (``READY=1``, ``STOPPING=1``, ``STATUS=…``) as sd_notify(3) does; False where nobody listens."""
    return bool(_daemon and _daemon.notify(state))


def inherited_sockets() -> dict[str, socket.socket]:
    """Sockets passed by socket activation, by their ``FileDescriptorName=`` (sd_listen_fds_with_names(3))."""
    if not _daemon:
        return {}
    return {
        name: socket.socket(fileno=fd) for fd, name in _daemon.listen_fds_with_names(unset_environment=True).items()
    }
