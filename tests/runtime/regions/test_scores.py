"""The file of what crops score: it is read as it was written, and refused where it cannot be right."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from controller.errors import FailureError, MecpilotError, UsageError
from controller.records import Decision
from envs.setup import open_setup
from envs.techniques import Techniques
from runtime.building.crops import copy_crops, run_crops
from runtime.bundles.bundle import Bundle, open_bundle
from runtime.bundles.recorded import MAX_LAG
from runtime.cli.console import task_bar
from runtime.regions.costs import crops_if
from runtime.regions.recording import AGES
from runtime.regions.scores import CROPS_FILE, CropHeader, CropRow, CropTables, SentCrop, scores_of, write_crops
from runtime.testbed.markov_traces import builtin_traces

CAMPUS = open_bundle("campus").directory


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the shipped bundle."""
    return Path(shutil.copytree(CAMPUS, tmp_path / "campus"))


def header(bundle: Bundle, **changes: object) -> CropHeader:
    digest = bundle.info("nano").file.sha256
    rows = (CropRow(0.75, "nano", 256, 2, "none"), CropRow(0.75, "nano", 256, 2, "jpeg30"))
    fields = {
        "version": 1,
        "weights": {"nano": digest},
        "ages": AGES,
        "shares": (0.75,),
        "rows": rows,
        "sent": (SentCrop(0.75, 256, "jpeg30"),),
        "samples": dict(bundle.manifest.sample_counts),
    }
    return CropHeader(**(fields | changes))  # type: ignore[arg-type]


def tables(samples: int, seed: int = 0) -> CropTables:
    rng = np.random.default_rng(seed)
    still, moved = (
        rng.integers(0, 256, (2, len(AGES), MAX_LAG + 1, samples)).astype(np.float32) / 255 for _ in range(2)
    )
    sizes = rng.integers(1000, 9000, (1, len(AGES), samples)).astype(np.int32)
    confidence = rng.integers(0, 256, (2, len(AGES), samples)).astype(np.float32) / 255
    usable = rng.random((1, len(AGES), samples)) < 0.9
    return CropTables(still, moved, sizes, usable, confidence, np.full_like(confidence, 0.1))


def written(folder: Path, **changes: object) -> dict[str, CropTables]:
    bundle = open_bundle(folder)
    found = {split: tables(count, seed) for seed, (split, count) in enumerate(bundle.manifest.sample_counts.items())}
    write_crops(folder / CROPS_FILE, header(bundle, **changes), found)
    return found


def test_what_was_written_is_read_and_the_digest_of_the_bundle_stays(folder: Path) -> None:
    before = open_bundle(folder).digest
    expected = written(folder)
    bundle = open_bundle(folder)
    scores = scores_of(bundle)
    assert bundle.digest == before
    assert scores is not None
    for split, of in expected.items():
        got = scores.tables(split)
        np.testing.assert_allclose(got.still, of.still, atol=1e-6)
        assert got.forecast is not None
        np.testing.assert_allclose(got.forecast, of.forecast, atol=1e-6)
        np.testing.assert_array_equal(got.sent_bytes, of.sent_bytes)
        np.testing.assert_array_equal(got.usable, of.usable)
        np.testing.assert_allclose(got.confidence, of.confidence, atol=1e-6)
        assert got.speed is not None
        np.testing.assert_allclose(got.speed, 0.1, atol=1e-6)
    assert scores.row(Decision("nano", 256, 2, 0, "jpeg30", crop=0.75)) == 1
    assert scores.row(Decision("nano", 256, 2, 0, "jpeg30", crop=0.5)) is None
    with pytest.raises(UsageError, match="has no split 'train'; expected one of"):
        scores.tables("train")


def read_all(folder: Path) -> None:
    scores = scores_of(open_bundle(folder))
    assert scores is not None
    for split in scores.header.samples:
        scores.tables(split)


def spoilt(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / CROPS_FILE
        path.write_bytes(change(path.read_bytes()))

    return spoil


@pytest.mark.parametrize(
    "spoil",
    [
        spoilt(lambda data: data[: len(data) // 2]),
        spoilt(lambda data: b"\0" * 64),
        spoilt(lambda data: data[:-200] + bytes(200)),
        spoilt(lambda data: data.replace(b"weights", b"weighty")),
        spoilt(lambda data: b""),
    ],
    ids=["cut off", "zeros", "flipped", "header", "empty"],
)
def test_a_damaged_file_is_refused_in_one_line(folder: Path, spoil: Callable[[Path], None]) -> None:
    written(folder)
    spoil(folder)
    with pytest.raises(FailureError, match=r"crops\.safetensors does not hold the scores of crops") as refused:
        read_all(folder)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"weights": {"nano": "0" * 64}}, "was measured with other weights of nano"),
        ({"weights": {"giant": "0" * 64}}, "was measured with other weights of giant"),
        ({"samples": {"validation": 106, "test": 7}}, "expected .*'test': 265"),
        ({"version": 2}, "got format 2, expected 1; measure the crops again"),
    ],
)
def test_scores_of_other_models_or_samples_are_refused(folder: Path, changes: dict[str, object], expected: str) -> None:
    bundle = open_bundle(folder)
    write_crops(folder / CROPS_FILE, header(bundle, **changes), {})
    with pytest.raises(FailureError, match=expected):
        scores_of(bundle)


def test_a_bundle_without_scores_refuses_crops_for_a_controller_and_takes_those_of_the_same_models(
    folder: Path, tmp_path: Path
) -> None:
    (folder / CROPS_FILE).unlink(missing_ok=True)
    bundle = open_bundle(folder)
    techniques = Techniques(crops=crops_if(True, bundle.work))
    with pytest.raises(UsageError, match="which does not say what they score; measure them with") as refused:
        open_setup(bundle, builtin_traces("test"), "test", techniques=techniques)
    assert "\n" not in str(refused.value)
    written(folder)
    copy_crops(bundle, tmp_path)
    assert (tmp_path / CROPS_FILE).read_bytes() == (folder / CROPS_FILE).read_bytes()
    copy_crops(bundle, folder)
    setup = open_setup(bundle, builtin_traces("test"), "test", techniques=techniques)
    assert setup.costs.space.cropped.any()


def test_what_cannot_be_measured_is_refused(tmp_path: Path) -> None:
    garments, campus = open_bundle("garments"), open_bundle("campus")
    with task_bar() as progress:
        for bundle, out, expected in (
            (garments, tmp_path, "whose answers are no boxes of a stream"),
            (campus, campus.directory, "is the bundle itself; expected another folder"),
        ):
            with pytest.raises(MecpilotError, match=expected):
                run_crops(bundle, bundle.work, out, progress)
