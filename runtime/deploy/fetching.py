"""A device takes over what is deployed on its MEC: verify, download, check, commit; like a MEC from its operator.

The MEC is only where the files come from. The device trusts the keys of its own root metadata, keeps what it has
accepted, and runs the health check itself, so a MEC that was taken over cannot make it run another release or an older
one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from controller.errors import FailureError
from runtime.deploy.check import Verdict
from runtime.deploy.client import MecClient
from runtime.deploy.release import digest_of
from runtime.deploy.store import Store
from runtime.deploy.trust import Proposal, Verifier, decode_proposal, encode_metadata


def fetch(
    client: MecClient,
    name: str,
    store: Store,
    verifier: Verifier,
    check: Callable[[Path], Verdict],
    *,
    again: bool = False,
) -> bool:
    """Make what a MEC has deployed under a name current in the store; False if it is already.

    A release that was rolled back here is refused unless ``again``. FailureError, with the reason, if it is refused,
    does not arrive, or fails the check; the store stays as it is then.
    """
    proposal = decode_proposal(client.proposal(name))
    if proposal.name != name:
        raise FailureError(f"the MEC offers a release of {proposal.name!r}; expected one of {name!r}")
    digest = digest_of(proposal.release)
    try:
        verifier.verify(proposal)
        now = store.deployed.get(name)
        if now is not None and now.current == digest and store.is_whole(digest):
            return False
        if store.was_withdrawn(name, digest) and not again:
            raise FailureError(f"release {digest[:12]} of {name} was rolled back here; give --again to take it anyway")
        _take_over(client, proposal, store, verifier, check)
    except OSError as error:
        raise FailureError(f"cannot write to the store {store.folder}: {error.strerror or error}") from None
    return True


def _take_over(
    client: MecClient, proposal: Proposal, store: Store, verifier: Verifier, check: Callable[[Path], Verdict]
) -> None:
    """Download, check and commit a release that was verified."""
    metadata = encode_metadata(verifier.accepted())
    for file in store.prepare(proposal.release).files:
        client.download(proposal.name, file, store)
    try:
        verdict = check(store.assemble(proposal.release))
        if verdict.reason:
            raise FailureError(f"the health check failed: {verdict.reason}")
        store.commit(proposal.name, digest_of(proposal.release), metadata)
    finally:
        with contextlib.suppress(OSError):  # what is left is collected the next time
            store.drop_pending()
            store.collect()
