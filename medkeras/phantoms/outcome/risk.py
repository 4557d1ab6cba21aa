"""Risk factors of made-up patients, and the joint space that they lose later.

Risk factors are drawn independently of each other and of what the picture shows:

    Age                normal 61, 9 years, within 45 .. 79
    Sex                1 male 42 %, 2 female 58 %
    BMI                normal 28.5, 4.8 kg/m2, within 17 .. 50
    Race               0 other 2 %, 1 White 79 %, 2 Black 18 %, 3 Asian 1 %; without effect
    Knee_Injury        1 in 27 % of the knees, else 0
    Alignment_degree   normal 0, 3 degrees per knee, within -10 .. 10, positive is varus
    Alignmnet_TRIN     1 above 2 degrees, 2 below -2, else 0 (the name is published so)

Loss of medial joint space over four years, in mm:

    loss  = 0.7 + 0.3 * (logit + L)        L logistic: mean 0, scale 1
    logit = -1.15 + image + risk_effect * risk
    image = 0.85 (4.45 - medial) + 0.2 (osteophyte - 1.7) + 0.15 (true grade - 1.2)
    risk  = 0.084 (Age - 61) + 0.144 (BMI - 28.5) + 1.08 (Knee_Injury - 0.27)
            + 0.24 Alignment_degree + 0.48 (1 if female, else 0, - 0.58)

So the chance of a loss of 0.7 mm or more, the progression, is logistic(logit): it happens to
about a third of the knees. A joint loses no more than it has, and a film taken again may seem
to have gained.

The grade of the reader is a risk factor too where a study lists it with them, but only an echo
of the picture: it adds to the other risk factors and nothing to the picture.
"""

import numpy as np
import pandas as pd

PROGRESSION = 0.7
FACTORS = (
    "Age",
    "Sex",
    "BMI",
    "Race",
    "Knee_Injury",
    "Alignmnet_TRIN",
    "Alignment_degree",
)


def draw(rng, patients: int) -> pd.DataFrame:
    """Draws the risk factors of both knees of some patients.

    Args:
        rng: NumPy generator.
        patients: how many.

    Returns:
        DataFrame of two rows per patient with the columns `FACTORS`, and `luck`: the L of
        the later loss.
    """
    knees = 2 * patients
    female = rng.random(patients) < 0.58
    degree = np.clip(rng.normal(0, 3, knees), -10, 10).round(1)
    return pd.DataFrame(
        {
            "Age": np.repeat(np.clip(rng.normal(61, 9, patients).round(), 45, 79), 2).astype(int),
            "Sex": np.repeat(np.where(female, 2, 1), 2),
            "BMI": np.repeat(np.clip(rng.normal(28.5, 4.8, patients), 17, 50).round(1), 2),
            "Race": np.repeat(rng.choice(4, patients, p=[0.02, 0.79, 0.18, 0.01]), 2),
            "Knee_Injury": (rng.random(knees) < 0.27).astype(int),
            "Alignmnet_TRIN": np.select([degree > 2, degree < -2], [1, 2], 0),
            "Alignment_degree": degree,
            "luck": rng.logistic(0, 1, knees),
        }
    )


def logits(knees: pd.DataFrame, factors: pd.DataFrame, risk_effect: float) -> tuple:
    """Adds up what leads to later loss.

    Args:
        knees: rows of `knee_grade.draw`.
        factors: the same rows of `draw`.
        risk_effect: 0 (risk factors do nothing) or more.

    Returns:
        (both, image, risk): three float (knees,); `both` is the whole logit, `image` and
        `risk` its parts, the latter without `risk_effect`.
    """
    image = (
        0.85 * (4.45 - knees["medial"])
        + 0.2 * (knees["osteophyte"] - 1.7)
        + 0.15 * (knees["true_grade"] - 1.2)
    ).to_numpy()
    risk = (
        0.084 * (factors["Age"] - 61)
        + 0.144 * (factors["BMI"] - 28.5)
        + 1.08 * (factors["Knee_Injury"] - 0.27)
        + 0.24 * factors["Alignment_degree"]
        + 0.48 * ((factors["Sex"] == 2) - 0.58)
    ).to_numpy()
    return -1.15 + image + risk_effect * risk, image, risk


def loss(both, luck, medial) -> np.ndarray:
    """Returns the later loss of medial joint space in mm, float (knees,); negative is a gain."""
    return np.minimum(PROGRESSION + 0.3 * (np.asarray(both) + luck), medial)


def chance(both) -> np.ndarray:
    """Returns the chance of progression of a knee that is known wholly, float (knees,), 0..1."""
    return 1 / (1 + np.exp(-np.asarray(both)))
