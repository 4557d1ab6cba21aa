"""Writes made-up chest X-rays in the layout of CheXpert, with findings that are known.

    train.csv, valid.csv      Path, Sex, Age, Frontal/Lateral, AP/PA, 14 labels: 1, 0, -1, blank
    train/patient00001/study1/view1_frontal.jpg     grey, 8 bit
    train/patient00001/study1/view2_lateral.jpg     of some studies
    valid/patient00301/study1/view1_frontal.jpg
    masks/Pleural_Effusion/train/patient00001/study1/view1_frontal.png
                              white where a frontal picture shows that finding; no file without
    truth.csv                 path, patient, part, tag; per finding the truth (1 or 0), `... side`
                              and `... score`, the ideal observer's
    phantom.json              the arguments

`Path` starts with `CheXpert-v1.0-small/`, as published, which stands for the folder itself.

How a picture comes about. A patient has one chest, one sex and age, and one place, side and
plainness for every finding; which of them a study shows is drawn as `chest_reports` says, and
stays from one study to the next with chance one half. Attenuations of body, lungs, bones,
vessels and heart are added up (`thorax`), then those of the findings (`thorax_findings`):
Cardiomegaly widens the heart, Edema fills both lungs around the hila, Consolidation a lobe up to
its fissure, Atelectasis lays plates and raises the diaphragm, Pleural Effusion fills the angle.
Lung Opacity and Enlarged Cardiomediastinum are also true, with the union of the masks, where a
finding below them is; each has a sign of its own too. The patient's left is on the right.
Position, exposure, gamma, noise, AP or PA (AP magnifies the heart by 5 %), sex and age are drawn
independently of the findings, and the viewer's window fits the healthy chest: without its
findings, the same picture differs only where they lie (`thorax_views`). At 0.3, mean brightness
alone tells no scored finding with an AUC above 0.6; mean, median, spread, maximum and file size
together an effusion, which is white, with 0.72 and the others with 0.65 at most. A lateral
picture shows less than a frontal one; its labels, as in CheXpert, are those of the study.

Labels come from the truth by a process that `chest_reports` states: reports with uncertain and
blank cells in train, a consensus of three readers without in valid. `ceiling` gives the best
AUC that any model can reach against them.

The shortcut: a tag PORTABLE in the upper left corner. Training pictures have it with chance
(1 + shortcut) / 2 where `shortcut_finding` is present and (1 - shortcut) / 2 where not: at 0 it
says nothing, at 1 everything. In valid the two are exchanged, or it is absent.

`difficulty` (0 easy .. 1 hopeless) fades the findings to 5 % and raises the noise. At 0.3 and 64
pixels a network of four convolutions, trained on the truth of 1,425 pictures, tells the five
scored findings with AUCs of 0.93-1.00; nodules (0.67) and fractures (0.5) need more. Drawn at
twice the size, then averaged.
"""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from medkeras.errors import UsageError
from medkeras.files import atomic
from medkeras.phantoms import folder
from medkeras.phantoms.drawing import thorax, thorax_views
from medkeras.phantoms.outcome import chest_reports
from medkeras.phantoms.outcome.chest_reports import FINDINGS, PARENTS, PARTS, SHOWN

# Raised when the same arguments give other pictures, so that old folders are not reused.
GENERATOR = 1
PREFIX = "CheXpert-v1.0-small/"
JPEG = (cv2.IMWRITE_JPEG_QUALITY, 92)
# Chance that a finding lies on both sides; the others lie on one, or in the middle.
BOTH = {"Edema": 1.0, "Pleural Effusion": 0.3}
MIDDLE = ("Enlarged Cardiomediastinum", "Cardiomegaly", "Support Devices")
SHORTCUT_VALID = ("reversed", "absent")


def write(
    root,
    *,
    patients: int = 300,
    valid_patients: int = 100,
    size: int = 96,
    difficulty: float = 0.3,
    uncertain: float = 0.2,
    informative: float = 3.0,
    blank: float = 0.6,
    shortcut: float = 0.0,
    shortcut_finding: str = "Pleural Effusion",
    shortcut_valid: str = "reversed",
    lateral: float = 0.1,
    seed: int = 0,
) -> Path:
    """Writes a phantom data set, or finds it already written with the same arguments.

    Args:
        root: folder to write; an existing one is replaced only if this function wrote it.
        patients: patients of the training part, with one to three studies each.
        valid_patients: patients of the validation part, with one study each; none of `patients`.
        size: height and width in pixels, 32 or more.
        difficulty: 0 (easy) .. 1 (hopeless).
        uncertain: chance that a report leaves a present finding uncertain, 0..0.5, for the
            average finding; see `chest_reports` for this and the next two.
        informative: how many times as often a present finding is uncertain as an absent one,
            0.1..10; 1 = uncertain at random.
        blank: chance that an unseen finding is not mentioned, 0..1.
        shortcut: strength of the tag, 0 (at random) .. 1 (tells all).
        shortcut_finding: name out of `FINDINGS` that the tag goes with.
        shortcut_valid: "reversed" or "absent", the tag in valid.
        lateral: chance that a study has a lateral picture too, 0..1.
        seed: 0 or more; the same arguments give the same bytes.

    Returns:
        The folder, complete.

    Raises:
        UsageError: an argument out of range, or `root` holds something else.
    """
    arguments = {
        "patients": patients,
        "valid_patients": valid_patients,
        "size": size,
        "difficulty": difficulty,
        "uncertain": uncertain,
        "informative": informative,
        "blank": blank,
        "shortcut": shortcut,
        "shortcut_finding": shortcut_finding,
        "shortcut_valid": shortcut_valid,
        "lateral": lateral,
        "seed": seed,
    }
    _refuse(**arguments)
    stamp = {"generator": GENERATOR, **arguments}
    return folder.written(root, stamp, lambda base: _write_all(base, arguments))


def ceiling(part: str = "valid", *, uncertain=0.2, informative=3.0, blank=0.6) -> dict[str, float]:
    """Returns the best expected AUC of any model against the labels, per finding, exactly.

    The ideal observer knows the truth T, which a perfect picture shows; a label Y depends on
    nothing else, so P(Y = 1 | T) is the best score. With prevalence p, and s and q the chances
    that a known label is 1 for present and 0 for absent findings, T takes two values and

        AUC = (P(T = 1 | Y = 1) + P(T = 0 | Y = 0)) / 2
            = (p s / (p s + (1 - p) (1 - q)) + (1 - p) q / ((1 - p) q + p (1 - s))) / 2

    the mean of sensitivity and specificity of the truth, judged by the label. In train, P(known
    | T) weighs p and 1 - p first: -1 and blank cells do not count. No Finding depends on twelve
    findings; its AUC is the same sum over all 8192 states of the truth.

    Args:
        part: "valid" or "train".
        uncertain: as given to `write`, for "train".
        informative: as given to `write`, for "train".
        blank: as given to `write`, for "train".

    Returns:
        Finding -> AUC of a large sample of studies; NaN where the known labels are all alike, as
        No Finding in train.
    """
    rates = _rates(part, uncertain, informative, blank)
    truth, chances = chest_reports.states()
    ones, zeros = chest_reports.scores(truth, rates, part)
    return {
        name: chest_reports.auc(chances * ones[:, column], chances * zeros[:, column])
        for column, name in enumerate(FINDINGS)
    }


def _rates(part, uncertain, informative, blank):
    return chest_reports.rates(part, uncertain=uncertain, informative=informative, blank=blank)


def _write_all(base, arguments):
    size, seed = arguments["size"], arguments["seed"]
    words = [arguments[name] for name in ("uncertain", "informative", "blank")]
    lines, numbers = [], {"train": arguments["patients"], "valid": arguments["valid_patients"]}
    for part in PARTS:
        rates, rows = _rates(part, *words), []
        for number in range(numbers[part]):
            rng = np.random.default_rng([seed, PARTS.index(part), number])
            name = f"patient{number + 1 + (part == 'valid') * numbers['train']:05d}"
            sex, age = str(rng.choice(["Male", "Female"])), int(rng.integers(18, 91))
            anatomy = thorax.draw(rng.spawn(1)[0], size, sex == "Female", age)
            for study in _studies(rng, part, rates, arguments):
                views = _pictures(anatomy, study, arguments)
                for view, (pixels, masks) in views.items():
                    path = f"{part}/{name}/study{study['number']}/{view}"
                    folder.save(base / f"{path}.jpg", pixels, JPEG)
                    for finding, mask in masks.items():
                        folder.save(base / f"masks/{finding.replace(' ', '_')}/{path}.png", mask)
                    front = view == "view1_frontal"
                    seen = ("Frontal", "AP" if study["ap"] else "PA") if front else ("Lateral", "")
                    rows.append((f"{PREFIX}{path}.jpg", sex, age, *seen, *study["labels"]))
                    lines.append(
                        (f"{path}.jpg", name, part, int(study["tag"]), *study["truth"],
                         *study["sides"], *study["scores"])
                    )  # fmt: skip
        columns = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *FINDINGS]
        atomic.write_csv(base / f"{part}.csv", pd.DataFrame(rows, columns=columns))
    columns = ["path", "patient", "part", "tag", *FINDINGS]
    columns += [f"{name} {what}" for what in ("side", "score") for name in FINDINGS]
    atomic.write_csv(base / "truth.csv", pd.DataFrame(lines, columns=columns))


def _studies(rng, part, rates, arguments):
    """Draws what each study of a patient shows, and what is said of it."""
    sides = {name: _side(rng, name) for name in SHOWN}
    strengths = (1 - 0.95 * arguments["difficulty"]) * rng.uniform(0.85, 1.15, len(SHOWN))
    # Where a finding lies must not depend on which others there are.
    places = rng.integers(2**32, size=len(SHOWN))
    shortcut, target = arguments["shortcut"], FINDINGS.index(arguments["shortcut_finding"])
    causes = None
    for number in range(1, 1 + (rng.integers(1, 4) if part == "train" else 1)):
        if causes is None or rng.random() < 0.5:
            causes = chest_reports.causes(rng)
        truth = chest_reports.implied(causes[None])
        ones, zeros = chest_reports.scores(truth, rates, part)
        goes_with = truth[0, target] == (part == "train")
        tag = rng.random() < (1 + shortcut if goes_with else 1 - shortcut) / 2
        present = [name for name, there in zip(SHOWN, causes, strict=True) if there]
        yield {
            "number": number,
            "findings": {
                name: (int(places[SHOWN.index(name)]), sides[name], strengths[SHOWN.index(name)])
                for name in present
            },
            "truth": truth[0].astype(int),
            "sides": _sides(present, sides),
            "scores": (ones / (ones + zeros))[0],
            "labels": chest_reports.labels(rng, truth, rates, part)[0],
            "tag": tag and not (part == "valid" and arguments["shortcut_valid"] == "absent"),
            "ap": rng.random() < 0.6,
            "lateral": rng.random() < arguments["lateral"],
            "view": int(rng.integers(2**32)),
        }


def _side(rng, name):
    side, both = str(rng.choice(["left", "right"])), rng.random() < BOTH.get(name, 0.0)
    return "middle" if name in MIDDLE else "both" if both else side


def _sides(present, sides):
    """Says where each finding lies, those that others bring with them included."""
    found = {name: {sides[name]} for name in present}
    for name, parent in PARENTS.items():
        found[parent] = found.get(parent, set()) | found.get(name, set())
    places = {name: where for name, where in found.items() if where}
    return [
        "" if name not in places else "both" if len(places[name]) > 1 else min(places[name])
        for name in FINDINGS
    ]


def _pictures(anatomy, study, arguments):
    """Draws the pictures of a study: view -> (pixels, masks by finding)."""
    size, difficulty = arguments["size"], arguments["difficulty"]
    views = {}
    for view in ["view1_frontal", "view2_lateral"][: 1 + study["lateral"]]:
        rng = np.random.default_rng([study["view"], len(views)])
        findings = {
            name: (np.random.default_rng(place), side, strength)
            for name, (place, side, strength) in study["findings"].items()
        }
        shared = (rng, anatomy, findings, size, difficulty)
        if views:
            views[view] = thorax_views.lateral(*shared, tag=study["tag"]), {}
            continue
        pixels, masks = thorax_views.frontal(*shared, ap=study["ap"], tag=study["tag"])
        for name, parent in PARENTS.items():
            if name in masks:
                masks[parent] = np.maximum(masks.get(parent, 0), masks[name])
        views[view] = pixels, masks
    return views


def _refuse(**given):
    limits = {
        "patients": (1, 60000, "1..60000"),
        "valid_patients": (1, 30000, "1..30000"),
        "size": (32, 4096, "32..4096"),
        "difficulty": (0, 1, "0..1"),
        "uncertain": (0, 0.5, "0..0.5"),
        "informative": (0.1, 10, "0.1..10"),
        "blank": (0, 1, "0..1"),
        "shortcut": (0, 1, "0..1"),
        "lateral": (0, 1, "0..1"),
        "seed": (0, 2**63, "0 or more"),
    }
    for name, (low, high, words) in limits.items():
        if not low <= given[name] <= high:
            raise UsageError(f"{name}={given[name]}: expected {words}")
    for name, choices in [("shortcut_finding", FINDINGS), ("shortcut_valid", SHORTCUT_VALID)]:
        if given[name] not in choices:
            raise UsageError(f"{name}={given[name]!r}: expected one of {', '.join(choices)}")
