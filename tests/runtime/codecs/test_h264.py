"""Which bytes reach a video decoder: one picture of the expected size and kind, and nothing else."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from controller.errors import RemoteProtocolError, UsageError
from runtime.codecs import decode, encode, get_codec
from runtime.codecs.h264 import check_h264

START = b"\0\0\0\1"
SHAPE = (34, 50, 3)  # 3 x 4 macroblocks, cropped
#: The fields of a sequence parameter set in order; a number of bits, or 0 for a code of variable length.
SEQUENCE: dict[str, tuple[int, int]] = {
    "profile": (8, 100),
    "constraints": (8, 0),
    "level": (8, 30),
    "id": (0, 0),
    "chroma": (0, 1),
    "luma_depth": (0, 0),
    "chroma_depth": (0, 0),
    "lossless": (1, 0),
    "scaling": (1, 0),
    "frame_number_bits": (0, 0),
    "order": (0, 2),
    "references": (0, 1),
    "gaps": (1, 0),
    "columns": (0, 3),
    "rows": (0, 2),
    "progressive": (1, 1),
    "direct": (1, 1),
    "cropped": (1, 1),
    "left": (0, 0),
    "right": (0, 7),
    "top": (0, 0),
    "bottom": (0, 7),
    "rest": (2, 1),
}


def bits_of(fields: Mapping[str, tuple[int, int]]) -> bytes:
    """The fields as bits, padded with zeros to whole bytes."""
    text = ""
    for count, value in fields.values():
        code = f"{value + 1:b}"
        text += f"{value:0{count}b}" if count else "0" * (len(code) - 1) + code
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")


def escaped(body: bytes) -> bytes:
    """With emulation prevention: no 00 00 00 to 00 00 03 inside."""
    for last in (3, 0, 1, 2):
        body = body.replace(b"\0\0" + bytes([last]), b"\0\0\3" + bytes([last]))
    return body


def sequence(**changed: int) -> bytes:
    fields = {name: (count, changed.get(name, value)) for name, (count, value) in SEQUENCE.items()}
    if fields["profile"][1] != 100:
        for name in ("chroma", "luma_depth", "chroma_depth", "lossless", "scaling"):
            del fields[name]
    return b"\x67" + escaped(bits_of(fields))


def slice_of(header: int, first: int = 0, kind: int = 7, parameters: int = 0) -> bytes:
    coded = {"first": (0, first), "kind": (0, kind), "parameters": (0, parameters), "data": (16, 0x8421)}
    return bytes([header]) + bits_of(coded)


PICTURE_SET = b"\x68\xce\x38\x80"
WHOLE_SLICE, NEXT_SLICE = slice_of(0x65), slice_of(0x41, kind=5)


def stream(*units: bytes) -> bytes:
    return b"".join(START + unit for unit in units)


@pytest.mark.parametrize("changed", [{}, {"profile": 66}, {"profile": 77}, {"references": 4}])
def test_one_picture_of_the_expected_size_passes(changed: dict[str, int]) -> None:
    check_h264(stream(sequence(**changed), PICTURE_SET, WHOLE_SLICE), SHAPE, whole=True)
    check_h264(stream(NEXT_SLICE), SHAPE, whole=False)


BAD_SEQUENCES = {
    "profile": {"profile": 110},
    "id": {"id": 1},
    "4:2:2": {"chroma": 2},
    "10 bits of luma": {"luma_depth": 2},
    "10 bits of chroma": {"chroma_depth": 2},
    "lossless": {"lossless": 1},
    "scaling matrices": {"scaling": 1},
    "frame numbers": {"frame_number_bits": 13},
    "order of pictures": {"order": 1},
    "references": {"references": 5},
    "gaps": {"gaps": 1},
    "one column more": {"columns": 4},
    "one row less": {"rows": 1},
    "huge": {"columns": 65000, "rows": 65000},
    "interlaced": {"progressive": 0},
    "crop on the left": {"left": 1},
    "crop at the top": {"top": 1},
    "other crop": {"right": 6},
    "no crop": {"cropped": 0},
}


@pytest.mark.parametrize("changed", BAD_SEQUENCES.values(), ids=BAD_SEQUENCES)
def test_a_sequence_of_another_kind_or_size_is_refused(changed: dict[str, int]) -> None:
    with pytest.raises(RemoteProtocolError, match=r"H\.264 sequence"):
        check_h264(stream(sequence(**changed), PICTURE_SET, WHOLE_SLICE), SHAPE, whole=True)


def test_a_size_beyond_all_limits_is_refused_without_reading_on() -> None:
    endless = b"\x67\x64\0\x1e" + b"\0\0\3" * 30
    with pytest.raises(RemoteProtocolError, match="bits"):
        check_h264(stream(endless + b"\1", PICTURE_SET, WHOLE_SLICE), SHAPE, whole=True)


BAD_STREAMS = {
    "nothing": b"",
    "zeros": bytes(50),
    "no start code": sequence() + stream(PICTURE_SET, WHOLE_SLICE),
    "zeros in front": b"\0" + stream(sequence(), PICTURE_SET, WHOLE_SLICE),
    "empty unit": stream(sequence(), PICTURE_SET, b"", WHOLE_SLICE),
    "forbidden bit": stream(sequence(), PICTURE_SET, b"\xe5" + WHOLE_SLICE[1:]),
    "user data": stream(sequence(), PICTURE_SET, b"\x06\x05\x01\x80", WHOLE_SLICE),
    "delimiter": stream(b"\x09\x10", sequence(), PICTURE_SET, WHOLE_SLICE),
    "two sequences": stream(sequence(), sequence(), PICTURE_SET, WHOLE_SLICE),
    "two picture sets": stream(sequence(), PICTURE_SET, PICTURE_SET, WHOLE_SLICE),
    "two slices": stream(sequence(), PICTURE_SET, WHOLE_SLICE, slice_of(0x65, first=4)),
    "two pictures": stream(sequence(), PICTURE_SET, WHOLE_SLICE, NEXT_SLICE),
    "no slice": stream(sequence(), PICTURE_SET),
    "no sequence": stream(PICTURE_SET, WHOLE_SLICE),
    "other order": stream(PICTURE_SET, sequence(), WHOLE_SLICE),
    "only the slice": stream(WHOLE_SLICE),
    "a picture that refers to another": stream(sequence(), PICTURE_SET, NEXT_SLICE),
    "data partition": stream(sequence(), PICTURE_SET, b"\x42" + WHOLE_SLICE[1:]),
    "inter slice": stream(sequence(), PICTURE_SET, slice_of(0x65, kind=5)),
    "slice of the middle": stream(sequence(), PICTURE_SET, slice_of(0x65, first=1)),
    "other parameters": stream(sequence(), PICTURE_SET, slice_of(0x65, parameters=1)),
    "empty slice": stream(sequence(), PICTURE_SET, b"\x65"),
    "long parameter set": stream(sequence() + bytes([7] * 200), PICTURE_SET, WHOLE_SLICE),
    "too long": stream(sequence(), PICTURE_SET, WHOLE_SLICE + bytes([7] * 9_000)),
}


@pytest.mark.parametrize("data", BAD_STREAMS.values(), ids=BAD_STREAMS)
def test_other_units_are_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match=r"H\.264"):
        check_h264(data, SHAPE, whole=True)


@pytest.mark.parametrize(
    "data",
    [
        stream(sequence(), PICTURE_SET, WHOLE_SLICE),
        stream(NEXT_SLICE, NEXT_SLICE),
        stream(WHOLE_SLICE),
        stream(slice_of(0x41, kind=6)),
        stream(sequence()),
    ],
)
def test_a_payload_that_refers_to_another_is_one_slice(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match=r"H\.264"):
        check_h264(data, SHAPE, whole=False)


def test_every_cut_through_the_sequence_is_refused() -> None:
    for end in range(len(sequence()) - 1):
        with pytest.raises(RemoteProtocolError):
            check_h264(stream(sequence()[:end], PICTURE_SET, WHOLE_SLICE), SHAPE, whole=True)


def test_without_pyav_the_codec_is_known_and_its_use_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    image: Any = np.zeros((16, 16, 3), np.uint8)
    assert "package av" in get_codec("h264q40").missing
    with pytest.raises(UsageError, match=r"package av, which is not installed; run: pip install .*\[video\]"):
        encode("h264q40", image)
    whole = stream(sequence(columns=0, rows=0, cropped=0), PICTURE_SET, WHOLE_SLICE)
    with pytest.raises(UsageError, match="package av"):
        decode("h264q40", whole, image.shape)
