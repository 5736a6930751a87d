"""Recorded uplinks: every format gives the same bandwidths, and a bad file is named with its line."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.rights import somebody_else

from controller.errors import UsageError
from runtime.traces.load import load_traces, read_trace

SHARED = Path(__file__).parents[4] / "shared" / "traces"


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


def rates_of(tmp_path: Path, text: str | bytes, name: str = "x.csv") -> tuple[list[float], list[float]]:
    """Times and Mbit/s."""
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    trace = read_trace(path)
    return trace.t_s.tolist(), (trace.uplink_bps / 1e6).tolist()


@pytest.mark.parametrize(
    "text",
    [
        "0.5\t1\n1.5\t2.5\n",
        "0 1\n1 2.5\n",
        "  0   1\n  1   2.5\n",
        "0,1\n1,2.5\n",
        "0;1\n1;2.5\n",
        "0;1,0\n1;2,5\n",
        "0,0 1,0\n1,0 2,5\n",
        "0\t1,0\n1\t2,5\n",
        "t_s,uplink_mbps\n1700000000,1\n1700000001,2.5\n",
        '"t_s","uplink_mbps"\n"0","1"\n"1","2.5"\n',
        "t_s,uplink_mbps,rtt_ms\n0,1,30\n1,2.5,31\n",
        "rtt_ms,time,mbps\n30,0,1\n31,1,2.5\n",
        "t_s,uplink_mbps\n0,1,\n1,2.5,\n",
        "timestamp,mbps\n1700000000000,1\n1700000001000,2.5\n",
        "timestamp_ms,bandwidth_kbps\n500,1000\n1500,2500\n",
        "Time (s);Throughput (Mbit/s)\n0;1\n1;2,5\n",
        "time|bits_per_second\n0|1e6\n1|2.5E6\n",
        "time,rate_bps\n1700000000000000000,1000000\n1700000001000000000,2500000\n",
        "sec\tUL Mbps\tDL Mbps\n0\t1\t9\n1\t2.5\t9\n",
        "time,downlinkMbps,uplinkMbps\n0,9,1\n1,9,2.5\n",
        "time,download [MB/s],upload [MB/s]\n0,9,0.125\n1,9,0.3125\n",
        "time,bytes_per_second\n0,125000\n1,312500\n",
        "time,kbit/s\n2024-05-01T12:00:00Z,1000\n2024-05-01T14:00:01+02:00,2500\n",
        "date,time,kbit/s\n2024-05-01,12:00:00,1000\n2024-05-01,12:00:01,2500\n",
        "Timestamp,DL_bitrate,UL_bitrate\n2019.12.14_10.16.00,9,1000\n2019.12.14_10.16.01,9,2500\n",
        "# time mbps\n0 1\n# a comment\n1 2.5\n",
        "\ufefft_s,uplink_mbps\r\n0,1\r\n1,2.5\r\n",
        "t_s,uplink_mbps\n0,1\n1,2.5\n".encode("utf-16"),
        "zeit,t_s,uplink_mbps\nf\xfcnf,0,1\nsechs,1,2.5\n".encode("latin-1"),
    ],
)
def test_a_table_is_read_however_it_is_written(tmp_path: Path, text: str | bytes) -> None:
    assert rates_of(tmp_path, text) == ([0, 1], [1, 2.5])


def test_clocks_of_whole_seconds_may_give_two_values_for_one(tmp_path: Path) -> None:
    text = "Timestamp,UL_bitrate\n" + "".join(f"2019.12.14_10.16.0{s},{kbps}\n" for s, kbps in ((0, 1), (0, 3), (2, 5)))
    assert rates_of(tmp_path, text) == ([0, 2], pytest.approx([0.002, 0.005]))


def iperf(rates: list[float], reverse: int = 0) -> dict[str, Any]:
    """A report of ``iperf3 -J`` with intervals of half a second, as far as it is read."""
    sums = [
        {"start": i / 2, "end": i / 2 + 0.5, "seconds": 0.5, "bits_per_second": rate, "omitted": i == 0}
        for i, rate in enumerate(rates)
    ]
    intervals = [{"streams": [], "sum": one, "sum_bidir_reverse": {"bits_per_second": 9}} for one in sums]
    return {"start": {"test_start": {"reverse": reverse}}, "intervals": intervals, "end": {}}


def test_reports_of_iperf3_are_read_without_the_omitted_start(tmp_path: Path) -> None:
    report = iperf([7e6, 1e6, 2e6])
    assert rates_of(tmp_path, json.dumps(report, indent=1)) == ([0, 0.5], [1, 2])
    events = [{"event": "start", "data": report["start"]}]
    events += [{"event": "interval", "data": interval} for interval in report["intervals"]]
    assert rates_of(tmp_path, "\n".join(json.dumps(event) for event in events)) == ([0, 0.5], [1, 2])
    assert read_trace(tmp_path / "x.csv").duration_s == 1.0


def test_logs_of_iperf_are_read(tmp_path: Path) -> None:
    lines = ["Connecting to host x, port 5201", "[ ID] Interval           Transfer     Bitrate         Retr  Cwnd"]
    lines += [
        f"[  5]   {i}.00-{i + 1}.00   sec   128 KBytes  {i + 1}.50 Mbits/sec    0   48.1 KBytes" for i in range(3)
    ]
    lines += ["- - - - -", "[  5]   0.00-3.00   sec  384 KBytes  9.00 Mbits/sec    0             sender"]
    assert rates_of(tmp_path, "\n".join(lines)) == ([0, 1, 2], [1.5, 2.5, 3.5])


def test_mahimahi_may_count_from_an_epoch(tmp_path: Path) -> None:
    trace = read_trace(write(tmp_path / "x.up", "1700000000000\n1700000000050\n1700000000150\n"))
    assert trace.t_s.tolist() == [0, 0.1]
    assert trace.duration_s == pytest.approx(0.15)


# Folders ----------------------------------------------------------------------------------------------------


def test_folders_are_read_recursively_in_sorted_order(tmp_path: Path) -> None:
    notes: list[str] = []
    write(tmp_path / "b" / "z.up", "100\n")
    write(tmp_path / "a" / "y.csv", "t_s,uplink_mbps\n0,1\n")
    write(tmp_path / "a" / "pensieve", "0 1\n")
    write(tmp_path / ".hidden.csv", "not a trace")
    write(tmp_path / ".git" / "x.csv", "0 1\n")
    assert [trace.name for trace in load_traces([tmp_path], notes.append).traces] == ["a/pensieve", "a/y", "b/z"]
    assert notes == []


def test_what_is_no_uplink_is_passed_over_and_said(tmp_path: Path) -> None:
    notes: list[str] = []
    write(tmp_path / "a.csv", "t_s,uplink_mbps\n0,1\n")
    write(tmp_path / "README.txt", "These traces were recorded in 2021.\n")
    write(tmp_path / "empty.csv", "")
    write(tmp_path / "six.txt", "one two three four five six\n")
    write(tmp_path / "T.down", "5\n")
    write(tmp_path / "dl.csv", "time,dl_mbps\n0,1\n")
    write(tmp_path / "reverse.json", json.dumps(iperf([1, 2, 3], reverse=1)))
    (tmp_path / "photo.png").write_bytes(b"\x89PNG\r\n\x1a\n\0")
    os.mkfifo(tmp_path / "pipe.csv")
    assert [trace.name for trace in load_traces(tmp_path, notes.append).traces] == [f"{tmp_path.name}/a"]
    assert len(notes) == 1
    for said in (
        "README.txt (not a trace)",
        "T.down (a downlink; name the file itself",
        "dl.csv (a downlink",
        "and 2 more",
    ):
        assert said in notes[0]


@pytest.mark.parametrize("name", ["T.down", "dl.csv", "reverse.json"])
def test_a_downlink_counts_when_it_is_named(tmp_path: Path, name: str) -> None:
    texts = {"T.down": "5\n", "dl.csv": "time,dl_mbps\n0,1\n", "reverse.json": json.dumps(iperf([1, 2, 3], reverse=1))}
    path = write(tmp_path / name, texts[name])
    assert len(load_traces(path)) == 1
    with pytest.raises(UsageError, match=r"got a directory without traces; skipped: .*a downlink"):
        load_traces(tmp_path)


def test_one_bad_trace_of_many_is_passed_over_and_said_with_its_line(tmp_path: Path) -> None:
    notes: list[str] = []
    write(tmp_path / "a.csv", "t_s,uplink_mbps\n0,1\n")
    for number in range(9):
        write(tmp_path / f"b{number}.csv", "t_s,uplink_mbps\n0,-1\n")
    (tmp_path / "loop.csv").symlink_to(tmp_path / "loop.csv")
    assert len(load_traces(tmp_path, notes.append)) == 1
    assert "b0.csv:2: got '0,-1'; expected a bandwidth of 0 or more" in notes[0]
    assert len(notes) == 6
    assert "4 more traces" in notes[-1]


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
def test_what_may_not_be_read_is_one_line() -> None:
    notes: list[str] = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        folder.chmod(0o755)
        write(folder / "open.csv", "0 1\n").chmod(0o644)
        write(folder / "shut.csv", "0 1\n").chmod(0)
        write(folder / "deep" / "x.csv", "0 1\n")
        (folder / "deep").chmod(0)
        with somebody_else():
            assert len(load_traces(folder, notes.append)) == 1
            with pytest.raises(UsageError, match=r"shut\.csv: got Permission denied; expected a readable trace file"):
                load_traces(folder / "shut.csv")
            with pytest.raises(UsageError, match="deep: got Permission denied; expected a folder that can be read"):
                load_traces(folder / "deep")
    assert len(notes) == 2


# What is refused --------------------------------------------------------------------------------------------

HEADER = "t_s,uplink_mbps\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{HEADER}0,1\n1,fast\n", r"x.csv:3: got '1,fast'; expected finite numbers"),
        (f"{HEADER}0,1\n5\n", r"x.csv:3: got '5'; expected 2 columns, as in the first line"),
        (f"{HEADER}0,1\n1,2,3\n", r"x.csv:3: got '1,2,3'; expected 2 columns"),
        (f"{HEADER}0,1\n\n0,2\n", r"x.csv:4: got '0,2'; expected a time above the one before"),
        (f"{HEADER}0,1\n5,2\n4,2\n", r"x.csv:4: got '4,2'; expected a time above the one before"),
        ("0 1\n5 2\n4 2\n", r"x.csv:3: got '4 2'; expected a time above the one before"),
        (f"{HEADER}0,-1\n", r"x.csv:2: got '0,-1'; expected a bandwidth of 0 or more"),
        ("0 1\n1 -2\n", r"x.csv:2: got '1 -2'; expected a bandwidth of 0 or more"),
        (f"{HEADER}0,nan\n", r"x.csv:2: got '0,nan'; expected finite numbers"),
        (f"{HEADER}0,1\n1,inf\n", r"x.csv:3: got '1,inf'; expected finite numbers"),
        (f"{HEADER}0,1\n1,\n", r"x.csv:3: got '1,'; expected finite numbers"),
        (f"{HEADER}0,1_0\n", r"x.csv:2: got '0,1_0'; expected finite numbers"),
        (f"{HEADER}0,5000000\n", r"x.csv:2: got '0,5000000'; expected a bandwidth of at most 1e\+06 Mbit/s"),
        (f"{HEADER}0,1\n1e300,1\n", r"x.csv:3: got '1e300,1'; expected times within 31 days"),
        (HEADER, r"x.csv: got only a header"),
        ("time;mbps\n0;1,500\n1;2,500\n", r"x.csv:2: got '0;1,500'; expected a decimal point"),
        ("time,ul1_mbps,ul2_mbps\n0,1,2\n", r"x.csv:1: got the bandwidth columns ul1_mbps, ul2_mbps; expected one"),
        ("time,throughput\n0,1\n", r"x.csv:1: got 'time,throughput'; expected one of: iperf3 -J"),
        ("time,kbps\nyesterday,1\n", r"x.csv:2: got 'yesterday,1'; expected a time in seconds, or one such as 2024-"),
        ("time,kbps\n12:00:00,1\n12:00:00,1\n", r"x.csv:3: got '12:00:00,1'; expected times that ascend"),
        ("time,kbps\n12:00:01,1\n12:00:00,1\n", r"x.csv:3: got '12:00:00,1'; expected a time above"),
        ("1 2 3\n", r"x.csv:1: got '1 2 3'; expected one of"),
        ("", r"x.csv: got an empty file"),
        ("5\n4\n", r"x.csv:2: got '4'; expected a whole number of milliseconds"),
        ("5\n6.5\n", r"x.csv:2: got '6.5'; expected a whole number of milliseconds"),
        ("5\nsix\n", r"x.csv:2: got 'six'; expected finite numbers"),
        ("0\n0\n", r"x.csv:2: got '0'; expected a last line above 0"),
        ("0\n1700000000000\n", r"x.csv:2: got '1700000000000'; expected a trace of at most 172800000 ms"),
        (f"0\n{'9' * 400}\n", r"x.csv:2: got '9{57}\.\.\.'; expected finite numbers"),
        ("1 2 3 4 5 6\n1 2 3 4 5\n", r"x.csv:2: got '1 2 3 4 5'; expected six numbers"),
        ("1 2 3 4 5 0\n", r"x.csv:1: got '1 2 3 4 5 0'; expected elapsed milliseconds"),
        ("1 2 3 4 -5 9\n", r"x.csv:1: got '1 2 3 4 -5 9'; expected bytes"),
        ("x" * 500, r"x.csv:1: got 'x{57}\.\.\.'; expected"),
        ("{}", r"x.csv: got JSON that is not an iperf3 report"),
        ('{"intervals": 7', r"x.csv: got JSON that is not an iperf3 report"),
        ('{"start": ' * 5000, r"x.csv: got JSON that is not an iperf3 report"),
        (json.dumps(iperf([])), r"x.csv: got an iperf3 report without intervals"),
        (json.dumps(iperf([0, 1, -2])), r"x.csv: interval 2 has start, seconds, bits_per_second 1, 0.5, -2; expected"),
        (json.dumps(iperf([0, 1, float("inf")])), r"x.csv: interval 2 has .* inf; expected"),
        (json.dumps(iperf([0, 10**400])), r"x.csv: got JSON that is not an iperf3 report"),
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
    for content in (b"\xff\xfe\x00\x81", b"\x80\0\0", b"GIF8\xff\0"):
        (tmp_path / "binary.csv").write_bytes(content)
        with pytest.raises(UsageError, match="binary file"):
            load_traces(tmp_path / "binary.csv")


def test_no_file_is_read_without_end() -> None:
    with pytest.raises(UsageError, match="/dev/zero: got a file of more than 64 MiB"):
        load_traces("/dev/zero")


def test_a_pipe_is_read_and_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.traces.load.PIPE_WAIT_S", 0.2)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match=r"nothing from the pipe for 0\.2 s"):
        load_traces(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=("0 1\n1 2\n",))
    writer.start()
    assert read_trace(tmp_path / "pipe").duration_s == 2
    writer.join()


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from(["0", "1", "-2", "nan", "1e9", ",", ";", "\t", " ", "\n", '"', "{", "#", "time", "mbps"]))
)
def test_no_text_raises_anything_else(words: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(UsageError):
        trace = read_trace(write(Path(folder) / "x", "".join(words)))
        assert np.isfinite(trace.uplink_bps).all()


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real traces are not part of the project")
def test_every_real_trace_is_read() -> None:
    bank = load_traces(SHARED)
    assert len(bank) > 100
    assert {trace.name.split("/")[0] for trace in bank.traces} >= {"norway3g", "nyc_lte_up"}


@pytest.mark.parametrize(
    ("text", "bps"), [("16kbit", 16e3), ("2.5mbit", 2.5e6), ("250 kbit/s", 250e3), ("8000bit", 8e3), ("16Kbit", 16e3)]
)
def test_a_rate_stands_in_place_of_a_file(text: str, bps: float) -> None:
    (trace,) = load_traces([text]).traces
    assert trace.uplink_bps.tolist() == [bps]
    assert not trace.is_shared, "a device has all of the rate that was named"


def test_a_file_with_the_name_of_a_rate_is_that_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("16kbit").write_text("t_s,uplink_mbps\n0,3\n")
    assert load_traces(["16kbit"]).traces[0].uplink_bps.tolist() == [3e6]


@pytest.mark.parametrize("text", ["0kbit", "9999999gbit"])
def test_a_rate_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=f"got the rate {text}; expected more than 0"):
        load_traces([text])
