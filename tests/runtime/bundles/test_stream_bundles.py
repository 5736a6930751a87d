"""A bundle with stream codecs and a family of its own decisions: what is legal, and what is recorded."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.coded_streams import Coded, Drifting
from support.xor_streams import FreeSender, Xor

import mecpilot
from controller.errors import FailureError, UsageError
from controller.records import NO_PAYLOAD, Decision
from runtime.building import split_frames
from runtime.building.build import write_bundle
from runtime.building.existing import added_codecs, check_same_samples, known_images, known_models
from runtime.building.extension import copy_files
from runtime.building.measure import MeasuredModel, TrainedModel, measure_model, measured_of, run_split
from runtime.building.payload_sizes import measure_images
from runtime.building.split_frames import RECORDED_SPLITS, SplitFrames
from runtime.building.streams import AgedSizes
from runtime.bundles.bundle import Bundle, open_bundle
from runtime.bundles.codec_tables import MAX_TABLES_BYTES, load_codec_tables, save_codec_tables
from runtime.bundles.manifest import MANIFEST_FILE, encode_manifest
from runtime.bundles.weights import save_weights
from runtime.codecs import IMAGE, get_codec
from runtime.codecs.streams import RECORDED_AGES, Encoded, Sender, StreamCodec, Tables
from runtime.inference.segments import Segments
from runtime.profiling.measure import measure_sides
from runtime.profiling.profile import FORMAT_VERSION, Profile, cost_table
from runtime.workloads.family_decisions import FamilyDecisions, resolutions_of
from runtime.workloads.registry import get_workload

REFERENCE = "support.coded_streams:Coded"


def _measured(directory: Path, workload: Drifting, family: str) -> MeasuredModel:
    torch.manual_seed(len(family))
    model = workload.build(family)
    save_weights(model, directory / f"{family}.safetensors")
    trained = TrainedModel(family, family, f"{family}.safetensors", model.exit_after, {"epochs": 0})
    return measure_model(directory, workload, trained)


def test_a_model_measured_split_by_split_is_the_same(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    workload = Coded()
    family = workload.families[0]
    whole = _measured(tmp_path, workload, family)
    trained = TrainedModel(family, family, f"{family}.safetensors", whole.info.exit_after, {"epochs": 0})
    runs = {split: run_split(tmp_path, workload, trained, split) for split in RECORDED_SPLITS}
    found = measured_of(tmp_path, workload, trained, runs)
    assert (found.info, found.variants, found.tensor_sizes.infos) == (
        whole.info,
        whole.variants,
        whole.tensor_sizes.infos,
    )
    for split in RECORDED_SPLITS:
        assert np.array_equal(found.tables[split].score, whole.tables[split].score)
        assert np.array_equal(found.tables[split].confidence, whole.tables[split].confidence)


def _made(directory: Path, workload: Drifting) -> Bundle:
    torch.set_num_threads(1)
    measured = [_measured(directory, workload, family) for family in workload.families]
    write_bundle(directory, workload, measured, measure_images(workload))
    return Bundle(directory).served_by(workload)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return _made(tmp_path_factory.mktemp("coded"), Coded())


def _sent(bundle: Bundle, model: str) -> set[tuple[int, int, str]]:
    return {(d.resolution_px, d.partition_point, d.payload) for d in bundle.space.decisions if d.model == model}


# What is legal


def test_a_family_has_its_own_resolutions_cuts_and_codecs_and_the_others_those_of_the_workload(bundle: Bundle) -> None:
    assert _sent(bundle, "pair") == {(16, 0, "xor"), (16, 1, "fitted"), (16, 2, NO_PAYLOAD)}
    everywhere = {(px, 0, codec) for px in (16, 12) for codec in ("raw", "png", "steps")}
    later = {(px, cut, payload) for px in (16, 12) for cut, payload in ((1, "u8"), (1, NO_PAYLOAD), (2, NO_PAYLOAD))}
    assert _sent(bundle, "tiny") == everywhere | later


def test_a_family_without_image_codecs_has_no_full_offload(tmp_path: Path) -> None:
    class SplitOnly(Coded):
        family_decisions = {"pair": FamilyDecisions(image_codecs=(), tensor_codecs={1: ("xort",)})}  # noqa: RUF012

    made = _made(tmp_path, SplitOnly())
    kinds = {(d.partition_point, d.payload) for d in made.space.decisions if d.model == "pair"}
    assert kinds == {(1, "xort"), (2, NO_PAYLOAD)}


def test_a_resolution_that_the_workload_lacks_is_refused() -> None:
    class Wrong(Coded):
        family_decisions = {"pair": FamilyDecisions(resolutions_px=(99,))}  # noqa: RUF012

    with pytest.raises(UsageError, match=r"'pair' has the resolutions \(99,\); expected some of \(16, 12\)"):
        resolutions_of(Wrong(), "pair")


def test_the_manifest_leaves_out_what_is_as_for_every_model(bundle: Bundle) -> None:
    document = json.loads(encode_manifest(bundle.manifest))
    tiny, pair = document["models"]
    assert not {"resolutions_px", "image_codecs", "tensor_codecs", "codec_tables"} & set(tiny)
    assert (pair["resolutions_px"], pair["tensor_codecs"]) == ([16], {"1": ["fitted"]})
    plain = [payload for payload in document["payloads"] if payload["codec"] == "png"]
    assert plain
    assert not any({"mean_bytes_by_age", "chained"} & set(payload) for payload in plain)


def test_every_decision_that_sends_runs_and_has_recorded_answers_and_bytes(bundle: Bundle) -> None:
    workload = Coded()
    segments = Segments(bundle, workload)
    recorded = bundle.recorded("test")
    assert recorded.payload_bytes is not None
    for decision in bundle.space.decisions:
        label = segments.answer(segments.whole(workload.sample(3)[0], decision), decision)
        assert label in (0, 1)
        assert 0.0 <= recorded.score[bundle.variant(decision)].mean() <= 1.0
        assert (bundle.payload(decision).mean_bytes > 0) == (decision.payload != NO_PAYLOAD)


# Tables of codecs


def test_codec_tables_are_fitted_on_the_training_frames_of_each_resolution(bundle: Bundle) -> None:
    workload = Coded()
    frames = np.stack([workload.sample(index, "train")[0] for index in range(workload.sample_count("train"))])
    with torch.inference_mode():
        tensors = bundle.model("pair").run_stages(workload.to_input(frames), 0, 1).numpy()
    fitted = bundle.codec_tables("pair", 16)
    np.testing.assert_allclose(fitted["median"], np.median(tensors, axis=0), atol=1e-5)
    assert bundle.codec_tables("pair", 12) == {}
    assert bundle.codec_tables("tiny", 16) == {}
    with pytest.raises(UsageError, match="unknown model 'none'"):
        bundle.codec_tables("none", 16)


def test_damaged_codec_tables_are_found(tmp_path: Path) -> None:
    _made(tmp_path, Coded())
    path = tmp_path / "pair.codecs.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(FailureError, match=r"pair\.codecs\.safetensors has sha256"):
        Bundle(tmp_path)
    with pytest.raises(FailureError, match="does not hold codec tables"):
        load_codec_tables(path)
    with path.open("wb") as stream:
        stream.truncate(MAX_TABLES_BYTES + 1)
    with pytest.raises(FailureError, match="more than 16 MiB"):
        load_codec_tables(path)


def test_codec_tables_that_could_not_be_read_are_not_written(tmp_path: Path) -> None:
    large = np.zeros(MAX_TABLES_BYTES + 1, np.uint8)
    with pytest.raises(FailureError, match="expected at most 16777216"):
        save_codec_tables(tmp_path / "t", {16: {"large": large}})
    assert not list(tmp_path.iterdir())


# Bytes by age of the reference


def _arrays(bundle: Bundle, model: str, cut: int) -> NDArray[np.generic]:
    """What every test sample sends at 16 px, (samples, ...)."""
    images = next(SplitFrames(Coded(), "test", 30).batches(16))
    if cut == 0:
        return images
    with torch.inference_mode():
        return bundle.model(model).run_stages(Coded().to_input(images), 0, cut).numpy()


@pytest.mark.parametrize(("model", "cut", "name"), [("pair", 1, "fitted"), ("pair", 0, "xor"), ("tiny", 0, "steps")])
def test_bytes_are_recorded_standing_alone_and_for_each_age_of_the_reference(
    bundle: Bundle, model: str, cut: int, name: str
) -> None:
    codec = get_codec(name)
    assert isinstance(codec, StreamCodec)
    arrays, tables = _arrays(bundle, model, cut), bundle.codec_tables(model, 16)
    recorded = bundle.recorded("test")
    assert recorded.aged_bytes is not None
    assert recorded.payload_bytes is not None
    found = recorded.aged_bytes[model, 16, cut, name]
    assert found.shape == (1 + len(RECORDED_AGES), len(arrays))
    np.testing.assert_array_equal(found[1], recorded.payload_bytes[model, 16, cut, name])
    for sample in (0, 1, 17):
        alone = codec.sender(arrays.shape[1:], tables).encode(arrays[sample], 0)
        assert found[0, sample] == len(alone.payload)
    if codec.chained:
        return
    for row, age in enumerate(RECORDED_AGES, 1):
        for sample in (0, 4, 29):  # the first samples refer to the last ones
            sender = codec.sender(arrays.shape[1:], tables)
            sender.encode(arrays[sample - age], 0)
            sender.sent(1)
            sender.answered(1)
            sent = sender.encode(arrays[sample], age)
            assert sent.reference_id == 1
            assert found[row, sample] == len(sent.payload)


def test_a_chained_payload_refers_to_the_frame_before_in_its_stream(bundle: Bundle) -> None:
    arrays = _arrays(bundle, "tiny", 0)
    aged = bundle.recorded("test").aged_bytes
    assert aged is not None
    codec = get_codec("steps")
    assert isinstance(codec, StreamCodec)
    sender = codec.sender(arrays.shape[1:], {})
    sizes = [len(sender.encode(arrays[index], 0).payload) for index in (22, 24, 26, 28, *range(0, 30, 2))]
    assert sizes[4:] == aged["tiny", 16, 0, "steps"][1 + RECORDED_AGES.index(2), ::2].tolist()


def test_the_manifest_states_the_means_by_age_over_the_validation_split(bundle: Bundle) -> None:
    assert bundle.manifest.reference_ages == RECORDED_AGES
    aged = bundle.recorded("validation").aged_bytes
    assert aged is not None
    with_references = [payload for payload in bundle.manifest.payloads if payload.mean_bytes_by_age]
    assert {payload.codec for payload in with_references} == {"steps", "xor", "fitted"}
    for payload in with_references:
        key = (payload.model, payload.resolution_px, payload.partition_point, payload.codec)
        np.testing.assert_allclose(payload.mean_bytes_by_age, aged[key].mean(axis=1), atol=0.01)
        assert payload.mean_bytes == payload.mean_bytes_by_age[1]
        assert payload.chained == (payload.codec == "steps")


def test_the_answers_after_a_chained_lossy_codec_do_not_depend_on_the_batches(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(split_frames, "BATCH_PIXELS", 3 * 256)
    again = _made(tmp_path, Coded())
    assert again.manifest.variants == bundle.manifest.variants
    assert again.manifest.payloads == bundle.manifest.payloads
    for split in ("validation", "test"):
        np.testing.assert_array_equal(again.recorded(split).score, bundle.recorded(split).score)


def test_answers_after_a_chained_codec_are_those_of_the_stream_in_order(bundle: Bundle) -> None:
    """Frame 5 as it arrives after frames 0 to 4, not as it would arrive alone."""
    workload, images = Coded(), _arrays(bundle, "tiny", 0)
    codec = get_codec("steps")
    assert isinstance(codec, StreamCodec)
    sender, receiver = codec.sender(images.shape[1:], {}), codec.receiver(images.shape[1:], {})
    arrived = []
    for number, image in enumerate(images, 1):
        sent = sender.encode(image, number)
        sender.sent(number)
        arrived.append(receiver.decode(sent.payload, number, sent.reference_id, sent.digest))
    with torch.inference_mode():
        outputs = bundle.model("tiny").all_exits(workload.to_input(np.stack(arrived)))[1].numpy()
    labels = bundle.recorded("test").label
    assert labels is not None
    row = bundle.variant(Decision("tiny", 16, 1, 0, "steps"))
    assert labels[row].tolist() == outputs.argmax(axis=1).tolist()
    assert any((codec.roundtrip(images[index : index + 1])[0] != arrived[index]).any() for index in range(1, 30))


def test_a_codec_whose_sender_refers_after_forget_is_refused() -> None:
    class Stubborn(Xor):
        def sender(self, shape: tuple[int, ...], tables: Tables) -> Sender:
            return Referring()

    class Referring(FreeSender):
        def encode(self, array: NDArray[Any], frame: int) -> Encoded:
            return Encoded(b"", reference_id=1)

    sizes = AgedSizes(Stubborn("stubborn", IMAGE, False), (16, 16), {}, RECORDED_AGES)
    with pytest.raises(FailureError, match="expected a payload that stands alone"):
        sizes.add(-8, np.zeros((16, 16), np.uint8))


# Costs


def test_costs_state_bytes_by_age_streams_and_the_steady_state_of_each_stride(bundle: Bundle) -> None:
    done: list[float] = []
    sides = measure_sides(bundle, Coded(), ("device", "mec"), 0.2, done.append)
    costs = cost_table(bundle, Profile(FORMAT_VERSION, "drifting", bundle.digest, sides["device"], sides["mec"]))
    assert costs.ages.tolist() == list(RECORDED_AGES)
    assert costs.payload_bytes_by_age.shape == (len(costs), 1 + len(RECORDED_AGES))
    for row, decision in enumerate(costs.space.decisions):
        payload = bundle.payload(decision)
        by_age = payload.mean_bytes_by_age
        assert (costs.stream[row] >= 0) == bool(by_age)
        assert costs.chained[row] == (decision.payload == "steps")
        if by_age:
            assert costs.payload_bytes_by_age[row].tolist() == list(by_age)
            assert costs.payload_bytes[row] == by_age[1 + RECORDED_AGES.index(decision.frame_stride)]
        else:
            assert costs.payload_bytes_by_age[row].tolist() == [payload.mean_bytes] * (1 + len(RECORDED_AGES))
            assert costs.payload_bytes[row] == payload.mean_bytes
    stream_of = {}
    for decision, stream in zip(costs.space.decisions, costs.stream.tolist(), strict=True):
        key = (decision.model, decision.resolution_px, decision.partition_point, decision.payload)
        assert stream_of.setdefault(key, stream) == stream
    streams = [stream for stream in stream_of.values() if stream >= 0]
    assert sorted(streams) == list(range(4))  # steps at two resolutions, xor, fitted


# Adding to a bundle


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return _made(tmp_path_factory.mktemp("base"), Drifting())


@pytest.fixture(scope="module")
def extended(base: Bundle, bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """``base`` with the family and the codecs of ``bundle``."""
    out = tmp_path_factory.mktemp("extended")
    options = ["--workload", REFERENCE, "--trained", str(bundle.directory), "--out", str(out)]
    assert mecpilot.main(["models", "add", str(base.directory), *options]) == 0
    return Bundle(out)


def test_what_was_recorded_of_a_bundle_stays_when_families_and_codecs_are_added(base: Bundle, extended: Bundle) -> None:
    weights = "tiny.safetensors"
    assert (extended.directory / weights).read_bytes() == (base.directory / weights).read_bytes()
    assert set(base.space.decisions) < set(extended.space.decisions)
    rows = [extended.space.index(decision) for decision in base.space.decisions]
    before, after = base.space.variant, extended.space.variant[rows]
    for split in ("validation", "test"):
        some, more = base.recorded(split), extended.recorded(split)
        for field in ("score", "confidence", "label"):
            np.testing.assert_array_equal(getattr(some, field)[before], getattr(more, field)[after])
        assert some.lagged is not None
        assert more.lagged is not None
        np.testing.assert_array_equal(some.lagged[:, before], more.lagged[:, after])
        assert some.payload_bytes is not None
        assert more.payload_bytes is not None
        for key, sizes in some.payload_bytes.items():
            np.testing.assert_array_equal(sizes, more.payload_bytes[key])
    kept = [variant for variant in extended.manifest.variants if variant in base.manifest.variants]
    assert kept == list(base.manifest.variants)
    assert set(base.manifest.payloads) <= set(extended.manifest.payloads)
    assert extended.manifest.training["tiny"] == base.manifest.training["tiny"]


def test_an_extended_bundle_is_like_one_that_was_measured_at_once(bundle: Bundle, extended: Bundle) -> None:
    assert extended.space.digest == bundle.space.digest
    assert extended.manifest.variants == bundle.manifest.variants
    for one, other in zip(extended.manifest.payloads, bundle.manifest.payloads, strict=True):
        assert (one.model, one.partition_point, one.codec) == (other.model, other.partition_point, other.codec)
        # Another process may compute other last bits of a tensor.
        np.testing.assert_allclose(one.mean_bytes_by_age, other.mean_bytes_by_age, rtol=0.05)
    written = json.loads((extended.directory / MANIFEST_FILE).read_bytes())
    assert not {"precision", "engine"} & {name for model in written["models"] for name in model}


@pytest.mark.slow
def test_families_without_given_weights_are_trained(
    base: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["models", "add", str(base.directory), "--workload", REFERENCE, "--out", str(tmp_path), "--json", "-"]
    assert mecpilot.main(command) == 0
    assert json.loads(capsys.readouterr().out)["models"] == ["tiny", "pair"]
    assert Bundle(tmp_path).manifest.training["pair"]["epochs"] == 1


def test_adding_nothing_or_another_workload_is_refused_in_one_line(
    base: Bundle, bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "x")]
    command = ["models", "add", str(bundle.directory), "--workload", REFERENCE, *out]
    assert mecpilot.main(command) == 2
    assert "has all families and codecs of the workload 'drifting'" in capsys.readouterr().err
    smaller = ["models", "add", str(bundle.directory), "--workload", "support.coded_streams:Drifting", *out]
    assert mecpilot.main(smaller) == 2
    assert "no longer offers the codecs at cut 0 of model 'tiny'" in capsys.readouterr().err
    missing = ["models", "add", str(base.directory), "--workload", REFERENCE, "--trained", str(base.directory), *out]
    assert mecpilot.main(missing) == 2
    assert "unknown model 'pair'; expected one of: tiny" in capsys.readouterr().err
    assert mecpilot.main(["models", "add", str(base.directory), "--workload", REFERENCE, "--family", "x", *out]) == 2
    assert "unknown family 'x'; expected one of: pair" in capsys.readouterr().err
    assert not (tmp_path / "x" / MANIFEST_FILE).exists()


def test_scores_of_forecasts_are_added_to_a_bundle_and_nothing_else_changes(
    base: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add, foreseen = ["models", "add"], ["--workload", "support.coded_streams:Foreseen", "--forecast"]
    assert mecpilot.main([*add, str(base.directory), *foreseen, "--out", str(tmp_path)]) == 0
    found = Bundle(tmp_path)
    same = {"recorded": base.manifest.recorded}
    assert msgspec.structs.replace(found.manifest, **same) == base.manifest
    for split in ("validation", "test"):
        before, after = base.recorded(split), found.recorded(split)
        for one, other in zip(_tables(found, split), _tables(base, split), strict=True):
            np.testing.assert_array_equal(one, other)
        assert before.lagged_forecast is None
        assert after.lagged_forecast is not None
        assert before.lagged is not None
        assert after.lagged_forecast.shape == before.lagged.shape
        for lag in (1, 2, 10):
            assert (after.lagged_forecast[lag - 1, :, :-lag] == 1.0).all()
            assert (before.lagged[lag - 1, :, :-lag] < 1.0).any()
        assert before.tracked_speed is None
        assert after.tracked_speed is not None
        assert np.isnan(after.tracked_speed[:, 0]).all()
        np.testing.assert_allclose(after.tracked_speed[:, 1:], 0.124, rtol=1e-6)
    for again, said in (
        ([str(tmp_path), *foreseen], "has the scores and speeds of forecasts; expected one without"),
        ([str(base.directory), "--forecast", "--workload", "support.coded_streams:Drifting"], "answers do not move"),
        (
            [str(base.directory), *foreseen, "--family", "tiny"],
            "got two of --forecast, --roi, and --family or --trained",
        ),
    ):
        assert mecpilot.main([*add, *again, "--out", str(tmp_path / "x")]) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "x" / MANIFEST_FILE).exists()


def test_speeds_are_added_to_a_bundle_that_has_the_scores_of_forecasts(base: Bundle, tmp_path: Path) -> None:
    foreseen = ["--workload", "support.coded_streams:Foreseen", "--forecast"]
    assert mecpilot.main(["models", "add", str(base.directory), *foreseen, "--out", str(tmp_path / "both")]) == 0
    both, older = Bundle(tmp_path / "both"), _without_speeds(Bundle(tmp_path / "both"), tmp_path / "older")
    assert older.recorded("test").tracked_speed is None
    assert mecpilot.main(["models", "add", str(older.directory), *foreseen, "--out", str(tmp_path / "again")]) == 0
    assert Bundle(tmp_path / "again").digest == both.digest


def _without_speeds(bundle: Bundle, out: Path) -> Bundle:
    """The same, as it was written before speeds were recorded."""
    models = [
        dataclasses.replace(
            model, tables={split: dataclasses.replace(t, tracked_speed=None) for split, t in model.tables.items()}
        )
        for model in known_models(bundle)
    ]
    out.mkdir()
    copy_files(bundle, out)
    write_bundle(out, get_workload("support.coded_streams:Foreseen", None), models, known_images(bundle))
    return Bundle(out)


def test_other_samples_are_refused(base: Bundle) -> None:
    class Longer(Drifting):
        def sample_count(self, split: str) -> int:
            return 20

    with pytest.raises(UsageError, match="other samples or resolutions"):
        check_same_samples(base, Longer())


def test_the_shipped_campus_bundle_written_anew_is_the_same(tmp_path: Path) -> None:
    shipped = open_bundle("campus")
    workload = shipped.work
    assert [added_codecs(shipped, info, workload) for info in shipped.manifest.models] == [{}] * 5
    for info in shipped.manifest.models:
        for file in filter(None, (info.file, info.codec_tables)):
            (tmp_path / file.name).symlink_to(shipped.directory / file.name)
    write_bundle(tmp_path, workload, known_models(shipped), known_images(shipped))
    again = Bundle(tmp_path)
    assert again.manifest.variants == shipped.manifest.variants
    assert again.manifest.payloads == shipped.manifest.payloads
    for split in ("validation", "test"):
        for one, other in zip(_tables(again, split), _tables(shipped, split), strict=True):
            np.testing.assert_array_equal(one, other)


def _tables(bundle: Bundle, split: str) -> tuple[NDArray[np.generic], ...]:
    recorded = bundle.recorded(split)
    assert recorded.lagged is not None
    assert recorded.payload_bytes is not None
    return recorded.score, recorded.confidence, recorded.lagged, np.stack(list(recorded.payload_bytes.values()))


# The command line


def test_show_prints_bytes_by_age_and_a_dash_where_a_model_lacks_a_resolution(
    bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mecpilot.main(["models", "show", str(bundle.directory), "--payloads"]) == 0
    shown = capsys.readouterr().out
    lines = [line.split() for line in shown.splitlines()]
    assert "payload bytes by the age of the reference" in shown
    by_age = next(line for line in lines if line[:4] == ["pair", "16", "1", "fitted"])
    assert len(by_age) == 4 + 1 + len(RECORDED_AGES)
    assert ["pair", "0"] in [line[:2] for line in lines if line[-1:] == ["-"]]
