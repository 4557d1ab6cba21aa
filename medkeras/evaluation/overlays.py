"""Heat maps over pictures, drawn as PNG."""

import io

import numpy as np
from PIL import Image, ImageDraw

OVERLAY = 0.55  # opacity of the heat map where it is strongest
SHOWN = 200  # height of a panel, in pixels


def resized(coarse, shape) -> np.ndarray:
    """Enlarges a map (h, w) to a picture's (height, width), bilinear, values kept."""
    image = Image.fromarray(np.asarray(coarse, dtype=np.float32))
    return np.asarray(image.resize(shape[::-1], Image.Resampling.BILINEAR))


def panel(picture, coarse, mask=None, synthetic=False) -> bytes:
    """Draws picture | heat map over it | lesion outlined, as PNG.

    Args:
        picture: uint8 (height, width, 1 or 3).
        coarse: map (h, w), not negative.
        mask: bool (height, width), or None.
        synthetic: writes "synthetic data" on it.
    """
    from matplotlib import colormaps

    shape = picture.shape[:2]
    grey = np.repeat(picture, 3, axis=2) if picture.shape[2] == 1 else picture
    strength = resized(coarse, shape)
    strength = strength / strength.max() if strength.max() > 0 else strength
    colour = colormaps["inferno"](strength)[:, :, :3] * 255
    opacity = OVERLAY * np.sqrt(strength)[:, :, None]
    over = (grey * (1 - opacity) + colour * opacity).astype(np.uint8)
    size = (max(1, round(SHOWN * shape[1] / shape[0])), SHOWN)
    shown = [Image.fromarray(one).resize(size) for one in (grey, over)]
    if mask is not None:
        large = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
        outlined = np.asarray(shown[0]).copy()
        outlined[_outline(large)] = (86, 180, 233)
        shown.append(Image.fromarray(outlined))
    sheet = Image.new("RGB", (len(shown) * (size[0] + 4) - 4, SHOWN), "white")
    for n, one in enumerate(shown):
        sheet.paste(one, (n * (size[0] + 4), 0))
    notes = [] if coarse.max() > 0 else [((size[0] + 10, 6), "no positive evidence")]
    notes += [((6, SHOWN - 16), "synthetic data")] if synthetic else []
    for place, text in notes:
        _written(sheet, place, text)
    return _png(sheet)


def _outline(mask):
    """Pixels of a mask that touch its outside, two pixels wide."""
    padded = np.pad(mask, 2)
    inner = mask.copy()
    for down in range(5):
        for right in range(5):
            inner &= padded[down : down + mask.shape[0], right : right + mask.shape[1]]
    return mask & ~inner


def thumbnail(picture, synthetic=False, height=150) -> bytes:
    """Draws a picture (height, width, 1 or 3), uint8, at a small height, as PNG."""
    image = Image.fromarray(np.repeat(picture, 3, axis=2) if picture.shape[2] == 1 else picture)
    image = image.resize((max(1, round(height * image.width / image.height)), height))
    if synthetic:
        _written(image, (6, height - 16), "synthetic data")
    return _png(image)


def _written(image, place, text):
    ImageDraw.Draw(image).text(place, text, fill="white", stroke_width=2, stroke_fill="black")


def _png(image):
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return out.getvalue()
