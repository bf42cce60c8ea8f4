"""Outlines of label maps: exact rings of pixel corners around every connected region."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Ring = list[tuple[int, int]]
_Integers = NDArray[np.int64]


def mask_to_polygons(mask: NDArray[Any], *, min_area: float = 0.0) -> list[dict[str, Any]]:
    """Outline every 4-connected region of a label map.

    Filling the outer rings and clearing the holes gives the map back. No ring meets itself; holes
    may touch other rings in a corner. The label 255 is void and left out, unless the map is uint16
    (more than 255 classes).

    Args:
        mask: Class ids (H, W), any integer type.
        min_area: Regions with fewer pixels are left out.

    Returns:
        One dictionary per region, largest first: `class_id`, `area` (pixels), `polygon` (outer
        ring, list of (x, y) pixel corners, clockwise on screen, no three in a row on one line)
        and `holes` (list of rings, counter-clockwise on screen). Rings are not closed by a
        repeated point.
    """
    if mask.ndim != 2:
        raise ValueError(f"mask must be (H, W), got {mask.shape}")
    if mask.size == 0:
        return []
    regions = _label_regions(mask)
    areas = np.bincount(regions.ravel())
    classes = np.zeros(len(areas), dtype=np.int64)
    classes[regions.ravel()] = mask.ravel()
    keep = areas >= max(min_area, 1)
    if mask.dtype != np.uint16:
        keep &= classes != 255
    rings: dict[int, list[Ring]] = {}
    for region, ring in _trace(_boundary(regions, keep), stride=mask.shape[1] + 1):
        rings.setdefault(region, []).append(ring)
    order = sorted(rings, key=lambda region: (-areas[region], region))
    return [_describe(int(classes[region]), int(areas[region]), rings[region]) for region in order]


def _describe(class_id: int, area: int, rings: list[Ring]) -> dict[str, Any]:
    """Tell the outer ring, the only one that runs clockwise, from the holes."""
    outer = next(ring for ring in rings if _signed_area(ring) > 0)
    holes = [ring for ring in rings if ring is not outer]
    return {"class_id": class_id, "area": area, "polygon": outer, "holes": holes}


def _signed_area(ring: Ring) -> int:
    """Return twice the area; positive if the ring runs clockwise with y pointing down."""
    following = ring[1:] + ring[:1]
    return sum(x * y2 - x2 * y for (x, y), (x2, y2) in zip(ring, following, strict=True))


def _label_regions(mask: NDArray[Any]) -> _Integers:
    """Number the 4-connected regions (H, W), from 0 in reading order.

    Runs of equal pixels in a row are the nodes of a graph, runs that touch in the next row its
    edges; every node takes the smallest number it can reach, in jumps that double.
    """
    starts = np.ones(mask.shape, dtype=bool)
    starts[:, 1:] = mask[:, 1:] != mask[:, :-1]
    runs = (np.cumsum(starts.ravel()) - 1).reshape(mask.shape)
    touch = (mask[1:] == mask[:-1]) & (starts[1:] | starts[:-1])  # once per pair of runs
    edges = np.stack([runs[:-1][touch], runs[1:][touch]], axis=1)
    parent = np.arange(runs[-1, -1] + 1)
    while True:
        first, second = parent[edges[:, 0]], parent[edges[:, 1]]
        open_edges = first != second
        if not open_edges.any():
            break
        edges, first, second = edges[open_edges], first[open_edges], second[open_edges]
        np.minimum.at(parent, np.maximum(first, second), np.minimum(first, second))
        while not np.array_equal(parent, parent[parent]):
            parent = parent[parent]
    numbers = np.unique(parent, return_inverse=True)[1]
    labels: _Integers = numbers.reshape(-1)[runs]
    return labels


class _Edges(NamedTuple):
    """Straight boundary pieces with their region at the right hand; corners are y * (W + 1) + x."""

    region: _Integers
    start: _Integers
    end: _Integers
    direction: _Integers  # 0 right, 1 down, 2 left, 3 up


def _boundary(regions: _Integers, keep: NDArray[np.bool_]) -> _Edges:
    """Find the boundary of the kept regions as maximal straight pieces."""
    height, width = regions.shape
    padded = np.pad(regions, 1, constant_values=-1)
    stride = width + 1
    pieces = []
    for direction, (down, right) in enumerate([(-1, 0), (0, 1), (1, 0), (0, -1)]):
        neighbor = padded[1 + down : 1 + down + height, 1 + right : 1 + right + width]
        open_side = (neighbor != regions) & keep[regions]
        across = direction % 2 == 1
        side, labels = (open_side.T, regions.T) if across else (open_side, regions)
        line, first, last = _straight_runs(side, labels)
        owner = labels[line, first]
        line_corner = line + (direction in (1, 2))  # right and bottom sides lie one corner on
        scale = (1, stride) if across else (stride, 1)
        low = line_corner * scale[0] + first * scale[1]
        high = line_corner * scale[0] + (last + 1) * scale[1]
        forward = direction in (0, 1)
        start, end = (low, high) if forward else (high, low)
        pieces.append(_Edges(owner, start, end, np.full(len(start), direction)))
    return _Edges(*(np.concatenate(parts) for parts in zip(*pieces, strict=True)))


def _straight_runs(
    side: NDArray[np.bool_], labels: _Integers
) -> tuple[_Integers, _Integers, _Integers]:
    """Return row, first and last column of the runs of `side` within one label."""
    changes = labels[:, 1:] != labels[:, :-1]
    begins, ends = side.copy(), side.copy()
    begins[:, 1:] &= ~side[:, :-1] | changes
    ends[:, :-1] &= ~side[:, 1:] | changes
    line, first = np.nonzero(begins)
    return line, first, np.nonzero(ends)[1]


def _trace(edges: _Edges, *, stride: int) -> Iterator[tuple[int, Ring]]:
    """Join the pieces to rings and yield each with its region."""
    corners = int(max(edges.end.max(initial=0), edges.start.max(initial=0))) + 1
    place = (edges.region * corners + edges.start) * 4
    keys = place + edges.direction
    order = np.argsort(keys)
    keys = keys[order]
    # Two pieces leave a corner where pixels of one region touch diagonally. A ring that turns left
    # there never meets itself again: what is around the corner is a hole that touches the ring.
    goal = (edges.region * corners + edges.end) * 4
    left = goal + (edges.direction + 3) % 4
    found = np.searchsorted(keys, left)
    exact = keys[np.minimum(found, len(keys) - 1)] == left
    following = order[np.where(exact, found, np.searchsorted(keys, goal))].tolist()
    y, x = np.divmod(edges.start, stride)
    points = list(zip(x.tolist(), y.tolist(), strict=True))
    regions = edges.region.tolist()
    seen = bytearray(len(points))
    for first in range(len(points)):
        ring: Ring = []
        piece = first
        while not seen[piece]:
            seen[piece] = 1
            ring.append(points[piece])
            piece = following[piece]
        if ring:
            yield regions[first], ring
