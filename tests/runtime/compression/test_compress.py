"""`mecpilot models compress`: compressed variants are models of a new bundle, cut and run like every other."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support.once import once
from support.shapes import Shapes

import mecpilot
from controller.errors import FailureError
from runtime.building.build import write_bundle
from runtime.building.measure import TrainedModel, measure_model
from runtime.building.payload_sizes import measure_images
from runtime.bundles.bundle import Bundle, open_bundle
from runtime.bundles.weights import save_weights
from runtime.compression.run import check_alive
from runtime.inference.segments import Segments
from runtime.models.training import Scalars, TrainingConfig, train

SHAPES = "support.shapes:Shapes"


def needs(*packages: str) -> pytest.MarkDecorator:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


class Silent:
    def step(self, step: int, scalars: Scalars) -> None: ...

    def epoch(self, epoch: int, scalars: Scalars) -> None: ...


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with one model, trained a little."""

    def make(folder: Path) -> None:
        folder.mkdir()
        work = Shapes()
        config = TrainingConfig(epochs=8, polish_frac=0.0)
        model = train(lambda: work.build("tiny"), work.task_of("tiny", 0), config, Silent())
        save_weights(model, folder / "tiny.safetensors")
        trained = TrainedModel("tiny", "tiny", "tiny.safetensors", model.exit_after, {})
        write_bundle(folder, work, [measure_model(folder, work, trained)], measure_images(work))

    return once(tmp_path_factory, "shapes-to-compress", make)


def compress(base: Path, out: Path, *schemes: str, model: str = "tiny", options: tuple[str, ...] = ()) -> int:
    chosen = [part for scheme in schemes for part in ("--scheme", scheme)]
    command = ["models", "compress", str(base), "--workload", SHAPES, "--model", model, *chosen]
    return mecpilot.main([*command, "--epochs", "2", "--jobs", "1", "--out", str(out), *options])


@pytest.fixture(scope="module")
def smaller(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same bundle with a pruned variant, and one of 4 bits of that."""

    def make(folder: Path) -> None:
        between = folder.with_name("between")
        assert compress(base, between, "prune65") == 0
        assert compress(between, folder, "bits4", model="tiny-prune65") == 0

    return once(tmp_path_factory, "smaller", make)


@needs("torch_pruning")
@pytest.mark.timeout(300)
def test_variants_are_recorded_beside_what_was_there(base: Path, smaller: Path) -> None:
    old, new = open_bundle(base), open_bundle(smaller)
    assert new.model_names == ("tiny", "tiny-prune65", "tiny-prune65-bits4")
    assert new.manifest.models[0] == old.manifest.models[0]
    for split in ("validation", "test"):
        before, after = old.recorded(split).score, new.recorded(split).score
        np.testing.assert_array_equal(after[: len(before)], before)
    plain, pruned, few = new.manifest.models
    assert pruned.stages[-1].macs[16] < 0.65 * plain.stages[-1].macs[16]
    assert few.stages == pruned.stages
    assert few.file.size_bytes < pruned.file.size_bytes < plain.file.size_bytes
    training = new.manifest.training["tiny-prune65-bits4"]
    assert (training["compressed_from"], training["scheme"], training["epochs"]) == ("tiny-prune65", "bits4", 2)


def assert_cut_anywhere(bundle: Bundle) -> None:
    """Every split with a lossless payload answers what the device alone answers, bit for bit."""
    work = Shapes()
    segments, image = Segments(bundle, work), work.sample(3)[0]
    decisions = bundle.space.decisions
    alone = {(d.model, d.resolution_px, d.exit_branch): d for d in decisions if d.payload == "none"}
    for d in decisions:
        expected = segments.whole(image, alone[d.model, d.resolution_px, d.exit_branch])
        found = segments.whole(image, d)
        assert found.shape == segments.output_shape(d)
        if d.partition_point == 0:
            np.testing.assert_array_equal(found, expected)
        else:
            np.testing.assert_allclose(found, expected, atol=2.0)  # after a lossy payload


@needs("torch_pruning")
@pytest.mark.timeout(300)
def test_variants_run_cut_anywhere(smaller: Path) -> None:
    assert_cut_anywhere(open_bundle(smaller))


@needs("openvino", "nncf")
@pytest.mark.timeout(300)
def test_eight_bits_run_in_openvino_and_say_so(base: Path, tmp_path: Path) -> None:
    assert compress(base, tmp_path / "eight", "int8") == 0
    bundle = open_bundle(tmp_path / "eight")
    plain, eight = bundle.manifest.models
    assert (eight.precision, eight.engine) == ("int8", "openvino")
    assert eight.stages == plain.stages
    assert_cut_anywhere(bundle)
    folded, whole = bundle.model("tiny-int8"), bundle.model("tiny")
    x = Shapes().to_input(np.stack([Shapes().sample(index)[0] for index in range(20)]))
    with torch.inference_mode():
        difference = (folded.whole(x, 1) - whole.whole(x, 1)).abs().mean() / whole.whole(x, 1).abs().mean()
    assert 0.0 < difference < 0.2
    assert sys.modules["openvino_telemetry"] is None  # type: ignore[comparison-overlap]  # it may not report


@needs("torch_pruning")
@pytest.mark.timeout(300)
def test_what_was_made_is_only_taken_for_the_model_that_it_was_made_from(
    smaller: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    between = smaller.with_name("between")
    assert compress(base, tmp_path / "again", "prune65", options=("--made", str(between))) == 0
    again, first = open_bundle(tmp_path / "again"), open_bundle(between)
    assert again.manifest.models == first.manifest.models
    assert again.manifest.variants == first.manifest.variants
    other = tmp_path / "other" / "tiny-prune65-bits4.safetensors"
    other.parent.mkdir()
    other.write_bytes((between / "tiny-prune65.safetensors").read_bytes())
    capsys.readouterr()
    options = ("--made", str(other.parent))
    assert compress(between, tmp_path / "out", "bits4", model="tiny-prune65", options=options) == 2
    assert "was made from the weights" in capsys.readouterr().err
    other.write_bytes(other.read_bytes()[:200])
    assert compress(between, tmp_path / "out", "bits4", model="tiny-prune65", options=options) == 2
    assert "is not a file of weights" in capsys.readouterr().err
    assert compress(smaller, tmp_path / "out", "prune65", model="tiny-prune65-bits4") == 2
    assert "has few bits already" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("scheme", "model", "reason"),
    [
        ("half", "tiny", "unknown scheme 'half'; expected one like: prune50, bits4, bits1, int8"),
        ("bits3", "tiny", "scheme 'bits3': 3 bits per weight; expected one of: 1, 2, 4, 8"),
        ("prune100", "tiny", "scheme 'prune100': 100 % of the multiply-accumulates; expected 5 to 95"),
        ("bits4", "huge", "unknown model 'huge'"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(
    scheme: str, model: str, reason: str, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compress(base, tmp_path / "out", scheme, model=model) == 2
    err = capsys.readouterr().err.strip()
    assert reason in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_base_with_a_damaged_file_of_weights_is_one_line(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = shutil.copytree(base, tmp_path / "damaged")
    weights = damaged / "tiny.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    assert compress(damaged, tmp_path / "out", "bits4") in (1, 2)
    err = capsys.readouterr().err.strip()
    assert "tiny.safetensors" in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@needs("torch_pruning")
def test_a_scheme_that_fails_leaves_no_half_written_bundle(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compress(base, tmp_path / "out", "prune5") == 1
    assert "tiny-prune5 failed: UsageError: pruning to 0.05 of" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_variant_that_answers_nothing_is_refused(base: Path) -> None:
    work = Shapes()
    trained = TrainedModel("tiny", "tiny", "tiny.safetensors", work.build("tiny").exit_after, {})
    measured = measure_model(base, work, trained, max_samples=6)
    check_alive(measured, 0.5)
    with pytest.raises(FailureError, match=r"expected at least 0\.5 of that: take a milder"):
        check_alive(measured, 3.0)
