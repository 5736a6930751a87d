"""Measures how well transfer times are predicted: how often the true time lies below the predicted quantiles.

``python -m benchmarks.bench_transfer`` trains a predictor (``agents.compare.transfers``) on the training traces, as
``mecpilot tune`` does for ``fugu-mpc``, and judges it on transfers over held-out traces, per family of traces. Without
``--traces`` the built-in generator provides both; with ``--traces DIR`` the files are split as in
``benchmarks.bench_learning``. The last two columns are the mean quantile loss of log time, beside that of an untrained
predictor: the mean of the last samples with a fixed spread.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from rich.table import Table

from agents.compare.traces import families
from agents.compare.transfers import Transfers, collect, pinball, train_predictor
from benchmarks.bench_learning import HELD_OUT_FAMILIES, setups_of
from controller.predict.transfer import LEVELS, TransferPredictor, default_predictor
from controller.records import Bools, Float32s
from runtime.observe.tables import table_console

#: Quantiles whose coverage is shown.
SHOWN = (0.5, 0.9, 0.95)
#: Seed of the scenarios that judge; no training uses it.
SEED = 80_000


def predicted(predictor: TransferPredictor, transfers: Transfers) -> Float32s:
    """(N, Q) quantiles of log time over usual time."""
    return predictor.log_ratio(transfers.history, transfers.payload[:, None])[:, 0]


def coverage(quantiles: Float32s, transfers: Transfers, which: Bools) -> list[float]:
    """Share of the chosen transfers whose time lies below each quantile of SHOWN."""
    below = transfers.log_ratio[which, None] <= quantiles[which]
    return [float(below[:, LEVELS.index(level)].mean()) for level in SHOWN]


def loss(quantiles: Float32s, transfers: Transfers, which: Bools) -> float:
    """Mean quantile loss of the chosen transfers."""
    return float(pinball(torch.from_numpy(quantiles[which]), torch.from_numpy(transfers.log_ratio[which])))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workload", default="campus")
    parser.add_argument("--traces", type=Path, help="folder of families of traces; default: the built-in generator")
    parser.add_argument("--hold-out", nargs="*", default=HELD_OUT_FAMILIES, help="families for evaluation only")
    parser.add_argument("--episodes", type=int, default=512, help="scenarios that judge")
    options = parser.parse_args()
    torch.set_num_threads(1)
    training, testing, _ = setups_of(options.workload, options.traces, options.hold_out)
    transfers = collect(testing, options.episodes, SEED)
    trained = predicted(train_predictor(training), transfers)
    untrained = predicted(default_predictor(), transfers)
    family = np.array(families(testing.bank))[transfers.trace]
    table = Table(title=f"{options.workload}: transfers below the predicted quantile", title_justify="left")
    for name in ("family", "transfers", *(f"{level:.0%}" for level in SHOWN), "loss", "untrained"):
        table.add_column(name, justify="left" if name == "family" else "right")
    for name in (*np.unique(family), "all"):
        which = (family == name) | (name == "all")
        shown = [f"{share:.1%}" for share in coverage(trained, transfers, which)]
        losses = [f"{loss(quantiles, transfers, which):.3f}" for quantiles in (trained, untrained)]
        new = name not in {*families(training.bank), "all"}
        table.add_row(name + " *" * new, f"{which.sum():,}", *shown, *losses)
    table.caption = "* no trace of this family was trained on"
    table_console(wide=True).print(table)


if __name__ == "__main__":
    main()
