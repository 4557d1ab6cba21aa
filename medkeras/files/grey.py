"""Grey values for the screen and the network: measured numbers through one window.

The same functions serve single films, volumes (one window for all slices) and prediction, so
that what a model is trained on and what it is shown cannot drift apart.
"""

import numpy as np
from pydicom import Dataset
from pydicom.pixels import apply_windowing

POLICIES = ("first", "none", "percentile")
# What lies outside is glare, metal and a few broken pixels.
PERCENTILES = (0.5, 99.5)
# A larger part of the pixels at the two ends shows a window for something else.
DESTROYED = 0.9
FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")


def between(low: float, high: float) -> tuple[str, float, float]:
    """Returns the window that maps `low` to black and `high` to white."""
    return ("LINEAR_EXACT", (low + high) / 2, max(high - low, np.finfo(np.float32).tiny))


def by_percentile(values: np.ndarray) -> tuple[str, float, float]:
    """Chooses the window from the 0.5th to the 99.5th percentile of the numbers.

    Args:
        values: numbers of any shape, NaN where a pixel shows nothing.

    Returns:
        (function, center, width) as in `rendered`; from lowest to highest where the
        percentiles coincide.
    """
    seen = values[~np.isnan(values)]
    low, high = np.percentile(seen, PERCENTILES)
    if low == high:
        low, high = seen.min(), seen.max()
    return between(float(low), float(high))


def rendered(values: np.ndarray, window, *, bits: int = 8, inverted: bool = False) -> np.ndarray:
    """Maps measured numbers to grey values (PS3.3 C.11.2.1).

    Args:
        values: numbers (..., rows, columns), NaN where a pixel shows nothing.
        window: (function, center, width), the function one of "LINEAR", "LINEAR_EXACT",
            "SIGMOID" as the standard defines them.
        bits: 8 or 16.
        inverted: low numbers become bright (MONOCHROME1).

    Returns:
        uint8 or uint16 of the shape of `values`, from 0 to the highest; 0 for NaN.
    """
    function, center, width = window
    header = Dataset()
    header.PhotometricInterpretation = "MONOCHROME2"
    header.BitsStored, header.PixelRepresentation = bits, 0
    header.VOILUTFunction = function
    # Set without a DS string, which would cut the number to 16 characters.
    header.add_new("WindowCenter", "FD", float(center))
    header.add_new("WindowWidth", "FD", float(width))
    grey = np.empty(values.shape, np.uint8 if bits == 8 else np.uint16)
    rows = values.reshape(-1, values.shape[-1])
    out = grey.reshape(-1, values.shape[-1])
    # In blocks: the window works in 64 bits, several times the size of the picture.
    for start in range(0, len(rows), 512):
        block = rows[start : start + 512]
        with np.errstate(over="ignore", invalid="ignore"):
            levels = np.rint(apply_windowing(block, header))
        if inverted:
            levels = 2**bits - 1 - levels
        out[start : start + 512] = np.where(np.isnan(block), 0, levels)
    return grey


def shows_nothing(values: np.ndarray, grey: np.ndarray) -> bool:
    """Says whether a window destroyed a picture.

    It did where different numbers became one single grey, or where over 90 % of the pixels came
    out quite black or quite white. Those at the picture's own lowest and highest number count as
    neither: a saturated border loses nothing.

    Args:
        values: numbers of any shape, NaN where a pixel shows nothing.
        grey: what `rendered` made of them.
    """
    seen = ~np.isnan(values)
    if not seen.any():
        return True
    levels, numbers = grey[seen], values[seen]
    low, high = numbers.min(), numbers.max()
    if levels.min() == levels.max():
        return bool(low != high)
    inner = levels[(numbers > low) & (numbers < high)]
    ends = (inner == 0) | (inner == np.iinfo(grey.dtype).max)
    return bool(inner.size and ends.mean() > DESTROYED)
