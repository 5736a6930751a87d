"""Functions that return an nn.Module, for ``mecpilot adopt FILE.py:FUNCTION`` and ``python -m benchmarks.bench_cuts``.

None of these packages is needed by mecpilot. They were installed without dependencies into a folder on PYTHONPATH:
``pip install --no-deps --target others facenet-pytorch==2.6.0 requests tqdm`` for `face`, ``... monai einops`` for the
architectures, which have random weights: cuts do not depend on them.
"""

from __future__ import annotations

import sys
from types import ModuleType

import torch
from torch import Tensor, nn

from runtime.bundles.bundle import open_bundle
from runtime.models.detector_parts import LOG_DISTANCES, MAP_STRIDE, Peaks


class CampusBoxes(nn.Module):
    """A shipped detector of the campus workload as somebody else would export it: boxes and scores of all cells.

    Images (1, 3, h, w) from 0 to 255, blue-green-red, give boxes (1, cells, 4) as fractions of the image: left, top,
    right, bottom; and scores (1, cells, 1), one half at the operating threshold. Cells that are no peak have score 0.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        model = open_bundle("campus").model(name)
        *layers, peaks = model.exits[-1]  # type: ignore[misc]
        assert isinstance(peaks, Peaks)
        self.network = nn.Sequential(*model.stages, *layers)
        self.threshold_at = {px: float(peaks.threshold[i]) for i, px in enumerate(peaks.widths_px)}

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        cells = self.network((image - 128.0) / 64.0)
        height, width = cells.shape[-2:]
        logits = cells[:, :1]
        peak = logits >= nn.functional.max_pool2d(logits, 3, 1, 1)
        scores = torch.sigmoid(logits - self._threshold(width * MAP_STRIDE)) * peak
        left, top, right, bottom = cells[:, 1:].clamp(*LOG_DISTANCES).exp().unbind(1)
        x, y = torch.arange(width) + 0.5, torch.arange(height)[:, None] + 0.5
        sides = ((x - left) / width, (y - top) / height, (x + right) / width, (y + bottom) / height)
        return torch.stack(sides, 3).flatten(1, 2), scores.flatten(2).transpose(1, 2)

    def _threshold(self, width_px: int) -> float:
        return self.threshold_at[min(self.threshold_at, key=lambda px: abs(px - width_px))]


def campus() -> nn.Module:
    """The largest shipped detector of people."""
    return CampusBoxes("medium")


class Face(nn.Module):
    """The last network of MTCNN (Zhang et al., 2016), with weights, for its first question only: is this a face?

    Images (1, 3, 48, 48), red-green-blue from -1 to 1, give probabilities (1, 2): no face, face.
    """

    def __init__(self) -> None:
        super().__init__()
        _leave_out("facenet_pytorch.models.utils.detect_face", "detect_face", "extract_face")
        from facenet_pytorch.models.mtcnn import ONet

        self.network = ONet()

    def forward(self, image: Tensor) -> Tensor:
        probabilities: Tensor = self.network(image)[2]
        return probabilities


def _leave_out(name: str, *functions: str) -> None:
    """Let nothing stand for a module that another one imports and does not need here: this one wants torchvision."""
    module = ModuleType(name)
    vars(module).update(dict.fromkeys(functions))
    sys.modules.setdefault(name, module)


def face() -> nn.Module:
    """Face or no face."""
    return Face()


def residual() -> nn.Module:
    """ResNet-18."""
    from monai.networks.nets import resnet18

    return resnet18(spatial_dims=2, n_input_channels=3, num_classes=10)


def depthwise() -> nn.Module:
    """EfficientNet-B0."""
    from monai.networks.nets import EfficientNetBN

    return EfficientNetBN("efficientnet-b0", pretrained=False, spatial_dims=2, in_channels=3, num_classes=10)


def dense() -> nn.Module:
    """DenseNet-121."""
    from monai.networks.nets import DenseNet121

    return DenseNet121(spatial_dims=2, in_channels=3, out_channels=10)


def attention() -> nn.Module:
    """A small vision transformer for images of 224 x 224 pixels."""
    from monai.networks.nets import ViT

    sizes = {"hidden_size": 192, "mlp_dim": 768, "num_layers": 12, "num_heads": 3}
    return ViT(3, (224, 224), (16, 16), **sizes, classification=True, num_classes=10, spatial_dims=2)


def u_shaped() -> nn.Module:
    """A U-Net with residual units."""
    from monai.networks.nets import UNet

    return UNet(2, 3, 2, channels=(16, 32, 64, 128, 256), strides=(2, 2, 2, 2), num_res_units=2)
