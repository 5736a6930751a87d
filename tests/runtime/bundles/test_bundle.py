"""A bundle is verified before it is used, and what its manifest states is what its files say."""

from __future__ import annotations

import json
import queue
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mecpilot
from controller.errors import FailureError, UsageError
from controller.records import Decision
from runtime.building import training_run
from runtime.building.build import write_bundle
from runtime.building.measure import TrainedModel, measure_model, measurement_steps
from runtime.building.payload_sizes import measure_images
from runtime.building.training_run import TrainingPlan
from runtime.building.variants import run_variants
from runtime.bundles.bundle import SHIPPED_DIR, Bundle, open_bundle
from runtime.bundles.manifest import LOSSLESS, MANIFEST_FILE
from runtime.bundles.recorded import Recorded, load_recorded, save_recorded
from runtime.bundles.weights import save_weights
from runtime.codecs import decode, encode, get_codec
from runtime.workloads.datasets import FashionMnist
from runtime.workloads.garments.workload import Garments
from runtime.workloads.registry import WORKLOADS, get_workload

SHIPPED = SHIPPED_DIR / "garments"


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    torch.set_num_threads(1)
    return open_bundle("garments")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SHIPPED, tmp_path / "copy"))


@pytest.fixture(scope="module")
def real_garments() -> Garments:
    workload = get_workload("garments")
    try:
        workload.sample_count("test")
    except FailureError as error:
        pytest.skip(str(error))
    assert isinstance(workload, Garments)
    return workload


def _synthetic_garments(monkeypatch: pytest.MonkeyPatch) -> Garments:
    """The garments workload over few random images, so that no data has to be fetched."""
    rng = np.random.default_rng(0)

    def part(count: int) -> tuple[Any, Any]:
        return rng.integers(0, 256, (count, 28, 28), dtype=np.uint8), rng.integers(0, 10, count, dtype=np.uint8)

    data = FashionMnist(*part(600), *part(30))
    monkeypatch.setattr("runtime.workloads.garments.workload.load_fashion_mnist", lambda _: data)
    monkeypatch.setattr("runtime.workloads.garments.workload.VALIDATION_COUNT", 40)
    return Garments()


# Opening


def test_the_shipped_bundle_opens_with_a_stable_digest_and_small_weights(bundle: Bundle) -> None:
    assert bundle.workload == "garments"
    assert open_bundle(SHIPPED).digest == bundle.digest
    assert sum(model.file.size_bytes for model in bundle.manifest.models) <= 5_000_000


def test_white_space_in_the_manifest_does_not_change_the_digest(bundle: Bundle, copy: Path) -> None:
    path = copy / MANIFEST_FILE
    path.write_text(json.dumps(json.loads(path.read_text())))
    assert Bundle(copy).digest == bundle.digest


@pytest.mark.parametrize("name", ["vgg.safetensors", "recorded_validation.safetensors", "recorded_test.safetensors"])
def test_one_flipped_bit_in_any_file_is_found(copy: Path, name: str) -> None:
    raw = bytearray((copy / name).read_bytes())
    raw[len(raw) // 2] ^= 1
    (copy / name).write_bytes(bytes(raw))
    with pytest.raises(FailureError, match=f"{name} has sha256 .*the bundle is damaged"):
        Bundle(copy)


def test_a_missing_file_is_named(copy: Path) -> None:
    (copy / "alexnet.safetensors").unlink()
    with pytest.raises(FailureError, match=r"alexnet\.safetensors: No such file"):
        Bundle(copy)


def _edit(change: Callable[[dict[str, Any]], Any]) -> Callable[[str], str]:
    def edit(text: str) -> str:
        document = json.loads(text)
        change(document)
        return json.dumps(document)

    return edit


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda text: text[: len(text) // 2], "is not a bundle manifest"),
        (lambda text: "[]", "is not a bundle manifest"),
        (_edit(lambda d: d.update(format_version=99)), "bundle format 99; expected 1"),
        (_edit(lambda d: d.update(surprise=1)), "unknown field `surprise`"),
        (_edit(lambda d: d["models"][0].pop("stages")), "missing required field `stages`"),
        (_edit(lambda d: d["models"][0]["file"].update(name="../vgg.safetensors")), "expected a plain name"),
        (_edit(lambda d: d["sample_counts"].update(test="many")), "is not a bundle manifest"),
    ],
)
def test_a_malformed_manifest_is_one_line(copy: Path, edit: Callable[[str], str], reason: str) -> None:
    path = copy / MANIFEST_FILE
    path.write_text(edit(path.read_text()))
    with pytest.raises(FailureError, match=reason) as caught:
        Bundle(copy)
    assert "\n" not in str(caught.value)


def test_a_manifest_that_is_not_text_is_refused(copy: Path) -> None:
    (copy / MANIFEST_FILE).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FailureError, match="is not a bundle manifest"):
        Bundle(copy)


def test_unknown_names_list_the_known_ones(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown bundle .*expected one of: campus, garments"):
        open_bundle(tmp_path)
    with pytest.raises(UsageError, match="unknown model 'lenet'; expected one of: resnet"):
        bundle.info("lenet")
    with pytest.raises(UsageError, match="unknown split 'train'; expected one of: test, validation"):
        bundle.recorded("train")
    with pytest.raises(UsageError, match=f"unknown workload 'cats'; expected one of: .*{WORKLOADS[0]}"):
        get_workload("cats")


def test_a_bundle_of_an_unknown_workload_opens_and_says_how_to_register_it_when_its_models_are_needed(
    copy: Path,
) -> None:
    path = copy / MANIFEST_FILE
    path.write_text(_edit(lambda d: d.update(workload="os:abort"))(path.read_text()))
    opened = Bundle(copy)
    assert len(opened.space) > 0
    for needs_it in (lambda: opened.model("vgg"), lambda: opened.default_range):
        with pytest.raises(UsageError, match=r"workload 'os:abort', which is not registered here; name it as package"):
            needs_it()


# Decisions


def test_every_decision_is_legal_and_every_cut_of_every_exit_is_there(bundle: Bundle) -> None:
    seen = set()
    for decision, stages in zip(bundle.space.decisions, bundle.space.stages_to_exit, strict=True):
        info = bundle.info(decision.model)
        assert stages == info.exit_after[decision.exit_branch]
        assert 0 <= decision.partition_point <= stages
        assert (decision.payload == "none") == (decision.partition_point == stages)
        seen.add((decision.model, decision.resolution_px, decision.exit_branch, decision.partition_point))
    cuts = sum(after + 1 for model in bundle.manifest.models for after in model.exit_after)
    assert len(seen) == cuts * len(bundle.manifest.resolutions_px)


def test_payload_sizes_and_shapes_are_known_for_every_decision(bundle: Bundle) -> None:
    for decision in bundle.space.decisions:
        payload = bundle.payload(decision)
        shape = bundle.payload_shape(decision.model, decision.resolution_px, decision.partition_point)
        assert (payload.mean_bytes > 0) == (decision.payload != "none")
        assert len(shape) == (2 if decision.partition_point == 0 else 3)
    raw = next(d for d in bundle.space.decisions if d.payload == "raw" and d.resolution_px == 20)
    assert (bundle.payload(raw).mean_bytes, bundle.payload(raw).std_bytes) == (400.0, 0.0)


def test_lossless_decisions_share_the_exact_variant_and_lossy_ones_have_their_own(bundle: Bundle) -> None:
    for decision, row in zip(bundle.space.decisions, bundle.space.variant, strict=True):
        variant = bundle.manifest.variants[row]
        assert (variant.model, variant.resolution_px, variant.exit_branch) == (
            decision.model,
            decision.resolution_px,
            decision.exit_branch,
        )
        lossy = decision.payload != "none" and not get_codec(decision.payload).lossless
        assert variant.codec == (decision.payload if lossy else LOSSLESS)
        assert variant.partition_point == (decision.partition_point if lossy else 0)


# Recorded predictions


@pytest.mark.parametrize("split", ["validation", "test"])
def test_the_accuracy_table_is_the_mean_of_the_recorded_scores(bundle: Bundle, split: str) -> None:
    recorded = bundle.recorded(split)
    stated = [variant.accuracy[split] for variant in bundle.manifest.variants]
    np.testing.assert_allclose(recorded.score.mean(axis=1), stated, atol=1e-6)
    assert recorded.score.shape == (len(stated), bundle.manifest.sample_counts[split])


def test_confidence_is_calibrated_on_the_validation_split(bundle: Bundle) -> None:
    recorded = bundle.recorded("validation")
    for model in bundle.manifest.models:
        for exit_branch in range(len(model.exits)):
            rows = [
                bundle.variant(Decision(model.name, px, exit_branch, 0, "raw"))
                for px in bundle.manifest.resolutions_px  # one temperature serves all resolutions
            ]
            assert abs(recorded.confidence[rows].mean() - recorded.score[rows].mean()) < 0.02, (model.name, exit_branch)


@pytest.mark.parametrize("name", ["resnet", "vgg", "alexnet", "mobilenet"])
def test_shipped_weights_measured_anew_agree_with_the_recorded_test_answers(
    bundle: Bundle, real_garments: Garments, name: str
) -> None:
    """On the first 1,000 test images; another machine's kernels may flip a few answers on the edge."""
    count = min(1_000, bundle.manifest.sample_counts["test"])
    samples = [real_garments.sample(index) for index in range(count)]
    images = np.stack([image for image, _ in samples])
    truths = np.array([truth for _, truth in samples])
    recorded = bundle.recorded("test")
    assert recorded.label is not None
    px = 20
    with torch.inference_mode():
        outputs = bundle.model(name).all_exits(real_garments.to_input(real_garments.resize(images, px)))
    for exit_branch, output in enumerate(outputs):
        row = bundle.variant(Decision(name, px, exit_branch, 0, "raw"))
        answers = np.array(real_garments.answers(output.numpy(), px))
        assert (answers == recorded.label[row, :count]).mean() >= 0.998
        assert abs((answers == truths).mean() - recorded.score[row, :count].mean()) <= 0.002


@pytest.mark.parametrize("codec", Garments.tensor_codecs)
def test_a_live_lossy_cut_answers_as_recorded(bundle: Bundle, real_garments: Garments, codec: str) -> None:
    """One by one through the real codec, as device and MEC do."""
    recorded = bundle.recorded("test")
    assert recorded.label is not None
    decision = Decision("vgg", 14, 2, 3, codec)
    model, row = bundle.model(decision.model), bundle.variant(decision)
    agreed = []
    with torch.inference_mode():
        for index in range(100):
            small = real_garments.resize(real_garments.sample(index)[0], decision.resolution_px)
            z = model.head(real_garments.to_input(small[None]), decision.partition_point).numpy()[0]
            received = decode(codec, encode(codec, z), z.shape)
            output = model.tail(torch.from_numpy(received)[None], decision.partition_point, decision.exit_branch)
            answer = real_garments.answers(output.numpy(), decision.resolution_px)[0]
            agreed.append(answer == recorded.label[row, index])
    assert np.mean(agreed) >= 0.99


def _table() -> tuple[Recorded, list[int]]:
    rng = np.random.default_rng(2)
    score = np.concatenate([rng.integers(0, 2, (3, 50)), rng.uniform(size=(1, 50))]).astype(np.float32)
    confidence = rng.uniform(size=(4, 50)).astype(np.float32)
    return Recorded(score, confidence, rng.integers(0, 10, (4, 50), dtype=np.uint8)), [0, 0, 2, 2]


def test_recorded_predictions_come_back(tmp_path: Path) -> None:
    table, base_rows = _table()
    save_recorded(tmp_path / "r", table, base_rows)
    loaded = load_recorded(tmp_path / "r", 4, 50)
    np.testing.assert_allclose(loaded.score, table.score, atol=1 / 65535)
    assert np.array_equal(loaded.score[:3], table.score[:3])
    np.testing.assert_allclose(loaded.confidence, table.confidence, atol=1 / 255)
    assert loaded.label is not None
    assert np.array_equal(loaded.label, table.label)


def test_a_recorded_table_of_another_size_or_kind_is_refused(tmp_path: Path) -> None:
    table, base_rows = _table()
    save_recorded(tmp_path / "r", table, base_rows)
    with pytest.raises(FailureError, match=r"expected \(4, 51\)"):
        load_recorded(tmp_path / "r", 4, 51)
    (tmp_path / "r").write_bytes(b"not safetensors")
    with pytest.raises(FailureError, match="not a table of recorded predictions"):
        load_recorded(tmp_path / "r", 4, 50)


# Making


def test_a_written_bundle_opens_and_repeats_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    workload = _synthetic_garments(monkeypatch)
    model = workload.build("mobilenet")
    save_weights(model, tmp_path / "m.safetensors")
    steps: list[str] = []
    trained = TrainedModel("small", "mobilenet", "m.safetensors", model.exit_after, {"epochs": 0})
    measured = measure_model(tmp_path, workload, trained, max_samples=25, advance=steps.append)
    written = write_bundle(tmp_path, workload, [measured], measure_images(workload, max_samples=25))
    opened = Bundle(tmp_path)
    assert opened.manifest == written
    assert opened.manifest.sample_counts == {"validation": 25, "test": 25}
    assert len(steps) == measurement_steps(workload, "mobilenet")
    images = workload.resize(np.stack([workload.sample(i, "validation")[0] for i in range(25)]), 14)
    exact = run_variants(opened.model("small"), workload, [images], {})[3, 0, LOSSLESS]
    row = opened.variant(Decision("small", 14, 3, 0, "png"))
    label = opened.recorded("validation").label
    assert label is not None
    assert label[row].tolist() == exact.argmax(axis=1).tolist()


def test_a_family_is_trained_logged_measured_and_saved_by_its_process_body(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _synthetic_garments(monkeypatch)
    torch.set_num_threads(1)
    plan = TrainingPlan("garments", tmp_path, ("mobilenet",), epochs=1, max_samples=10)
    events: queue.Queue[Any] = queue.Queue()
    training_run._train_and_measure(plan, "mobilenet", events)
    reported = [events.get_nowait() for _ in range(events.qsize())]
    epochs = [event for event in reported if event.scores]
    assert [event.done for event in epochs] == list(range(1, plan.config("mobilenet").total_epochs + 1))
    assert "accuracy/14px/exit3" in epochs[-1].scores
    assert reported[-1].measured.info.name == "mobilenet"
    assert (tmp_path / "mobilenet.safetensors").is_file()
    assert list((tmp_path / "logs" / "mobilenet").glob("events.out.tfevents.*"))


def test_a_training_that_fails_reports_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _synthetic_garments(monkeypatch)
    monkeypatch.setattr(training_run, "train", lambda *_: 1 // 0)
    events: queue.Queue[Any] = queue.Queue()
    with pytest.raises(SystemExit):
        training_run._train_and_measure(TrainingPlan("garments", tmp_path, ("vgg",)), "vgg", events)
    assert "ZeroDivisionError" in events.get_nowait().error


# The command line


def test_models_list_and_show_print_tables_and_the_same_facts_as_json(
    capsys: pytest.CaptureFixture[str], bundle: Bundle, tmp_path: Path
) -> None:
    assert mecpilot.main(["models", "list"]) == 0
    assert "garments" in capsys.readouterr().out
    assert mecpilot.main(["models", "list", "--json", "-"]) == 0
    listed = {found["workload"]: found["digest"] for found in json.loads(capsys.readouterr().out)}
    assert listed["garments"] == bundle.digest
    target = tmp_path / "show.json"
    assert mecpilot.main(["models", "show", "garments", "--json", str(target)]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in bundle.model_names)
    assert json.loads(target.read_text())["digest"] == bundle.digest


@pytest.mark.parametrize(
    ("arguments", "exit_code", "reason"),
    [
        (["show", "cats"], 2, "unknown bundle 'cats'"),
        (["train", "--workload", "cats"], 2, "unknown workload 'cats'"),
        (
            ["train", "--workload", "garments", "--family", "lenet"],
            2,
            "unknown family 'lenet'; expected one of: resnet",
        ),
        (["train", "--data", "/nowhere"], 2, "--data /nowhere is not a directory"),
        (["list", "--json", "/nowhere/x.json"], 1, "cannot write /nowhere/x.json"),
    ],
)
def test_bad_input_is_one_line_on_stderr(
    capsys: pytest.CaptureFixture[str], arguments: list[str], exit_code: int, reason: str
) -> None:
    assert mecpilot.main(["models", *arguments]) == exit_code
    printed = capsys.readouterr()
    assert reason in printed.err
    assert printed.err.count("\n") == 1
