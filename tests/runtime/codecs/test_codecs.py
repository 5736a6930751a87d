"""Payloads come back as they were sent, within the codec's error, and hostile bytes are refused."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from controller.errors import RemoteProtocolError, UsageError
from runtime.codecs import decode, encode, get_codec
from runtime.codecs.tensor import BITS, THRESHOLD_FRAC, dequantise, pack, quantise, unpack

TENSOR_BITS = {f"u{bits}": bits for bits in BITS}
SHAPES = [(1, 1, 1), (3, 5, 5), (16, 7, 7), (24, 14, 14)]


def _tensor(shape: tuple[int, ...], seed: int = 0) -> NDArray[np.float32]:
    values = np.random.default_rng(seed).normal(0, 3, shape).astype(np.float32)
    return np.maximum(values, 0)  # as after a relu, with a dead channel


def _image(px: int, seed: int = 0) -> NDArray[np.uint8]:
    ramp = np.linspace(0, 200, px * px).reshape(px, px)
    return (ramp + np.random.default_rng(seed).integers(0, 20, (px, px))).astype(np.uint8)


@pytest.mark.parametrize("codec", ["raw", "png"])
@pytest.mark.parametrize("shape", [(28, 28), (20, 20), (14, 14), (9, 17, 3)])
def test_lossless_images_come_back_bit_for_bit(codec: str, shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    assert np.array_equal(decode(codec, encode(codec, image), shape), image)


@pytest.mark.parametrize("family", ["jpeg", "webp"])
@pytest.mark.parametrize("shape", [(28, 28), (9, 17, 3)])
def test_a_lossy_image_comes_back_close_and_smaller_at_lower_quality(family: str, shape: tuple[int, ...]) -> None:
    plain = _image(32)[: shape[0], : shape[1]]
    image = np.stack([plain] * 3, axis=2) if len(shape) == 3 else plain
    payload = encode(f"{family}95", image)
    error = np.abs(decode(f"{family}95", payload, shape).astype(int) - image)
    assert error.mean() < 12
    assert len(encode(f"{family}30", image)) < len(payload)


def test_colours_keep_their_order() -> None:
    image = np.zeros((32, 48, 3), np.uint8)
    image[..., 0], image[..., 2] = 200, 50
    for codec in ("raw", "png", "jpeg90", "webp90"):
        mean = decode(codec, encode(codec, image), image.shape).mean(axis=(0, 1))
        assert np.allclose(mean, [200, 0, 50], atol=6), codec


@pytest.mark.parametrize("codec", ["u8", "u4", "u2"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_tensor_comes_back_within_half_a_quantisation_step(codec: str, shape: tuple[int, ...]) -> None:
    tensor = _tensor(shape)
    restored = decode(codec, encode(codec, tensor), shape)
    reach = np.ptp(tensor.reshape(shape[0], -1), axis=1) / ((1 << TENSOR_BITS[codec]) - 1)
    # half a step, and what rounding the scales to float16 adds
    allowed = 0.5 * reach + 2e-3 * np.abs(tensor).max() + 1e-6
    assert np.all(np.abs(restored - tensor).reshape(shape[0], -1).max(axis=1) <= allowed)


@pytest.mark.parametrize("shape", SHAPES)
def test_one_bit_divides_a_channel_at_its_threshold_into_two_means(shape: tuple[int, ...]) -> None:
    tensor = _tensor(shape)
    restored = decode("u1", encode("u1", tensor), shape)
    for channel, got in zip(tensor, restored, strict=True):
        above = channel > channel.min() + THRESHOLD_FRAC * np.ptp(channel)
        assert np.allclose(got[~above], channel[~above].mean(), rtol=2e-3, atol=1e-6)
        assert np.allclose(got[above], channel[above].mean() if above.any() else 0, rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@given(data=st.binary(min_size=1, max_size=40))
def test_packing_comes_back_and_takes_no_more_bytes_than_it_must(bits: int, data: bytes) -> None:
    levels = np.frombuffer(data, np.uint8) & np.uint8((1 << bits) - 1)
    packed = pack(levels, bits)
    assert len(packed) == (levels.size * bits + 7) // 8
    assert np.array_equal(unpack(np.frombuffer(packed, np.uint8), levels.size, bits), levels)


@pytest.mark.parametrize("codec", TENSOR_BITS)
def test_what_the_batched_quantiser_says_is_what_the_wire_carries(codec: str) -> None:
    batch = np.stack([_tensor((6, 5, 5), seed) for seed in range(4)])
    batched = get_codec(codec).roundtrip(batch)
    for tensor, expected in zip(batch, batched, strict=True):
        assert np.array_equal(decode(codec, encode(codec, tensor), tensor.shape), expected)


def test_constant_and_huge_channels_survive() -> None:
    tensor = np.zeros((3, 4, 4), np.float32)
    tensor[1], tensor[2, 0, 0] = 7.0, 1e9
    for codec in TENSOR_BITS:
        restored = decode(codec, encode(codec, tensor), tensor.shape)
        assert np.array_equal(restored[:2], tensor[:2])
        assert np.isfinite(restored).all()


def _blobs(shape: tuple[int, int, int], seed: int = 0) -> NDArray[np.float32]:
    """A few bright rectangles at the same places of all channels, as a detector's bottleneck has them."""
    rng = np.random.default_rng(seed)
    tensor = np.zeros(shape, np.float32)
    for y, x in rng.integers(0, (shape[1] - 4, shape[2] - 3), (4, 2)):
        tensor[:, y : y + 4, x : x + 3] += rng.uniform(0, 3, (shape[0], 1, 1)).astype(np.float32)
    return tensor


@pytest.mark.parametrize("codec", ["u2", "u1"])
@pytest.mark.parametrize("shape", [(8, 24, 32), (9, 17, 21), (24, 36, 48)])
def test_sparse_low_bit_levels_are_coded_as_planes_and_smaller_than_zstd(
    codec: str, shape: tuple[int, int, int]
) -> None:
    tensor, bits = _blobs(shape), TENSOR_BITS[codec]
    quantised = quantise(tensor[None], bits)
    payload = encode(codec, tensor)
    assert payload[0] == 2
    assert np.array_equal(decode(codec, payload, shape), dequantise(quantised)[0])
    assert len(payload) - 4 * shape[0] < len(zstandard.compress(pack(quantised.levels.reshape(-1), bits)))


def test_an_empty_scene_takes_little_more_than_its_scales() -> None:
    tensor = np.zeros((8, 72, 96), np.float32)
    for codec in ("u2", "u1"):
        payload = encode(codec, tensor)
        assert len(payload) < 60
        assert np.array_equal(decode(codec, payload, tensor.shape), tensor)


def test_noise_of_low_bits_comes_back_too() -> None:
    noise = np.random.default_rng(0).uniform(size=(11, 20, 30)).astype(np.float32)
    for codec in ("u2", "u1"):
        payload = encode(codec, noise)
        assert len(payload) <= 1 + 4 * 11 + (noise.size * TENSOR_BITS[codec] + 7) // 8
        expected = dequantise(quantise(noise[None], TENSOR_BITS[codec]))[0]
        assert np.array_equal(decode(codec, payload, noise.shape), expected)


@settings(max_examples=200, deadline=None)
@given(data=st.data(), codec=st.sampled_from(["u2", "u1"]))
def test_damaged_planes_give_a_tensor_of_the_asked_shape_or_a_protocol_error(data: st.DataObject, codec: str) -> None:
    tensor = _blobs((8, 24, 32))
    payload = bytearray(encode(codec, tensor))
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    payload = payload[: data.draw(st.integers(0, len(payload)))] if data.draw(st.booleans()) else payload
    try:
        restored = decode(codec, bytes(payload), tensor.shape)
    except RemoteProtocolError:
        return
    assert restored.shape == tensor.shape
    assert np.isfinite(restored).all()


def test_planes_of_another_size_or_without_scales_are_refused_before_they_are_decoded() -> None:
    payload = encode("u1", _blobs((8, 24, 32)))
    with pytest.raises(RemoteProtocolError, match="768 bytes; expected 576"):
        decode("u1", payload, (8, 24, 24))
    with pytest.raises(RemoteProtocolError, match="expected 32 of scales"):
        decode("u1", payload[:20], (8, 24, 32))
    with pytest.raises(RemoteProtocolError, match="leading flag"):
        decode("u4", payload, (8, 24, 32))
    for damaged in [*(payload[:cut] for cut in range(len(payload))), payload + b"\0"]:
        with pytest.raises(RemoteProtocolError):
            decode("u1", damaged, (8, 24, 32))


def test_a_sparse_tensor_is_compressed_and_noise_is_stored() -> None:
    noise = np.random.default_rng(0).uniform(size=(16, 8, 8)).astype(np.float32)
    assert encode("u8", np.zeros((16, 8, 8), np.float32))[0] == 1
    assert encode("u8", noise)[0] == 0
    assert len(encode("u8", noise)) == 1 + 16 * 4 + 16 * 64


@settings(max_examples=200, deadline=None)
@given(
    payload=st.binary(max_size=400),
    codec=st.sampled_from(["raw", "png", "jpeg75", "webp75", *TENSOR_BITS]),
    shape=st.sampled_from([(14, 14), (3, 5, 5), (14, 14, 3)]),
)
def test_arbitrary_bytes_give_an_array_of_the_asked_shape_or_a_protocol_error(
    payload: bytes, codec: str, shape: tuple[int, ...]
) -> None:
    dtype = np.dtype(np.float32 if codec in TENSOR_BITS else np.uint8)
    try:
        array = decode(codec, payload, shape)
    except RemoteProtocolError as error:
        message = str(error)
        assert message == " ".join(message.split())
    else:
        assert array.shape == shape
        assert array.dtype == dtype


@settings(max_examples=150, deadline=None)
@given(data=st.data(), codec=st.sampled_from(["png", "jpeg90", "webp90", *TENSOR_BITS]))
def test_damaged_payloads_give_an_array_of_the_asked_shape_or_a_protocol_error(data: st.DataObject, codec: str) -> None:
    array = _tensor((4, 7, 7)) if codec in TENSOR_BITS else _image(28)
    payload = bytearray(encode(codec, array))
    for _ in range(data.draw(st.integers(1, 3))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    payload = payload[: data.draw(st.integers(0, len(payload)))] if data.draw(st.booleans()) else payload
    try:
        restored = decode(codec, bytes(payload), array.shape)
    except RemoteProtocolError:
        return
    assert restored.shape == array.shape
    assert np.isfinite(restored).all()


@pytest.mark.parametrize("codec", ["raw", "png", *TENSOR_BITS])
def test_every_truncation_and_a_trailing_byte_are_refused(codec: str) -> None:
    array = _tensor((4, 5, 5)) if codec in TENSOR_BITS else _image(14)
    payload = encode(codec, array)
    endings = [payload[:cut] for cut in range(len(payload))]
    if codec != "png":  # a decoder may ignore what follows a PNG's last chunk
        endings.append(payload + b"\0")
    if codec == "png":  # nor does it need the last chunk
        endings = endings[:-16]
    for damaged in endings:
        with pytest.raises(RemoteProtocolError):
            decode(codec, damaged, array.shape)


def test_a_frame_that_claims_gigabytes_is_refused_before_it_is_decompressed() -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(300_000_000))
    with pytest.raises(RemoteProtocolError, match="300000000 bytes; expected"):
        decode("u8", b"\x01" + bomb, (4, 5, 5))
    with pytest.raises(RemoteProtocolError, match="300000000 bytes; expected"):
        decode("u1", b"\x02" + bytes(16) + bomb[4:], (4, 5, 5))


@pytest.mark.parametrize("codec", ["png", "jpeg90", "webp90"])
def test_an_image_of_another_size_is_refused_before_it_is_decoded(codec: str) -> None:
    with pytest.raises(RemoteProtocolError, match=r"size \(28, 28\); expected \(14, 14\)"):
        decode(codec, encode(codec, _image(28)), (14, 14))


@pytest.mark.parametrize("quality", [95, 101])  # above 100 the encoder makes the lossless form
def test_a_webp_that_is_not_a_simple_lossy_image_is_refused(quality: int) -> None:
    data = bytearray(cv2.imencode(".webp", _image(28), [cv2.IMWRITE_WEBP_QUALITY, quality])[1].tobytes())
    if quality <= 100:
        data[12:16] = b"VP8X"
    with pytest.raises(RemoteProtocolError, match="lossy key frame"):
        decode("webp90", bytes(data), (28, 28))


def test_an_unknown_codec_is_a_usage_error_that_names_the_known_ones() -> None:
    for codec in ("raw", "png", "jpeg1", "jpeg100", "webp1", "webp100", *TENSOR_BITS):
        assert get_codec(codec).name == codec
    for codec in ("jpeg0", "jpeg101", "webp", "webp101", "u3", "none", "zip", ""):
        with pytest.raises(
            UsageError,
            match=r"expected one of: raw, png, jpeg1\.\.jpeg100, webp1\.\.webp100, h264q20\.\.h264q51, u8, u4, u2, u1",
        ):
            get_codec(codec)
