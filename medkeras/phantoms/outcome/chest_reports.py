"""Which findings a made-up chest has, what the reports say of them, and how well that can be told.

*Truth.* Thirteen causes are drawn in the order of `CHANCES`, a few more likely with another. A
finding brings its parent with it (`PARENTS`), and No Finding is the absence of all twelve
pathological ones; Support Devices are none.

*Reports.* A reader sees each finding of a study on its own: a present one with sensitivity a,
an absent one as absent with specificity b (`READERS`). Nothing else of the picture, patient or
other findings bears on the reader, so given the truth the labels are independent.

Training labels are one reader's report:

    uncertain   -1 with chance u = uncertain x HEDGED[finding]; for absent findings u is divided
                by `informative` (for present ones multiplied, where that is below 1)
    else        what the reader sees: a seen finding is 1, or blank with chance blank x OMITTED;
                an unseen one is blank with chance `blank`, else 0
    No Finding  1 where no pathological finding is 1 or -1, else blank

Validation labels are the majority of three such readers, who say 1 or 0 of everything:
sensitivity a^3 + 3 a^2 (1 - a), specificity likewise; No Finding is 1 where none of the twelve
is, else 0.

*Ceilings.* Share of the studies with each finding, and the best AUC that can be expected against
the labels 1 and 0 of either part, as `chest.ceiling` works it out, for the default arguments:

    finding                      prevalence   valid   train
    No Finding                       0.200     0.986       -
    Enlarged Cardiomediastinum       0.310     0.970   0.883
    Cardiomegaly                     0.250     0.980   0.895
    Lung Opacity                     0.594     0.981   0.918
    Lung Lesion                      0.080     0.970   0.801
    Edema                            0.213     0.983   0.891
    Consolidation                    0.226     0.973   0.864
    Pneumonia                        0.100     0.933   0.739
    Atelectasis                      0.238     0.968   0.855
    Pneumothorax                     0.080     0.992   0.881
    Pleural Effusion                 0.253     0.987   0.915
    Pleural Other                    0.060     0.975   0.791
    Fracture                         0.080     0.988   0.867
    Support Devices                  0.350     0.999   0.976
"""

from functools import cache

import numpy as np

FINDINGS = (
    "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion",
    "Edema", "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion",
    "Pleural Other", "Fracture", "Support Devices",
)  # fmt: skip
SHOWN = FINDINGS[1:]
# The nearest first: what it brings may bring something in its turn.
PARENTS = {
    "Pneumonia": "Consolidation",
    "Consolidation": "Lung Opacity",
    "Edema": "Lung Opacity",
    "Atelectasis": "Lung Opacity",
    "Lung Lesion": "Lung Opacity",
    "Cardiomegaly": "Enlarged Cardiomediastinum",
}
# Chance of each cause; with another cause that stands above, and where that is present.
CHANCES = {
    "Cardiomegaly": (0.25, None, 0.0),
    "Edema": (0.15, "Cardiomegaly", 0.4),
    "Pleural Effusion": (0.2, "Edema", 0.45),
    "Atelectasis": (0.2, "Pleural Effusion", 0.35),
    "Pneumonia": (0.1, None, 0.0),
    "Consolidation": (0.14, None, 0.0),
    "Lung Opacity": (0.06, None, 0.0),
    "Lung Lesion": (0.08, None, 0.0),
    "Enlarged Cardiomediastinum": (0.08, None, 0.0),
    "Pneumothorax": (0.08, None, 0.0),
    "Pleural Other": (0.06, None, 0.0),
    "Fracture": (0.08, None, 0.0),
    "Support Devices": (0.35, None, 0.0),
}
# Sensitivity and specificity of one reader.
READERS = {
    "Enlarged Cardiomediastinum": (0.85, 0.93),
    "Cardiomegaly": (0.90, 0.94),
    "Lung Opacity": (0.92, 0.92),
    "Lung Lesion": (0.85, 0.96),
    "Edema": (0.90, 0.95),
    "Consolidation": (0.85, 0.94),
    "Pneumonia": (0.80, 0.93),
    "Atelectasis": (0.85, 0.93),
    "Pneumothorax": (0.90, 0.98),
    "Pleural Effusion": (0.93, 0.95),
    "Pleural Other": (0.80, 0.97),
    "Fracture": (0.80, 0.98),
    "Support Devices": (0.98, 0.98),
}
# How readily a report hedges, against the average finding.
HEDGED = dict.fromkeys(SHOWN, 1.0) | {
    "Atelectasis": 1.5,
    "Consolidation": 1.5,
    "Pneumonia": 1.5,
    "Cardiomegaly": 0.6,
    "Pleural Effusion": 0.6,
    "Support Devices": 0.1,
}
# A finding that is there goes unsaid this much less often than one that is not.
OMITTED = 0.1
PARTS = ("train", "valid")


def implied(causes) -> np.ndarray:
    """Adds what each cause brings with it.

    Args:
        causes: bool (n, 13), in the order of `SHOWN`.

    Returns:
        The truth, bool (n, 14), in the order of `FINDINGS`.
    """
    truth = np.c_[np.zeros(len(causes), bool), causes]
    for name, parent in PARENTS.items():
        truth[:, FINDINGS.index(parent)] |= truth[:, FINDINGS.index(name)]
    truth[:, 0] = ~truth[:, 1:-1].any(axis=1)
    return truth


def causes(rng) -> np.ndarray:
    """Draws the causes of one study: bool (13,), in the order of `SHOWN`."""
    drawn = {}
    for name, (chance, other, together) in CHANCES.items():
        drawn[name] = rng.random() < (together if other and drawn[other] else chance)
    return np.array([drawn[name] for name in SHOWN])


@cache
def states():
    """Lists all that a study can show: truth, bool (8192, 14), and the chance of each."""
    count = len(SHOWN)
    every = (np.arange(2**count)[:, None] >> np.arange(count)) & 1 == 1
    chances = np.ones(2**count)
    for name, (chance, other, together) in CHANCES.items():
        given = np.full(2**count, chance)
        if other:
            given[every[:, SHOWN.index(other)]] = together
        chances *= np.where(every[:, SHOWN.index(name)], given, 1 - given)
    return implied(every), chances


def prevalence() -> dict[str, float]:
    """Returns the share of the studies with each finding, exactly."""
    truth, chances = states()
    return dict(zip(FINDINGS, (chances @ truth).tolist(), strict=True))


def rates(part: str, *, uncertain=0.2, blank=0.6, informative=3.0) -> np.ndarray:
    """Returns how a report words what is there.

    Args:
        part: "train" or "valid"; the other arguments bear on "train" alone.
        uncertain: chance of -1 for a present finding of average `HEDGED`, 0..0.5.
        blank: chance that an unseen finding is not mentioned, 0..1.
        informative: how many times as often -1 is said of a present finding as of an absent one;
            1 = -1 says nothing about the truth.

    Returns:
        (13, 2, 4): the chance of the labels 1, 0, -1 and blank for each finding in the order of
        `SHOWN`, absent and present.
    """
    found = np.zeros((len(SHOWN), 2, 4))
    for row, name in enumerate(SHOWN):
        sensitivity, specificity = READERS[name]
        for present, sees in enumerate((1 - specificity, sensitivity)):
            if part == "valid":
                sees = sees**3 + 3 * sees**2 * (1 - sees)
                found[row, present, :2] = sees, 1 - sees
                continue
            hedged = uncertain * HEDGED[name]
            hedged *= min(1.0, informative) if present else min(1.0, 1 / informative)
            seen, unseen = (1 - hedged) * sees, (1 - hedged) * (1 - sees)
            said, silent = seen * (1 - OMITTED * blank), seen * OMITTED * blank
            found[row, present] = said, unseen * (1 - blank), hedged, silent + unseen * blank
    return found


def labels(rng, truth, rates, part: str) -> np.ndarray:
    """Draws what the reports say.

    Args:
        rng: NumPy generator.
        truth: bool (n, 14), in the order of `FINDINGS`.
        rates: see `rates`.
        part: "train" or "valid".

    Returns:
        (n, 14) of 1, 0, -1 and NaN (blank).
    """
    chances = np.cumsum(rates[np.arange(len(SHOWN)), truth[:, 1:].astype(int)], axis=2)
    word = (rng.random(chances.shape[:2])[:, :, None] >= chances[:, :, :3]).sum(axis=2)
    said = np.array([1.0, 0.0, -1.0, np.nan])[word]
    healthy = ~np.isin(said[:, :-1], [1, -1]).any(axis=1)
    return np.c_[np.where(healthy, 1.0, 0.0 if part == "valid" else np.nan), said]


def scores(truth, rates, part: str):
    """Returns the ideal observer's view of each study.

    Args:
        truth: bool (n, 14); rates: see `rates`; part: "train" or "valid".

    Returns:
        Chance of the label 1 and of the label 0, each (n, 14). Their ratio is the best score.
    """
    told = rates[np.arange(len(SHOWN)), truth[:, 1:].astype(int)]
    ones, zeros = told[:, :, 0], told[:, :, 1]
    quiet = np.prod(1 - told[:, :-1, 0] - told[:, :-1, 2], axis=1)
    loud = 1 - quiet if part == "valid" else np.zeros(len(truth))
    return np.c_[quiet, ones], np.c_[loud, zeros]


def auc(ones, zeros) -> float:
    """Returns the AUC of the best score, exactly.

    Args:
        ones: (n,) weight of the label 1 in each state; zeros: (n,) of the label 0.

    Returns:
        The chance that a 1 scores above a 0, ties counted half; NaN where a label never occurs.
    """
    known = ones + zeros > 0
    ones, zeros = ones[known], zeros[known]
    if not (ones.sum() and zeros.sum()):
        return float("nan")
    # Rounded: states that mean the same differ in the last digits.
    _, place = np.unique(np.round(ones / (ones + zeros), 12), return_inverse=True)
    ones, zeros = np.bincount(place, ones), np.bincount(place, zeros)
    below = np.cumsum(zeros) - zeros
    return float(ones @ (below + zeros / 2) / (ones.sum() * zeros.sum()))
