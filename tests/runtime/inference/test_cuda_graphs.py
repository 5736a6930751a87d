"""When a tail is captured and which way is kept; with a GPU, that a graph computes what the tail computes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from runtime.bundles.bundle import open_bundle
from runtime.inference.cuda_graphs import Run, TailGraphs, capture_on
from runtime.inference.engines.base import RunsTails
from runtime.inference.engines.cuda_engine import CPU, CudaModel


class Bench:
    """Graphs in simulated time: a tail takes 1 s as it is and ``graph_s`` as a graph."""

    def __init__(self, graph_s: float, fails: bool = False) -> None:
        self.now_s, self.graph_s, self.fails = 0.0, graph_s, fails
        self.captures = self.replays = 0
        self.graphs = TailGraphs(self.capture, lambda: None, lambda: self.now_s)

    def plain(self, z: Tensor) -> Tensor:
        self.now_s += 1.0
        return 2 * z

    def capture(self, plain: Run, z: Tensor) -> Run:
        self.captures += 1
        if self.fails:
            raise RuntimeError("operation not permitted when stream is capturing")

        def replay(z: Tensor) -> Tensor:
            self.now_s += self.graph_s
            self.replays += 1
            return 2 * z

        return replay

    def run(self, times: int, kind: str = "kind", samples: int = 1) -> None:
        for number in range(times):
            z = torch.full((samples, 3), float(number))
            assert torch.equal(self.graphs.run(kind, z, self.plain), 2 * z)


def test_a_tail_is_captured_when_it_has_come_three_times_and_once_only() -> None:
    bench = Bench(graph_s=0.1)
    bench.run(2)
    assert bench.captures == 0
    bench.run(10)
    assert (bench.captures, len(bench.graphs)) == (1, 1)
    assert bench.replays == 10 + 5  # five were timed


def test_each_kind_and_size_has_a_graph_of_its_own() -> None:
    bench = Bench(graph_s=0.1)
    for kind, samples in (("a", 1), ("a", 2), ("b", 1)):
        bench.run(5, kind, samples)
    assert len(bench.graphs) == 3


@pytest.mark.parametrize("bench", [Bench(graph_s=0.99), Bench(graph_s=0.1, fails=True)], ids=["pays not", "fails"])
def test_a_graph_that_does_not_pay_or_cannot_be_captured_is_not_used_nor_tried_again(bench: Bench) -> None:
    bench.run(20)
    assert (bench.captures, len(bench.graphs)) == (1, 0)


def test_a_model_that_left_the_gpu_runs_its_tails_stage_by_stage() -> None:
    bundle = open_bundle("garments")
    model = CudaModel(bundle.model("alexnet"), bundle.work, CPU, "alexnet", lambda _: None)
    z = torch.rand(3, *bundle.payload_shape("alexnet", 28, 2))
    last = len(bundle.info("alexnet").exit_after) - 1
    stages = range(2, bundle.info("alexnet").exit_after[last])
    assert isinstance(model, RunsTails)
    with torch.inference_mode():
        assert torch.equal(model.run_tail(z, stages, last), bundle.model("alexnet").tail(z, 2, last))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_graph_computes_what_the_tail_computes() -> None:
    place = torch.device("cuda")
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)).to(place).eval()
    graphs = TailGraphs(capture_on(place), torch.cuda.synchronize)
    with torch.inference_mode():
        for _ in range(8):
            z = torch.rand(4, 3, 32, 32).pin_memory()
            expected = net(z.to(place)).cpu()
            found = graphs.run("tail", z, lambda z: net(z.to(place))).cpu()
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
