"""H.264 payloads for partition point 0: each picture refers to the one sent just before it, as in a camera's stream.

One picture in, one payload out: no B frames, no lookahead, one thread. A payload that stands alone is an IDR picture,
written on demand. There are no periodic key frames and no intra refresh, because the transport loses nothing within a
connection. On the campus camera at 384 px, rate factor 40, a key frame every 100 pictures adds 12 % of bytes, a refresh
within 250 or 100 pictures 11 or 22 % and 1.6 times the 95th percentile, for the same F1 within 0.005. The price: what a
coarse rate factor (48 and more) makes of a picture may stay for good where nothing moves.

Decoding H.264 is exact, so what a decoder holds depends on nothing but the payloads since the last one that stands
alone. The digest of a reference is the CRC-32 of all of them. PyAV is optional; the extra `video` installs it.
"""

from __future__ import annotations

import math
import zlib
from collections import deque
from dataclasses import dataclass
from fractions import Fraction
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controller.errors import RemoteProtocolError, UsageError
from runtime.codecs.base import IMAGE, Payload
from runtime.codecs.h264 import USER_DATA, check_h264, even, kind_of, units
from runtime.codecs.streams import Encoded, Receiver, Sender, StreamCodec, Tables, UnknownReferenceError

#: Constant rate factors of x264. Below 20 a JPEG is smaller than it is worth; 51 is the largest there is.
RATE_FACTORS = range(20, 52)
#: A stream of whose requests so many are unanswered starts again.
_MOST_UNANSWERED = 64
#: What a decoder takes beside its pictures; and pictures: references, the current one, and what libavcodec keeps spare.
_DECODER_BYTES = 1 << 20
_MOST_PICTURES = 8
_MISSING = "H.264 payloads need the package av, which is not installed; run: pip install 'PATH_OF_THE_CHECKOUT[video]'"
#: At equal PSNR on the campus camera, superfast takes 1.15 times the bytes in four fifths of the time, ultrafast 1.9
#: times in half of it; faster and medium take 1.5 to 2.5 times the time for the same bytes.
_PRESET = "veryfast"
_X264 = "keyint=infinite:scenecut=0"
_NEUTRAL = 128  # chroma of a grey picture


@dataclass(frozen=True)
class H264(StreamCodec):
    """H.264 of a constant rate factor: the larger, the smaller the payloads."""

    rate_factor: int  # 0 to 51
    kind = IMAGE
    chained = True

    @property
    def name(self) -> str:
        return f"h264q{self.rate_factor}"

    @property
    def missing(self) -> str:
        return "" if find_spec("av") else _MISSING

    def encode(self, array: NDArray[Any]) -> bytes:
        return self.sender(array.shape, {}).encode(array, 0).payload

    def decode(self, payload: Payload, shape: tuple[int, ...]) -> NDArray[Any]:
        return self.receiver(shape, {}).decode(payload, 1, 0, 0)

    def sender(self, shape: tuple[int, ...], tables: Tables) -> Sender:
        return _Sender(shape, self.rate_factor)

    def receiver(self, shape: tuple[int, ...], tables: Tables) -> Receiver:
        return _Receiver(shape)

    def kept_bytes(self, shape: tuple[int, ...]) -> int:
        """Upper bound of the memory of one receiver: that of its decoder. Measured: 0.6 to 2.8 MB up to 768 px."""
        return _DECODER_BYTES + _MOST_PICTURES * math.prod(even(shape)) * 3 // 2


class _Sender:
    """Owns an encoder, and what the MEC must hold for the next payload to continue the stream."""

    def __init__(self, shape: tuple[int, ...], rate_factor: int) -> None:
        self._shape = shape
        self._encoder = _Encoder(shape, rate_factor)
        self._last_id = 0  # request of the last payload; 0 if there is none, or it was not handed over
        self._digest = 0  # of the payloads since the last one that stands alone
        self._unanswered: deque[int] = deque()  # requests since then, the oldest first
        self._doubted = 0  # the newest of them that may not have been decoded; 0 if none

    @property
    def reference_id(self) -> int:
        return 0 if self._doubted or len(self._unanswered) >= _MOST_UNANSWERED else self._last_id

    def encode(self, array: NDArray[Any], frame: int) -> Encoded:
        if array.shape != self._shape:
            raise UsageError(f"got a picture of shape {array.shape} for a stream of {self._shape}; expected equal ones")
        reference_id, digest = self.reference_id, self._digest
        if not reference_id:
            self.forget()
            digest = 0
        payload = self._encoder.encode(array, whole=not reference_id)
        self._last_id, self._digest = 0, zlib.crc32(payload, digest)
        return Encoded(payload, reference_id, digest)

    def sent(self, request_id: int) -> None:
        self._last_id = request_id
        self._unanswered.append(request_id)

    def answered(self, request_id: int) -> None:
        # Each payload refers to the one before, so the MEC has decoded all of them.
        if request_id in self._unanswered:
            while (earlier_id := self._unanswered.popleft()) != request_id:
                self._undoubt(earlier_id)
            self._undoubt(request_id)

    def unanswered(self, request_id: int) -> None:
        if request_id in self._unanswered:
            self._doubted = request_id

    def forget(self) -> None:
        self._last_id = self._doubted = 0
        self._unanswered.clear()

    def _undoubt(self, request_id: int) -> None:
        if self._doubted == request_id:
            self._doubted = 0


class _Receiver:
    """Owns a decoder, whose state is that after the last request that it decoded."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape
        self._decoder: _Decoder | None = None
        self._held: tuple[int, int] | None = None  # that request, and the digest

    def decode(self, payload: Payload, request_id: int, reference_id: int, digest: int) -> NDArray[Any]:
        data = bytes(payload)
        if not reference_id:
            decoder, array, digest = self._start(data)
        else:
            decoder, array = self._continue(data, reference_id, digest)
        self._decoder, self._held = decoder, (request_id, zlib.crc32(data, digest))
        return array

    def _start(self, data: bytes) -> tuple[_Decoder, NDArray[Any], int]:
        check_h264(data, self._shape, whole=True)
        decoder = _Decoder(self._shape)
        return decoder, decoder.decode(data), 0

    def _continue(self, data: bytes, reference_id: int, digest: int) -> tuple[_Decoder, NDArray[Any]]:
        decoder = self._decoder
        if decoder is None or self._held != (reference_id, digest):
            raise UnknownReferenceError(
                f"a payload that refers to request {reference_id} (digest {digest:08x}), which is not held; "
                "expected the last request of its stream, or a payload that stands alone"
            )
        check_h264(data, self._shape, whole=False)
        self._decoder = self._held = None  # a decoder that fails is in no known state
        return decoder, decoder.decode(data)


class _Encoder:
    """Turns pictures of one shape into payloads. Opened anew for each that stands alone.

    The rate control of x264 depends on all pictures before. On the campus camera at 384 px, rate factor 40, a picture
    that stands alone takes 3,087 bytes at the start, 4,000 after nine others, and 1,293 after many that stand alone, as
    a worse picture (3 dB). With a new encoder it is the same wherever it stands. Opening takes 0.5 to 0.7 ms.
    """

    def __init__(self, shape: tuple[int, ...], rate_factor: int) -> None:
        self._size, self._rate_factor = even(shape), rate_factor
        self._context: Any = None  # av.VideoCodecContext
        self._count = 0

    def encode(self, image: NDArray[Any], whole: bool) -> bytes:
        """The payload of the next picture, (h, w) or (h, w, 3)."""
        av = _library()
        if self._context is None or (whole and self._count):
            self._context, self._count = self._open(), 0
        frame = av.VideoFrame.from_ndarray(_planes_of(image, self._size), "yuv420p")
        frame.pts, self._count = self._count, self._count + 1
        if whole:
            frame.pict_type = av.video.frame.PictureType.I
        data = b"".join(map(bytes, self._context.encode(frame)))
        return _without_user_data(data)

    def _open(self) -> Any:
        av = _library()
        context = av.VideoCodecContext.create("libx264", "w")
        context.height, context.width = self._size
        context.pix_fmt, context.time_base, context.framerate = "yuv420p", Fraction(1, 10), Fraction(10)
        context.thread_count = 1
        context.options = {
            "preset": _PRESET,
            "tune": "zerolatency",
            "crf": str(self._rate_factor),
            "forced-idr": "1",
            "x264-params": _X264,
        }
        context.open()
        return context


class _Decoder:
    """Turns checked payloads into pictures of one shape, beginning with one that stands alone."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape
        self._context = _library().VideoCodecContext.create("h264", "r")
        self._context.thread_count = 1
        self._context.options = {"err_detect": "explode", "ec": "0", "flags": "low_delay"}

    def decode(self, checked: bytes) -> NDArray[Any]:
        """The picture of a payload; RemoteProtocolError when it is damaged. Then the decoder is of no more use."""
        av = _library()
        try:
            frames = self._context.decode(av.Packet(checked))
        except av.FFmpegError as error:
            raise RemoteProtocolError(f"an H.264 payload that does not decode: {error.strerror}") from None
        height, width = even(self._shape)
        if len(frames) != 1 or frames[0].is_corrupt:
            raise RemoteProtocolError(f"an H.264 payload of {len(frames)} sound pictures; expected 1")
        frame = frames[0]
        if (frame.height, frame.width, frame.format.name) != (height, width, "yuv420p"):
            raise RemoteProtocolError(
                f"an H.264 picture {frame.format.name} of {(frame.height, frame.width)}; "
                f"expected yuv420p of {(height, width)}"
            )
        return _image_of(frame.to_ndarray(), self._shape)


def _library() -> Any:
    """PyAV; UsageError when it is not installed."""
    try:
        import av
    except ModuleNotFoundError:
        raise UsageError(_MISSING) from None
    return av


def _without_user_data(data: bytes) -> bytes:
    """The payload without the text about itself that x264 writes once: some 700 bytes."""
    kept = [unit for unit in units(data) if kind_of(unit) != USER_DATA]
    return b"".join(b"\0\0\0\1" + unit for unit in kept)


def _planes_of(image: NDArray[Any], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Luma and subsampled chroma (3/2 h, w) of a picture, its sides repeated to even numbers."""
    import cv2

    below, right = size[0] - image.shape[0], size[1] - image.shape[1]
    if below or right:
        image = cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_REPLICATE)
    if image.ndim == 3:
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420))
    return np.concatenate([image, np.full((size[0] // 2, size[1]), _NEUTRAL, np.uint8)])


def _image_of(planes: NDArray[Any], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """The picture of that shape, from its planes (3/2 h, w)."""
    import cv2

    image = planes[: even(shape)[0]] if len(shape) == 2 else cv2.cvtColor(planes, cv2.COLOR_YUV2BGR_I420)
    return np.ascontiguousarray(image[: shape[0], : shape[1]])
