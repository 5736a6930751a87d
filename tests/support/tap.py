"""A wire tap: a TCP port that forwards everything to a MEC and records what the device sent."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from runtime.protocol.wire import PREAMBLE

_REQUEST_TAG = 3


@dataclass
class Tap:
    """Owns the recorded bytes, one string per connection."""

    endpoint: str
    streams: list[bytearray] = field(default_factory=list)

    def requested_rows(self) -> list[int]:
        """Rows of the bundle's decision space in the device's requests, in order."""
        return [row for stream in self.streams for row in _rows(bytes(stream))]


def _rows(stream: bytes) -> Iterator[int]:
    """Rows in a stream's requests. A header is one short frame: length (1 byte), preamble, msgpack array."""
    at = stream.find(PREAMBLE)
    while at > 0:
        header = stream[at + len(PREAMBLE) : at + stream[at - 1]]
        with contextlib.suppress(msgspec.DecodeError):
            fields = msgspec.msgpack.decode(header)
            if isinstance(fields, list) and fields[0] == _REQUEST_TAG:
                yield fields[2]
        at = stream.find(PREAMBLE, at + 1)


@contextlib.contextmanager
def tapped(mec: str) -> Iterator[Tap]:
    """A tap in front of a MEC within the block."""
    host, _, port = mec.removeprefix("tcp://").rpartition(":")
    with socket.create_server(("127.0.0.1", 0)) as server:
        tap = Tap(f"tcp://127.0.0.1:{server.getsockname()[1]}")
        threads = [threading.Thread(target=_accept, args=(server, (host, int(port)), tap), daemon=True)]
        threads[0].start()
        yield tap
        server.shutdown(socket.SHUT_RDWR)
    threads[0].join(10)


def _accept(server: socket.socket, mec: tuple[str, int], tap: Tap) -> None:
    with contextlib.suppress(OSError):
        while True:
            device, _ = server.accept()
            stream = bytearray()
            tap.streams.append(stream)
            onward = socket.create_connection(mec)
            threading.Thread(target=_pump, args=(device, onward, stream), daemon=True).start()
            threading.Thread(target=_pump, args=(onward, device, bytearray()), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket, kept: bytearray) -> None:
    """Forward bytes until either side disconnects."""
    with contextlib.suppress(OSError), source, sink:
        while data := source.recv(65536):
            kept += data
            sink.sendall(data)
