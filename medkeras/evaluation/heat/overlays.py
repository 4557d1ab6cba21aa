"""Heat maps over pictures, drawn as PNG."""

import io

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from medkeras.evaluation.writing.pages import share

OVERLAY = 0.55  # opacity of the heat map where it is strongest
SHOWN = 200  # height of a panel, in pixels
OUTLINE = (86, 180, 233)
INK, SOFT, KNOWN = (28, 36, 48), (91, 100, 112), (0, 104, 158)  # words on white
GAP, MARGIN, LINE = 4, 14, 20  # pixels
NO_EVIDENCE = "no positive evidence"


def resized(coarse, shape) -> np.ndarray:
    """Enlarges a map (h, w) to a picture's (height, width), bilinear, values kept."""
    image = Image.fromarray(np.asarray(coarse, dtype=np.float32))
    return np.asarray(image.resize(shape[::-1], Image.Resampling.BILINEAR))


def panel(picture, coarse, mask=None, synthetic=False, saliency=None) -> bytes:
    """Draws picture | heat map over it | saliency | lesion outlined, as PNG.

    Args:
        picture: uint8 (height, width, 1 or 3).
        coarse: map (h, w), not negative.
        mask: bool (height, width), or None.
        synthetic: writes "synthetic data" on it.
        saliency: map (height, width), not negative, drawn alone; or None.
    """
    size = panel_size(picture.shape[:2])
    shown = [Image.fromarray(rgb(picture)).resize(size), heated(picture, coarse)]
    if saliency is not None:
        shown.append(glowing(saliency).resize(size))
    if mask is not None:
        shown.append(outlined(shown[0], mask))
    sheet = Image.new("RGB", (len(shown) * (size[0] + GAP) - GAP, SHOWN), "white")
    for n, one in enumerate(shown):
        sheet.paste(one, (n * (size[0] + GAP), 0))
    notes = [] if coarse.max() > 0 else [((size[0] + 10, 6), NO_EVIDENCE)]
    notes += [((6, SHOWN - 16), "synthetic data")] if synthetic else []
    for place, text in notes:
        written(sheet, place, text)
    return png(sheet)


def montage(volumes, maps, lesions, title, each=3, synthetic=False) -> bytes:
    """Draws the most active slices of an exam, a row a plane, each beside its heat map, as PNG.

    A slice is as active as the sum of its map. Heat is scaled by its strongest point in the whole
    exam, so slices and planes can be compared. A known lesion is outlined on the heat map.

    Args:
        volumes: {plane: uint8 (slices, height, width)}, one height and width for all.
        maps: {plane: (slices, h, w)}, not negative.
        lesions: {plane: bool (slices, height, width)} of the planes that show a known lesion.
        title: first line; names the finding, never the patient.
        each: number of slices of a plane, at most.
        synthetic: writes "synthetic data" on it.
    """
    strongest = max(float(one.max()) for one in maps.values()) or 1.0
    total = sum(float(one.sum()) for one in maps.values()) or 1.0
    shape = next(iter(volumes.values())).shape[1:]
    pair = 2 * panel_size(shape)[0] + GAP + MARGIN
    row = 2 * LINE + SHOWN + MARGIN
    sheet = Image.new("RGB", (each * pair + MARGIN, len(maps) * row + 3 * LINE + MARGIN), "white")
    line(sheet, (MARGIN, 6), title, INK, 17)
    if synthetic:
        line(sheet, (sheet.width - MARGIN, 8), "synthetic data", INK, 14, "ra")
    for place, (plane, coarse) in enumerate(maps.items()):
        top, lesion = LINE + MARGIN + place * row, lesions.get(plane)
        activity = coarse.sum(axis=(1, 2), dtype=np.float64)
        words = f"{share(activity.sum() / total)} of all heat" if activity.any() else NO_EVIDENCE
        end = line(sheet, (MARGIN, top), f"{plane}: {words}", INK, 14)
        if lesion is not None:
            numbers = np.flatnonzero(lesion.any(axis=(1, 2))) + 1
            words = f"outlined: the known lesion, slices {numbers[0]} to {numbers[-1]}"
            line(sheet, (end + MARGIN, top), words, KNOWN, 14)
        for n, number in enumerate(most_active(activity, each)):
            left = MARGIN + n * pair
            words = f"slice {number + 1} of {len(coarse)}"
            words += f", {share(activity[number] / total)}" if activity[number] else ""
            line(sheet, (left, top + LINE), words, SOFT, 13)
            strength = resized(coarse[number], shape) / strongest
            mask = None if lesion is None else lesion[number]
            for side, one in enumerate(_beside(volumes[plane][number], strength, mask)):
                sheet.paste(one, (left + side * (one.width + GAP), top + 2 * LINE))
    _scale(sheet, sheet.height - LINE - 6)
    return png(sheet)


def most_active(activity, most) -> np.ndarray:
    """Picks the most active slices, of equals those nearest to the middle, in their order."""
    from_middle = np.abs(np.arange(len(activity)) - (len(activity) - 1) / 2)
    return np.sort(np.lexsort((from_middle, -np.asarray(activity)))[:most])


def heated(picture, coarse):
    """Lays a map (h, w) over a picture (height, width, 1 or 3), as strong as its own maximum.

    Returns:
        A PIL image as large as a panel.
    """
    strength = resized(coarse, picture.shape[:2])
    strength = strength / strength.max() if strength.max() > 0 else strength
    return Image.fromarray(warmed(rgb(picture), strength)).resize(panel_size(picture.shape[:2]))


def glowing(fine):
    """Draws a map (height, width) of single pixels, its brightest hundredth alike, as PIL image."""
    from matplotlib import colormaps

    # A few pixels would leave all others dark.
    strongest = np.percentile(fine, 99) or fine.max() or 1.0
    strength = np.minimum(fine / strongest, 1)
    return Image.fromarray((colormaps["inferno"](strength)[:, :, :3] * 255).astype(np.uint8))


def rgb(picture):
    """Gives a picture (height, width, 1 or 3) three channels."""
    return np.repeat(picture, 3, axis=2) if picture.shape[2] == 1 else picture


def panel_size(shape):
    """Returns (width, height) at which a picture of (height, width) is shown."""
    return max(1, round(SHOWN * shape[1] / shape[0])), SHOWN


def _beside(pixels, strength, mask):
    """A slice, and the same under heat 0..1, with the lesion outlined where a mask is given."""
    grey = np.repeat(pixels[:, :, None], 3, axis=2)
    size = panel_size(pixels.shape)
    plain, warm = (Image.fromarray(one).resize(size) for one in (grey, warmed(grey, strength)))
    return plain, warm if mask is None else outlined(warm, mask)


def _scale(sheet, top):
    """Writes what the colours of a montage mean."""
    end = line(sheet, (MARGIN, top), "heat: none", SOFT, 13)
    ramp = np.linspace(0, 1, SHOWN // 2)[None].repeat(10, axis=0)
    dark = np.full((*ramp.shape, 3), 70, np.uint8)
    left = round(end) + 8
    sheet.paste(Image.fromarray(warmed(dark, ramp)), (left, top + 4))
    words = "strongest of this exam; a slice's % is its share of all heat. Slices count from 1."
    line(sheet, (left + ramp.shape[1] + 8, top), words, SOFT, 13)


def warmed(grey, strength):
    """Lays heat, 0..1 (height, width), over a picture (height, width, 3)."""
    from matplotlib import colormaps

    colour = colormaps["inferno"](strength)[:, :, :3] * 255
    opacity = OVERLAY * np.sqrt(strength)[:, :, None]
    return (grey * (1 - opacity) + colour * opacity).astype(np.uint8)


def outlined(image, mask):
    """Draws the edge of a mask, bool (height, width), on an image of any size."""
    large = np.asarray(Image.fromarray(mask).resize(image.size, Image.Resampling.NEAREST))
    drawn = np.asarray(image).copy()
    drawn[_outline(large)] = OUTLINE
    return Image.fromarray(drawn)


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
    image = Image.fromarray(rgb(picture))
    image = image.resize((max(1, round(height * image.width / image.height)), height))
    if synthetic:
        written(image, (6, height - 16), "synthetic data")
    return png(image)


def written(image, place, text):
    """Writes white words on a picture, readable on any grey."""
    ImageDraw.Draw(image).text(place, text, fill="white", stroke_width=2, stroke_fill="black")


def line(sheet, place, text, colour, size, anchor="la"):
    """Writes a line of text and returns where it ends, pixels from the left."""
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size)
    draw.text(place, text, fill=colour, font=font, anchor=anchor)
    return place[0] + draw.textlength(text, font=font)


def png(image) -> bytes:
    """Encodes an image."""
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()
