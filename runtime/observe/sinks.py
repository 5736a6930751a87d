"""The contract of a sink, which receives records one by one, and a group of sinks.

The outcome log, the summary and the pictures of a device are sinks of outcomes; the log and the counts of a MEC are
sinks of request records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar

Record = TypeVar("Record")
RecordIn = TypeVar("RecordIn", contravariant=True)


class Sink(Protocol[RecordIn]):
    """Receives records in the order in which they are made."""

    def add(self, record: RecordIn, /) -> None:
        """Receive one record. Must return soon, because it is called between two frames or two requests."""
        ...

    def close(self) -> None:
        """Finish: no more records follow. May be called twice."""
        ...


class Sinks(Generic[Record]):
    """Several sinks as one. A sink that raises is logged, closed and removed; the others keep receiving records.

    ``failures`` has a line for each sink that failed.
    """

    def __init__(self, sinks: Iterable[Sink[Record]], log: Callable[[str], None]) -> None:
        self._sinks, self._log = list(sinks), log
        self.failures: list[str] = []

    def add(self, record: Record, /) -> None:
        for sink in self._sinks[:]:
            try:
                sink.add(record)
            except Exception as error:  # noqa: BLE001 - an error in a sink must not stop frames or requests
                self._remove(sink, error)

    def close(self) -> None:
        """Close all sinks, then raise the first error."""
        errors: list[Exception] = []
        for sink in self._sinks:
            try:
                sink.close()
            except Exception as error:  # noqa: BLE001 - raised below
                errors.append(error)
        self._sinks = []
        if errors:
            raise errors[0]

    def _remove(self, sink: Sink[Record], error: Exception) -> None:
        self._sinks.remove(sink)
        failure = f"{type(sink).__name__} failed: {type(error).__name__}: {error}"
        self.failures.append(failure)
        self._log(f"{failure}; it gets no more records")
        try:
            sink.close()
        except Exception as second:  # noqa: BLE001 - it has failed already
            self._log(f"{type(sink).__name__} could not be closed: {type(second).__name__}: {second}")
