"""The size study: how large are the pictures, and at which size should a model see them?"""

import cv2
import numpy as np

SIZES = (224, 256, 299, 384, 512)
COVERED = 0.75


def study(widths, heights, clusters=3) -> dict:
    """Clusters the pictures' sizes and recommends a square input size.

    The rule: the largest of 224, 256, 299, 384 and 512 that at least three quarters of the
    pictures fill with their shorter side, so that few pictures are enlarged (which adds cost and
    no detail); 224 where none is. Cost grows with the square: 384 takes 2.9 times 224's time.

    Args:
        widths: (n,) pixels.
        heights: (n,) pixels.
        clusters: K-means centres to find; fewer where there are fewer distinct sizes.

    Returns:
        {"recommended", "reason", "centres": (m, 2) width and height, largest first, "rows": one
        dict per candidate: size, share of pictures enlarged, cost relative to 224}.
    """
    points = np.column_stack([widths, heights]).astype(float)
    shorter = points.min(axis=1)
    rows = [
        {"size": size, "enlarged": float((shorter < size).mean()), "cost": (size / SIZES[0]) ** 2}
        for size in SIZES
    ]
    fitting = [row["size"] for row in rows if 1 - row["enlarged"] >= COVERED]
    reason = "the largest usual size that at least three quarters of the pictures fill"
    if not fitting:
        reason = f"the smallest usual size; {rows[0]['enlarged']:.0%} of the pictures are smaller"
    return {
        "recommended": max(fitting, default=SIZES[0]),
        "reason": reason,
        "centres": _centres(points, clusters),
        "rows": rows,
    }


def _centres(points, clusters):
    clusters = min(clusters, len(np.unique(points, axis=0)))
    stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 100, 0.1)
    cv2.setRNGSeed(0)
    _, labels, centres = cv2.kmeans(
        points.astype(np.float32), clusters, None, stop, attempts=8, flags=cv2.KMEANS_PP_CENTERS
    )
    order = np.argsort(-np.bincount(labels.ravel(), minlength=clusters), kind="stable")
    return centres[order]
