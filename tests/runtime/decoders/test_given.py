"""Decoders that the user wrote are given by the user, never found by a bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from controller.errors import FailureError, UsageError
from runtime.decoders.base import decoded
from runtime.decoders.given import GivenDecoder, give, given
from runtime.workloads.adopted.description import UserCode

SOURCE = """
import numpy as np

def decode(outputs, size):
    return [[0, 0, outputs[0][0] / size[1], 1, 0.9, 0]]

def failing(outputs, size):
    return outputs[7]

def narrow(outputs, size):
    return np.zeros((3, 4))

def nothing(outputs, size):
    return []
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "site.py"
    path.write_text(SOURCE)
    return path


def _decoder(file: Path, function: str) -> GivenDecoder:
    code = UserCode(*give(f"{file}:{function}"))
    return GivenDecoder(given(code, "--decode"), str(code))


def test_a_given_function_decodes(file: Path) -> None:
    found = decoded(_decoder(file, "decode"), [np.array([16.0])], (32, 64))
    assert found.tolist() == [pytest.approx([0.0, 0.0, 0.25, 1.0, 0.9, 0.0])]
    assert decoded(_decoder(file, "nothing"), [np.array([16.0])], (32, 64)).shape == (0, 6)


def test_without_boxes_any_values_are_answers(file: Path) -> None:
    code = UserCode(*give(f"{file}:narrow"))
    assert decoded(GivenDecoder(given(code, "--decode"), "x"), [], (1, 1), boxes=False).shape == (12,)


def test_what_was_not_given_is_one_line_with_the_way_out() -> None:
    with pytest.raises(UsageError, match=r"give the file with --decode other.py:run"):
        given(UserCode("other.py", "run", "1" * 64), "--decode")


def test_errors_of_the_function_are_one_line(file: Path) -> None:
    with pytest.raises(FailureError, match=r"site.py:failing fails on outputs of \(1,\): IndexError"):
        decoded(_decoder(file, "failing"), [np.array([16.0])], (32, 64))
    with pytest.raises(FailureError, match=r"gave an array of \(3, 4\); expected \(n, 6\)"):
        decoded(_decoder(file, "narrow"), [np.array([16.0])], (32, 64))


@pytest.mark.parametrize("reference", ["site.txt:decode", "nofile.py:decode", "site.py", "site.py:missing"])
def test_what_is_no_function_is_refused(file: Path, reference: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    with pytest.raises(UsageError):
        give(reference)
