"""A policy file is read back exactly, and anything else is refused in one line."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import msgspec
import numpy as np
import pytest
from safetensors.numpy import save_file
from support.synthetic import random_policy
from support.waiting import PATIENCE_S

from controller.controllers.learned import FrozenPolicy
from controller.errors import MecpilotError, UsageError
from controller.features.schema import FEATURE_SCHEMA
from runtime.files.policy_file import load_policy, save_policy, shipped_policy
from runtime.workloads.registry import WORKLOADS

TENSORS = [field.name for field in fields(FrozenPolicy)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_policy(tmp_path / "p.safetensors", random_policy(), "garments", {"steps": 10}, {"utility": 0.5})
    return tmp_path / "p.safetensors"


def rewrite(path: Path, tensors: dict[str, np.ndarray] | None = None, **changes: object) -> None:
    """Write the file again with other tensors or other manifest entries."""
    policy, manifest = load_policy(path)
    entries = msgspec.to_builtins(manifest) | changes
    weights = {name: getattr(policy, name) for name in TENSORS} if tensors is None else tensors
    save_file(weights, path, {"manifest": msgspec.json.encode(entries).decode()})


def refusal(path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        load_policy(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_weights_and_manifest_come_back_as_they_were(path: Path) -> None:
    policy, manifest = load_policy(path)
    for name in TENSORS:
        np.testing.assert_array_equal(getattr(policy, name), getattr(random_policy(), name))
    assert manifest.workload == "garments"
    assert manifest.training == {"steps": 10}
    assert manifest.evaluation == {"utility": 0.5}
    assert manifest.schema_digest == FEATURE_SCHEMA.digest


def test_a_missing_file_names_the_command_that_makes_one(tmp_path: Path) -> None:
    assert "mecpilot export" in refusal(tmp_path / "none.safetensors")


def test_every_truncation_is_refused(path: Path) -> None:
    whole = path.read_bytes()
    for length in [0, 1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 1]:
        path.write_bytes(whole[:length])
        refusal(path)


def test_flipped_bits_are_refused_or_leave_the_weights_untouched(path: Path) -> None:
    whole, rng = path.read_bytes(), np.random.default_rng(3)
    for position in rng.integers(len(whole), size=300):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            policy, _ = load_policy(path)
        except MecpilotError:
            continue
        np.testing.assert_array_equal(policy.hidden, random_policy().hidden)


def test_another_feature_schema_is_refused_with_the_difference(path: Path) -> None:
    names = ("moon_phase", *FEATURE_SCHEMA.context[1:])
    rewrite(path, schema_digest="0" * 64, context_features=names)
    message = refusal(path)
    assert "moon_phase" in message
    assert FEATURE_SCHEMA.context[0] in message
    assert "train it again" in message


def test_another_format_version_is_refused(path: Path) -> None:
    rewrite(path, version=99)
    assert "version 99" in refusal(path)


@pytest.mark.parametrize("entry", ["workload", "training", "weights_sha256"])
def test_a_manifest_entry_of_another_type_is_refused(path: Path, entry: str) -> None:
    rewrite(path, **{entry: 5})
    assert entry in refusal(path)


def test_a_safetensors_file_that_is_no_policy_is_refused(tmp_path: Path) -> None:
    save_file({"weight": np.zeros(3, np.float32)}, tmp_path / "model.safetensors")
    assert "manifest" in refusal(tmp_path / "model.safetensors")


def test_missing_tensors_and_other_shapes_are_refused(path: Path) -> None:
    tensors = {name: getattr(random_policy(), name) for name in TENSORS}
    rewrite(path, {name: tensors[name] for name in TENSORS[1:]})
    assert TENSORS[0] in refusal(path)


def test_weights_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    policy = random_policy()
    policy.hidden[0, 0] = np.nan
    save_policy(tmp_path / "p.safetensors", policy, "garments", {}, {})
    assert "hidden" in refusal(tmp_path / "p.safetensors")


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    policy = random_policy()
    object.__setattr__(policy, "bias", np.zeros(7, np.float32))
    save_policy(tmp_path / "p.safetensors", policy, "garments", {}, {})
    assert "bias" in refusal(tmp_path / "p.safetensors")


def test_reading_a_policy_loads_neither_torch_nor_stable_baselines3(path: Path) -> None:
    code = (
        "import sys, pathlib; from runtime.files.policy_file import load_policy; "
        f"load_policy(pathlib.Path({str(path)!r})); "
        "sys.exit(any(m in sys.modules for m in ('torch', 'stable_baselines3', 'gymnasium')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=PATIENCE_S).returncode == 0


@pytest.mark.parametrize("workload", WORKLOADS)
def test_the_shipped_policy_fits_the_feature_schema_and_says_how_it_was_trained(workload: str) -> None:
    path = shipped_policy(workload)
    assert path is not None
    _, manifest = load_policy(path)
    assert manifest.workload == workload == manifest.training["workload"]
    assert manifest.training["traces"] == []
    assert manifest.evaluation["utility"] > 0
