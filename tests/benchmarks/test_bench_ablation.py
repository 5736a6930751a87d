"""The ablation sets what lacks splits against the same with splits, over the same episodes."""

from __future__ import annotations

import pytest

from agents.compare.evaluation import Entrants, compare_in_twin
from benchmarks.bench_ablation import figures_of, table_of
from envs.setup import open_setup
from runtime.testbed.markov_traces import builtin_traces

SHORT = {"frames": 20}


def test_a_controller_without_splits_is_compared_with_itself() -> None:
    names = ("greedy", "expected-utility")
    whole, splitless = (
        open_setup("campus", builtin_traces("test"), "test", SHORT, "shipped", without=kind)
        for kind in ((), ("split",))
    )
    base = compare_in_twin(whole, Entrants(names), ["built-in"], 1)
    bare = compare_in_twin(splitless, Entrants(names), ["built-in"], 1)
    rows = [figures_of(f"no-split, {name}", base, bare.runs[name], base.runs[name]) for name in names]
    rows.append(figures_of("no-split", base, bare.runs["greedy"], None))
    for name, row in zip(names, rows, strict=False):
        lost = bare.utility(name).mean() - base.utility(name).mean()
        assert row["less whole"]["mean"] == pytest.approx(lost)
        assert row["run_as"]["split"] == 0.0
        assert sum(row["run_as"].values()) == pytest.approx(1.0)
    assert rows[-1]["less whole"] is None
    assert table_of(rows, base).row_count == 3
