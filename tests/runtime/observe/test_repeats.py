"""Repeated log lines: the first few at once, the others as a count, and never more than a bounded rate."""

from __future__ import annotations

import random
import threading

from runtime.observe.repeats import AT_ONCE, KINDS, Repeats, kind_of, one_line


class Printed:
    """What a log prints under a clock that the test sets."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.lines: list[str] = []
        self.log = Repeats(self.lines.append, lambda: self.now_s)

    def at(self, now_s: float, text: str) -> None:
        self.now_s = now_s
        self.log(text)

    def later(self, now_s: float) -> None:
        self.now_s = now_s
        self.log.tick()


def test_different_lines_are_printed_at_once() -> None:
    printed = Printed()
    for text in ("ready", "the link is up: welcomed", "the link is down: no connection"):
        printed.log(text)
    assert printed.lines == ["ready", "the link is up: welcomed", "the link is down: no connection"]


def test_lines_that_differ_in_numbers_become_one_with_a_count() -> None:
    printed = Printed()
    for i in range(1000):
        printed.at(i / 1000, f"the MEC broke the protocol: got {i} bytes at 0x{i:x}")
    assert len(printed.lines) == AT_ONCE
    printed.later(10.0)
    assert printed.lines[AT_ONCE:] == [
        "the MEC broke the protocol: got 999 bytes at 0x3e7 (997 more like it in the last 10 s, this one 9 s ago)"
    ]


def test_a_link_that_is_lost_and_found_now_and_then_reads_in_order() -> None:
    printed, said = Printed(), []
    for at_s in (0.0, 3.0, 5.0, 8.0, 11.0, 14.0):
        said.append("the link is down: it is gone" if len(said) % 2 else "the link is up: welcomed")
        printed.at(at_s, said[-1])
    printed.later(100.0)
    assert printed.lines == said


def test_a_flapping_link_is_two_lines_per_window_and_the_last_line_is_how_it_stands() -> None:
    printed = Printed()
    for i in range(3001):  # five minutes
        printed.at(i / 10, "the link is up: welcomed" if i % 2 else "the link is down: no connection")
    assert len(printed.lines) <= 2 * (AT_ONCE + 300 / 10)
    printed.log.flush()
    assert printed.lines[-1].startswith("the link is down")
    counted = sum(int(line.split("(")[1].split()[0]) for line in printed.lines if "more like it" in line)
    assert counted + 2 * AT_ONCE == 3001  # nothing was forgotten


def test_windows_grow_to_a_minute_while_lines_come() -> None:
    printed = Printed()
    for i in range(36_000):
        printed.at(i / 10, "again")
    ends = [line for line in printed.lines if "in the last 60 s" in line]
    assert len(printed.lines) - len(ends) <= 4 + AT_ONCE
    assert 55 <= len(ends) <= 60


def test_after_a_quiet_window_a_line_is_news_again() -> None:
    printed = Printed()
    printed.at(0.0, "stalled")
    printed.at(30.0, "stalled")
    assert printed.lines == ["stalled", "stalled"]


def test_words_of_a_hostile_peer_cannot_fill_the_log() -> None:
    printed = Printed()
    rng = random.Random(7)
    for i in range(60_000):  # ten minutes of lines that are all different
        printed.at(i / 100, "refused: " + "".join(rng.choices("ghijklmnop", k=12)))
    assert len(printed.lines) < KINDS + 10 * 10 + 30
    assert any("lines of many kinds" in line for line in printed.lines)
    assert len(printed.log._kinds) < 2 * KINDS


def test_a_line_is_printable_and_bounded() -> None:
    assert one_line("a\nb\x1b[2Jc") == "a b [2Jc"
    assert len(one_line("x" * 10**6)) < 1100
    assert kind_of("bundle 0123456789abcdef took 1.5 ms") == "bundle # took # ms"


def test_nothing_is_printed_twice_at_the_end() -> None:
    printed = Printed()
    for _ in range(AT_ONCE + 2):
        printed.log("again")
    printed.log.flush()
    printed.log.flush()
    assert printed.lines == ["again"] * AT_ONCE + ["again (2 more like it in the last 1 s)"]


def test_threads_may_log_at_the_same_time() -> None:
    printed = Printed()
    threads = [threading.Thread(target=lambda: [printed.log("again") for _ in range(500)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    printed.log.flush()
    assert printed.lines[-1] == f"again ({2000 - AT_ONCE} more like it in the last 1 s)"
