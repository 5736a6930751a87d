"""Weights of few bits in a file: codes packed into bytes, beside one float16 scale per output channel.

The header of the file says which weights are packed, in how many bits and of what shape, and whether channels were
pruned, so that a file is read without the manifest. A file without such a header holds plain weights of the family.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor

from runtime.models.few_bits import BITS, levels_and_scale, top_level

HEADER = "mecpilot"  # the key in the metadata of a safetensors file
_CODES, _SCALE = ".codes", ".scale"
_MOST_WEIGHTS = 1 << 28  # of one layer


class PackedWeight(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One weight in few bits."""

    bits: int
    shape: tuple[int, ...]  # (outputs, ...)


class WeightHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What differs from plain weights of the family."""

    pruned: bool = False  # layers have other numbers of channels, which the shapes state
    packed: dict[str, PackedWeight] = {}
    graphs: int = 0  # stages that are graphs in 8 bits, see `runtime.bundles.graph_file`
    pieces: int = 0  # stages that are pieces of a foreign model, see `runtime.bundles.pieces_file`
    made_from: str = ""  # SHA-256 of the file of the model that was compressed


PLAIN = WeightHeader()


def as_metadata(header: WeightHeader) -> dict[str, str] | None:
    """What a safetensors file keeps of a header; None for plain weights, whose files stay as they are."""
    return None if header == PLAIN else {HEADER: msgspec.json.encode(header).decode()}


def read_header(path: Path) -> WeightHeader:
    """The header of a file of weights; ValueError when it is not valid."""
    with safe_open(path, framework="numpy") as file:
        text = (file.metadata() or {}).get(HEADER)
    try:
        return PLAIN if text is None else msgspec.json.decode(text, type=WeightHeader)
    except msgspec.MsgspecError as error:
        raise ValueError(f"its header is not valid: {error}") from None


def pack(state: Mapping[str, Tensor], bits: Mapping[str, int]) -> tuple[dict[str, Tensor], dict[str, PackedWeight]]:
    """Pack weights by name; returns the tensors of the file, the others unchanged, and the entries of its header."""
    packed = {name: PackedWeight(count, tuple(state[name].shape)) for name, count in bits.items()}
    tensors = {name: value for name, value in state.items() if name not in packed}
    for name, entry in packed.items():
        levels, scale = levels_and_scale(state[name].float(), entry.bits)
        tensors[name + _CODES] = torch.from_numpy(_pack_codes(_codes(levels, entry.bits), entry.bits))
        tensors[name + _SCALE] = scale.half()
    return tensors, packed


def unpack(tensors: Mapping[str, Tensor], packed: Mapping[str, PackedWeight]) -> dict[str, Tensor]:
    """The weights in float32 in place of their codes; KeyError or ValueError when they do not fit the header."""
    state = dict(tensors)
    for name, entry in packed.items():
        state[name] = _unpacked(name, entry, state.pop(name + _CODES), state.pop(name + _SCALE))
    return state


def _unpacked(name: str, entry: PackedWeight, codes: Tensor, scale: Tensor) -> Tensor:
    count = math.prod(entry.shape)
    if entry.bits not in BITS:
        raise ValueError(f"{name} has {entry.bits} bits per weight; expected one of: {', '.join(map(str, BITS))}")
    if len(entry.shape) < 2 or min(entry.shape) < 1 or count > _MOST_WEIGHTS:
        raise ValueError(f"{name} has weights of shape {entry.shape}; expected at least two dimensions of at least 1")
    expected = -(-count * entry.bits // 8)
    if codes.dtype != torch.uint8 or codes.numel() != expected or tuple(scale.shape) != entry.shape[:1]:
        raise ValueError(
            f"{name} has {codes.numel()} bytes of codes and {scale.numel()} scales; expected {expected} "
            f"and {entry.shape[0]}"
        )
    if not bool(torch.isfinite(scale).all()):
        raise ValueError(f"{name} has a scale that is not finite")
    levels = _levels(_unpack_codes(codes.numpy(), entry.bits, count), entry.bits).reshape(entry.shape)
    return levels * scale.float().reshape(-1, *[1] * (len(entry.shape) - 1))


def _codes(levels: Tensor, bits: int) -> NDArray[np.uint8]:
    """Levels from -top to top as numbers from 0 on; the signs of one bit as 0 and 1."""
    numbers = levels > 0 if bits == 1 else levels + top_level(bits)
    return numbers.flatten().numpy().astype(np.uint8)


def _levels(codes: NDArray[np.uint8], bits: int) -> Tensor:
    numbers = torch.from_numpy(codes.astype(np.float32))
    return 2.0 * numbers - 1.0 if bits == 1 else numbers - top_level(bits)


def _pack_codes(codes: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """The lowest bits of each code one after the other, the last byte filled up with zeros."""
    planes = codes[:, None] >> np.arange(bits, dtype=np.uint8) & 1
    return np.packbits(planes, bitorder="little")


def _unpack_codes(packed: NDArray[np.uint8], bits: int, count: int) -> NDArray[np.uint8]:
    planes = np.unpackbits(packed, count=count * bits, bitorder="little").reshape(count, bits)
    return np.asarray((planes << np.arange(bits, dtype=np.uint8)).sum(axis=1, dtype=np.uint8))
