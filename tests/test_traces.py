"""Recorded uplinks: the three formats give the same bandwidths, and a bad file is named with its line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from controller.errors import UsageError
from runtime.traces import load_traces, read_trace

SHARED = Path(__file__).parents[2] / "shared" / "traces"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_csv_gives_times_rates_and_a_last_step_as_long_as_the_one_before(tmp_path: Path) -> None:
    trace = read_trace(write(tmp_path / "lte" / "one.csv", "t_s,uplink_mbps\n0,1.5\n0.5,0\n2.5,4\n"))
    assert trace.name == "lte/one"
    assert trace.t_s.tolist() == [0, 0.5, 2.5]
    assert trace.uplink_bps.tolist() == [1.5e6, 0, 4e6]
    assert trace.duration_s == 4.5


def test_csv_of_one_value_lasts_a_second(tmp_path: Path) -> None:
    assert read_trace(write(tmp_path / "one.csv", "t_s,uplink_mbps\n0,3\n")).duration_s == 1.0


def test_mahimahi_counts_packets_in_bins_and_ends_at_its_last_millisecond(tmp_path: Path) -> None:
    trace = read_trace(write(tmp_path / "cell.up", "0\n0\n99\n100\n230\n250\n"))
    assert trace.t_s.tolist() == [0, 0.1, 0.2]
    assert trace.duration_s == pytest.approx(0.25)
    np.testing.assert_allclose(trace.uplink_bps, [3 * 12_000 / 0.1, 12_000 / 0.1, 2 * 12_000 / 0.05])


def test_mahimahi_loses_no_packet(tmp_path: Path) -> None:
    at_ms = np.sort(np.random.default_rng(1).integers(0, 5_001, 777))
    path = write(tmp_path / "cell.pps", "\n".join(map(str, at_ms)) + "\n")
    bank = load_traces(path)
    assert bank.total_bits[0] == pytest.approx(777 * 12_000, rel=1e-3)  # empty bins trickle at the floor
    assert bank.duration_s[0] == pytest.approx(at_ms[-1] / 1e3)


@pytest.mark.parametrize(
    "text",
    [
        "1289406399 549692 59.851754 10.781778 248069 1008\n1289406400 550772 59.851864 10.781833 191698 1080\n",
        "1453121790686 39287 51.0386 3.7322 248069 1008\n1453121791687 40367 51.0386 3.7322 191698 1080\n",
    ],
    ids=["hsdpa", "ghent"],
)
def test_logs_give_bytes_over_elapsed_time(tmp_path: Path, text: str) -> None:
    trace = read_trace(write(tmp_path / "report.log", text))
    np.testing.assert_allclose(trace.t_s, [0, 1.008])
    np.testing.assert_allclose(trace.uplink_bps, [248069 * 8 / 1.008, 191698 * 8 / 1.08])
    assert trace.duration_s == pytest.approx(2.088)


def test_format_is_told_by_content_not_by_name(tmp_path: Path) -> None:
    assert read_trace(write(tmp_path / "a.csv", "10\n20\n")).t_s.tolist() == [0.0]
    assert read_trace(write(tmp_path / "b.log", "t_s,uplink_mbps\n0,1\n1,2\n")).duration_s == 2.0


def test_directories_are_read_recursively_in_sorted_order_and_other_files_are_left_alone(tmp_path: Path) -> None:
    write(tmp_path / "b" / "z.up", "100\n")
    write(tmp_path / "a" / "y.csv", "t_s,uplink_mbps\n0,1\n")
    write(tmp_path / "README.md", "not a trace")
    write(tmp_path / ".hidden.csv", "not a trace")
    assert [trace.name for trace in load_traces([tmp_path]).traces] == ["a/y", "b/z"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("time,mbps\n0,1\n", r"x.csv:1: got 'time,mbps'; expected the CSV header"),
        ("t_s,uplink_mbps\n0,1\n1,fast\n", r"x.csv:3: got '1,fast'; expected two numbers"),
        ("t_s,uplink_mbps\n0,1\n5\n", r"x.csv:3: got '5'; expected two numbers"),
        ("t_s,uplink_mbps\n0,1\n1,2,3\n", r"x.csv:3: got '1,2,3'; expected two numbers"),
        ("t_s,uplink_mbps\n0,1\n\n0,2\n", r"x.csv:4: got '0,2'; expected times from 0"),
        ("t_s,uplink_mbps\n3,1\n4,2\n", r"x.csv:2: got '3,1'; expected times from 0"),
        ("t_s,uplink_mbps\n0,-1\n", r"x.csv:2: got '0,-1'; expected uplink_mbps of 0 or more"),
        ("t_s,uplink_mbps\n0,nan\n", r"x.csv:2: got '0,nan'; expected two numbers"),
        ("t_s,uplink_mbps\n", r"x.csv: got only a header"),
        ("", r"x.csv: got an empty file"),
        ("5\n4\n", r"x.csv:2: got '4'; expected a whole number of milliseconds"),
        ("5\n6.5\n", r"x.csv:2: got '6.5'; expected a whole number of milliseconds"),
        ("0\n0\n", r"x.csv:2: got '0'; expected a last line above 0"),
        ("1 2 3 4 5 6\n1 2 3 4 5\n", r"x.csv:2: got '1 2 3 4 5'; expected six numbers"),
        ("1 2 3 4 5 0\n", r"x.csv:1: got '1 2 3 4 5 0'; expected elapsed milliseconds"),
        ("1 2 3 4 -5 9\n", r"x.csv:1: got '1 2 3 4 -5 9'; expected bytes"),
        ("x" * 500, r"x.csv:1: got 'x{57}\.\.\.'; expected"),
    ],
)
def test_a_malformed_file_is_one_line_with_place_got_and_expected(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as raised:
        read_trace(write(tmp_path / "x.csv", text))
    assert "\n" not in str(raised.value)


def test_what_is_not_there_or_not_text_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        load_traces(tmp_path / "absent.csv")
    with pytest.raises(UsageError, match="directory without traces"):
        load_traces(tmp_path)
    with pytest.raises(UsageError, match="no trace path"):
        load_traces([])
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(UsageError, match="binary file"):
        load_traces(tmp_path / "binary.csv")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real traces are not part of the project")
def test_every_real_trace_is_read() -> None:
    bank = load_traces(SHARED)
    assert len(bank) > 100
    assert {trace.name.split("/")[0] for trace in bank.traces} >= {"norway3g", "nyc_lte_up"}
