"""``python kill_at_every_write.py FOLDER``: install a second release over a first one, killed at every write in turn.

For each number n, a child process installs the release and kills itself with SIGKILL before its n-th call that changes
the disk. After each, the store must hold the first release or the second, whole, and hand it to devices; and the
installation, repeated, must end well. Prints how many points there were.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runtime.deploy.check import Verdict
from runtime.deploy.installer import Installer
from runtime.deploy.release import digest_of
from runtime.deploy.store import Store
from runtime.deploy.trust import Verifier, decode_proposal
from support.releases import Operator, check_current, install, release_of

CHANGES = ("write", "fsync", "rename", "replace", "link", "symlink", "mkdir", "unlink", "rmdir", "remove", "open")


def main(folder: Path) -> int:
    operator = Operator.new(folder / "repository")
    first, first_blobs = release_of("net", [b"1" * 2500, b"same" * 600, b"x"])
    second, second_blobs = release_of("net", [b"2" * 2500, b"same" * 600, b"", b"y" * 10])
    third, third_blobs = release_of("net", [b"3" * 100])
    proposals = [decode_proposal(operator.proposal(release)) for release in (first, second, third)]
    digests = [digest_of(proposal.release) for proposal in proposals]
    base = folder / "base"
    install(base, operator.root, proposals[0], first_blobs)
    install(base, operator.root, proposals[1], second_blobs)  # so that the third also removes a release
    for point in itertools.count(1):
        store = folder / "store"
        shutil.copytree(base, store, symlinks=True)
        killed = _killed_at(point, lambda store=store: install(store, operator.root, proposals[2], third_blobs))
        current = check_current(store, "net", digests[2:] if not killed else digests[1:])
        assert _handed_out(store) == current
        install(store, operator.root, proposals[2], third_blobs)
        check_current(store, "net", digests[2:])
        shutil.rmtree(store)
        if not killed:
            print(point - 1)
            return 0
    return 1


def _handed_out(folder: Path) -> str:
    """Digest of the release that a device gets."""
    store = Store(folder)
    installer = Installer(store, Verifier(store.trusted, None), check=lambda _: Verdict(), load=lambda *_: None)
    try:
        return digest_of(decode_proposal(installer.proposal("net")).release)
    finally:
        installer.close()


def _killed_at(point: int, action: Callable[[], None]) -> bool:
    """Run an action in a child that dies before its ``point``-th change; whether it died of that."""
    child = os.fork()
    if not child:
        try:
            _arm(point)
            action()
        except BaseException as error:  # noqa: BLE001 - the exit code tells the parent
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0, "the installation failed"
    return False


def _arm(point: int) -> None:
    count = itertools.count(1)
    for name in CHANGES:
        original = getattr(os, name)

        def armed(*args: Any, _original: Any = original, _name: str = name, **named: Any) -> Any:
            changes = _name != "open" or (len(args) > 1 and isinstance(args[1], int) and args[1] & os.O_CREAT)
            if changes and next(count) == point:
                os.kill(os.getpid(), signal.SIGKILL)
            return _original(*args, **named)

        setattr(os, name, armed)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
