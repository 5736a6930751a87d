"""Image payloads: what our encoder writes passes whole, and no decoder ever sees anything else."""

from __future__ import annotations

import contextlib
import struct
import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from controller.errors import RemoteProtocolError
from runtime.codecs import decode, encode
from runtime.codecs.png import checked_png

Image = NDArray[np.uint8]


def picture(h: int, w: int, colour: bool, seed: int, noise: bool) -> Image:
    shape = (h, w, 3) if colour else (h, w)
    rng = np.random.default_rng(seed)
    flat = np.full(shape, rng.integers(0, 256), np.uint8)
    return rng.integers(0, 256, shape, dtype=np.uint8) if noise else flat


pictures = st.builds(
    picture, st.integers(1, 70), st.integers(1, 70), st.booleans(), st.integers(0, 2**32 - 1), st.booleans()
)
qualities = st.integers(1, 100)


@settings(max_examples=120, deadline=None)
@given(image=pictures, quality=qualities)
def test_what_our_encoder_writes_is_decoded(image: Image, quality: int) -> None:
    assert np.array_equal(decode("png", encode("png", image), image.shape), image)
    for codec in (f"jpeg{quality}", f"webp{quality}"):
        payload = encode(codec, image)
        expected = cv2.imdecode(
            np.frombuffer(payload, np.uint8), cv2.IMREAD_GRAYSCALE if image.ndim == 2 else cv2.IMREAD_COLOR
        )
        assert np.array_equal(decode(codec, payload, image.shape), expected)


@pytest.mark.parametrize("codec", ["png", "jpeg1", "jpeg100", "webp1", "webp100"])
@pytest.mark.parametrize("noise", [False, True])
def test_what_our_encoder_makes_of_a_frame_is_decoded(codec: str, noise: bool) -> None:
    image = picture(576, 768, True, 1, noise)
    assert decode(codec, encode(codec, image), image.shape).shape == image.shape


@pytest.mark.parametrize("codec", ["png", "jpeg90", "webp90"])
@pytest.mark.parametrize("shape", [(14, 14), (9, 17, 3)])
def test_every_truncation_and_whatever_follows_the_end_are_refused(codec: str, shape: tuple[int, ...]) -> None:
    payload = encode(codec, np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    for damaged in [*(payload[:cut] for cut in range(len(payload))), payload + b"\0", payload + payload]:
        with pytest.raises(RemoteProtocolError):
            decode(codec, damaged, shape)


# PNG -----------------------------------------------------------------------------------------------------------

SIGNATURE = b"\x89PNG\r\n\x1a\n"
LINES = bytes(14 * 15)


def chunk(kind: bytes, body: bytes, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return struct.pack(">I", size) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def header(w: int = 14, h: int = 14, *kind: int) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, *(kind or (8, 0, 0, 0, 0))))


def png(*chunks: bytes) -> bytes:
    return SIGNATURE + b"".join(chunks)


DATA, END = chunk(b"IDAT", zlib.compress(LINES)), chunk(b"IEND", b"")
#: The right size in its header, and a chunk that claims 3.5 GB of what follows: 82 bytes.
CHUNK_LENGTH = png(header(28, 28), chunk(b"IDAT", zlib.compress(bytes(28 * 29)), length=0xD0000000)[:37], END)
BAD_PNGS = {
    "chunk length": CHUNK_LENGTH,
    "length of the last chunk": png(header(), DATA, chunk(b"IEND", b"", length=9)),
    "checksum": png(header(), DATA[:-1] + bytes([DATA[-1] ^ 1]), END),
    "header twice": png(header(), header(), DATA, END),
    "header later": png(DATA, header(), END),
    "no header": png(DATA, END),
    "no data": png(header(), END),
    "no end": png(header(), DATA),
    "only the end": png(END),
    "only a signature": SIGNATURE,
    "after the end": png(header(), DATA, END, END),
    "data apart": png(header(), DATA[:0], chunk(b"IDAT", b""), chunk(b"tEXt", b"a\0b"), DATA, END),
    "ancillary chunk": png(header(), chunk(b"tEXt", b"a\0b"), DATA, END),
    "compressed profile": png(header(), chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(100_000))), DATA, END),
    "critical chunk": png(header(), chunk(b"PLTE", bytes(3)), DATA, END),
    "16 bits": png(header(14, 14, 16, 0, 0, 0, 0), DATA, END),
    "colour for grey": png(header(14, 14, 8, 2, 0, 0, 0), DATA, END),
    "palette": png(header(14, 14, 8, 3, 0, 0, 0), DATA, END),
    "interlaced": png(header(14, 14, 8, 0, 0, 0, 1), DATA, END),
    "too few lines": png(header(), chunk(b"IDAT", zlib.compress(LINES[:-1])), END),
    "too many lines": png(header(), chunk(b"IDAT", zlib.compress(LINES + b"\0")), END),
    "bomb": png(header(), chunk(b"IDAT", zlib.compress(bytes(50_000_000))), END),
    "data after the stream": png(header(), chunk(b"IDAT", zlib.compress(LINES) + b"\0"), END),
    "broken stream": png(header(), chunk(b"IDAT", zlib.compress(LINES)[:-6]), END),
    "no stream": png(header(), chunk(b"IDAT", b"garbage"), END),
    "filter": png(header(), chunk(b"IDAT", zlib.compress(b"\x05" + LINES[1:])), END),
    "many chunks": png(header(), *[chunk(b"IDAT", b"")] * 60, DATA, END),
    "huge": png(header(2**31 - 1, 2**31 - 1), DATA, END),
}


def test_a_whole_png_of_our_kind_is_legal_however_its_data_is_divided() -> None:
    stream = zlib.compress(LINES)
    divided = [chunk(b"IDAT", stream[:3]), chunk(b"IDAT", b""), chunk(b"IDAT", stream[3:])]
    for payload in (png(header(), DATA, END), png(header(), *divided, END)):
        assert not decode("png", payload, (14, 14)).any()


@pytest.mark.parametrize("name", BAD_PNGS)
def test_a_png_with_one_fault_is_refused_before_a_decoder_sees_it(name: str) -> None:
    shape = (28, 28) if name == "chunk length" else (14, 14)
    with pytest.raises(RemoteProtocolError):
        checked_png(BAD_PNGS[name], shape)


def test_the_decoder_gets_the_scanlines_that_were_checked() -> None:
    image = picture(40, 30, True, 3, True)
    again = checked_png(encode("png", image), image.shape)
    assert np.array_equal(cv2.imdecode(np.frombuffer(again, np.uint8), cv2.IMREAD_COLOR), image)


# JPEG ----------------------------------------------------------------------------------------------------------

JPEG = encode("jpeg75", picture(20, 24, True, 0, True))
SCAN_AT = JPEG.index(b"\xff\xda")
FRAME_AT = JPEG.index(b"\xff\xc0")


def jpeg_of(*options: int) -> bytes:
    return cv2.imencode(".jpg", picture(20, 24, True, 0, True), list(options))[1].tobytes()


def jpeg_with(at: int, value: bytes) -> bytes:
    return JPEG[:at] + value + JPEG[at + len(value) :]


def segment(marker: int, body: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body


def inserted(extra: bytes, at: int = 2) -> bytes:
    return JPEG[:at] + extra + JPEG[at:]


BAD_JPEGS = {
    "progressive": jpeg_of(cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "restart intervals": jpeg_of(cv2.IMWRITE_JPEG_RST_INTERVAL, 1),
    "arithmetic": jpeg_with(FRAME_AT, b"\xff\xc9"),
    "extended": jpeg_with(FRAME_AT, b"\xff\xc1"),
    "12 bits": jpeg_with(FRAME_AT + 4, b"\x0c"),
    "two frames": inserted(JPEG[FRAME_AT : FRAME_AT + 19], FRAME_AT),
    "no frame": JPEG[:FRAME_AT] + JPEG[FRAME_AT + 19 :],
    "four components": jpeg_with(FRAME_AT + 9, b"\x04"),
    "sampling": jpeg_with(FRAME_AT + 11, b"\x44"),
    "sampling of a colour": jpeg_with(FRAME_AT + 14, b"\x22"),
    "table number": jpeg_with(FRAME_AT + 12, b"\x09"),
    "two scans": JPEG[:-2] + JPEG[SCAN_AT:],
    "partial scan": jpeg_with(SCAN_AT + 2, b"\x00\x08\x01\x01\x00\x00\x3f\x00"),
    "spectral selection": jpeg_with(SCAN_AT + 11, b"\x00\x01\x00"),
    "restart marker": inserted(b"\xff\xd0", len(JPEG) - 2),
    "fill bytes": inserted(b"\xff", len(JPEG) - 2),
    "no end": JPEG[:-2],
    "end twice": JPEG + b"\xff\xd9",
    "comment": inserted(segment(0xFE, b"hello")),
    "Exif": inserted(segment(0xE1, b"Exif\0\0" + bytes(40))),
    "thumbnail": JPEG[:2] + segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\1\1abc") + JPEG[20:],
    "many tables": inserted(segment(0xDB, b"\0" + bytes([1] * 64)) * 20),
    "table of 16 bits": inserted(segment(0xDB, b"\x10" + bytes([1] * 128))),
    "empty table": inserted(segment(0xC4, b"")),
    "short Huffman table": inserted(segment(0xC4, b"\0" + bytes([1] * 16) + bytes(15))),
    "segment length": jpeg_with(4, b"\xff\xff"),
    "segment of no length": jpeg_with(4, b"\0\1"),
    "no segments": JPEG[:2],
}


@pytest.mark.parametrize("name", BAD_JPEGS)
def test_a_jpeg_with_one_fault_is_refused(name: str) -> None:
    with pytest.raises(RemoteProtocolError):
        decode("jpeg75", BAD_JPEGS[name], (20, 24, 3))


def test_a_grey_image_for_a_colour_one_is_refused_and_the_other_way_round() -> None:
    for codec in ("png", "jpeg75"):
        with pytest.raises(RemoteProtocolError):
            decode(codec, encode(codec, picture(20, 24, False, 0, True)), (20, 24, 3))
        with pytest.raises(RemoteProtocolError):
            decode(codec, encode(codec, picture(20, 24, True, 0, True)), (20, 24))


def test_damaged_pixels_are_never_reported_line_by_line(capfd: pytest.CaptureFixture[str]) -> None:
    damaged = JPEG[: SCAN_AT + 40] + bytes([0x55] * 100) + b"\xff\xd9"
    for _ in range(3):
        with contextlib.suppress(RemoteProtocolError):
            decode("jpeg75", damaged, (20, 24, 3))
    sys.stderr.write("still here")
    assert capfd.readouterr().err == "still here"


# WebP ----------------------------------------------------------------------------------------------------------

WEBP = encode("webp75", picture(20, 24, True, 0, True))


def webp_with(at: int, value: bytes) -> bytes:
    return WEBP[:at] + value + WEBP[at + len(value) :]


BAD_WEBPS = {
    "file length": webp_with(4, b"\xff\xff\xff\x7f"),
    "chunk length": webp_with(16, b"\xff\xff\xff\x7f"),
    "short chunk": webp_with(16, b"\x10\0\0\0"),
    "first part": webp_with(20, bytes([WEBP[20] | 0xE0, 0xFF, 0xFF])),
    "inter frame": webp_with(20, bytes([WEBP[20] | 1])),
    "hidden frame": webp_with(20, bytes([WEBP[20] & ~0x10])),
    "version": webp_with(20, bytes([WEBP[20] | 0x0E])),
    "scaled": webp_with(26, struct.pack("<H", 24 | 0x4000)),
    "extended": webp_with(12, b"VP8X"),
    "second chunk": WEBP + b"EXIF\4\0\0\0abcd",
}


@pytest.mark.parametrize("name", BAD_WEBPS)
def test_a_webp_with_one_fault_is_refused(name: str) -> None:
    with pytest.raises(RemoteProtocolError):
        decode("webp75", BAD_WEBPS[name], (20, 24, 3))


# Memory --------------------------------------------------------------------------------------------------------

PROBE = """
import resource, sys
import cv2, numpy as np
from controller.errors import RemoteProtocolError
from runtime.codecs import decode, encode
decode("png", encode("png", np.zeros((28, 28), np.uint8)), (28, 28))
now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + (64 << 20), now + (64 << 20)))
for line in sys.stdin:
    codec, shape, payload = line.split()
    try:
        decode(codec, bytes.fromhex(payload), tuple(map(int, shape.split(","))))
    except RemoteProtocolError:
        print("refused")
    except BaseException as error:
        print(type(error).__name__)
"""


def zstd_frame(window: int, size: int, body: bytes) -> bytes:
    """A frame that claims a window of 2^(10 + window) bytes and a content of that size; its one block is stored."""
    block = (len(body) << 3 | 1).to_bytes(3, "little") + body
    return b"\x28\xb5\x2f\xfd\x80" + bytes([window << 3]) + size.to_bytes(4, "little") + block


LEVELS = bytes(4 + 100)  # of a tensor (1, 10, 10): its scales, then its levels
BAD_TENSORS = {
    "window of 2 GB": b"\x01" + zstd_frame(21, len(LEVELS), LEVELS[:-1]),
    "window of 128 MB": b"\x01" + zstd_frame(17, len(LEVELS), LEVELS[:-1]),
    "content of 4 GB": b"\x01" + zstd_frame(0, 2**32 - 1, LEVELS),
    "two frames": b"\x01" + zstd_frame(0, len(LEVELS), LEVELS) * 2,
    "skippable frame": b"\x01\x50\x2a\x4d\x18" + len(LEVELS).to_bytes(4, "little") + LEVELS,
    "more than it claims": b"\x01" + zstd_frame(0, len(LEVELS), LEVELS + LEVELS),
}


def test_a_stored_zstd_frame_of_the_right_size_is_legal() -> None:
    payload = b"\x01" + zstd_frame(0, len(LEVELS), LEVELS)
    assert not decode("u8", payload, (1, 10, 10)).any()


def test_no_hostile_payload_takes_memory() -> None:
    """Within 64 MB of address space, in a process of its own: C libraries allocate where Python cannot see."""
    cases = [
        *(("png", "28,28" if name == "chunk length" else "14,14", bad) for name, bad in BAD_PNGS.items()),
        *(("jpeg75", "20,24,3", bad) for bad in BAD_JPEGS.values()),
        *(("webp75", "20,24,3", bad) for bad in BAD_WEBPS.values()),
        *(("u8", "1,10,10", bad) for bad in BAD_TENSORS.values()),
    ]
    asked = "".join(f"{codec} {shape} {bad.hex() or '00'}\n" for codec, shape, bad in cases)
    done = subprocess.run([sys.executable, "-c", PROBE], input=asked, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["refused"] * len(cases)
    assert done.stderr == ""
