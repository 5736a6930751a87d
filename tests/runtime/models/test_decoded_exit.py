"""The last exit of a foreign model gives candidates of fixed size."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from runtime.decoders.base import get_decoder
from runtime.models.decoded_exit import Candidates, DecodedExit
from runtime.models.detector_parts import NO_PEAK

OUTPUTS = {(64, 64): ((6, 5),), (32, 32): ((6, 3),)}
YOLO = get_decoder("yolov8", {"order": "boxes_last"})


def _exit(several: bool = True) -> DecodedExit:
    return DecodedExit(YOLO, OUTPUTS, Candidates(0.25, 4, 0.5, several))


def _outputs() -> torch.Tensor:
    """Two boxes that show one object, one of another class, one that is unlikely, one without an area."""
    columns = np.array(
        [
            [32, 32, 16, 16, 0.8, 0.1],
            [33, 32, 16, 16, 0.6, 0.1],
            [32, 32, 16, 16, 0.0, 0.25],
            [8, 8, 4, 4, 0.001, 0.0],
            [8, 8, 0, 4, 0.9, 0.0],
        ],
        np.float32,
    )
    return torch.from_numpy(columns.T.reshape(1, -1).copy())


def test_candidates_are_relative_to_the_threshold_and_suppressed() -> None:
    found = _exit()(_outputs()).numpy()
    assert found.shape == (1, 4, 6)
    assert found.dtype == np.float32
    odds = np.log(0.8 / 0.2) - np.log(0.25 / 0.75)
    assert found[0, 0].tolist() == pytest.approx([0.375, 0.375, 0.625, 0.625, odds, 0.0], abs=1e-5)
    assert found[0, 1, 4] == pytest.approx(0.0, abs=1e-5)  # exactly at the threshold
    assert found[0, 1, 5] == 1
    assert (found[0, 2:, 4] == NO_PEAK).all()
    assert _exit(several=False)(_outputs()).shape == (1, 4, 5)


def test_the_shape_says_the_resolution_and_samples_do_not_touch_each_other() -> None:
    small = torch.zeros((1, 18))
    small[0, [0, 3, 6, 9, 12]] = torch.tensor([16.0, 16.0, 8.0, 8.0, 0.9])
    assert _exit()(small)[0, 0, :4].tolist() == pytest.approx([0.375, 0.375, 0.625, 0.625])
    batch = torch.cat([_outputs(), torch.full((1, 30), float("nan"))])
    found = _exit()(batch)
    assert (found[0] == _exit()(_outputs())[0]).all()
    assert (found[1, :, 4] == NO_PEAK).all()
    with pytest.raises(ValueError, match="expected one of"):
        _exit()(torch.zeros((1, 19)))


def test_a_decoder_of_pixels_gets_the_size_where_outputs_look_alike_at_all_sizes() -> None:
    outputs_at = dict.fromkeys(((64, 128), (32, 64)), ((2, 4), (2, 2)))
    boxes = Candidates(0.5, 2, 0.5, several_classes=False)
    exit_head = DecodedExit(get_decoder("ssd", {"units": "pixels"}), outputs_at, boxes)
    outputs = [0, 0, 32, 16, 0, 0, 0, 0, 0.1, 0.9, 1, 0]
    found = exit_head(torch.tensor([[*outputs, 64, 128], [*outputs, 32, 64]], dtype=torch.float32))
    assert found[0, 0, :4].tolist() == [0, 0, 0.25, 0.25]
    assert found[1, 0, :4].tolist() == [0, 0, 0.5, 0.5]
    assert DecodedExit(get_decoder("detr"), outputs_at, boxes)(torch.zeros((1, 12))).shape == (1, 2, 5)


def test_a_classifier_gives_logits() -> None:
    exit_head = DecodedExit(get_decoder("classify"), {(8, 8): ((3,),)}, None)
    values = torch.tensor([[1.0, 2.0, 3.0], [float("inf"), 0.0, 0.0]])
    assert exit_head(values).tolist() == [[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]
