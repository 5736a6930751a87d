"""Whatever is wrong with a plug-in is one line, in the same words for all four kinds."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.plug_ins import install

from controller.errors import FailureError, MecpilotError, UsageError
from runtime.bundles.bundle import open_bundle
from runtime.codecs import get_codec
from runtime.codecs.base import _plug_ins as of_codecs
from runtime.decoders.base import _plug_ins as of_decoders
from runtime.decoders.base import decoder_names, get_decoder
from runtime.inference.engines import Engines, checked_engine
from runtime.plug_ins import PlugIns
from runtime.workloads.registry import Registry

MODULE = """
from controller.errors import UsageError

def breaks(*_, **__):
    raise RuntimeError("no licence\\nfound")

def lacks(*_, **__):
    raise UsageError("install libfast")

def misfits(*_, **__):
    return 7

from runtime.codecs.tensor import QuantisedTensor
from runtime.decoders.yolo import Yolov8
from runtime.inference.engines.torch_engine import TorchEngine
from runtime.workloads.garments.workload import Garments

class Codec(QuantisedTensor):
    def __init__(self):
        super().__init__(8)
    name = "another"

class Decoder(Yolov8):
    name = "another"

class Engine(TorchEngine):
    pass

class Workload(Garments):
    name = "another"
"""


def open_workload(name: str) -> object:
    return Registry({}).get(name)


def open_engine(name: str) -> object:
    bundle = open_bundle("garments")
    checked_engine(name)
    return Engines(bundle, bundle.work).named(name)


#: Group, what messages call it, how a plug-in is asked for, a class of one.
KINDS = [
    ("mecpilot.workloads", "workload", open_workload, "Workload"),
    ("mecpilot.decoders", "decoder", get_decoder, "Decoder"),
    ("mecpilot.codecs", "payload codec", get_codec, "Codec"),
    ("mecpilot.engines", "engine", open_engine, "Engine"),
]
each_kind = pytest.mark.parametrize(("group", "kind", "ask", "made"), KINDS, ids=[row[1] for row in KINDS])
Ask = Callable[[str], object]


@pytest.fixture(autouse=True)
def _site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "odd_plug_ins.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "odd_plug_ins", raising=False)


def _line_of(ask: Ask, name: str) -> MecpilotError:
    with pytest.raises(MecpilotError) as caught:
        ask(name)
    assert "\n" not in str(caught.value)
    return caught.value


@each_kind
def test_what_cannot_be_imported_or_fails(tmp_path: Path, group: str, kind: str, ask: Ask, made: str) -> None:
    install(tmp_path, "odd", {group: {"gone": "no_module:Class", "odd": "odd_plug_ins:breaks"}})
    found = _line_of(ask, "gone")
    assert type(found) is FailureError
    assert str(found).startswith(f"the plug-in of {kind} 'gone' (no_module:Class) fails: ModuleNotFoundError")
    assert "no licence found" in str(_line_of(ask, "odd"))


@each_kind
def test_what_a_plug_in_says_itself_is_left_as_it_is(
    tmp_path: Path, group: str, kind: str, ask: Ask, made: str
) -> None:
    install(tmp_path, "odd", {group: {"odd": "odd_plug_ins:lacks"}})
    found = _line_of(ask, "odd")
    assert (type(found), str(found)) == (UsageError, "install libfast")


@each_kind
def test_what_does_not_fit(tmp_path: Path, group: str, kind: str, ask: Ask, made: str) -> None:
    install(tmp_path, "odd", {group: {"odd": "odd_plug_ins:misfits", "same": f"odd_plug_ins:{made}"}})
    assert re.search(rf"{kind} 'odd' .*(gave int; expected a|has no name, )", str(_line_of(ask, "odd")))
    if kind == "engine":  # it has no name of its own
        assert ask("same")
    else:
        assert "has the name 'another'" in str(_line_of(ask, "same"))


@each_kind
def test_a_name_that_two_packages_have(tmp_path: Path, group: str, kind: str, ask: Ask, made: str) -> None:
    install(tmp_path, "odd", {group: {"odd": "odd_plug_ins:breaks"}})
    install(tmp_path, "other", {group: {"odd": "odd_plug_ins:misfits"}})
    found = str(_line_of(ask, "odd"))
    assert found.startswith(f"2 installed packages have a {kind} 'odd': odd_plug_ins:")
    assert found.endswith("expected one; uninstall the others")


@each_kind
def test_one_of_mecpilots_own_names_is_told_once(tmp_path: Path, group: str, kind: str, ask: Ask, made: str) -> None:
    install(tmp_path, "odd", {group: {"odd": f"odd_plug_ins:{made}", "fine": f"odd_plug_ins:{made}"}})
    lines: list[str] = []
    plug_ins = PlugIns(group, kind, warn=lines.append)
    for _ in range(2):
        plug_ins.warn_if_unused(["odd", "raw"])
    told = f"the plug-in of {kind} 'odd' (odd_plug_ins:{made}) is not used: mecpilot has a {kind} of that name"
    assert lines == [told]


def test_lists_of_names_have_plug_ins(tmp_path: Path) -> None:
    install(tmp_path, "odd", {"mecpilot.decoders": {"odd": "gone:Class"}, "mecpilot.codecs": {"strange": "gone:Class"}})
    assert "odd" in decoder_names()
    with pytest.raises(UsageError, match=r"unknown payload codec 'u16'; expected one of: raw, .*strange"):
        get_codec("u16")
    assert (of_codecs.names(), of_decoders.names()) == (("strange",), ("odd",))
