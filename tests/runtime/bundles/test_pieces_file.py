"""The pieces of a foreign model in a file: what is written comes back, and what is damaged is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from support.onnx_models import pyramid
from torch import Tensor, nn

from controller.errors import FailureError
from runtime.bundles.pieces_file import save_pieces
from runtime.bundles.weights import load_for_inference, load_weights
from runtime.models.describe import describe_layers
from runtime.models.foreign_stage import ForeignStage
from runtime.models.stages import BranchyModel
from runtime.onnx_graphs.cuts import choose_cuts
from runtime.onnx_graphs.extraction import cut_into_pieces
from runtime.onnx_graphs.fixing import FixedGraph, fix_shape
from runtime.onnx_graphs.reading import read_model

SIZES = ((32, 48), (16, 16))
STAGES = 3


def build(stages: list[ForeignStage] | None = None) -> BranchyModel:
    torch.manual_seed(1)
    early = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    stages = stages or [ForeignStage() for _ in range(STAGES)]
    return BranchyModel(stages, [early, nn.Identity()], (1, STAGES), channels_last=False)


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> list[FixedGraph]:
    model = read_model(pyramid(tmp_path_factory.mktemp("model") / "m.onnx"))
    return [fix_shape(model, *size) for size in SIZES]


@pytest.fixture(scope="module")
def adopted(graphs: list[FixedGraph]) -> BranchyModel:
    cuts = choose_cuts([fixed.flow for fixed in graphs], STAGES - 1)
    pieces = [cut_into_pieces(fixed, cuts) for fixed in graphs]
    return build([ForeignStage(resolutions) for resolutions in zip(*pieces, strict=True)]).eval()


@pytest.fixture
def path(adopted: BranchyModel, tmp_path: Path) -> Path:
    save_pieces(tmp_path / "m.safetensors", adopted)
    return tmp_path / "m.safetensors"


def images(size: tuple[int, int]) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).random((2, 3, *size), np.float32))


@pytest.mark.parametrize("size", SIZES)
def test_a_model_comes_back_at_every_resolution(
    graphs: list[FixedGraph], adopted: BranchyModel, path: Path, size: tuple[int, int]
) -> None:
    x = images(size)
    loaded = load_for_inference(path, lambda _: build(), "pyramid", (1, STAGES))
    torch.testing.assert_close(loaded.whole(x, 1), adopted.whole(x, 1), rtol=0, atol=0)
    torch.testing.assert_close(loaded.whole(x, 0), adopted.whole(x, 0), rtol=1e-2, atol=1e-3)  # float16 in the file
    whole = np.concatenate([graphs[SIZES.index(size)].run(image[None])[0] for image in x.numpy()])
    np.testing.assert_allclose(loaded.whole(x, 1).numpy().ravel(), whole.ravel(), rtol=1e-4, atol=1e-5)
    for cut in range(STAGES + 1):
        torch.testing.assert_close(loaded.tail(loaded.head(x, cut), cut, 1), loaded.whole(x, 1), rtol=0, atol=0)


def test_each_weight_is_in_the_file_once(graphs: list[FixedGraph], path: Path) -> None:
    with safe_open(path, framework="numpy") as file:
        weights = [name for name in file.keys() if name.startswith("pieces.weight.")]  # noqa: SIM118 - not a mapping
        stored = sum(file.get_tensor(name).nbytes for name in weights)
    large = {weight.raw_data for weight in graphs[0].proto.graph.initializer if len(weight.raw_data) > 1024}
    assert len(weights) == len(large) >= 2
    assert stored == sum(map(len, large))


def test_a_stage_counts_as_one_layer_with_its_macs(graphs: list[FixedGraph], path: Path) -> None:
    loaded = load_for_inference(path, lambda _: build(), "pyramid", (1, STAGES))
    layers = describe_layers(loaded, images(SIZES[0])[:1])
    assert [[layer.kind for layer in stage] for stage in layers.stages] == [["foreign stage"]] * STAGES
    assert sum(layer.macs for stage in layers.stages for layer in stage) == graphs[0].flow.macs


def test_a_model_that_has_run_can_be_copied_and_saved(adopted: BranchyModel, path: Path, tmp_path: Path) -> None:
    loaded = load_weights(path, lambda _: build(), "pyramid")
    loaded.whole(images(SIZES[0]), 1)
    save_pieces(tmp_path / "again.safetensors", loaded)
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()
    assert load_for_inference(tmp_path / "again.safetensors", lambda _: build(), "pyramid", (1, STAGES))


def changed(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    with safe_open(path, framework="numpy") as file:
        header = file.metadata()
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, header)


def index_with(change: Callable[[list[Any]], None]) -> Callable[[dict[str, Any]], None]:
    def apply(tensors: dict[str, Any]) -> None:
        index = msgspec.json.decode(tensors["pieces.index"].numpy().tobytes())
        change(index)
        tensors["pieces.index"] = as_tensor(msgspec.json.encode(index))

    return apply


def as_tensor(data: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(data, np.uint8).copy())


def many_times(index: list[Any]) -> None:
    index[0] = index[0] * 1000


def huge_output(index: list[Any]) -> None:
    index[0][0]["output_shapes"] = [[1 << 20, 1 << 20, 1]]


def other_weight(index: list[Any]) -> None:
    index[1][0]["weights"] = {"none": next(iter(index[1][0]["weights"].values()))}


def huge_graph(tensors: dict[str, Any]) -> None:
    import zstandard

    tensors["pieces.graph.0"] = as_tensor(zstandard.compress(bytes(1 << 28)))


def weight_elsewhere(tensors: dict[str, Any]) -> None:
    import zstandard

    proto = onnx.load_model_from_string(zstandard.decompress(tensors["pieces.graph.0"].numpy().tobytes()))
    proto.graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL
    proto.graph.initializer[0].external_data.add(key="location", value="/etc/hostname")
    tensors["pieces.graph.0"] = as_tensor(zstandard.compress(proto.SerializeToString()))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (weight_elsewhere, "weights in other files"),
        (index_with(many_times), "up to 256 each"),
        (index_with(huge_output), "expected at most"),
        (index_with(other_weight), "has no weight 'none'"),
        (index_with(lambda index: index.pop()), "of 2 stages"),
        (index_with(lambda index: index[0][0].pop("macs")), "index of pieces is not valid"),
        (huge_graph, "a graph of 268435456 bytes"),
        (lambda tensors: tensors.update({"pieces.graph.0": as_tensor(b"no zstd")}), "does not decompress"),
        (lambda tensors: tensors.update({"pieces.graph.0": torch.zeros(9)}), "expected bytes"),
        (lambda tensors: tensors.pop("pieces.index"), "pieces.index"),
        (lambda tensors: tensors.pop("pieces.graph.1"), "pieces.graph.1"),
    ],
)
def test_damaged_files_are_refused(path: Path, change: Callable[[dict[str, Any]], None], expected: str) -> None:
    changed(path, change)
    with pytest.raises(FailureError, match=expected):
        load_weights(path, lambda _: build(), "pyramid")


def test_other_numbers_of_stages_are_refused(path: Path) -> None:
    with pytest.raises(FailureError, match="3 foreign stages; expected 1"):
        load_weights(path, lambda _: BranchyModel([ForeignStage()], [nn.Identity()], (1,)), "pyramid")
