"""A detector as an nn.Module, which finds red things. Yours would be built and loaded in a function like `detector`.
Run: mecpilot adopt examples/own_model/model.py:detector --footage site.mp4 --task detect --decode fcos --out site"""

import torch
from torch import Tensor, nn

STRIDE, REACH = 8, 8  # pixels of a cell; cells that a thing may reach from its middle


class RedThings(nn.Module):
    """(1, 3, h, w) RGB from 0 to 1 to scores (1, 1, h / 8, w / 8) and distances (1, 4, h / 8, w / 8) in pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.redness = nn.Sequential(nn.Conv2d(3, 1, 1), nn.Hardtanh(0.0, 1.0), nn.AvgPool2d(STRIDE))
        self.distances = nn.Conv2d(1, 4, 2 * REACH + 1, padding=REACH, bias=False)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        red = self.redness(image)
        left, top, right, bottom = (distances := self.distances(red)).split(1, dim=1)
        across = torch.minimum(left, right) / torch.maximum(left, right).clamp(min=1.0)
        down = torch.minimum(top, bottom) / torch.maximum(top, bottom).clamp(min=1.0)
        return red * torch.sqrt(across * down), distances  # the best cell is the one in the middle


def detector() -> nn.Module:
    """The network with its weights, here set by hand."""
    network, middle = RedThings(), REACH
    weights = torch.zeros(4, 1, 2 * REACH + 1, 2 * REACH + 1)
    weights[0, 0, middle, :middle] = weights[1, 0, :middle, middle] = STRIDE  # red cells to the left, and above
    weights[2, 0, middle, middle + 1 :] = weights[3, 0, middle + 1 :, middle] = STRIDE  # to the right, and below
    weights[:, 0, middle, middle] = STRIDE / 2
    colours = torch.tensor([3.0, -1.5, -1.5]).reshape(1, 3, 1, 1)
    network.load_state_dict(
        {"redness.0.weight": colours, "redness.0.bias": torch.tensor([-0.3]), "distances.weight": weights}
    )
    return network.eval()
