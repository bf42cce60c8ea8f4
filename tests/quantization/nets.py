"""A network so small that every rounding in it can be repeated by hand."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtseg.structures import SemanticOutput


class Small(nn.Module):
    """Convolutions before a ReLU, before a PReLU, two on one input, transposed, for scores."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.relu = nn.Conv2d(3, 4, 3, padding=1), nn.ReLU()
        self.second, self.prelu = nn.Conv2d(4, 4, 1, groups=2), nn.PReLU(4)
        self.left, self.right = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, padding=2, dilation=2)
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.score = nn.Conv2d(4, 3, 1)

    def forward(self, images: Tensor) -> SemanticOutput:
        x = self.relu(self.first(images))
        x = self.prelu(self.second(x))
        x = torch.cat([self.left(x), self.right(x)], dim=1)
        return SemanticOutput(self.score(F.relu(self.up(x))))

    def deployable(self) -> Small:
        return copy.deepcopy(self).eval()


def small() -> Small:
    torch.manual_seed(5)
    return Small()
