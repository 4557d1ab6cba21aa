"""How well a heat map lies in boxes that radiologists drew."""

import numpy as np

from medkeras.evaluation.heat import overlays


def mask(boxes, scale, shape) -> np.ndarray:
    """Marks boxes in a picture that was stretched to a shape.

    Args:
        boxes: rows with x, y (upper left corner), width and height.
        scale: height and width of the picture that these are pixels of.
        shape: (height, width) wanted.

    Returns:
        bool (height, width): pixels whose centre lies in a box, of each box one at least.
    """
    marked = np.zeros(shape, bool)
    for box in boxes.itertuples():
        down = _along(box.y / scale, box.height / scale, shape[0])
        right = _along(box.x / scale, box.width / scale, shape[1])
        marked |= down[:, None] & right
    return marked


def scores(coarse, marked) -> dict:
    """Compares a map, enlarged to the picture, with what is marked.

    Args:
        coarse: map (h, w), not negative.
        marked: bool (height, width).

    Returns:
        "hit": whether the hottest point lies there (Zhang et al. 2016, the pointing game); "iou":
        intersection over union of what is marked and where the map is at least half its maximum;
        "inside": the share of the map's sum that lies there. All 0 for a map of zeros.
    """
    fine = overlays.resized(coarse, marked.shape).astype(np.float64)
    if not fine.any():
        return {"hit": False, "iou": 0.0, "inside": 0.0}
    hot = fine >= fine.max() / 2
    return {
        "hit": bool(marked.flat[fine.argmax()]),
        "iou": float((hot & marked).sum() / (hot | marked).sum()),
        "inside": float(fine[marked].sum() / fine.sum()),
    }


def _along(start, length, size):
    centres = (np.arange(size) + 0.5) / size
    within = (centres >= start) & (centres < start + length)
    within[np.abs(centres - start - length / 2).argmin()] = True
    return within
