"""A device takes over what is deployed on its MEC: verify, download, check, commit; like a MEC from its operator.

The MEC is only where the files come from. The device trusts the keys of its own root metadata, keeps what it has
accepted, and runs the health check itself, so a MEC that was taken over cannot make it run another release or an older
one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from controller.errors import FailureError
from runtime.deploy.check import Verdict
from runtime.deploy.client import MecClient
from runtime.deploy.release import digest_of
from runtime.deploy.store import Store
from runtime.deploy.trust import Verifier, decode_proposal


def fetch(client: MecClient, name: str, store: Store, verifier: Verifier, check: Callable[[Path], Verdict]) -> bool:
    """Make what a MEC has deployed under a name current in the store; False if it is already.

    FailureError, with the reason, if it is refused, does not arrive, or fails the check; the store stays as it is then.
    """
    proposal = decode_proposal(client.proposal(name))
    release, digest = verifier.verify(proposal), digest_of(proposal.release)
    now = store.deployed.get(name)
    if now is not None and now.current == digest:
        return False
    try:
        store.drop_parts(release.files)
        store.check_room(release)
        for file in release.files:
            client.download(name, file, store)
        verdict = check(store.assemble(proposal.release))
        if verdict.reason:
            raise FailureError(f"the health check failed: {verdict.reason}")
        store.commit(name, digest)
    except OSError as error:
        raise FailureError(f"cannot write to the store {store.folder}: {error.strerror or error}") from None
    finally:
        store.collect()
    return True
