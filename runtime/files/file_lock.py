"""An advisory lock on a file or folder. The system releases it when its process ends."""

from __future__ import annotations

import errno
import fcntl


def try_lock(descriptor: int) -> bool:
    """Take the lock of an open file without waiting; False while another process holds it.

    Some network file systems have no locks. There the result is True for everyone.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EWOULDBLOCK, errno.EACCES)
    return True
