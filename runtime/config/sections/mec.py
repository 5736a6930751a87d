"""What a MEC reads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from runtime.config.sections.fields import (
    DEFAULT_ENDPOINT,
    MEC_QUEUE_LIMIT,
    Count,
    EngineName,
    Section,
    Slowdown,
    Text,
    about,
)


class MecSection(Section, frozen=True):
    """The MEC: where it listens, and how much it takes on."""

    bind: Annotated[Text, about("tcp://HOST:PORT; port * lets the system choose.", "--bind")] = DEFAULT_ENDPOINT
    slowdown: Annotated[Slowdown, about("Emulate a MEC this many times slower.", "--slowdown")] = 1.0
    queue_limit: Annotated[Count, about("Requests that may wait; more are rejected.", "--queue-limit")] = (
        MEC_QUEUE_LIMIT
    )
    batch: Annotated[
        Count | None,
        about(
            "Waiting requests of one kind that are computed together at most; default: 32 on a GPU, else 1.",
            "--batch",
            show=32,
        ),
    ] = None
    cache: Annotated[
        Text, about("Memory for answers to requests that come again byte by byte, such as 64MB; 0: none.", "--cache")
    ] = "0"
    engine: EngineName = None
    threads: Annotated[
        Text, about("Threads that compute: a number, or auto for as many as the process may use cores.", "--threads")
    ] = "1"
    ready_file: Annotated[
        Path | None, about("Write the endpoint here once ready; removed at the end.", "--ready-file", show="mec.ready")
    ] = None
    requests: Annotated[
        Text | None,
        about(
            "Append one JSON line per request to this file or FIFO, - for stdout. SIGHUP reopens it. A log that is "
            "full or not read costs lines, never requests.",
            "--requests",
            show="requests.jsonl",
        ),
    ] = None
    end_with_stdin: Annotated[
        bool,
        about("End when stdin ends: with the program that started the MEC.", "--end-with-stdin"),
    ] = False
