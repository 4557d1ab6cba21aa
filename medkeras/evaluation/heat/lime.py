"""LIME: which regions of a picture a linear model near it says the answer rests on.

The picture is cut into superpixels. Random sets of them are hidden, the model answers each time,
and a ridge regression, in which pictures that hide little count most, tells what each region adds
to the probability (Ribeiro et al. 2016, "Why Should I Trust You?"). Kernel, hiding and ridge are
those of the published `lime_image`; its quick shift is replaced by SLIC (Achanta et al. 2012),
which gives regions of one size.

The answer is as good as that linear model: `r2` says how much of the model's answers it follows.
"""

from dataclasses import dataclass

import numpy as np
from skimage.segmentation import slic
from sklearn.linear_model import Ridge

KERNEL_WIDTH = 0.25
BATCH = 50
# Small: regions follow what is seen; large: they are squares. For one channel of 0..1.
COMPACTNESS = 0.1
BLUR = 1.0  # pixels; without it a noisy picture falls into dust, and that into one region
FAIR = 0.5  # of r2: below it less than half of the answers is followed


@dataclass(frozen=True)
class Explanation:
    """What each region adds to the probability of a finding.

    Args:
        weights: float32 (height, width), the weight of the superpixel of each pixel.
        segments: int64 (height, width), its number, from 0.
        r2: share of the weighted variance of the answers that the linear model explains; NaN
            where the model always answers the same.
    """

    weights: np.ndarray
    segments: np.ndarray
    r2: float

    @property
    def fair(self) -> bool:
        """Whether the linear model follows at least half of the answers."""
        return self.r2 >= FAIR


def explain(predict, picture, finding, samples=1000, segments=50, seed=0, hide=0) -> Explanation:
    """Explains one answer of any model.

    Args:
        predict: function from uint8 (n, height, width, channels) to probabilities (n, k).
        picture: uint8 (height, width, channels).
        finding: column of the probabilities.
        samples: number of pictures that the model answers, the whole one among them.
        segments: number of superpixels wanted; SLIC comes near it.
        seed: of what is hidden.
        hide: 0..255, what a hidden region becomes; or "mean", its own mean.

    Returns:
        The explanation.
    """
    numbers = superpixels(picture, segments)
    hidden = _means(picture, numbers) if hide == "mean" else np.full_like(picture, hide)
    shown = np.random.default_rng(seed).integers(0, 2, (samples, numbers.max() + 1), dtype=np.int8)
    shown[0] = 1
    answers = []
    for start in range(0, samples, BATCH):
        visible = shown[start : start + BATCH, numbers][..., None] > 0
        answers.append(np.asarray(predict(np.where(visible, picture, hidden)))[:, finding])
    answers = np.concatenate(answers).astype(np.float64)

    # The cosine distance of zeros and ones to all ones.
    distance = 1 - np.sqrt(shown.mean(axis=1))
    closeness = np.sqrt(np.exp(-(distance**2) / KERNEL_WIDTH**2))
    line = Ridge(alpha=1.0).fit(shown, answers, sample_weight=closeness)
    r2 = float("nan")
    if np.ptp(answers) > 0:
        r2 = float(line.score(shown, answers, sample_weight=closeness))
    return Explanation(line.coef_.astype(np.float32)[numbers], numbers, r2)


def superpixels(picture, segments=50) -> np.ndarray:
    """Cuts a picture, uint8 (height, width, channels), into about so many regions.

    Returns:
        int64 (height, width), numbers from 0 without gaps.
    """
    grey = picture.mean(axis=2) / 255
    options = {"compactness": COMPACTNESS, "sigma": BLUR, "channel_axis": None}
    found = slic(grey, n_segments=segments, start_label=0, **options)
    return np.unique(found, return_inverse=True)[1].reshape(found.shape)


def _means(picture, numbers):
    counts = np.bincount(numbers.ravel())[:, None]
    channels = [np.bincount(numbers.ravel(), one.ravel()) for one in np.moveaxis(picture, -1, 0)]
    means = np.stack(channels, axis=1) / counts
    return np.rint(means).astype(np.uint8)[numbers]
