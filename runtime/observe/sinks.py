"""Sinks: whatever takes records one by one. The outcome log, the summary and the pictures of a device are sinks of
outcomes; the log and the counts of a MEC are sinks of requests."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar

Record = TypeVar("Record")
RecordIn = TypeVar("RecordIn", contravariant=True)


class Sink(Protocol[RecordIn]):
    """Takes records in the order in which they come about."""

    def add(self, record: RecordIn, /) -> None:
        """Take one record. It must return soon, for it is called between two frames or two requests."""
        ...

    def close(self) -> None:
        """No record comes any more. May be called twice."""
        ...


class Sinks(Generic[Record]):
    """Several sinks as one. A sink that raises is reported, closed and left out from then on; the others go on, and so
    does the work that the records are about. ``failures`` says which ones failed."""

    def __init__(self, sinks: Iterable[Sink[Record]], log: Callable[[str], None]) -> None:
        self._sinks, self._log = list(sinks), log
        self.failures: list[str] = []

    def add(self, record: Record, /) -> None:
        for sink in self._sinks[:]:
            try:
                sink.add(record)
            except Exception as error:  # noqa: BLE001 - whatever a sink does, frames and requests go on
                self._leave_out(sink, error)

    def close(self) -> None:
        """Close all of them; the first error is raised when every sink was closed."""
        errors: list[Exception] = []
        for sink in self._sinks:
            try:
                sink.close()
            except Exception as error:  # noqa: BLE001 - raised below
                errors.append(error)
        self._sinks = []
        if errors:
            raise errors[0]

    def _leave_out(self, sink: Sink[Record], error: Exception) -> None:
        self._sinks.remove(sink)
        failure = f"{type(sink).__name__} failed: {type(error).__name__}: {error}"
        self.failures.append(failure)
        self._log(f"{failure}; it gets no more records")
        try:
            sink.close()
        except Exception as second:  # noqa: BLE001 - it has failed already
            self._log(f"{type(sink).__name__} could not be closed: {type(second).__name__}: {second}")
