"""The parts of the cache: keys, nearest neighbours, what is kept, the threshold, and when looking up pays."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from controller.cache.eviction import EVICTIONS, Gdsf, Lru, TinyLfu
from controller.cache.index import DIMENSIONS, Index
from controller.cache.store import ENTRY_BYTES, Neighbour, Store
from controller.cache.threshold import Threshold
from controller.cache.vote import winner
from controller.cache.worth import Capacity, Worth
from controller.reuse import PastAnswer
from runtime.shortcuts.cache.keys import key_of, normalised
from runtime.workloads.garments.shelf import FRAMES, Shelf, _shown
from runtime.workloads.garments.workload import Garments
from runtime.workloads.types import Image, Images


def unit_keys(count: int, seed: int = 0) -> np.ndarray:
    keys = np.random.default_rng(seed).normal(size=(count, DIMENSIONS)).astype(np.float32)
    return keys / np.linalg.norm(keys, axis=1, keepdims=True)


def distance(one: Image, other: Image) -> float:
    keys = [normalised(key) for picture in (one, other) if (key := key_of(picture)) is not None]
    assert keys[0] is not None
    assert keys[1] is not None
    return float(np.linalg.norm(keys[0] - keys[1]))


class TestKeys:
    def test_a_garment_is_closest_to_itself_at_another_place_in_other_light_with_noise(self, shelf: Shelf) -> None:
        items = shelf.items("validation")[:400]
        keys = np.stack([normalised(key_of(shelf.sample(i, "validation")[0])) for i in range(400)])  # type: ignore[arg-type]
        right = [
            items[int((keys[:frame] @ keys[frame]).argmax())] == items[frame]
            for frame in range(1, 400)
            if items[frame] in items[:frame]
        ]
        assert np.mean(right) > 0.98

    @pytest.mark.parametrize(
        "moved",
        [
            pytest.param(lambda p: p[::-1, ::-1], id="turned"),
            pytest.param(lambda p: p[:, ::-1], id="mirrored"),
            pytest.param(lambda p: np.roll(p, p.shape[1] // 10, axis=1), id="moved"),
            pytest.param(lambda p: cv2.resize(p[60:-60, 80:-80], (768, 576)), id="closer"),
        ],
    )
    def test_a_camera_that_is_moved_sees_something_else_and_one_in_other_light_does_not(
        self, moved: object, frames: Images
    ) -> None:
        one, following = frames[50], frames[51]
        assert distance(one, moved(one)) > 2 * distance(one, following)  # type: ignore[operator]
        assert distance(one, (one * 0.6).astype(np.uint8)) < distance(one, following)

    @pytest.mark.parametrize("shape", [(28, 28), (576, 768, 3), (3, 5), (1, 1), (2000, 40, 3)])
    def test_a_picture_that_shows_nothing_has_no_key(self, shape: tuple[int, ...]) -> None:
        assert key_of(np.full(shape, 90, np.uint8)) is None

    @pytest.mark.parametrize("key", [np.zeros(64), np.full(64, np.nan), np.array([np.inf, *[1.0] * 63])])
    def test_a_key_that_is_no_direction_has_no_length_1(self, key: np.ndarray) -> None:
        assert normalised(key.astype(np.float32)) is None


def test_the_nearest_are_those_of_a_search_through_all_whatever_was_removed() -> None:
    rng, keys, index = np.random.default_rng(1), unit_keys(600), Index()
    kept: set[int] = set()
    for entry, key in enumerate(keys):
        index.add(entry, key)
        kept.add(entry)
        if rng.random() < 0.4:
            gone = int(rng.choice(sorted(kept)))
            index.remove(gone)
            kept.remove(gone)
    for wanted in unit_keys(20, seed=2):
        order = sorted(kept, key=lambda entry: -float(keys[entry] @ wanted))
        assert [near.entry for near in index.nearest(wanted, 5, 2.0)] == order[:5]
        assert [near.entry for near in index.nearest(wanted, 5, 0.0)] == order[:1]


class TestEviction:
    @pytest.mark.parametrize("name", sorted(EVICTIONS))
    def test_a_victim_is_always_one_of_those_that_are_kept(self, name: str) -> None:
        rng, policy, kept = np.random.default_rng(0), EVICTIONS[name](), set[int]()
        for entry in range(3000):
            policy.added(entry, int(rng.integers(1, 9)), float(rng.random()), unit_keys(1, entry % 50)[0])
            kept.add(entry)
            for used in rng.choice(sorted(kept), 2):
                policy.used(int(used))
            while len(kept) > 40:
                gone = policy.victim() if rng.random() < 0.8 else int(rng.choice(sorted(kept)))
                assert gone in kept
                policy.removed(gone)
                kept.remove(gone)

    @pytest.mark.parametrize(("name", "left"), [("gdsf", 10), ("w-tinylfu", 10), ("lru", 0)])
    def test_what_is_asked_for_often_outlives_a_crowd_of_new_entries_except_by_age_alone(
        self, name: str, left: int
    ) -> None:
        policy, kept, keys = EVICTIONS[name](), set[int](), unit_keys(2000)
        for entry in range(2000):
            policy.added(entry, 100, 0.01, keys[entry])
            kept.add(entry)
            if entry < 10:
                for _ in range(30):
                    policy.used(entry)
            if len(kept) > 100:
                gone = policy.victim()
                policy.removed(gone)
                kept.remove(gone)
        assert len(kept & set(range(10))) == left

    def test_gdsf_keeps_what_is_dear_and_small(self) -> None:
        policy = Gdsf()
        policy.added(1, 100, 0.5)
        policy.added(2, 100, 0.1)
        policy.added(3, 900, 0.5)
        assert policy.victim() == 3
        policy.removed(3)
        assert policy.victim() == 2

    def test_the_least_recently_used_goes(self) -> None:
        policy = Lru()
        for entry in (1, 2, 3):
            policy.added(entry, 1, 1.0)
        policy.used(1)
        assert policy.victim() == 2

    def test_a_newcomer_that_is_asked_for_no_more_often_does_not_get_in(self) -> None:
        policy, keys = TinyLfu(), unit_keys(3)
        for entry in range(3):
            policy.added(entry, 1, 1.0, keys[entry])
        policy.used(0)
        assert policy.victim() == 2


class TestStore:
    def test_it_never_takes_more_bytes_than_it_may_whatever_comes(self) -> None:
        rng = np.random.default_rng(0)
        for name, make in EVICTIONS.items():
            store = Store(300_000, 1e9, make())
            for number, key in enumerate(unit_keys(400)):
                answer = [[float(rng.random())] * 5] * int(rng.integers(0, 40))
                store.add(key, PastAnswer(number, 0.0, answer), 0.01, 0.0)
                assert store.kept_bytes <= 300_000
            assert 0 < len(store) <= 300_000 // ENTRY_BYTES, name

    def test_an_answer_larger_than_the_memory_is_not_kept(self) -> None:
        store = Store(70_000, 1e9, Lru())
        store.add(unit_keys(1)[0], PastAnswer(0, 0.0, "x" * 80_000), 0.01, 0.0)
        assert len(store) == store.kept_bytes == 0

    def test_no_answer_outlives_its_time(self) -> None:
        store, keys = Store(1 << 20, 60.0, Lru()), unit_keys(2)
        store.add(keys[0], PastAnswer(0, 0.0, 7), 0.01, now_s=0.0)
        store.add(keys[1], PastAnswer(1, 50.0, 8), 0.01, now_s=50.0)
        assert [near.answer.prediction for near in store.nearest(keys[0], 59.0, 5, 2.0)] == [7, 8]
        assert [near.answer.prediction for near in store.nearest(keys[0], 61.0, 5, 2.0)] == [8]
        assert len(store) == 1


class TestThreshold:
    def learnt(self, agreement_at: float, count: int = 400) -> Threshold:
        """Answers agree in 99 of 100 cases up to a distance of ``agreement_at``, beyond in half of them."""
        rng, threshold = np.random.default_rng(0), Threshold(0.95)
        for _ in range(count):
            distance = float(rng.uniform(0.0, 1.0))
            threshold.looked_up(distance)
            threshold.learn(distance, float(rng.random() < (0.99 if distance <= agreement_at else 0.5)))
        return threshold

    def test_it_finds_how_far_answers_can_be_trusted(self) -> None:
        assert self.learnt(0.4).distance == pytest.approx(0.42, abs=0.08)
        assert self.learnt(0.7).distance == pytest.approx(0.74, abs=0.08)

    def test_nothing_is_trusted_without_evidence_or_where_answers_never_agree_well(self) -> None:
        assert Threshold(0.95).distance == self.learnt(-1.0).distance == 0.0

    def test_it_falls_when_answers_prove_wrong(self) -> None:
        threshold = self.learnt(0.7)
        for number in range(400):
            threshold.looked_up(0.01 * (number % 50))
            threshold.learn(0.01 * (number % 50), float(number % 2))
        assert threshold.distance < 0.1

    def test_a_picture_far_from_all_before_is_another_scene_of_which_nothing_is_known(self) -> None:
        threshold = self.learnt(0.4)
        assert threshold.looked_up(1.9) is False
        threshold = Threshold(0.95)
        for _ in range(100):
            threshold.looked_up(0.02)
            threshold.learn(0.02, 1.0)
        assert threshold.distance == pytest.approx(0.02)
        assert threshold.looked_up(0.5)
        assert threshold.distance == 0.0

    def test_a_fixed_one_stays(self) -> None:
        threshold = Threshold(0.95, fixed=0.3)
        for _ in range(100):
            threshold.learn(0.1, 0.0)
        assert threshold.distance == 0.3


def neighbours(*pairs: tuple[float, object]) -> list[Neighbour]:
    return [Neighbour(n, distance, PastAnswer(n, 0.0, answer)) for n, (distance, answer) in enumerate(pairs)]


@pytest.mark.parametrize(
    ("near", "expected"),
    [
        ([(0.1, 3)], 3),
        ([(0.1, 3), (0.11, 3), (0.12, 3)], 3),
        ([(0.1, 3), (0.11, 4)], None),  # they do not agree
        ([(0.01, 3), (0.2, 4)], 3),  # one is much closer
        ([(0.1, 4), (0.1, 3), (0.1, 3), (0.1, 3), (0.1, 3)], 3),  # the closest is alone
    ],
)
def test_neighbours_answer_if_they_agree(near: list[tuple[float, object]], expected: object) -> None:
    won = winner(neighbours(*near), lambda one, other: float(one == other))
    assert (None if won is None else won.answer.prediction) == expected


class TestWorth:
    @staticmethod
    def played(hits: list[bool], look_s: float = 0.1, run_s: float = 1.0) -> tuple[int, float]:
        """Frames that were looked up, and the time that all frames took."""
        worth, looked, took_s = Worth(), 0, 0.0
        for hit in hits:
            if not worth.looks_up():
                took_s += run_s
                continue
            looked += 1
            took_s += look_s + (0.0 if hit else run_s)
            if not hit:
                worth.run_s.add(run_s)
            worth.looked(look_s, hit)
        return looked, took_s

    def test_a_stream_that_never_repeats_gets_two_per_cent_slower_at_most(self) -> None:
        for look_s in (0.02, 0.1):
            looked, took_s = self.played([False] * 20_000, look_s)
            assert looked > 256
            assert took_s < 1.02 * 20_000

    def test_it_rests_only_while_it_does_not_pay(self) -> None:
        assert self.played([True, False] * 2000)[0] == 4000
        looked, _ = self.played([False] * 3000 + [True] * 12_000)
        assert looked > 9000

    def test_entries_that_no_answer_needs_are_not_searched_and_those_that_some_need_are(self) -> None:
        for since, expected in ((10, 500), (900, 1000)):
            capacity = Capacity(10_000)
            capacity.search_s.add(1e-6)
            while not capacity.is_due:
                capacity.looked(since)
            capacity.review(1000, run_s=0.01)
            assert min(capacity.entries, 1000) == expected


class TestShelf:
    def test_each_frame_shows_an_item_changed_in_the_same_way_whenever_it_is_asked_for(self, shelf: Shelf) -> None:
        shown, truth = shelf.sample(77, "validation")
        image, label = Garments.sample(shelf, int(shelf.items("validation")[77]), "validation")
        assert (shown == shelf.sample(77 + FRAMES, "validation")[0]).all()
        assert truth == label
        assert (shown != image).any()

    @pytest.mark.parametrize("repetition", [0.0, 0.5, 0.9])
    def test_so_many_frames_show_an_item_again(self, repetition: float) -> None:
        items = _shown(FRAMES, repetition, np.random.default_rng(0))
        assert len(np.unique(items)) / FRAMES == pytest.approx(1.0 - repetition, abs=0.03)
