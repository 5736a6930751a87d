"""The configuration tree: documented, without doubles, and the same as the flags."""

from __future__ import annotations

import inspect

import pytest

from controller.controllers.registry import CONTROLLER_NAMES, ORACLE
from controller.scenario import ScenarioRange
from controller.utility import Utility
from runtime.bundles.bundle import DEFAULT_NAME
from runtime.cli.device import device
from runtime.cli.mec import mec
from runtime.config.settings import Setting, section_sentence, settings
from runtime.config.tree import DEFAULTS, DEVICE_SECTIONS, MEC_SECTIONS
from runtime.workloads.registry import WORKLOADS

#: Scripts and service files use these.
KNOWN_DEVICE_FLAGS = """
    --mec --require-mec --workload --controller --policy --tuning --decision --source --source-retry
    --source-fps --frames --fps --deadline-ms --slowdown --device-load --uplink --uplink-share
    --uplink-start-s --rtt-ms --start --seed --outcomes --video --json --quiet --bundle --profile
    --data
"""
KNOWN_MEC_FLAGS = """
    --bind --workload --bundle --profile --slowdown --queue-limit --batch --ready-file --end-with-stdin
"""


@pytest.mark.parametrize("setting", settings(), ids=lambda s: f"{s.section}.{s.key}")
def test_every_field_has_a_sentence_a_flag_and_a_default_that_makes_sense(setting: Setting) -> None:
    assert setting.sentence.endswith(".")
    assert setting.flag.startswith("--")
    assert setting.default is None or setting.convert(setting.default) == setting.default
    for suffix, word in (("_s", "seconds"), ("_ms", "milliseconds"), ("_w", "watts"), ("_per_j", "joule")):
        assert not setting.key.endswith(suffix) or word in setting.sentence
    assert section_sentence(setting.section)


@pytest.mark.parametrize("setting", settings(), ids=lambda s: f"{s.section}.{s.key}")
def test_the_example_of_an_unset_field_is_a_value_that_it_takes(setting: Setting) -> None:
    assert setting.default is not None or setting.convert(setting.show) is not None


@pytest.mark.parametrize(
    ("sections", "known", "command"),
    [(DEVICE_SECTIONS, KNOWN_DEVICE_FLAGS, device), (MEC_SECTIONS, KNOWN_MEC_FLAGS, mec)],
)
def test_a_commands_flags_are_the_fields_of_its_sections(
    sections: tuple[str, ...], known: str, command: object
) -> None:
    flags = [setting.flag for setting in settings(*sections)]
    assert len(set(flags)) == len(flags)
    assert set(known.split()) <= set(flags)
    parameters = inspect.signature(command).parameters  # type: ignore[arg-type]
    assert list(parameters) == ["config", *(setting.parameter for setting in settings(*sections))]


def test_names_that_a_field_takes_are_in_its_sentence() -> None:
    sentences = {setting.flag: setting.sentence for setting in settings()}
    assert all(name in sentences["--workload"] for name in WORKLOADS)
    named = sentences["--controller"].removeprefix("Controller that decides each frame: ").split(";")[0]
    assert named.replace(" or ", ", ").split(", ") == [name for name in CONTROLLER_NAMES if name != ORACLE]
    assert DEFAULTS.workload.name == DEFAULT_NAME


def test_limits_and_weights_are_those_of_the_scenarios() -> None:
    usual = ScenarioRange()
    assert (DEFAULTS.limits.queue_limit, DEFAULTS.limits.max_in_flight) == (usual.queue_limit, usual.max_in_flight)
    assert DEFAULTS.objective.utility() == Utility() == usual.utility
