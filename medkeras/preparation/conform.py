"""One picture to the shape a model expects: the same code in training and serving."""

import cv2
import numpy as np

from medkeras.files import decode

# Batches are made side by side; a second thread within a picture only spins.
cv2.setNumThreads(1)

# Part of every cache key and of `predictor.json`: raise "version" when the pixels change.
CONFIG = {
    "version": 1,
    "resize": "stretched to height x width; area when shrinking, linear when enlarging",
    "grey": "luminance 0.299 R + 0.587 G + 0.114 B",
    "depth": "16 bit pictures are divided by 257",
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
    shrinks = pixels.shape[0] > height or pixels.shape[1] > width
    if pixels.shape[:2] != (height, width):
        how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        pixels = cv2.resize(pixels, (width, height), interpolation=how)
    if pixels.dtype == np.uint16:
        pixels = np.round(pixels / 257.0).astype(np.uint8)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], channels, axis=2)
    return pixels
