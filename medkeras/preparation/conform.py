"""Pictures and volumes to the shape a model expects: the same code in training and serving."""

import cv2
import numpy as np

from medkeras.files import decode
from medkeras.files import volume as volumes

# Batches are made side by side; a second thread within a picture only spins.
cv2.setNumThreads(1)

# Part of every cache key and of `predictor.json`: raise "version" when the pixels change.
CONFIG = {
    "version": 1,
    "resize": "stretched to height x width; area when shrinking, linear when enlarging",
    "grey": "luminance 0.299 R + 0.587 G + 0.114 B",
    "depth": "16 bit pictures are divided by 257",
}
VOLUME_CONFIG = {
    "version": 1,
    "resize": CONFIG["resize"],
    "depth": "uint8 as stored; else the lowest pixel of the volume is 0, the highest 255",
}


def load(path, image_shape) -> np.ndarray:
    """Reads a picture file and brings it to `image_shape`.

    Args:
        path: JPEG or PNG file.
        image_shape: (height, width, channels), channels 1 or 3.

    Returns:
        uint8 array of `image_shape`, values 0..255.

    Raises:
        decode.Unreadable: the file cannot be used; says why and what to do.
    """
    return conform(decode.picture(path).pixels, image_shape)


def conform(pixels: np.ndarray, image_shape) -> np.ndarray:
    """Brings decoded pixels to `image_shape`.

    Args:
        pixels: (height, width) or (height, width, 3), uint8 or uint16.
        image_shape: (height, width, channels), channels 1 or 3.

    Returns:
        uint8 array of `image_shape`.
    """
    height, width, channels = image_shape
    if pixels.ndim == 3 and channels == 1:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    pixels = _resized(pixels, height, width)
    if pixels.dtype == np.uint16:
        pixels = np.round(pixels / 257.0).astype(np.uint8)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], channels, axis=2)
    return pixels


def volume_config(stretch: bool = False) -> dict:
    """Says what `volume` does, for cache keys and `predictor.json`."""
    depth = {"depth": "the lowest pixel of the volume is 0, the highest 255"} if stretch else {}
    return VOLUME_CONFIG | depth


def volume(pixels: np.ndarray, size: int, stretch: bool = False) -> np.ndarray:
    """Brings the slices of a volume to one size and to 8 bits.

    Args:
        pixels: (slices, height, width), uint8, uint16, int16 or float.
        size: height and width wanted.
        stretch: spread 8-bit volumes over 0..255 too, as all others are.

    Returns:
        uint8 (slices, size, size).

    Raises:
        decode.Unreadable: pixels that are NaN or infinite, or all equal.
    """
    low, high, _ = volumes.extent(pixels)
    result = np.empty((len(pixels), size, size), np.uint8)
    for target, one in zip(result, pixels):
        if pixels.dtype == np.uint8 and not stretch:
            target[:] = _resized(one, size, size)
            continue
        grey = (volumes.scaled(one, low, high) * 255).astype(np.float32)
        target[:] = np.rint(_resized(grey, size, size))
    return result


def _resized(pixels, height, width):
    shrinks = pixels.shape[0] > height or pixels.shape[1] > width
    if pixels.shape[:2] == (height, width):
        return pixels
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(pixels, (width, height), interpolation=how)
