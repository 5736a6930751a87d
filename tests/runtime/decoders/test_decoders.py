"""Each decoder against a head that was made by hand for known boxes."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from controller.errors import FailureError, UsageError
from runtime.decoders.base import check_fits, decoded, decoder_names, get_decoder
from runtime.decoders.boxes import suppressed

SIZE = (64, 128)  # height, width
Array = NDArray[np.float32]
#: Two boxes: left, top, right, bottom in pixels, score, class.
BOXES = np.array([[10.0, 20.0, 42.0, 52.0, 0.9, 1], [64.0, 8.0, 120.0, 24.0, 0.6, 0]], np.float32)


def _fractions() -> Array:
    found = BOXES.copy()
    found[:, :4] /= (128, 64, 128, 64)
    return found


def _middles(boxes: Array) -> Array:
    low, high = boxes[:, :2], boxes[:, 2:4]
    return np.concatenate(((low + high) / 2, high - low), axis=1)


def _one_hot(classes: int = 2) -> Array:
    return np.eye(classes, dtype=np.float32)[BOXES[:, 5].astype(int)] * BOXES[:, 4:5]


def _best(found: Array) -> Array:
    return found[np.argsort(-found[:, 4])][:2]


@pytest.mark.parametrize("transposed", [True, False])
def test_yolov8_in_both_orders(transposed: bool) -> None:
    rows = np.concatenate((_middles(BOXES), _one_hot()), axis=1)
    rows = np.concatenate((rows, np.zeros((30, 6), np.float32)))  # more boxes than values
    output = rows.T if transposed else rows
    decoder = get_decoder("yolov8")
    assert decoder.fits((output.shape,))
    assert decoder.classes((output.shape,)) == 2
    assert np.allclose(_best(decoder.decode([output], SIZE)), _fractions(), atol=1e-6)


def test_yolov5_multiplies_objectness_and_class() -> None:
    objectness = np.array([[0.9], [0.8]], np.float32)
    rows = np.concatenate((_middles(BOXES), objectness, _one_hot() / objectness), axis=1)
    rows = np.concatenate((rows, np.zeros((30, 7), np.float32)))
    decoder = get_decoder("yolov5")
    assert decoder.classes((rows.shape,)) == 2
    assert np.allclose(_best(decoder.decode([rows], SIZE)), _fractions(), atol=1e-6)


@pytest.mark.parametrize("decoded", [True, False])
def test_yolox_with_and_without_its_grids(decoded: bool) -> None:
    height, width = SIZE
    cells = [(x, y, stride) for stride in (8, 16, 32) for y in range(height // stride) for x in range(width // stride)]
    rows = np.zeros((len(cells), 7), np.float32)
    middles = _middles(BOXES)
    for at, middle, scores in zip((3, 140), middles, _one_hot(), strict=True):
        x, y, stride = cells[at]
        rows[at, :4] = (*(middle[:2] / stride - (x, y)), *np.log(middle[2:] / stride))
        if decoded:
            rows[at, :4] = middle
        rows[at, 4:] = (1.0, *scores)
    decoder = get_decoder("yolox", {"decoded": decoded})
    assert decoder.fits((rows.shape,))
    assert np.allclose(_best(decoder.decode([rows], SIZE)), _fractions(), atol=1e-5)


@pytest.mark.parametrize("order", ["xyxy", "yxyx", "middle"])
@pytest.mark.parametrize("units", ["fraction", "pixels"])
def test_ssd_in_its_orders_and_units(order: str, units: str) -> None:
    corners = (BOXES if units == "pixels" else _fractions())[:, :4]
    boxes = {"xyxy": corners, "yxyx": corners[:, [1, 0, 3, 2]], "middle": _middles(corners)}[order]
    scores = np.concatenate((1.0 - BOXES[:, 4:5], _one_hot()), axis=1)
    for outputs in ([boxes, scores], [scores, boxes]):
        decoder = get_decoder("ssd", {"order": order})
        shapes = tuple(output.shape for output in outputs)
        assert decoder.fits(shapes)
        assert decoder.classes(shapes) == 2
        found = decoder.decode(outputs, SIZE)
        assert np.allclose(found[:, :4], _fractions()[:, :4], atol=1e-6)
        assert np.allclose(found[0, 4:], [0.9, 1])
        assert np.allclose(found[1, 4:], [0.6, 0])


def test_detr_with_softmax_and_sigmoid() -> None:
    boxes = _middles(_fractions())
    logits = np.log(np.concatenate((_one_hot() + 1e-9, 1.0 - BOXES[:, 4:5]), axis=1))  # the last class: no object
    found = get_decoder("detr").decode([logits, boxes], SIZE)
    assert np.allclose(found, _fractions(), atol=1e-5)
    scores = np.clip(_one_hot(), 1e-6, 1.0)
    found = get_decoder("detr", {"activation": "sigmoid"}).decode([boxes, np.log(scores / (1.0 - scores))], SIZE)
    assert np.allclose(found, _fractions(), atol=1e-5)
    joined = np.concatenate((boxes, _one_hot()), axis=1)
    found = get_decoder("detr", {"activation": "none"}).decode([joined], SIZE)
    assert np.allclose(found, _fractions(), atol=1e-5)


def test_db_grows_shrunken_texts_again() -> None:
    field = np.zeros((1, *SIZE), np.float32)
    field[0, 20:30, 10:50] = 0.9
    field[0, 50:51, 100:102] = 0.9  # too small
    field[0, 40:50, 80:120] = 0.2  # below the threshold of pixels
    found = get_decoder("db").decode([field], SIZE)
    assert len(found) == 1
    assert found[0, 4] == pytest.approx(0.9)
    assert found[0, 5] == 0
    grown = 39 * 9 * 1.5 / (2 * (39 + 9))
    expected = np.array([10 - grown, 20 - grown, 50 + grown, 30 + grown]) / (128, 64, 128, 64)
    assert np.allclose(found[0, :4], expected, atol=1e-6)
    as_logits = np.log(np.clip(field, 1e-6, 1 - 1e-6) / (1 - np.clip(field, 1e-6, 1 - 1e-6)))
    assert np.allclose(get_decoder("db", {"logits": True}).decode([as_logits], SIZE), found, atol=1e-5)
    assert get_decoder("db").decode([np.zeros((1, *SIZE), np.float32)], SIZE).shape == (0, 6)


def test_classify_undoes_a_softmax() -> None:
    logits = np.array([1.0, 3.0, -2.0], np.float32)
    odds = np.exp(logits) / np.exp(logits).sum()
    for options in ({"probabilities": True}, {}):
        found = get_decoder("classify", options).decode([odds], SIZE)
        assert np.allclose(found - found[0], logits - logits[0], atol=1e-5)
    assert (get_decoder("classify").decode([logits], SIZE) == logits).all()


def test_a_decoder_that_does_not_fit_says_what_does() -> None:
    with pytest.raises(UsageError) as caught:
        check_fits(get_decoder("db"), ((84, 8400),) * 2)
    assert "(84, 8400), (84, 8400)" in str(caught.value)
    assert "file.py:function" in str(caught.value)
    with pytest.raises(UsageError, match="these decoders fit: detr, ssd"):
        check_fits(get_decoder("yolov8"), ((100, 4), (100, 92)))


def test_names_and_options_are_checked() -> None:
    assert {"yolov5", "yolov8", "yolox", "ssd", "detr", "db", "classify"} <= set(decoder_names())
    with pytest.raises(UsageError, match="unknown decoder 'yolo9000'"):
        get_decoder("yolo9000")
    with pytest.raises(UsageError, match="speed"):
        get_decoder("yolov8", {"speed": 3.0})
    with pytest.raises(UsageError, match="order"):
        get_decoder("ssd", {"order": "zyx"})


def test_of_overlapping_candidates_of_one_class_the_best_stays() -> None:
    found = np.array(
        [[0, 0, 1, 1, 0.5, 0], [0, 0, 1, 0.9, 0.8, 0], [0, 0, 1, 1, 0.7, 1], [0, 0, 0.2, 0.2, 0.1, 0]], np.float32
    )
    kept = suppressed(found, 0.5, 10)
    assert kept[:, 4].tolist() == pytest.approx([0.8, 0.7, 0.1])
    assert (suppressed(kept, 0.5, 10) == kept).all()
    assert len(suppressed(found, 1.0, 10)) == 4
    assert len(suppressed(found, 0.5, 2)) == 2


def test_a_decoder_that_fails_or_gives_something_else_is_one_line() -> None:
    with pytest.raises(FailureError, match=r"the decoder 'db' fails on outputs of \(3,\): "):
        decoded(get_decoder("db"), [np.zeros(3, np.float32)], SIZE)
    with pytest.raises(FailureError, match=r"the decoder 'values' gave an array of \(3,\); expected \(n, 6\)"):
        decoded(get_decoder("values"), [np.zeros(3, np.float32)], SIZE)
