"""How a frame becomes the input of a foreign model, and how positions in that input become pixels of the frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import cv2
import msgspec
import numpy as np

from runtime.workloads.area import resize
from runtime.workloads.placement import Placement
from runtime.workloads.types import Image, Images

if TYPE_CHECKING:
    from torch import Tensor

Side = Annotated[int, msgspec.Meta(ge=1, le=16_384)]
Size = tuple[Side, Side]  # height, width
Values = Annotated[tuple[float, ...], msgspec.Meta(min_length=1, max_length=4)]
#: stretch: each side by its own factor. letterbox: equal factors, centred. corner: equal factors, in the top left.
Fit = Literal["stretch", "letterbox", "corner"]


class Geometry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The picture that a foreign model takes. Values are (pixel * scale - mean) / std, per colour in its order."""

    sizes: Annotated[dict[Annotated[int, msgspec.Meta(ge=1, le=16_384)], Size], msgspec.Meta(min_length=1)]
    fit: Fit = "stretch"
    colours: Literal["rgb", "bgr", "grey"] = "rgb"
    scale: float = 1.0 / 255.0
    mean: Values = (0.0,)
    std: Values = (1.0,)
    padding: Annotated[int, msgspec.Meta(ge=0, le=255)] = 114  # pixel value around a letterboxed picture
    layout: Literal["nchw", "nhwc"] = "nchw"

    def __post_init__(self) -> None:
        if 0.0 in self.std:
            raise ValueError("a standard deviation of 0")
        if any(len(values) not in (1, self.channels) for values in (self.mean, self.std)):
            raise ValueError(
                f"mean and std of {len(self.mean)} and {len(self.std)} values; expected 1 or one per colour"
            )
        if any(px != width for px, (_, width) in self.sizes.items()):
            raise ValueError("a resolution that is not the width of its size")

    @property
    def channels(self) -> int:
        """Colours of the input."""
        return 1 if self.colours == "grey" else 3

    def picture(self, frame: Image, px: int) -> Image:
        """The u8 picture (h, w, 3) blue-green-red, or (h, w) grey, of a frame at a resolution."""
        size = self.sizes[px]
        if self.colours == "grey" and frame.ndim == 3:
            frame = np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), np.uint8)
        top, left, height, width = self.inner(frame.shape, px)
        small = _resized(frame, width, height)
        if (height, width) == size:
            return np.require(small, requirements="W")  # footage gives frames that nobody may change; PyTorch warns
        framed = np.full((*size, *frame.shape[2:]), self.padding, np.uint8)
        framed[top : top + height, left : left + width] = small
        return framed

    def inner(self, frame: tuple[int, ...], px: int) -> tuple[int, int, int, int]:
        """Top, left, height and width of a frame of shape (h, w, ...) in the picture, in pixels."""
        height, width = self.sizes[px]
        if self.fit == "stretch":
            return 0, 0, height, width
        factor = min(height / frame[0], width / frame[1])
        inner_h = min(max(round(frame[0] * factor), 1), height)
        inner_w = min(max(round(frame[1] * factor), 1), width)
        if self.fit == "corner":
            return 0, 0, inner_h, inner_w
        return (height - inner_h) // 2, (width - inner_w) // 2, inner_h, inner_w

    def placement(self, frame: tuple[int, ...], px: int) -> Placement:
        """Where a frame of shape (h, w, ...) lies in the picture; it converts boxes of the picture to the frame."""
        top, left, height, width = self.inner(frame, px)
        return Placement(frame[1], frame[0], width / frame[1], height / frame[0], left, top)

    def values(self, pictures: Images) -> Tensor:
        """Float (batch, channels, h, w), or (batch, h, w, channels), of u8 pictures (batch, h, w[, 3])."""
        import torch

        pixels = pictures if pictures.flags.writeable else pictures.copy()  # torch warns of what is read-only
        values = torch.from_numpy(pixels if pixels.ndim == 4 else pixels[..., None])
        values = (values.flip(3) if self.colours == "rgb" else values).float()
        mean, std = (torch.tensor(each, dtype=torch.float32) for each in (self.mean, self.std))
        values = values.mul_(self.scale).sub_(mean).div_(std)
        return values if self.layout == "nhwc" else values.permute(0, 3, 1, 2).contiguous()


def _resized(image: Image, width: int, height: int) -> Image:
    if image.shape[:2] == (height, width):
        return image
    if width <= image.shape[1] and height <= image.shape[0]:
        return resize(image, width, height)
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
