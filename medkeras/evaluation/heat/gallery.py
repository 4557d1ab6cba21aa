"""The gallery of explanations: what is shown of a model's answers, and how it is kept.

explanations/<name>.png        what the report and TensorBoard show
explanations/<name>.npy        raw maps, float32
explanations/index.csv         one row per picture of the gallery
explanations/scores.json       what the maps were scored on
"""

import io
import re
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from medkeras.files import atomic
from medkeras.training import board


def picked(labels, answers, certainty, most) -> np.ndarray:
    """Chooses test pictures: per class the surest mistakes and the surest right answers.

    Half of the places go to mistakes, as far as there are so many.

    Returns:
        Row numbers, ordered by class, mistakes first.
    """
    labels, answers = np.asarray(labels), np.asarray(answers)
    order = np.argsort(-np.asarray(certainty), kind="stable")
    classes = np.unique(labels)
    share = max(1, most // max(len(classes), 1))
    chosen = []
    for one in classes:
        own = order[labels[order] == one]
        wrong, right = own[answers[own] != one], own[answers[own] == one]
        shown = min(len(wrong), max(share // 2, share - len(right)))
        chosen += [*wrong[:shown], *right[: share - shown]]
    return np.array(chosen[:most], dtype=int)


def plain(name) -> str:
    """Turns the name of a class into a part of a file name."""
    return re.sub(r"[^A-Za-z0-9-]+", "-", name).strip("-")


def write(gallery, arrays, run) -> None:
    """Writes the pictures of a gallery, raw maps, index and scores, and shows it in TensorBoard.

    Args:
        gallery: what is shown.
        arrays: {name: raw maps}, each written to `explanations/<name>.npy`.
        run: `.folder`.
    """
    folder = run.folder / "explanations"
    folder.mkdir(parents=True, exist_ok=True)
    for item in gallery.items:
        atomic.write_bytes(folder / item.file, item.png)
    for name, maps in arrays.items():
        out = io.BytesIO()
        np.save(out, maps, allow_pickle=False)
        atomic.write_bytes(folder / f"{name}.npy", out.getvalue())
    columns = ["file", "path", "finding", "true", "predicted", "probability", "evidence"]
    rows = [[getattr(item, name) for name in columns] for item in gallery.items]
    atomic.write_csv(folder / "index.csv", pd.DataFrame(rows, columns=columns))
    atomic.write_json(folder / "scores.json", gallery.scores)
    writer = board.Board(run.folder / "tensorboard" / "explanations")
    for item in gallery.items:
        writer.picture(0, f"Grad-CAM/{item.file[:-4]}", item.png, f"answered {item.predicted}")
    writer.close()


@dataclass(frozen=True)
class Explained:
    """One picture, or one exam and finding, of the gallery.

    Args:
        png: what is shown.
        file: its name in `explanations/`.
        path: of the picture or exam in the table; for `index.csv`, never for a report.
        true: name of the true class.
        predicted: name of the class that the model answered.
        probability: of that answer, 0..1.
        evidence: whether the map is anywhere above 0.
        lesion: whether a known lesion is drawn.
        finding: what the map speaks for, "acl", ...; "" for the answer.
    """

    png: bytes
    file: str
    path: str
    true: str
    predicted: str
    probability: float
    evidence: bool
    lesion: bool
    finding: str = ""

    @property
    def correct(self) -> bool:
        return self.true == self.predicted


@dataclass(frozen=True)
class Gallery:
    """Explained test pictures, and how well the maps point at known lesions."""

    layer: str
    items: list[Explained] = field(default_factory=list)
    scores: dict = field(default_factory=dict)
