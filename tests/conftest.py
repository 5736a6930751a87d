"""What holds for every test: those on the real clock run again when they fail, and no example has a time limit."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from support.realtime import on_the_clock

#: A test marked ``realtime`` may be run so many times more. The summary lists every rerun (``-rR``).
RERUNS = 2

#: An example may take long because the process stood still. The same examples each time: what nobody changed cannot
#: fail. ``--hypothesis-profile default`` draws others.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
settings.load_profile("suite")

_LIMIT: pytest.StashKey[Any] = pytest.StashKey()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and on_the_clock(item):
            item.add_marker("realtime")
        if item.get_closest_marker("realtime"):
            item.add_marker(pytest.mark.flaky(reruns=RERUNS))


@pytest.hookimpl(wrapper=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> Any:
    item.stash[_LIMIT] = settings
    return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """pytest-timeout has one limit for all runs of a test together: give each rerun the whole of it."""
    if getattr(item, "execution_count", 1) > 1 and _LIMIT in item.stash:
        item.config.hook.pytest_timeout_cancel_timer(item=item)
        item.config.hook.pytest_timeout_set_timer(item=item, settings=item.stash[_LIMIT])
