"""How a made-up knee comes by its joint space, its bone spurs and its grade.

Every knee has a severity s, normal with mean 0 and spread 1, correlated by 0.6 between the two
knees of a patient. Nobody sees s; the picture shows three quantities, in millimetres of a knee
of standard size (`Z` is normal noise of spread 1, another one each time):

    medial joint space    4.6 - s - 0.15 s^2 + 0.3 Z         within 0.8 .. 7
    lateral joint space   5.6 - 0.3 s + 0.5 Z                within 1 .. 8
    osteophytes           1.5 log(1 + exp(1.2 s + 0.5)) + 0.4 Z    within 0 .. 8

The grade follows from what is drawn, not from s:

    index = 4.6 - min(medial, lateral - 0.8) + 0.6 * osteophytes

The true grade counts how many of four cuts the index exceeds; the grade of the reader, which
is the label, counts how many `index + 0.35 Z` exceeds. About 40, 18, 26, 13 and 3 % of the
knees have grades 0 to 4. So an ideal observer of the pictures knows the index, and no model
can be right more often than the noise of the reader allows.

A joint is never quite closed, not even with grade 4: it can still lose the 0.7 mm that count
as progression.
"""

from statistics import NormalDist

import numpy as np
import pandas as pd

BOTH_KNEES = 0.6
READER = 0.35
CUTS = (0.74, 1.40, 2.90, 5.05)
RIGHT, LEFT = 1, 2


def draw(rng, patients: int) -> pd.DataFrame:
    """Draws both knees of some patients.

    Args:
        rng: NumPy generator.
        patients: how many.

    Returns:
        DataFrame of two rows per patient, right knee first: `number` (of the patient, from 0),
        `side` (1 right, 2 left), `medial`, `lateral`, `osteophyte` (mm), `index`, `grade` (the
        reader's, 0..4), `true_grade` (0..4).
    """
    knees = 2 * patients
    shared = np.repeat(rng.standard_normal(patients), 2)
    own = rng.standard_normal(knees)
    s = np.sqrt(BOTH_KNEES) * shared + np.sqrt(1 - BOTH_KNEES) * own
    noise = rng.standard_normal((4, knees))
    medial = np.clip(4.6 - s - 0.15 * s**2 + 0.3 * noise[0], 0.8, 7)
    lateral = np.clip(5.6 - 0.3 * s + 0.5 * noise[1], 1, 8)
    osteophyte = np.clip(1.5 * np.log1p(np.exp(1.2 * s + 0.5)) + 0.4 * noise[2], 0, 8)
    index = 4.6 - np.minimum(medial, lateral - 0.8) + 0.6 * osteophyte
    return pd.DataFrame(
        {
            "number": np.repeat(np.arange(patients), 2),
            "side": np.tile([RIGHT, LEFT], patients),
            "medial": medial,
            "lateral": lateral,
            "osteophyte": osteophyte,
            "index": index,
            "grade": np.searchsorted(CUTS, index + READER * noise[3]),
            "true_grade": np.searchsorted(CUTS, index),
        }
    )


def chances(index) -> np.ndarray:
    """Returns the chance of each grade of the reader, given the picture.

    Args:
        index: float (knees,), as `draw` gives it.

    Returns:
        float (knees, 5), rows sum to 1: what an ideal observer would answer.
    """
    # The integral of the bell curve, read off a table: right to six digits, and fast.
    steps = np.linspace(-8, 8, 4001)
    table = [NormalDist().cdf(step) for step in steps]
    below = np.interp((np.asarray(CUTS) - np.asarray(index)[:, None]) / READER, steps, table)
    return np.diff(below, axis=1, prepend=0.0, append=1.0)
