from __future__ import annotations

import pytest

from runtime.adoption.codec_choice import (
    IMAGE_CODECS,
    TENSOR_CODECS,
    Probed,
    choose_codecs,
    offered_codecs,
    samples_within,
    tail_runs,
)
from runtime.adoption.presets import preset_of, sizes_for


def test_codecs_stay_where_answers_agree_at_any_resolution() -> None:
    codecs = {0: ("raw", "jpeg75", "jpeg10"), 1: ("u8", "u4", "u1")}
    probed = [
        Probed(640, 0, "jpeg75", 0.95),
        Probed(640, 0, "jpeg10", 0.2),
        Probed(320, 0, "jpeg10", 0.1),
        Probed(320, 0, "jpeg75", 0.9),
        *(Probed(px, 1, "u8", 0.5) for px in (640, 320)),
        *(Probed(px, 1, "u4", score) for px, score in ((640, 0.3), (320, 0.8))),
        *(Probed(px, 1, "u1", 0.0) for px in (640, 320)),
    ]
    chosen = choose_codecs(codecs, probed)
    assert chosen.codecs == {0: ("raw", "jpeg75"), 1: ("u8", "u4")}
    assert [(row.codec, row.agreement) for row in chosen.left_out] == [("jpeg10", 0.2), ("u1", 0.0)]


def test_codecs_of_the_users_own_choice_are_tried_last_wherever_they_fit() -> None:
    more = offered_codecs(("jpeg60", "u8", "signs", "raw"))
    assert more == {"image": (*IMAGE_CODECS, "jpeg60"), "tensor": (*TENSOR_CODECS, "signs")}


def test_tails_are_counted_by_their_share_of_the_work() -> None:
    assert tail_runs({0: ("raw", "jpeg75"), 1: ("u8", "u4")}, {0: 1.0, 1: 0.25}) == pytest.approx(1.5)


def test_slow_models_are_measured_on_fewer_frames() -> None:
    assert samples_within(300.0, whole_s=0.1, tails=3.0) == 300
    assert samples_within(300.0, whole_s=100.0, tails=3.0) == 40
    assert samples_within(300.0, whole_s=1e-9, tails=3.0) == 1000


def test_sizes_follow_the_frame_in_multiples() -> None:
    assert sizes_for((480, 640, 3), (640, 320), 32, preset_of("yolov8")) == {640: (480, 640), 320: (256, 320)}
    assert sizes_for((480, 640, 3), (224, 160), 32, preset_of("classify")) == {224: (224, 224), 160: (160, 160)}


def test_widths_above_the_frame_are_left_out() -> None:
    assert list(sizes_for((96, 128, 3), (640, 480, 320), 32, preset_of("db"))) == [320]
    assert list(sizes_for((360, 480, 3), (640, 480, 320), 32, preset_of("db"))) == [480, 320]
