"""The folder of an adopted bundle works wherever the name of a workload does."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.adopted import adoption_of, write_adoption, write_video

from controller.errors import UsageError
from runtime.workloads.adopted.workload import Adopted
from runtime.workloads.registry import SHIPPED, Registry, is_adopted


@pytest.fixture
def registry() -> Registry:
    return Registry(SHIPPED, lambda: ())


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("footage") / "site.avi")


def test_a_folder_is_a_workload_and_its_name_is_known_from_then_on(
    registry: Registry, tmp_path: Path, video: Path
) -> None:
    folder = write_adoption(tmp_path / "bundles", adoption_of(video))
    assert is_adopted(folder)
    assert registry.knows(str(folder))
    assert not registry.knows("site")
    registry.check(str(folder))
    work = registry.get(str(folder))
    assert isinstance(work, Adopted)
    assert work.name == "site"
    assert registry.reference("site") == str(folder)
    assert registry.get("site").name == "site"
    assert "site" in registry.names()


def test_two_folders_with_one_name_are_not_confused(registry: Registry, tmp_path: Path, video: Path) -> None:
    one = write_adoption(tmp_path / "one", adoption_of(video))
    other = write_adoption(tmp_path / "other", adoption_of(video, image_codecs=("raw",)))
    first, second = registry.get(str(one)), registry.get(str(other))
    assert first.image_codecs != second.image_codecs
    with pytest.raises(UsageError, match="two adopted bundles"):
        registry.get("site")
    with pytest.raises(UsageError, match="two adopted bundles"):
        registry.reference("site")


def test_an_adopted_bundle_takes_no_name_of_a_shipped_workload(registry: Registry, tmp_path: Path, video: Path) -> None:
    folder = write_adoption(tmp_path / "campus", adoption_of(video, "campus"))
    with pytest.raises(UsageError, match="taken"):
        registry.get(str(folder))


def test_a_folder_without_a_description_is_no_workload(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"adoption\.json"):
        registry.check(str(tmp_path))
