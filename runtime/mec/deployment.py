"""The store of a MEC: what it serves of it at its start, and how a release that was pushed becomes served."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from controller.errors import MecpilotError
from runtime.bundles.bundle import Bundle
from runtime.deploy.check import HealthCheck
from runtime.deploy.installer import Installer
from runtime.deploy.release import BUNDLE, Release
from runtime.deploy.store import Store
from runtime.deploy.trust import Verifier
from runtime.mec.bundles import Bundles
from runtime.mec.served import Served
from runtime.workloads.base import Workload

#: Makes what serves a bundle; called in the installer's thread.
Serve = Callable[[Bundle, Workload], Served]


class Deployment:
    """Owns the installer, and through it the store. ``bundles`` takes up what the store holds; it is filled at once
    with the releases that are current and previous.

    UsageError if the folder or the root cannot be used, FailureError if another process uses the store.
    """

    def __init__(
        self, folder: Path, trust: Path | None, workload: Workload, serve: Serve, log: Callable[[str], None]
    ) -> None:
        self._workload, self._serve, self._log = workload, serve, log
        self._store = Store(folder)
        try:
            verifier = Verifier(self._store.trusted, trust)
        except BaseException:
            self._store.close()
            raise
        self._bundles: Bundles | None = None
        check = HealthCheck(path_of(workload))
        self.installer: Installer[Served | None] = Installer(
            self._store,
            verifier,
            check=check,
            stop_check=check.stop,
            load=self._load,
            in_use=self._in_use,
            log=log,
        )

    def close(self) -> None:
        """Stop the installer and release the store; may be called twice."""
        self.installer.close()

    def bundles(self, base: Served) -> Bundles:
        """What is served from the start: the MEC's own bundle, and those that the store holds."""
        self._store.collect()
        self._bundles = Bundles([base], lambda: self._store.deployed)
        for name, deployed in self._store.deployed.items():
            for digest in filter(None, (deployed.current, deployed.previous)):
                self._serve_stored(name, digest, self._bundles)
        return self._bundles

    def _serve_stored(self, name: str, digest: str, bundles: Bundles) -> None:
        """A release that was damaged on the disk costs its own devices the MEC, not all devices."""
        try:
            served = self._load(self._store.path(digest), self._store.release(digest))
        except MecpilotError as error:
            self._log(f"cannot serve release {digest[:12]} of {name}: {error}")
            return
        if served is not None:
            bundles.add(digest, served)

    def _in_use(self) -> set[str]:
        return set() if self._bundles is None else self._bundles.releases

    def _load(self, folder: Path, release: Release) -> Served | None:
        """What serves a bundle, ready for its first request; None for a policy, which is only handed on."""
        if release.kind != BUNDLE:
            return None
        bundle = Bundle(folder)
        workload = self._workload if bundle.fits(self._workload) else bundle.work
        return self._serve(bundle.served_by(workload), workload)


def path_of(workload: Workload) -> str:
    """The class of a workload as a command can name it; "" for an adopted one, which a release holds itself."""
    return "" if workload.description_sha256 else f"{type(workload).__module__}:{type(workload).__qualname__}"
