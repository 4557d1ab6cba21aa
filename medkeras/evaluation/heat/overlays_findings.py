"""One picture and what speaks for several findings, side by side, drawn as PNG."""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from medkeras.evaluation.heat import overlays
from medkeras.evaluation.heat.overlays import INK, LINE, MARGIN, SOFT

NARROWEST = 196  # pixels of a column: room for a finding's name
FOR, AGAINST = (0, 114, 178), (230, 159, 0)
TINT = 0.45  # opacity of a region's colour
STRONGEST = 10
SCALED = "Each heat map is scaled by its own maximum."
COLOURED = (
    f"LIME, its {STRONGEST} strongest regions: blue ones raise the probability when they are "
    "shown, orange ones lower it; R2 = 1: that explains the model's answers in full."
)


@dataclass(frozen=True)
class Answer:
    """What is shown of one finding.

    Args:
        name: of the finding.
        words: below it.
        heat: map (h, w), not negative.
        mask: bool (height, width), outlined on the heat; or None.
    """

    name: str
    words: str
    heat: np.ndarray
    mask: np.ndarray | None = None


def sheet(picture, answers, regions=None, notes=(), synthetic=False, outline="the known lesion"):
    """Draws picture | heat of each finding | LIME of the first one, as PNG.

    Args:
        picture: uint8 (height, width, 1 or 3).
        answers: at least one.
        regions: `lime.Explanation` of the first one, or None.
        notes: lines below; they never name the patient.
        synthetic: writes "synthetic data" on it.
        outline: what a mask is, in words.
    """
    plain = Image.fromarray(overlays.rgb(picture)).resize(overlays.panel_size(picture.shape[:2]))
    panels = [("Picture", "synthetic data" if synthetic else "", plain)]
    for one in answers:
        image = overlays.heated(picture, one.heat)
        image = image if one.mask is None else overlays.outlined(image, one.mask)
        if not one.heat.any():
            overlays.written(image, (6, 6), overlays.NO_EVIDENCE)
        panels.append((one.name, one.words, image))
    outlined = any(one.mask is not None for one in answers)
    lines = [f"{SCALED} Outlined: {outline}." if outlined else SCALED, *notes]
    if regions:
        fit = f"R2 = {regions.r2:.2f}{'' if regions.fair else ', a poor fit'}"
        image = _coloured(plain, regions.weights, regions.segments)
        panels.append((f"LIME: {answers[0].name}", fit, image))
        lines.append(COLOURED)
    return overlays.png(_assembled(panels, lines))


def _assembled(panels, lines):
    width, height = panels[0][2].size
    step, top = max(width, NARROWEST) + MARGIN, 2 * LINE + 6
    scratch = Image.new("RGB", (1, 1))
    longest = max(overlays.line(scratch, (MARGIN, 0), text, SOFT, 13) for text in lines)
    across = max(len(panels) * step, math.ceil(longest)) + MARGIN
    drawn = Image.new("RGB", (across, top + height + len(lines) * LINE + MARGIN), "white")
    for number, (name, words, image) in enumerate(panels):
        left = MARGIN + number * step
        overlays.line(drawn, (left, 6), name, INK, 14)
        overlays.line(drawn, (left, 4 + LINE), words, SOFT, 13)
        drawn.paste(image, (left, top))
    for number, text in enumerate(lines):
        overlays.line(drawn, (MARGIN, top + height + 6 + number * LINE), text, SOFT, 13)
    return drawn


def _coloured(image, weights, segments):
    """Colours the strongest superpixels of an image: for the finding, and against it."""
    numbers, first = np.unique(segments, return_index=True)
    own = weights.ravel()[first]
    weak = np.argsort(-np.abs(own), kind="stable")[STRONGEST:]
    signs = np.sign(own)
    signs[weak] = 0
    large = Image.fromarray(segments.astype(np.int32))
    large = np.asarray(large.resize(image.size, Image.Resampling.NEAREST))
    sign = signs[np.searchsorted(numbers, large)]
    drawn, edge = np.asarray(image).astype(float), _edge(large)
    for colour, where in ((FOR, sign > 0), (AGAINST, sign < 0)):
        drawn[where] = (1 - TINT) * drawn[where] + TINT * np.array(colour)
        drawn[where & edge] = colour
    return Image.fromarray(drawn.astype(np.uint8))


def _edge(segments):
    """Pixels whose right or lower neighbour lies in another region."""
    edge = np.zeros(segments.shape, bool)
    edge[:, :-1] |= segments[:, 1:] != segments[:, :-1]
    edge[:-1] |= segments[1:] != segments[:-1]
    return edge
