"""Sinks: each gets every record; one that fails costs its own output and nothing else."""

from __future__ import annotations

import pytest

from runtime.observe.sinks import Sinks


class Kept:
    """A sink that can fail, at a record or at its end."""

    def __init__(self, fails_at: int | None = None, fails_at_end: bool = False) -> None:
        self.records: list[int] = []
        self.closed = 0
        self._fails_at, self._fails_at_end = fails_at, fails_at_end

    def add(self, record: int) -> None:
        if record == self._fails_at:
            raise OSError("no room")
        self.records.append(record)

    def close(self) -> None:
        self.closed += 1
        if self._fails_at_end:
            raise OSError("no room at the end")


def test_a_sink_that_fails_is_closed_and_left_out_and_the_others_go_on() -> None:
    good, bad, said = Kept(), Kept(fails_at=2), list[str]()
    sinks = Sinks([bad, good], said.append)
    for record in range(5):
        sinks.add(record)
    assert (good.records, bad.records, bad.closed) == ([0, 1, 2, 3, 4], [0, 1], 1)
    assert sinks.failures == ["Kept failed: OSError: no room"]
    assert said == ["Kept failed: OSError: no room; it gets no more records"]


def test_an_error_at_the_end_is_raised_when_all_are_closed() -> None:
    sinks = Sinks([bad := Kept(fails_at_end=True), good := Kept()], print)
    with pytest.raises(OSError, match="at the end"):
        sinks.close()
    sinks.close()
    assert (bad.closed, good.closed) == (1, 1)


def test_a_sink_that_fails_twice_is_only_reported() -> None:
    said: list[str] = []
    sinks = Sinks([Kept(fails_at=0, fails_at_end=True)], said.append)
    sinks.add(0)
    assert "could not be closed" in said[1]
    sinks.close()
