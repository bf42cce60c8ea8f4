"""Read maps at points, and choose the points where a mask is least certain.

Points are (x, y) in [0, 1]: (0, 0) is the outer corner of the first pixel, (1, 1) that of the last.
Losses on a few thousand points cost a fraction of losses on full masks.

Source: "PointRend: Image Segmentation as Rendering"; "Masked-attention Mask Transformer for
Universal Image Segmentation", section 3.3.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def sample_points(maps: Tensor, points: Tensor) -> Tensor:
    """Interpolate maps bilinearly at points; everything outside of a map is 0.

    Args:
        maps: (B, C, H, W) float.
        points: (B, P, 2), (x, y) in [0, 1], the same for all channels of an image.

    Returns:
        (B, C, P).
    """
    grid = 2 * points[:, :, None] - 1  # (B, P, 1, 2)
    return F.grid_sample(
        maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False
    ).squeeze(3)


@torch.no_grad()
def uncertain_points(
    logits: Tensor, count: int, *, oversample: float = 3.0, importance: float = 0.75
) -> Tensor:
    """Draw points for every mask, most of them where its logit is nearest to 0.

    Of `oversample * count` uniform candidates the `importance * count` least certain ones stay;
    the rest of the points is uniform.

    Args:
        logits: (M, 1, h, w), one mask per image.
        count: Points P per mask.
        oversample: Candidates per point.
        importance: Share of the points, in [0, 1], that is chosen for uncertainty.

    Returns:
        (M, P, 2), without gradient.
    """
    masks = len(logits)
    candidates = torch.rand(masks, int(oversample * count), 2, device=logits.device)
    certainty = sample_points(logits, candidates)[:, 0].abs()
    chosen = int(importance * count)
    index = certainty.topk(chosen, dim=1, largest=False).indices
    hard = candidates.gather(1, index[:, :, None].expand(-1, -1, 2))
    uniform = torch.rand(masks, count - chosen, 2, device=logits.device)
    return torch.cat([hard, uniform], dim=1)
