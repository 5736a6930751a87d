"""How much slower single cores of boards are than a core of a server, from the table that ncnn publishes.

``python -m benchmarks.board_speeds README.md``, with the file ``benchmark/README.md`` of github.com/Tencent/ncnn: times
of the same networks, by the same program, on one thread. Printed are geometric means over the networks, and the least
and the largest ratio.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from rich.table import Table

from runtime.observe.tables import table_console

#: The server: an Xeon Platinum 8573C at 3.6 GHz; its first single-thread table is with AVX-512, its second without.
SERVER = "Microsoft Azure Standard D64s v6"
BOARDS = (
    *("Raspberry Pi 5 ", "Rockchip RK3588 (Quad", "NVIDIA Jetson Orin Nano", "OrangePicm4", "Intel Celeron N5105"),
    *("Rock3A", "Rockchip RK3399", "Khadas VIM3", "Raspberry Pi 4 ", "NVIDIA Jetson Nano", "Arduino UNO Q"),
    *("Raspberry Pi 3 ", "EAIDK 310", "Raspberry Pi Zero 2 W"),
)
NETWORKS = (
    *("squeezenet", "mobilenet", "mobilenet_v2", "mobilenet_v3", "shufflenet", "proxylessnasnet", "efficientnet_b0"),
    *("resnet18", "resnet50", "googlenet", "vgg16", "mobilenet_ssd", "mobilenet_yolo", "yolov4-tiny", "nanodet_m"),
)
_TIME = re.compile(r"\s*([\w.-]+)\s+min =\s*([\d.]+)")
_SETTING = re.compile(r"(num_threads|gpu_device) = (-?\d+)")

Times = Mapping[str, float]  # network -> least time in ms


def single_thread(text: str) -> dict[str, list[Times]]:
    """Heading -> the tables below it that were measured on one thread of a CPU."""
    found: dict[str, list[Times]] = {}
    for section in re.split(r"^### ", text, flags=re.MULTILINE)[1:]:
        heading = section.splitlines()[0]
        for run in section.split("loop_count")[1:]:
            settings = dict(_SETTING.findall(run))
            times = {name: float(ms) for line in run.splitlines() for name, ms in _TIME.findall(line)}
            if settings.get("num_threads") == "1" and settings.get("gpu_device", "-1") == "-1" and times:
                found.setdefault(heading, []).append(times)
    return found


def ratio(times: Times, of_server: Times) -> str:
    """Geometric mean of the times over the server's, with the least and the largest."""
    ratios = [times[name] / of_server[name] for name in NETWORKS if times.get(name) and of_server.get(name)]
    return f"{np.exp(np.log(ratios).mean()):.1f} [{min(ratios):.1f}, {max(ratios):.1f}]"


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("board_speeds: expected one argument: benchmark/README.md of ncnn")
    found = single_thread(Path(sys.argv[1]).read_text())
    fast, plain = next(tables for heading, tables in found.items() if heading.startswith(SERVER))[:2]
    table = Table("board", "over a core with AVX-512", "over the same core without")
    for board in BOARDS:
        heading, tables = next((heading, tables) for heading, tables in found.items() if heading.startswith(board))
        table.add_row(heading, ratio(tables[0], fast), ratio(tables[0], plain))
    table_console(wide=True).print(table)


if __name__ == "__main__":
    main()
