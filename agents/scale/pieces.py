"""A piece of work: a function by name, with arguments that are plain data, so that any process can carry it out.

Arguments and results are None, numbers, text, bytes, and lists and mappings of these. They travel and are kept as
msgpack: nothing that comes from another process or from a file is unpickled.
"""

from __future__ import annotations

import hashlib
import importlib
import platform
import socket
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec

from controller.errors import FailureError, MecpilotError, UsageError

#: Reports how much of a piece is done, in all.
Reached = Callable[[int], None]

_ROOT = Path(__file__).parents[2]
_OUR_PACKAGES = ("controller", "runtime", "envs", "agents")
#: A result may differ in its last bits with another version of these.
_LIBRARIES = ("numpy", "numba", "scipy", "torch", "stable-baselines3")


@dataclass(frozen=True)
class Job:
    """What all pieces of one kind of work share."""

    function: str  # "package.module:name"; it is called with ``common``, the piece's own arguments, and a Reached
    common: bytes  # encoded; a worker gets it once

    @classmethod
    def of(cls, function: str, common: Any) -> Job:
        return cls(function, encoded(common))

    @cached_property
    def digest(self) -> str:
        """Of the function, the common arguments and the code."""
        return _digest_of(code_digest().encode(), self.function.encode(), self.common)

    def key(self, own: bytes) -> str:
        """Names the result of a piece: equal keys have equal results."""
        return _digest_of(self.digest.encode(), own)


class Answer(msgspec.Struct, frozen=True):
    """What a worker makes of a piece: its result, or why there is none."""

    result: bytes | None = None
    refused: str = ""  # text of a UsageError
    failed: str = ""  # text of another error that mecpilot raises on purpose
    bug: str = ""  # traceback of any other exception
    host: str = ""


def encoded(plain: Any) -> bytes:
    return msgspec.msgpack.encode(plain, order="sorted")


def decoded(data: bytes) -> Any:
    return msgspec.msgpack.decode(data)


def carried_out(job: Job, own: bytes, reached: Reached) -> bytes:
    """The encoded result of a piece, computed in this process."""
    return encoded(_function(job.function)(_common(job), decoded(own), reached))


def answer(job: Job, own: bytes, code: str, reached: Reached) -> bytes:
    """An encoded Answer, computed in a worker; ``code`` is the digest of the code of the process that asks."""
    host = socket.gethostname()
    try:
        if code != code_digest():
            raise UsageError(f"its mecpilot or its packages ({code_digest()}) differ from those here ({code})")
        found = Answer(carried_out(job, own, reached), host=host)
    except UsageError as error:
        found = Answer(refused=str(error), host=host)
    except MecpilotError as error:
        found = Answer(failed=str(error), host=host)
    except Exception:  # noqa: BLE001 - the border of the process: the one that asks raises it again
        found = Answer(bug=traceback.format_exc(), host=host)
    return encoded(found)


class WorkerBug(RuntimeError):
    """An exception in a worker that is no error of the user's; its cause has the traceback."""


def result_of(data: bytes, *, other_machines: bool = False) -> bytes:
    """The encoded result in an Answer; the error of the worker is raised here."""
    found = msgspec.msgpack.decode(data, type=Answer)
    where = f"worker on {found.host}: " if other_machines else ""
    if found.refused:
        raise UsageError(where + found.refused)
    if found.failed:
        raise FailureError(where + found.failed)
    if found.result is None:
        raise WorkerBug(where + found.bug.strip().splitlines()[-1]) from RuntimeError(found.bug)
    return found.result


@cache
def code_digest() -> str:
    """Of the sources and packages that a result depends on."""
    sources = [file.read_bytes() for package in _OUR_PACKAGES for file in sorted((_ROOT / package).rglob("*.py"))]
    versions = [platform.python_version(), *map(_version, _LIBRARIES)]
    return _digest_of(*sources, *(text.encode() for text in versions))[:16]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _function(name: str) -> Callable[[Any, Any, Reached], Any]:
    module, _, attribute = name.partition(":")
    found: Callable[[Any, Any, Reached], Any] = getattr(importlib.import_module(module), attribute)
    return found


@lru_cache(maxsize=2)
def _common(job: Job) -> Any:
    """Decoded once, not for each piece. Functions do not change it."""
    return decoded(job.common)


def _digest_of(*parts: bytes) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(len(part).to_bytes(8, "little") + part)
    return found.hexdigest()[:32]
