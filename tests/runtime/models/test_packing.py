import numpy as np
import pytest

from controller.errors import RemoteProtocolError, UsageError
from runtime.codecs.several import codec_for
from runtime.models.packing import pack, packed_shape, unpack

PARTS = ((8, 10, 12), (16, 5, 6), (7, 9), (5,))


@pytest.fixture
def tensors():
    rng = np.random.default_rng(0)
    return [rng.normal(size=(3, *shape)).astype(np.float32) for shape in PARTS]


def test_packs_and_unpacks(tensors):
    packed = pack(tensors)
    assert packed.shape == (3, *packed_shape(PARTS))
    for found, tensor in zip(unpack(packed, PARTS), tensors, strict=True):
        np.testing.assert_array_equal(found, tensor)
    assert pack(tensors[:1]) is tensors[0]
    with pytest.raises(ValueError, match="expected"):
        unpack(packed[:, 1:], PARTS)


@pytest.mark.parametrize("name", ["u8", "u4", "u2", "u1"])
def test_encodes_several_tensors_as_each_alone(tensors, name):
    packed, codec, single = pack(tensors), codec_for(name, PARTS), codec_for(name, ())
    decoded = codec.decode(codec.encode(packed[0]), packed.shape[1:])
    np.testing.assert_array_equal(decoded, codec.roundtrip(packed)[0])
    first = unpack(decoded[None], PARTS)[0][0]
    np.testing.assert_array_equal(first, single.decode(single.encode(tensors[0][0]), PARTS[0]))


def test_refuses_payloads_that_do_not_fit(tensors):
    packed, codec = pack(tensors), codec_for("u8", PARTS)
    payload = codec.encode(packed[0])
    huge = np.array([1 << 31], "<u4").tobytes() + payload[4:]
    for broken in (b"", payload[:11], payload[:40], huge, payload[:-1]):
        with pytest.raises(RemoteProtocolError):
            codec.decode(broken, packed.shape[1:])
    with pytest.raises(RemoteProtocolError, match="expected values of shape"):
        codec.decode(payload, (17,))


def test_a_codec_with_references_takes_one_tensor():
    with pytest.raises(UsageError, match="takes one tensor"):
        codec_for("signs", PARTS)
