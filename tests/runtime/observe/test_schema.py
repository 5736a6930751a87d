"""docs/outcomes.md lists exactly the fields of the records, with the types that real lines have."""

from __future__ import annotations

import json
import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_type_hints

import numpy as np
import pytest
from support.live import ROOT, WORKLOAD

from controller.metrics import METRICS
from controller.records import Outcome, Status
from controller.reuse import REASONS
from runtime.device.device import Device
from runtime.mec.records import SERVED, RequestRecord
from runtime.mec.server import MecServer
from runtime.observe.record_log import OUTCOMES, REQUESTS, Kind, RecordLog
from runtime.protocol.wire import RejectReason

PAGE = (ROOT / "docs" / "outcomes.md").read_text()
TYPES: dict[str, tuple[type, ...]] = {
    "integer": (int,),
    "number": (int, float),
    "string": (str,),
    "object": (dict,),
    "array": (list,),
    "boolean": (bool,),
    "any": (object,),
}
#: Reasons that a request never ends with: its peer is no registered device.
NO_ENDINGS = {"denied", "digest", "no_session"}


class Field(NamedTuple):
    """A row of a table of the page."""

    name: str
    type: str
    unit: str
    null_when: str
    meaning: str


def rows(section: str, heading: str) -> list[list[str]]:
    """The table of a section that begins with this heading."""
    text = re.split(r"^#+ ", PAGE, flags=re.MULTILINE)
    (part,) = (one for one in text if one.startswith(f"{section}\n"))
    lines = iter(part.splitlines())
    next(line for line in lines if line.startswith(f"| {heading} |"))
    next(lines)
    table: list[list[str]] = []
    for line in lines:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in line.strip("|").split("|")])
    return table


def listed(section: str) -> list[Field]:
    return [Field(row[0].strip("`"), *row[1:]) for row in rows(section, "field")]


def names(record: type, prefix: str = "") -> list[str]:
    """The fields of a dataclass in order, those of the dataclasses in it after them."""
    found, hints = [], get_type_hints(record)
    for field in fields(record):
        found.append(prefix + field.name)
        for inner in (hints[field.name], *get_args(hints[field.name])):
            if is_dataclass(inner):
                found += names(inner, f"{field.name}.")  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize(("section", "record"), [("Outcomes", Outcome), ("Requests", RequestRecord)])
def test_the_page_lists_the_fields_of_the_record(section: str, record: type) -> None:
    assert [field.name for field in listed(section)] == ["schema", *names(record)]


def test_the_page_says_which_version_the_lines_have() -> None:
    assert {f'"schema": {kind.schema}' in PAGE for kind in (OUTCOMES, REQUESTS)} == {True}


def test_the_page_lists_every_status_and_whether_it_is_in_time() -> None:
    table = {row[0].strip("`"): row[1] for row in rows("Status", "status")}
    assert table == {status.value: "yes" if status.on_time else "no" for status in Status}


def test_the_page_names_the_metrics_of_reused_answers() -> None:
    named = {name for row in rows("Metrics", "metric") for name in re.findall(r"`(\w+)`", row[0])}
    assert named == {"reused_frac", "reused_accuracy", *(f"{reason.value}_frac" for reason in REASONS)}
    assert named <= set(METRICS)


def test_the_page_lists_every_ending_of_a_request() -> None:
    endings = {SERVED} | {str(reason) for reason in RejectReason} - NO_ENDINGS
    assert {row[0].strip("`") for row in rows("Requests", "ending")} == endings


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """Real lines of both logs: samples that are offloaded and answered here, and pictures without a truth."""
    folder = tmp_path_factory.mktemp("logs")
    requests: RecordLog[RequestRecord] = RecordLog(folder / "requests", REQUESTS, print)
    outcomes: RecordLog[Outcome] = RecordLog(folder / "outcomes", OUTCOMES, print)
    with MecServer(WORKLOAD, bind="tcp://127.0.0.1:*", sinks=[requests]) as mec:
        mec.start()
        for decision in ({"partition_point": 2}, {"payload": "none", "partition_point": 4}):
            with Device(WORKLOAD, mec=mec.endpoint, decision=decision, fps=20, deadline_s=5.0) as device:
                for source in (None, [np.zeros((20, 30), np.uint8)] * 3):
                    for outcome in device.run(source, frames=3):
                        outcomes.add(outcome)
    outcomes.close()
    return {"Outcomes": read(folder / "outcomes", OUTCOMES), "Requests": read(folder / "requests", REQUESTS)}


def read(path: Path, kind: Kind) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert found, kind.records
    return found


@pytest.mark.parametrize("section", ["Outcomes", "Requests"])
def test_real_lines_have_the_types_that_the_page_says(section: str, lines: dict[str, list[dict[str, Any]]]) -> None:
    for line in lines[section]:
        for field in listed(section):
            check(field, line)


def check(field: Field, line: dict[str, Any]) -> None:
    """A value has the type of its field, or is null where it may be."""
    outer, _, inner = field.name.partition(".")
    value = line[outer]
    if inner:
        if value is None:
            return
        value = value[inner]
    if value is None:
        assert field.null_when != "never", field.name
    else:
        assert isinstance(value, TYPES[field.type]), field.name
        assert isinstance(value, bool) == (field.type == "boolean")


def test_lines_without_a_truth_are_among_the_real_ones(lines: dict[str, list[dict[str, Any]]]) -> None:
    assert {line["truth"] is None for line in lines["Outcomes"]} == {True, False}
    assert {line["schema"] for kind in lines.values() for line in kind} == {1}
