"""Pictures without a joint to be found, made of those with one.

A model that never saw a picture without a joint finds one in any: on a blank film, in a chest.
So some of the training pictures are replaced by what is none, with no box.
"""

import cv2
import numpy as np

KINDS = {
    "blank": "one grey value",
    "noise": "noise, from single pixels to clouds",
    "tiles": "the picture cut into tiles, in another order",
    "turned": "the picture turned by a quarter or a half",
    "shaft": "the part of the picture above or below the joint alone",
    "inverted": "bones dark",
}


def made(kind: str, picture: np.ndarray, box, rng) -> np.ndarray:
    """Makes a picture without a joint.

    Args:
        kind: one of `KINDS`.
        picture: uint8 (height, width, 1), of a knee.
        box: of its joint, as `halves.BOX`.
        rng: NumPy generator.

    Returns:
        uint8 of the shape of `picture`.
    """
    if kind == "blank":
        return np.full_like(picture, rng.integers(256))
    if kind == "noise":
        return _noise(picture.shape, rng)
    if kind == "tiles":
        return _tiles(picture, rng)
    if kind == "turned":
        return _sized(np.rot90(picture[..., 0], rng.integers(1, 4)), picture.shape)
    if kind == "shaft":
        return _shaft(picture, box)
    return 255 - picture


def _noise(shape, rng):
    height, width, _ = shape
    noise = rng.standard_normal((height, width)).astype(np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), 2 ** rng.uniform(-2, 4))
    noise *= rng.uniform(5, 80) / max(float(noise.std()), 1e-6)
    return np.clip(rng.uniform(0, 255) + noise, 0, 255).astype(np.uint8)[..., None]


def _tiles(picture, rng):
    down, across = rng.integers(3, 7, size=2)
    rows = [np.array_split(row, across, axis=1) for row in np.array_split(picture, down)]
    order = rng.permutation(down * across)
    tiles = [_sized(rows[n // across][n % across][..., 0], rows[0][0].shape) for n in order]
    lines = [np.hstack(tiles[n * across : (n + 1) * across]) for n in range(down)]
    return _sized(np.vstack(lines)[..., 0], picture.shape)


def _shaft(picture, box):
    height = len(picture)
    # The middle fifth of the box shows the joint space.
    top, bottom = (np.array([-0.1, 0.1]) * box[3] + box[1]) * height
    above, below = picture[: max(int(top), 1)], picture[min(int(bottom), height - 1) :]
    return _sized(max(above, below, key=len)[..., 0], picture.shape)


def _sized(grey, shape):
    return cv2.resize(np.ascontiguousarray(grey), (shape[1], shape[0]))[..., None]
