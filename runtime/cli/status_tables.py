"""The status of a MEC as tables for people."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from runtime.observe.tables import TABLE_COLUMNS, new_table

#: What counts that need it are called.
_LABELS = {
    "refused": "refused devices (bundle or version)",
    "peer_faults": "messages that broke the protocol",
    "batched": "served requests that were computed with others",
    "shed": "messages beyond a device's share",
    "cut_off": "connections closed for that",
}
_SHOWN = 12  # digits of a digest


def status_tables(status: dict[str, Any]) -> list[Table]:
    """Tables of the bundles, the devices, the releases and the rest of a status (``runtime.mec.status``)."""
    tables = [_bundles(status), _devices(status), _counts(status)]
    if status["deploy"] is not None:
        tables.append(_releases(status["deploy"]))
    for table in tables:
        table.min_width = min(len(str(table.title)), TABLE_COLUMNS)  # a title is wrapped to the width of its table
    return [table for table in tables if table.row_count]


def _bundles(status: dict[str, Any]) -> Table:
    headings = ("workload", "bundle", "role", "release", "devices")
    table = new_table("bundles", headings, text=headings[:-1])
    for one in status["bundles"]:
        releases = ", ".join(release[:_SHOWN] for release in one["releases"]) or "-"
        table.add_row(one["workload"], one["bundle"][:_SHOWN], one["role"], releases, str(one["devices"]))
    return table


def _devices(status: dict[str, Any]) -> Table:
    table = new_table("devices", ("name", "bundle", "silent s"), text=("name", "bundle"))
    for one in status["devices"]:
        table.add_row(one["name"] or "-", one["bundle"][:_SHOWN], f"{one['silent_s']:.1f}")
    return table


def _counts(status: dict[str, Any]) -> Table:
    table = new_table(f"MEC {status['version']}, up {status['uptime_s']:.0f} s", ("what", "count"), text=("what",))
    table.add_row("waiting", str(status["waiting"]))
    for name, count in status["counts"].items():
        table.add_row(_LABELS.get(name, name.replace("_", " ")), str(count))
    return table


def _releases(deploy: dict[str, Any]) -> Table:
    last = deploy["phase"] + (f": {deploy['name']}" if deploy["name"] else "")
    if deploy["reason"]:
        last += f" ({deploy['reason']})"
    table = new_table(
        f"releases; the last one is {last}", ("name", "current", "previous"), ("name", "current", "previous")
    )
    for name, one in deploy["deployed"].items():
        table.add_row(name, one["current"][:_SHOWN], (one["previous"] or "-")[:_SHOWN])
    return table
