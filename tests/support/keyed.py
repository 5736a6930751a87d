"""Keys of a MEC and its devices in a folder, as `mecpilot keys` makes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from runtime.security.allow_list import DEFAULT_NAME, AllowList, Role, allow, revoke
from runtime.security.curve import DeviceKeys, MecKeys
from runtime.security.key_files import write_pair
from runtime.security.keys import KeyPair


@dataclass
class Keyring:
    """Owns a folder with the key of a MEC and the list of whom it admits; ``lines`` are what the list logs."""

    folder: Path
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.mec = write_pair(self.folder, "mec")

    @property
    def path(self) -> Path:
        return self.folder / DEFAULT_NAME

    def of_mec(self, log: Callable[[str], None] | None = None) -> MecKeys:
        return MecKeys(self.mec, AllowList(self.path, log or self.lines.append))

    def stranger(self, name: str) -> DeviceKeys:
        """Keys of a device that is not listed."""
        return DeviceKeys(write_pair(self.folder, name), self.mec.public)

    def device(self, name: str, *roles: Role) -> DeviceKeys:
        """Keys of a device that is listed from now on."""
        keys = self.stranger(name)
        self.allow(name, keys.own, *roles)
        return keys

    def allow(self, name: str, pair: KeyPair, *roles: Role) -> None:
        allow(self.path, name, pair.public, roles or None)

    def revoke(self, name: str) -> None:
        revoke(self.path, name)
