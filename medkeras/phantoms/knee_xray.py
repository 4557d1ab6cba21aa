"""Writes made-up knee X-rays with known joint space, grade, risk factors and later loss.

Single knees and a table, as studies of the Osteoarthritis Initiative keep them (`write`):

    JSL.csv                       ID, Age, Sex, BMI, Race, BL_KL_grade, Knee_Injury,
                                  Alignmnet_TRIN (so spelt), Alignment_degree, JSL_Prog
    complete_images/1234567_1.png one knee, grey, 8 bit; ID = <subject>_<1 right, 2 left>
    films/1234567.png             both knees, the right one at the left; or films/1234567.dcm
    joints.csv                    film, side, x, y, width, height: left upper corner and size
                                  of each joint's box in pixels of the film
    truth.csv                     ID, jsw_medial_mm, jsw_lateral_mm, osteophyte_mm, true_grade,
                                  loss_mm, and the ideal observers' scores: oa, jsl_image,
                                  jsl_risk, jsl_risk_grade, jsl_both
    phantom.json                  the arguments

As class folders of grades (`write_grades`), of the same patients and pictures:

    train/2/1234567R.png          one knee
    labels.csv                    path, patient_id, side (left, right), kl
    truth.csv                     as above, without what comes later

How a case comes about. Severity, hidden and alike in both knees of a patient, decides the width
of the joint space and the size of the bone spurs, which are drawn; grade and later loss follow
from what is drawn, and the loss from risk factors that no picture shows as well: `knee_grade`
and `risk` give all formulas. A knee is drawn as the shadow of femur, tibia, fibula, knee cap and
soft tissue, each a shell of dense bone around a spongy filling; a narrow medial joint has a
dense plateau under it. Both knees of a patient have the same build, and left ones are mirrored.
Position, turn, magnification, exposure, gamma, gradient and noise are drawn independently of
grade, loss and risk factors; so are the numbers of the patients.

Millimetres are those of a knee of standard size, 80 mm wide. A single picture shows 92 of them,
within 2 %; a film magnifies each knee by another factor, which its box follows.

What any model can reach at best: `ceiling`. With `risk_effect=1` the picture predicts later loss
with an AUC of 0.745, the risk factors with 0.745 (0.843 beside the grade), both with 0.856; with
`risk_effect=0` the picture with 0.799, the risk factors not at all. Grade 2 or more: AUC 0.985;
all five grades: 81 % right. `difficulty` (0 easy .. 1 hopeless) turns, blurs and adds
noise, and leaves truth and labels as they are.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from medkeras.files import atomic
from medkeras.phantoms import folder, knee_dicom
from medkeras.phantoms.drawing import knee_bones, knee_film
from medkeras.phantoms.outcome import knee_grade, knee_ideal, risk

# Raised when the same arguments give other pictures, so that old folders are not reused.
GENERATOR = 1
COLUMNS = (
    "ID",
    "Age",
    "Sex",
    "BMI",
    "Race",
    "BL_KL_grade",
    "Knee_Injury",
    "Alignmnet_TRIN",
    "Alignment_degree",
    "JSL_Prog",
)
SCORES = ("oa", "jsl_image", "jsl_risk", "jsl_risk_grade", "jsl_both")
FILMS = {"png": ".png", "dicom": ".dcm"}

# Where a reader of this page looks for it.
ceiling = knee_ideal.ceiling


def write(
    root,
    *,
    patients: int = 240,
    size: int = 96,
    film=(256, 352),
    films="png",
    difficulty: float = 0.3,
    risk_effect: float = 1.0,
    missing: float = 0.05,
    unfollowed: float = 0.0,
    seed: int = 0,
) -> Path:
    """Writes both knees of each patient with risk factors and outcome, or finds them written.

    Args:
        root: folder to write; an existing one is replaced only if it holds phantoms.
        patients: how many, two knees each.
        size: height and width of the single knees in pixels, 32 or more.
        film: height and width of the films in pixels, 96 x 128 or more.
        films: "png", "dicom", or None for no films.
        difficulty: 0 (easy) .. 1 (hopeless).
        risk_effect: 0 (the risk factors do nothing) .. 3; 1 is as documented above.
        missing: chance that BMI, injury or alignment is left blank, each by itself, 0..1.
        unfollowed: chance that a patient has no later film, so that JSL_Prog is blank, 0..1.
        seed: 0 or more; the same arguments give the same bytes.

    Returns:
        The folder, complete.

    Raises:
        UsageError: an argument out of range, or `root` holds something else.
    """
    film = tuple(film)
    _refuse(patients, size, difficulty, seed)
    _refuse_more(film, films, risk_effect, missing, unfollowed)
    stamp = {
        "phantom": "knee_xray",
        "generator": GENERATOR,
        "patients": patients,
        "size": size,
        "film": film if films else None,
        "films": films,
        "difficulty": difficulty,
        "risk_effect": risk_effect,
        "missing": missing,
        "unfollowed": unfollowed,
        "seed": seed,
    }

    def fill(base):
        table, truth = _cases(patients, seed, risk_effect)
        (base / "complete_images").mkdir(parents=True)
        if films:
            (base / "films").mkdir()
        boxes = []
        for case, knees, views in _patients(table, seed, difficulty):
            for row, picture in _joints(case, knees, views, size, difficulty, seed):
                folder.save(base / "complete_images" / f"{row.ID}.png", picture)
            if films:
                boxes += _film(base, case, knees, views, film, films, difficulty, seed)
        if films:
            columns = ["film", "side", "x", "y", "width", "height"]
            listed = pd.DataFrame(boxes, columns=columns).sort_values(["film", "side"])
            atomic.write_csv(base / "joints.csv", listed)
        listed = _blanked(table, missing, unfollowed, seed)[list(COLUMNS)]
        atomic.write_csv(base / "JSL.csv", listed.sort_values("ID"))
        atomic.write_csv(base / "truth.csv", truth.sort_values("ID"))

    return folder.written(root, stamp, fill)


def write_grades(
    root, *, patients: int = 600, size: int = 96, difficulty: float = 0.3, seed: int = 0
) -> Path:
    """Writes the knees of `write` in class folders by grade, with the same arguments.

    Grade 4 is rare: fewer than about 120 patients may leave too few of it to be divided.
    """
    _refuse(patients, size, difficulty, seed)
    stamp = {
        "phantom": "knee_xray grades",
        "generator": GENERATOR,
        "patients": patients,
        "size": size,
        "difficulty": difficulty,
        "seed": seed,
    }

    def fill(base):
        table, truth = _cases(patients, seed, 0.0)
        labels = []
        for case, knees, views in _patients(table, seed, difficulty):
            for row, picture in _joints(case, knees, views, size, difficulty, seed):
                side = "right" if row.side == knee_grade.RIGHT else "left"
                path = f"train/{row.grade}/{row.subject}{side[0].upper()}.png"
                (base / path).parent.mkdir(parents=True, exist_ok=True)
                folder.save(base / path, picture)
                labels.append((path, row.subject, side, row.grade))
        listed = pd.DataFrame(labels, columns=["path", "patient_id", "side", "kl"])
        atomic.write_csv(base / "labels.csv", listed.sort_values("path"))
        later = [column for column in truth if column.startswith(("loss", "jsl"))]
        atomic.write_csv(base / "truth.csv", truth.drop(columns=later).sort_values("ID"))

    return folder.written(root, stamp, fill)


def _cases(patients, seed, risk_effect):
    """Draws everything but the pictures: (one row per knee, truth with the same rows)."""
    numbers = np.random.default_rng([seed, 0]).choice(8 * 10**6, patients, replace=False)
    knees = knee_grade.draw(np.random.default_rng([seed, 1]), patients)
    factors = risk.draw(np.random.default_rng([seed, 2]), patients)
    both, _, _ = risk.logits(knees, factors, risk_effect)
    loss = risk.loss(both, factors["luck"], knees["medial"])
    table = pd.concat([knees, factors], axis=1)
    # Seven digits, as published, but no published number: those begin with 9.
    table["subject"] = (10**6 + numbers[knees["number"]]).astype(str)
    table["ID"] = table["subject"] + "_" + table["side"].astype(str)
    table["BL_KL_grade"] = table["grade"]
    table["JSL_Prog"] = (loss >= risk.PROGRESSION).astype(int)
    truth = pd.DataFrame(
        {
            "ID": table["ID"],
            "jsw_medial_mm": knees["medial"],
            "jsw_lateral_mm": knees["lateral"],
            "osteophyte_mm": knees["osteophyte"],
            "true_grade": knees["true_grade"],
            "loss_mm": loss,
        }
    )
    scores = knee_ideal.scores(knees, factors, risk_effect)
    return table, pd.concat([truth, scores[list(SCORES)]], axis=1).round(6)


def _patients(table, seed, difficulty):
    """Yields (rows, knees, views) of each patient, right knee first."""
    for number, case in table.groupby("number"):
        rng = np.random.default_rng([seed, 3, number])
        shared = knee_bones.shape(rng)
        knees = [knee_bones.knee(rng, shared, row) for row in case.itertuples()]
        yield case, knees, knee_film.views(rng, difficulty)


def _joints(case, knees, views, size, difficulty, seed):
    """Yields (row, picture uint8) of each knee."""
    rng = np.random.default_rng([seed, 4, int(case["subject"].iloc[0])])
    for row, knee, seen in zip(case.itertuples(), knees, views, strict=True):
        picture = knee_film.joint(rng, knee, seen, size, difficulty)
        yield row, np.round(picture * 255).astype(np.uint8)


def _film(base, case, knees, views, shape, films, difficulty, seed):
    """Writes the film of a patient; returns the rows of joints.csv."""
    subject = case["subject"].iloc[0]
    rng = np.random.default_rng([seed, 5, int(subject)])
    picture = knee_film.film(rng, knees, views, shape, difficulty)
    name = f"films/{subject}{FILMS[films]}"
    if films == "dicom":
        knee_dicom.save(base / name, rng, picture, subject, knee_film.WIDTH / shape[1])
    else:
        folder.save(base / name, np.round(picture * 255).astype(np.uint8))
    boxes = [np.round(knee_film.box(seen, shape), 2) for seen in views]
    return [(name, side, *place) for side, place in zip(case["side"], boxes, strict=True)]


def _blanked(table, missing, unfollowed, seed):
    """Returns the table with blanks: BMI and follow-up by patient, the others by knee."""
    rng = np.random.default_rng([seed, 6])
    gone = rng.random((3, len(table))) < missing
    lost = rng.random(len(table)) < unfollowed
    right = np.repeat(np.arange(0, len(table), 2), 2)
    blanks = {
        "BMI": gone[0][right],
        "Knee_Injury": gone[1],
        "Alignment_degree": gone[2],
        "Alignmnet_TRIN": gone[2],
        "JSL_Prog": lost[right],
    }
    result = table.copy()
    for column, blank in blanks.items():
        # Whole numbers stay whole beside blanks.
        kind = "Float64" if column in ("BMI", "Alignment_degree") else "Int64"
        result[column] = result[column].astype(kind).mask(blank)
    return result


def _refuse(patients, size, difficulty, seed):
    folder.refuse(
        {
            f"patients={patients}: expected 1 or more": patients < 1,
            f"size={size}: expected 32 or more": size < 32,
            f"difficulty={difficulty}: expected 0..1": not 0 <= difficulty <= 1,
            f"seed={seed}: expected 0 or more": seed < 0,
        }
    )


def _refuse_more(film, films, risk_effect, missing, unfollowed):
    folder.refuse(
        {
            f"film={film}: expected a height of 96 and a width of 128 or more": len(film) != 2
            or film[0] < 96
            or film[1] < 128,
            f"films={films!r}: expected one of {(*FILMS, None)}": films not in (*FILMS, None),
            f"risk_effect={risk_effect}: expected 0..3": not 0 <= risk_effect <= 3,
            f"missing={missing}: expected 0..1": not 0 <= missing <= 1,
            f"unfollowed={unfollowed}: expected 0..1": not 0 <= unfollowed <= 1,
        }
    )
