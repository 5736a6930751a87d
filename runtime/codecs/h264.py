"""Check that bytes are one H.264 picture of the kind that our encoder writes, before they are decoded.

A payload that stands alone holds exactly a sequence parameter set, a picture parameter set and the single slice of an
IDR picture, any other payload exactly one slice. Progressive pictures of 8 bits, 4:2:0, in the Annex B byte stream. So
a decoder allocates memory for one known size only, decodes every macroblock at most once per payload, and never meets
interlacing, slice groups of several slices, auxiliary pictures or user data. Sections are those of Rec. ITU-T H.264.
"""

from __future__ import annotations

from controller.errors import RemoteProtocolError

_START = b"\0\0\1"
_SLICE, IDR, USER_DATA, SEQUENCE, PICTURE = 1, 5, 6, 7, 8  # nal_unit_type, table 7-1
_WHOLE, _CHAINED = (SEQUENCE, PICTURE, IDR), (_SLICE,)
_PROFILES = (66, 77, 100)  # baseline, main, high: section A.2
_HIGH = 100
_P_SLICES, _I_SLICES = (0, 5), (2, 7)  # table 7-6
#: Our encoder writes at most 40 bytes of either parameter set.
_MOST_SET_BYTES = 128
#: Our encoder uses 1. The limit bounds the decoder's memory, and its work after a gap in the frame numbers.
_MOST_REFERENCES = 4
#: A macroblock without prediction has 384 bytes; headers and emulation prevention come on top.
_MOST_BYTES_PER_MACROBLOCK = 640
_MACROBLOCK_PX = 16
#: Longer codes of variable length do not occur in what is read here.
_MOST_ZEROS = 16


def even(shape: tuple[int, ...]) -> tuple[int, int]:
    """Height and width of the coded picture: 4:2:0 has one chroma sample per 2 x 2 pixels."""
    return shape[0] + shape[0] % 2, shape[1] + shape[1] % 2


def units(data: bytes) -> list[bytes]:
    """The NAL units of a byte stream, without start codes; RemoteProtocolError when it does not begin with one."""
    first, *rest = data.split(_START)
    if first.strip(b"\0") or len(first) > 1 or not rest:
        raise RemoteProtocolError("an H.264 payload that does not begin with a start code; expected 00 00 00 01")
    return [unit.rstrip(b"\0") for unit in rest]


def kind_of(unit: bytes) -> int:
    """nal_unit_type; -1 for an empty or forbidden unit."""
    return unit[0] & 31 if unit and unit[0] < 128 else -1


def check_h264(data: bytes, shape: tuple[int, ...], whole: bool) -> None:
    """RemoteProtocolError unless the bytes are one picture of that shape, (h, w) or (h, w, 3).

    ``whole``: the payload must stand alone; otherwise it must not.
    """
    rows, columns = (-(-side // _MACROBLOCK_PX) for side in even(shape))
    most = rows * columns * _MOST_BYTES_PER_MACROBLOCK + 2 * _MOST_SET_BYTES
    if len(data) > most:
        raise RemoteProtocolError(f"an H.264 payload of {len(data)} bytes; expected at most {most} for {shape[:2]}")
    found, expected = units(data), _WHOLE if whole else _CHAINED
    kinds = tuple(map(kind_of, found))
    if kinds != expected:
        raise RemoteProtocolError(f"an H.264 payload of NAL unit types {kinds[:8]}; expected {expected}")
    if whole:
        if max(len(unit) for unit in found[:2]) > _MOST_SET_BYTES:
            raise RemoteProtocolError(f"an H.264 parameter set too long; expected at most {_MOST_SET_BYTES} bytes")
        _check_sequence(_Bits(found[0][1:]), shape)
    _check_slice(_Bits(found[-1][1:16]), whole)


def _check_sequence(bits: _Bits, shape: tuple[int, ...]) -> None:
    """Section 7.3.2.1.1, as far as the cropping."""
    profile, _, _ = bits.fixed(8), bits.fixed(8), bits.fixed(8)
    plain = profile in _PROFILES and bits.code() == 0
    if plain and profile == _HIGH:
        # 4:2:0, 8 bits of luma and chroma, no lossless mode, no scaling matrices
        plain = (bits.code(), bits.code(), bits.code(), bits.fixed(2)) == (1, 0, 0, 0)
    plain = plain and bits.code() <= 12 and _plain_order(bits) and bits.code() <= _MOST_REFERENCES
    if not plain or bits.fixed(1):  # gaps in the frame numbers
        raise RemoteProtocolError(
            "an H.264 sequence of another kind; expected baseline, main or high profile, 8 bits, 4:2:0, "
            f"at most {_MOST_REFERENCES} references and no gaps"
        )
    columns, rows, progressive = bits.code() + 1, bits.code() + 1, bits.fixed(1)
    bits.fixed(1)  # direct_8x8_inference_flag
    left, right, top, bottom = (bits.code() for _ in range(4)) if bits.fixed(1) else (0, 0, 0, 0)
    size = rows * _MACROBLOCK_PX - 2 * bottom, columns * _MACROBLOCK_PX - 2 * right
    if not progressive or left or top or size != even(shape) or max(right, bottom) >= _MACROBLOCK_PX // 2:
        raise RemoteProtocolError(f"an H.264 sequence of size {size}; expected {even(shape)}, progressive")


def _plain_order(bits: _Bits) -> bool:
    """Read the type of picture order: 0 with its length, or 2."""
    order = bits.code()
    return order == 2 or (order == 0 and bits.code() <= 12)


def _check_slice(bits: _Bits, whole: bool) -> None:
    """The begin of section 7.3.3: one slice covers the picture, and refers to earlier pictures only."""
    first, kind, parameters = bits.code(), bits.code(), bits.code()
    expected = _I_SLICES if whole else _P_SLICES + _I_SLICES
    if first or parameters or kind not in expected:
        raise RemoteProtocolError(
            f"an H.264 slice of type {kind} at macroblock {first}; expected a type of {expected} at 0"
        )


class _Bits:
    """Reads a unit bit by bit; RemoteProtocolError when it ends too early."""

    def __init__(self, unit: bytes) -> None:
        plain = unit.replace(b"\0\0\3", b"\0\0")  # section 7.4.1.1
        self._value, self._left = int.from_bytes(plain, "big"), 8 * len(plain)

    def fixed(self, count: int) -> int:
        """u(n): an unsigned number of ``count`` bits."""
        self._left -= count
        if self._left < 0:
            raise RemoteProtocolError("an H.264 unit that is cut off; expected a whole header")
        return self._value >> self._left & (1 << count) - 1

    def code(self) -> int:
        """ue(v): an unsigned exponential Golomb code, section 9.1."""
        for zeros in range(_MOST_ZEROS + 1):
            if self.fixed(1):
                return (1 << zeros) - 1 + self.fixed(zeros)
        raise RemoteProtocolError(f"an H.264 number of more than {_MOST_ZEROS} bits; expected a smaller one")
