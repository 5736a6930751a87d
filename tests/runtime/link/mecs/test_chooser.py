"""Which of several MECs is asked, from what is known of each."""

from __future__ import annotations

import itertools
import random

from runtime.link.mecs.chooser import MOST_PATIENCE_S, PATIENCE_S, Chooser, Health

WELL = Health(True, False, 0.02)
DOWN = Health(False, False, 0.02)
IN_DOUBT = Health(True, True, 0.02)
SLOW = Health(True, False, 0.2)


def play(chooser: Chooser, healths: list[Health], begin_s: float, duration_s: float) -> list[int]:
    """What is chosen, ten times a second."""
    return [chooser.choose(healths, begin_s + step / 10.0) for step in range(round(10 * duration_s) + 1)]


def test_equal_ones_are_asked_in_the_order_of_the_user() -> None:
    assert set(play(Chooser(3, 0.0), [WELL, WELL, WELL], 0.0, 100.0)) == {0}


def test_when_the_first_fails_the_next_is_asked_at_once_and_after_some_patience_the_first_again() -> None:
    chooser = Chooser(2, 0.0)
    assert chooser.choose([WELL, WELL], 0.0) == 0
    assert chooser.choose([DOWN, WELL], 1.0) == 1
    back = play(chooser, [WELL, WELL], 1.1, 2 * PATIENCE_S)
    assert back.index(0) == round(10 * PATIENCE_S)
    assert set(back[back.index(0) :]) == {0}


def test_one_that_flaps_is_not_asked_again() -> None:
    chooser = Chooser(2, 0.0)
    chooser.choose([DOWN, WELL], 0.0)
    for cycle in range(20):
        asked = play(chooser, [WELL, WELL], cycle * PATIENCE_S + 0.1, 0.8 * PATIENCE_S)
        asked += play(chooser, [DOWN, WELL], cycle * PATIENCE_S + 0.85 * PATIENCE_S, 0.1)
        assert set(asked) == {1}


def test_a_doubt_moves_the_next_frames_only() -> None:
    chooser = Chooser(2, 0.0)
    assert [chooser.choose([first, WELL], at) for first, at in ((WELL, 0.0), (IN_DOUBT, 0.1), (WELL, 0.2))] == [0, 1, 0]
    assert chooser.home == 0
    assert chooser.choose([IN_DOUBT, IN_DOUBT], 0.3) == 0


def test_a_clearly_faster_one_takes_over_after_some_patience_and_a_little_faster_one_never() -> None:
    chooser = Chooser(2, 0.0)
    asked = play(chooser, [SLOW, WELL], 0.0, 2 * PATIENCE_S)
    assert asked.index(1) == round(10 * PATIENCE_S)
    little = Health(True, False, WELL.expected_s * 0.85)
    assert set(play(Chooser(2, 0.0), [WELL, little], 0.0, 100.0)) == {0}


def test_times_that_wander_about_the_margin_cause_few_changes() -> None:
    rng, chooser = random.Random(0), Chooser(2, 0.0)
    homes = []
    for step in range(36_000):  # an hour
        healths = [Health(True, False, rng.uniform(0.10, 0.13)), Health(True, False, rng.uniform(0.08, 0.1))]
        homes.append(chooser.choose(healths, step / 10.0))
    assert sum(one != other for one, other in itertools.pairwise(homes)) <= 4


def test_two_that_look_slow_only_while_they_are_asked_take_turns_ever_more_rarely() -> None:
    chooser, changes_s, now_s = Chooser(2, 0.0), [], 0.0
    for _ in range(6000):
        now_s += 0.1
        before = chooser.home
        healths = [SLOW if number == before else WELL for number in range(2)]
        chooser.choose(healths, now_s)
        if chooser.home != before:
            changes_s.append(now_s)
    gaps = [later - earlier for earlier, later in itertools.pairwise(changes_s)]
    assert gaps[0] < gaps[1] < gaps[2]
    assert gaps[-1] >= MOST_PATIENCE_S - 0.2


def test_without_a_well_one_the_home_stays() -> None:
    chooser = Chooser(2, 0.0)
    assert chooser.choose([DOWN, WELL], 0.0) == 1
    assert chooser.choose([DOWN, DOWN], 0.1) == 1
    assert chooser.choose([WELL, DOWN], 0.2) == 0
