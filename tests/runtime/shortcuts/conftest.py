"""Pictures that several tests look at, loaded once."""

from __future__ import annotations

import pytest

from runtime.workloads.campus.workload import Campus
from runtime.workloads.garments.shelf import Shelf
from runtime.workloads.types import Images


@pytest.fixture(scope="session")
def frames() -> Images:
    """106 frames of the campus camera, in order."""
    return Campus().frames("validation")


@pytest.fixture(scope="session")
def shelf() -> Shelf:
    return Shelf(repetition=0.8)
