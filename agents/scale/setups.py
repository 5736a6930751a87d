"""A setup and policies as plain data, from which a worker opens equal ones.

Traces and the profile travel with a setup. The bundle does not: it ships with mecpilot, or its folder is at the same
path on every machine. Its digest is compared.
"""

from __future__ import annotations

import atexit
import hashlib
import shutil
import tempfile
from collections import OrderedDict
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from safetensors.numpy import load, save

from agents.scale.pieces import encoded
from controller.controllers.learned import FrozenPolicy
from controller.errors import UsageError
from controller.predict.uplink import Trace, TraceBank
from controller.scenario import ScenarioRange
from envs.setup import Setup, open_setup
from envs.techniques import Techniques
from runtime.bundles.bundle import SHIPPED_DIR, Bundle, open_pair
from runtime.config.sections.device import PrivacySection
from runtime.files.provenance import SHIPPED
from runtime.profiling.profile import find_profile
from runtime.workloads.registry import workload_named

#: Setups that this process has opened or sent, the newest last.
_open: OrderedDict[str, Setup] = OrderedDict()
_MOST_OPEN = 4


def plain_setup(setup: Setup) -> dict[str, Any]:
    """A setup without shortcuts as plain data; ``opened`` makes a setup of it again."""
    assert not setup.shortcuts, "shortcuts are objects of this process"
    own = setup.bundle if setup.repetition is None else setup.bundle.served_by(workload_named(setup.workload))
    plain = {
        "bundle": plain_bundle(own),
        "traces": plain_traces(setup.bank),
        "profile": plain_profile(setup.bundle, setup.profile),
        "range": msgspec.to_builtins(setup.range),
        "no_raw_upload": setup.privacy.no_raw_upload,
        "split": setup.split,
        "without": setup.without,
        "techniques": msgspec.to_builtins(setup.techniques),
        "repetition": setup.repetition,
    }
    plain["digest"] = hashlib.sha256(encoded(plain)).hexdigest()
    _remember(plain["digest"], setup)
    return plain


def opened(plain: dict[str, Any]) -> Setup:
    """The setup that was made plain; UsageError if something of it is missing or different here."""
    digest = plain["digest"]
    if digest not in _open:
        bundle = opened_bundle(plain["bundle"])
        range_ = msgspec.convert(plain["range"], ScenarioRange)
        privacy = PrivacySection(no_raw_upload=plain["no_raw_upload"])
        bank, profile = opened_traces(plain["traces"]), profile_file(plain["profile"])
        techniques = msgspec.convert(plain["techniques"], Techniques)
        rest = {"without": plain["without"], "techniques": techniques, "repetition": plain["repetition"]}
        setup = open_setup(bundle, bank, plain["split"], range_, profile, privacy, **rest)
        _remember(digest, setup)
    return _open[digest]


def _remember(digest: str, setup: Setup) -> None:
    _open[digest] = setup
    while len(_open) > _MOST_OPEN:
        _open.popitem(last=False)


def plain_bundle(bundle: Bundle) -> dict[str, str]:
    ships = bundle.directory == (SHIPPED_DIR / bundle.workload).resolve()
    where = bundle.workload if ships else str(bundle.directory)
    return {"where": where, "work": bundle.reference, "digest": bundle.digest}


def opened_bundle(plain: dict[str, str]) -> Bundle:
    """The same bundle here; UsageError if there is none or another one."""
    bundle = open_pair(plain["where"], plain["work"])[0]
    if bundle.digest != plain["digest"]:
        raise UsageError(
            f"bundle {plain['where']} is {bundle.digest[:12]} here; expected {plain['digest'][:12]}: give every "
            "machine the same one"
        )
    return bundle


def plain_traces(bank: TraceBank) -> dict[str, Any]:
    arrays = {f"{kind}{i}": a for i, t in enumerate(bank.traces) for kind, a in (("t", t.t_s), ("bps", t.uplink_bps))}
    rest = [[trace.name, trace.last_step_s, trace.rtt_s, trace.is_shared] for trace in bank.traces]
    return {"arrays": save(arrays), "rest": rest}


def opened_traces(plain: dict[str, Any]) -> TraceBank:
    arrays = load(plain["arrays"])
    return TraceBank(
        [Trace(n, arrays[f"t{i}"], arrays[f"bps{i}"], *rest) for i, (n, *rest) in enumerate(plain["rest"])]
    )


def plain_profile(bundle: Bundle, given: Path | None) -> dict[str, Any] | None:
    """Name and content of the profile; None for the shipped one. UsageError if it cannot be read."""
    path, origin = find_profile(bundle, given)
    if origin == SHIPPED:
        return None
    try:
        return {"name": path.name, "content": path.read_bytes()}
    except OSError as error:
        raise UsageError(f"profile {path}: {error.strerror}; expected what `mecpilot profile` writes") from None


def profile_file(plain: dict[str, Any] | None) -> Path:
    """The profile as a file of this process."""
    if plain is None:
        return Path(SHIPPED)
    path: Path = _folder() / hashlib.sha256(plain["content"]).hexdigest()[:16] / plain["name"]
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(plain["content"])
    return path


def plain_policy(policy: FrozenPolicy) -> bytes:
    return save({field.name: np.ascontiguousarray(getattr(policy, field.name)) for field in fields(policy)})


def opened_policy(plain: bytes) -> FrozenPolicy:
    return FrozenPolicy(**load(plain))


@cache
def _folder() -> Path:
    """A folder that ends with this process."""
    folder = Path(tempfile.mkdtemp(prefix="mecpilot-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
