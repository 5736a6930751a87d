"""Every input that is kept, and every seed, raises ``RemoteProtocolError`` or nothing, in bounded time and memory."""

from __future__ import annotations

import pytest

from tests.fuzz.target import CORPUS, TARGETS, is_available, kept, player, seeds


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_kept_does_no_harm(name: str) -> None:
    if not is_available(name):
        pytest.skip(f"needs the package {TARGETS[name]}")
    play = player(name)
    for data in [*seeds(name), *kept(name)]:
        play(data)


def test_the_corpus_is_small_and_every_folder_of_it_has_a_target() -> None:
    assert {path.name for path in CORPUS.iterdir()} <= set(TARGETS)
    assert sum(path.stat().st_size for path in CORPUS.rglob("*")) < 200_000
