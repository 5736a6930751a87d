"""What one device may take of a MEC, and in which order requests are served."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from msgspec import Meta

from runtime.config.sections.fields import MAX_INT, Count, Section, about

Order = Literal["fair", "arrival"]
#: Above nothing, up to no limit.
Rate = Annotated[float, Meta(ge=1e-3)]


class AdmissionSection(Section, frozen=True):
    """Overload: what one device may take of the MEC. A device is its user where connections are authenticated, and
    its connection elsewhere."""

    order: Annotated[
        Order,
        about(
            "Which request is served next: fair shares the MEC's time among devices, arrival serves the oldest first.",
            "--order",
        ),
    ] = "fair"
    by_budget: Annotated[
        bool,
        about(
            "Reject a request at once when what waits before it leaves too little of its budget.",
            "--admit-by-budget",
            off="--admit-late",
        ),
    ] = True
    device_queue_limit: Annotated[
        Count, about("Requests of one device that may wait; more are rejected.", "--device-queue-limit")
    ] = 8
    device_message_rate: Annotated[
        Rate,
        about("Messages per second of one device, with requests; inf: any.", "--device-message-rate", endless=True),
    ] = 2000.0
    device_mbyte_rate: Annotated[
        Rate, about("Megabytes (1e6) per second of one device; inf: any.", "--device-mbyte-rate", endless=True)
    ] = 100.0
    connections: Annotated[
        Count, about("Connections in all; the one that was silent longest makes room.", "--connections")
    ] = 512
    idle_s: Annotated[
        Rate, about("Close connections that are silent for so many seconds; inf: never.", "--idle-s", endless=True)
    ] = 60.0


#: Nothing is limited, and requests are served in order of arrival: for a MEC that is measured, and whose load comes
#: over one connection.
OPEN_ADMISSION = AdmissionSection(
    order="arrival",
    by_budget=False,
    device_queue_limit=MAX_INT,
    device_message_rate=math.inf,
    device_mbyte_rate=math.inf,
    connections=MAX_INT,
    idle_s=math.inf,
)
#: The same on the command line of ``mecpilot mec``.
OPEN_OPTIONS = (
    *("--order", "arrival", "--admit-late", "--device-queue-limit", str(MAX_INT)),
    *("--device-message-rate", "inf", "--device-mbyte-rate", "inf", "--connections", str(MAX_INT), "--idle-s", "inf"),
)
