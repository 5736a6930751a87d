"""An advisory lock on a file or folder. It ends when its holder ends."""

from __future__ import annotations

import errno
import fcntl


def try_lock(descriptor: int) -> bool:
    """Take the lock of an open file; False while another process holds it. Some network file systems know no locks:
    there everybody goes on without one."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EWOULDBLOCK, errno.EACCES)
    return True
