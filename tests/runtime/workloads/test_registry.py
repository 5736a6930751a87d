"""Workloads are found by name, by entry point and by reference; whatever is wrong with one is one line."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from controller.errors import FailureError, MecpilotError, UsageError
from runtime.workloads.garments.workload import Garments
from runtime.workloads.registry import GROUP, SHIPPED, WORKLOADS, Registry, get_workload, workload_names

MODULE = """
from runtime.workloads.classifier import Classifier

class Dots(Classifier):
    name = "dots"
    resolutions_px = (8,)
    families = ()
    def sample_count(self, split): return 1
    def sample(self, index, split="test"): ...
    def build(self, family): ...

class Unfinished(Dots):
    sample_count = Classifier.sample_count

class Nameless(Classifier):
    def sample_count(self, split): return 1
    def sample(self, index, split="test"): ...
    def build(self, family): ...

class Slash(Dots):
    name = "../dots"
"""


@pytest.fixture(autouse=True)
def _in_a_folder_with_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dots_module.py").write_text(MODULE)
    (tmp_path / "broken_module.py").write_text("1 / 0")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("dots_module", "broken_module"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def _plugin(name: str, value: str) -> EntryPoint:
    return EntryPoint(name, value, GROUP)


def _registry(*plugins: EntryPoint) -> tuple[Registry, list[str]]:
    warnings: list[str] = []
    return Registry(SHIPPED, lambda: plugins, warnings.append), warnings


def test_shipped_workloads_are_found_without_being_installed() -> None:
    assert [get_workload(name).name for name in WORKLOADS] == list(WORKLOADS)
    assert set(WORKLOADS) <= set(workload_names())


def test_a_reference_imports_from_the_current_directory_and_its_name_is_known_from_then_on() -> None:
    registry, _ = _registry()
    assert registry.get("dots_module:Dots").name == "dots"
    assert registry.named("dots").name == "dots"
    assert registry.reference("dots") == "dots_module:Dots"
    assert registry.reference("garments") == "garments"
    assert "dots" in registry.names()


def test_a_registered_factory_gets_the_data_directory_only_when_there_is_one(tmp_path: Path) -> None:
    registry, _ = _registry()

    class Mine(Garments):
        name = "mine"

    registry.register("mine", Mine)
    (tmp_path / "t10k-images-idx3-ubyte").touch()
    assert registry.get("mine", tmp_path).name == "mine"
    registry.register("mine", Mine)  # the same once more
    with pytest.raises(UsageError, match="'mine' is taken"):
        registry.register("mine", lambda: Garments())
    with pytest.raises(UsageError, match="'campus' is taken"):
        registry.register("campus", Garments)
    with pytest.raises(UsageError, match="expected up to 64 letters"):
        registry.register("a:b", Garments)
    registry.register("yours", Mine)
    with pytest.raises(UsageError, match="registered as 'yours' has the name 'mine'"):
        registry.get("yours")


def test_an_entry_point_is_loaded_when_it_is_named_and_a_broken_one_does_not_break_the_others() -> None:
    registry, warnings = _registry(
        _plugin("dots", "dots_module:Dots"),
        _plugin("broken", "broken_module:Any"),
        _plugin("campus", "dots_module:Dots"),  # the shipped one wins
    )
    sys.path.append(".")
    assert registry.get("dots").name == "dots"
    assert type(registry.get("campus")).__module__ == "runtime.workloads.campus.workload"
    unused = "the plug-in of workload 'campus' (dots_module:Dots) is not used: mecpilot has a workload of that name"
    assert warnings == [unused]  # once
    with pytest.raises(FailureError, match=r"plug-in of workload 'broken' \(broken_module:Any\) fails: ZeroDivision"):
        registry.get("broken")
    assert registry.names() == ("campus", "dots", "garments")
    assert [line.count("\n") for line in warnings] == [0, 0]
    assert "'broken'" in warnings[1]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("campsu", r"unknown workload 'campsu' \(did you mean 'campus'\?\); expected one of: campus, garments, or "),
        ("cats", "unknown workload 'cats'; expected one of: campus, garments, or package.module:Class"),
        ("nowhere.at_all:Class", "'nowhere.at_all:Class' cannot be imported: no file nowhere/at_all.py in the current"),
        ("dots_module:Missing", "cannot be imported: AttributeError"),
        ("broken_module:Any", "cannot be imported: ZeroDivisionError"),
        ("dots_module:", "expected a name or package.module:Class"),
        ("dots_module:Unfinished", "'dots_module:Unfinished' cannot be created: .*abstract method '?sample_count"),
        ("dots_module:Nameless", "has no name, resolutions_px, families; see docs/extending.md"),
        ("dots_module:Slash", "has the name '../dots'"),
        ("dots_module:__name__", "cannot be created: TypeError"),
    ],
)
def test_what_is_wrong_with_a_name_is_one_line(name: str, line: str) -> None:
    registry, _ = _registry()
    with pytest.raises(MecpilotError, match=line) as caught:
        registry.get(name)
    assert "\n" not in str(caught.value)


def test_a_name_that_stands_in_a_file_is_never_taken_for_a_reference() -> None:
    registry, _ = _registry()
    with pytest.raises(UsageError, match="unknown workload 'dots_module:Dots'"):
        registry.named("dots_module:Dots")
    assert "dots_module" not in sys.modules


def test_an_installed_package_is_found_by_its_entry_point(tmp_path: Path) -> None:
    info = tmp_path / "dots-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: dots\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\ndots = dots_module:Dots\n")
    sys.path.append(str(tmp_path))
    registry = Registry(SHIPPED)
    assert registry.knows("dots")
    assert "dots_module" not in sys.modules
    assert registry.get("dots").name == "dots"
