"""Make a compressed model: change the trained one, train it again for a little while, and write its weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from controller.errors import UsageError
from runtime.building.measure import TrainedModel
from runtime.bundles.graph_file import save_graphs
from runtime.bundles.manifest import COMPRESSED_FROM, ModelInfo
from runtime.bundles.packed_weights import WeightHeader, read_header
from runtime.bundles.weights import load_weights, save_weights
from runtime.compression.distillation import Distillation
from runtime.compression.eight_bits import eight_bit_stages
from runtime.compression.pruning import pruned
from runtime.compression.schemes import Scheme
from runtime.models.few_bits import keep_rounded, round_in_training, rounded_layers
from runtime.models.stages import BranchyModel
from runtime.models.training import Reporter, TrainingConfig, train
from runtime.workloads.base import Workload
from runtime.workloads.family_decisions import resolutions_of
from runtime.workloads.inputs import model_input

#: Returns the reporter of a training, given its steps per epoch.
MakeReporter = Callable[[int], Reporter]


@dataclass(frozen=True)
class Variant:
    """A model of a bundle, and what is done to it."""

    base: ModelInfo
    scheme: Scheme

    @property
    def name(self) -> str:
        return f"{self.base.name}-{self.scheme.name}"

    @property
    def file_name(self) -> str:
        return f"{self.name}.safetensors"

    def config(self, seed: int, epochs: int | None) -> TrainingConfig:
        """The hyper-parameters of the fine-tuning: one cycle of the learning rate."""
        of = self.scheme
        return replace(TrainingConfig(seed=seed), epochs=epochs or of.epochs, peak_rate=of.peak_rate, polish_frac=0.0)

    def trained(self, config: TrainingConfig | None) -> TrainedModel:
        """What a bundle is told of the variant once its file is written. None: it was not trained again."""
        base = self.base
        how = {COMPRESSED_FROM: base.name, "scheme": self.scheme.name} | ({} if config is None else asdict(config))
        plain = TrainedModel(self.name, base.family, self.file_name, base.exit_after, how)
        return plain if self.scheme.trains else replace(plain, precision="int8", engine="openvino", like=base)


def check_compressible(variant: Variant, source: Path) -> None:
    """UsageError when the model in the file has few bits already, or the file holds no weights."""
    header = _header_of(source)
    if header.pieces:
        raise UsageError(
            f"model {variant.base.name!r} is cut from a foreign model, whose graphs stay as they are; expected a model "
            "that was trained here, such as a student, or adopt a model that is compressed already"
        )
    if header.packed or header.graphs:
        raise UsageError(
            f"model {variant.base.name!r} has few bits already; expected one without: prune first, then choose bits"
        )


def check_made_from(variant: Variant, path: Path) -> None:
    """UsageError unless a file holds this variant of this very model."""
    if not path.is_file():
        raise UsageError(f"there is no {path}; expected the weights of {variant.name}")
    made_from, expected = _header_of(path).made_from, variant.base.file.sha256
    if made_from != expected:
        raise UsageError(
            f"{path} was made from the weights {made_from[:12] or 'of no known model'}; expected those of "
            f"{variant.base.name}, {expected[:12]}: compress that model anew"
        )


def _header_of(path: Path) -> WeightHeader:
    try:
        return read_header(path)
    except (OSError, SafetensorError, ValueError) as error:
        raise UsageError(f"{path} is not a file of weights: {error}") from None


def write_variant(
    variant: Variant,
    source: Path,
    directory: Path,
    workload: Workload,
    config: TrainingConfig,
    make_reporter: MakeReporter,
) -> None:
    """Compress the weights of ``source`` and write those of the variant into a directory.

    UsageError where the model cannot be compressed in this way.
    """
    family, path = variant.base.family, directory / variant.file_name
    model = load_weights(source, workload.build, family)
    header = WeightHeader(pruned=read_header(source).pruned, made_from=variant.base.file.sha256)
    if not variant.scheme.trains:
        graphs = eight_bit_stages(model, workload, family)
        save_graphs(path, graphs, model, WeightHeader(header.pruned, graphs=len(graphs), made_from=header.made_from))
        return
    bits: dict[str, int] = {}
    if (kept := variant.scheme.kept_macs_frac) is not None:
        model = pruned(model, example_of(workload, model, family), kept)
        header = WeightHeader(pruned=True, made_from=header.made_from)
    if (count := variant.scheme.bits) is not None:
        bits = {f"{name}.weight": count for name in rounded_layers(model, count)}
        model = round_in_training(model, count)
    teacher = load_weights(source, workload.build, family)
    task = Distillation(workload.task_of(family, config.seed), teacher)
    model = keep_rounded(train(lambda: model, task, config, make_reporter(task.steps_per_epoch)))
    task.finish(model)
    save_weights(model, path, bits=bits, header=header)


def example_of(workload: Workload, model: BranchyModel, family: str) -> Tensor:
    """An input (1, ...) at the largest resolution of the family."""
    frame: Any = workload.sample(0, "train")[0]
    return model_input(workload, model, workload.resize(frame, max(resolutions_of(workload, family)))[None])
