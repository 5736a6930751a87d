"""A few seconds of coverage-guided fuzzing on every target; ``python -m tests.fuzz`` does it for longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.campaign import fuzz
from tests.fuzz.target import TARGETS, is_available

pytest.importorskip("atheris", reason="needs the package atheris: pip install 'PATH_OF_THE_CHECKOUT[fuzz]'")

SECONDS = 4.0


@pytest.mark.parametrize("name", TARGETS)
def test_a_few_seconds_of_fuzzing_find_nothing(name: str, tmp_path: Path) -> None:
    if not is_available(name):
        pytest.skip(f"needs the package {TARGETS[name]}")
    result = fuzz(name, SECONDS, tmp_path)
    assert not result.found, result.text
    assert result.runs > 0
