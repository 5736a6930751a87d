"""What a MEC tells an operator about itself: bundles, devices, queue and counts, as values for JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from runtime.mec.bundles import Bundles
from runtime.mec.records import MecCounts
from runtime.protocol import wire
from runtime.protocol.mec_session import MecSession
from runtime.version import VERSION

#: Devices that are listed one by one; a report has at most 1 MiB.
_MOST_LISTED = 1024


def mec_status(
    bundles: Bundles,
    session: MecSession,
    names: Mapping[bytes, str],
    waiting: int,
    counts: MecCounts,
    now_s: float,
    began_s: float,
) -> dict[str, Any]:
    """The status; ``names`` are those of devices by peer, ``waiting`` is the number of requests in the queue."""
    users = Counter(session.held.values())
    return {
        "version": VERSION,
        "protocol": wire.VERSION,
        "instance": session.instance,
        "uptime_s": round(now_s - began_s, 3),
        "bundles": [
            {
                "workload": held.workload,
                "bundle": held.bundle_digest,
                "space": held.space_digest,
                "role": bundles.role(held),
                "releases": bundles.releases_of(held),
                "devices": users[held],
            }
            for held in bundles.held
        ],
        "devices": [
            {
                "name": names.get(peer, ""),
                "peer": peer.hex(),
                "bundle": held.bundle_digest,
                "silent_s": round(now_s - session.heard_s[peer], 3),
            }
            for peer, held in list(session.held.items())[:_MOST_LISTED]
        ],
        "waiting": waiting,
        "counts": asdict(counts),
    }
