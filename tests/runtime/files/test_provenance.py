"""A result names the files that it rests on: what ships by its name, what was given as it was given."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

import mecpilot
from runtime.bundles.bundle import open_bundle
from runtime.files.policy_file import shipped_policy, used_policy
from runtime.files.provenance import GIVEN, OWN, SHIPPED, Used, used
from runtime.files.tuning_file import shipped_path, used_tuning
from runtime.profiling.profile import used_profile


@pytest.mark.parametrize("origin", [SHIPPED, OWN])
def test_a_file_that_the_user_did_not_name_is_shown_without_its_folder(origin: str) -> None:
    path = shipped_path("campus")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    assert used(path, origin) == Used("campus_tuning.json", origin, digest)


def test_a_given_file_is_shown_as_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    for given in (Path("mine.json"), tmp_path / "mine.json"):
        assert used(given, GIVEN).path == str(given)


def test_everything_that_ships_is_shown_by_its_name() -> None:
    bundle, policy = open_bundle("campus"), shipped_policy("campus")
    assert policy is not None
    for found in (used_profile(bundle, Path("shipped")), used_policy(policy), used_tuning("campus")):
        assert found is not None
        assert (found.origin, Path(found.path).name) == (SHIPPED, found.path)


def test_the_summary_of_a_device_does_not_show_the_installation(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--workload", "garments", "--frames", "1", "--profile", "shipped", "--mec", "tcp://127.0.0.1:9"]
    assert mecpilot.main(["device", *arguments, "--json", "-"]) == 0
    assert str(Path(mecpilot.__file__).parent) not in capsys.readouterr().out
