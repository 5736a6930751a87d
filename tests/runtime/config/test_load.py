"""Configuration files: what is valid loads to the tree, what is not is one line that says where and why."""

from __future__ import annotations

import math
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.live import ROOT

from controller.errors import UsageError
from runtime.config.flags import effective
from runtime.config.load import config_of, load_config
from runtime.config.settings import Setting, settings
from runtime.config.show import as_toml
from runtime.config.tree import DEFAULTS, DEVICE_SECTIONS, Config


def config_with(values: dict[Setting, Any]) -> Config:
    tables: dict[str, dict[str, Any]] = {}
    for setting, value in values.items():
        tables.setdefault(setting.section, {})[setting.key] = value
    return config_of(tables)


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "empty.toml").touch()
    assert load_config(tmp_path / "empty.toml") == DEFAULTS


def test_what_is_shown_loads_to_the_same_tree() -> None:
    everything = config_with({s: s.show if s.default is None else s.default for s in settings()})
    for config in (DEFAULTS, everything):
        assert config_of(tomllib.loads(as_toml(config))) == config


@given(st.text(min_size=1).filter(lambda text: "\0" not in text), st.floats(min_value=0.0, max_value=1000.0))
def test_any_text_and_number_survives(text: str, fps: float) -> None:
    config = config_of({"source": {"input": text, "fps": fps, "retry_s": math.inf}, "outputs": {"video": text}})
    assert config_of(tomllib.loads(as_toml(config))) == config


def test_a_comment_above_each_key_has_its_sentence_flag_and_limits() -> None:
    shown = as_toml(DEFAULTS)
    words = re.sub(r"\n# ", " ", shown)
    for setting in settings():
        assert f"{setting.sentence} {setting.flag}: {setting.expected}" in words
    assert "\nfps = 10.0\n" in shown
    assert '\n#policy = "FILE"\n' in shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[source]\nfsp = 1", "unknown key 'fsp' in [source]; did you mean 'fps'?"),
        ("[limits]\nxyz = 1", "unknown key 'xyz' in [limits]; expected one of: queue_limit, max_in_flight"),
        ("[sorce]\nfps = 1", "unknown section [sorce]; did you mean 'source'?"),
        ("deadline_ms = 1", "unknown key 'deadline_ms' outside of any section; expected it in [device]"),
        ("source = 1", "source = 1; expected a section: [source] and its keys below"),
        ('[source]\nfps = "10"', "[source] fps = '10'; expected a number from 0 to 1000"),
        ("[source]\nfps = 2000", "[source] fps = 2000; expected a number from 0 to 1000"),
        ("[source]\nfps = nan", "[source] fps = nan; expected a number from 0 to 1000"),
        ("[source]\nfps = true", "[source] fps = True; expected a number from 0 to 1000"),
        ("[source]\nframes = 1.5", "[source] frames = 1.5; expected a whole number from 1 to 2147483647"),
        ("[source]\ninput = 0", "[source] input = 0; expected text that is not empty"),
        ("[source]\nretry_s = nan", "[source] retry_s = nan; expected a number of 0 or more, or inf"),
        ('[source]\nfps_from = "clock"', "[source] fps_from = 'clock'; expected 'file'"),
        ('[emulation]\nuplink = ""', "[emulation] uplink = ''; expected a path"),
        ("[privacy]\nno_raw_upload = 1", "[privacy] no_raw_upload = 1; expected true or false"),
        ("[objective]\ndrop_penalty = -0.1", "[objective] drop_penalty = -0.1; expected a number from 0 to 1000000000"),
        ("[source]\nfps = 1e-9", "--fps 1e-09; expected 0, or at least 0.001"),
        ('[source]\nfps_from = "file"', "got --source-fps without --source; expected a video file as --source"),
        ('[controller]\nname = "greedy"\npolicy = "p"', "got --policy and --controller greedy"),
        ("[source", "not TOML (Expected ']' at the end of a table declaration (at end of document))"),
        ("[source]\nfps = 1\nfps = 2", "not TOML (Cannot overwrite a value"),
        ("\xff", "not TOML"),
        ("#" * 1_000_001, "larger than 1000000 bytes"),
    ],
    ids=lambda value: value[:40],
)
def test_what_a_file_cannot_mean_is_one_line_that_names_it(text: str, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "mecpilot.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError) as refused:
        load_config(path)
    assert str(refused.value).startswith(f"config file {path}: {expected}")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("path", "why"), [("/nowhere/x", "No such file or directory"), ("/", "Is a directory")])
def test_a_file_that_cannot_be_read_is_one_line(path: str, why: str) -> None:
    with pytest.raises(UsageError, match=f"config file {path}: {why}"):
        load_config(Path(path))


class TestPrecedence:
    """Defaults, then the file, then flags."""

    @pytest.fixture
    def file(self, tmp_path: Path) -> str:
        path = tmp_path / "mecpilot.toml"
        path.write_text(
            '[source]\nfps = 5\nframes = 7\n[outputs]\nquiet = true\n[controller]\nname = "ppo"\npolicy = "p"'
        )
        return str(path)

    def test_a_flag_wins_over_the_file_and_the_file_over_the_default(self, file: str) -> None:
        config = effective(file, settings(*DEVICE_SECTIONS), {"fps": 25.0, "quiet": False, "frames": None})
        assert (config.source.fps, config.source.frames, config.outputs.quiet) == (25.0, 7, False)
        assert config.device == DEFAULTS.device

    def test_a_flag_replaces_what_it_contradicts_in_the_file(self, file: str) -> None:
        config = effective(file, settings(*DEVICE_SECTIONS), {"decision": "{}"})
        assert (config.controller.name, config.controller.policy, config.controller.decision) == (None, None, "{}")
        other = effective(file, settings(*DEVICE_SECTIONS), {"controller": "greedy"}).controller
        same = effective(file, settings(*DEVICE_SECTIONS), {"controller": "ppo"}).controller
        assert (other.name, other.policy, same.policy) == ("greedy", None, Path("p"))
        with pytest.raises(UsageError, match="got --decision and --controller greedy; expected one of them"):
            effective(file, settings(*DEVICE_SECTIONS), {"decision": "{}", "controller": "greedy"})


def test_the_example_of_the_documentation_loads(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "configuration.md").read_text()
    (example,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    path = tmp_path / "mecpilot.toml"
    path.write_text(example)
    config = load_config(path)
    assert config.privacy.no_raw_upload
    assert config != DEFAULTS
    for key in re.findall(r"`(\w+)\.(\w+)`", text):
        assert hasattr(getattr(DEFAULTS, key[0]), key[1])
