import hashlib
import os

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medkeras.errors import UsageError
from medkeras.phantoms import bone, folder
from medkeras.preparation import audit
from medkeras.readers import bone as reader

SMALL = {"patients": 9, "size": 48, "pictures_per_patient": (1, 2)}


def content(root):
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def pixels(table):
    return np.stack([np.asarray(Image.open(image)) for image in table["image"]])


def test_the_reader_reads_what_was_written(tmp_path):
    table = audit.checked(reader.read(bone.write(tmp_path / "bone", **SMALL, seed=4)))
    assert table.attrs["classes"] == ["healthy", "beyond_repair", "fractured"]
    assert table["patient"].nunique() == 9
    assert table.groupby("class")["patient"].nunique().eq(3).all()
    assert table.groupby("patient").size().between(1, 2).all()
    assert set(table["height"]) == set(table["width"]) == {48}
    assert table["sha256"].is_unique
    assert not table.attrs["skipped"] and not table.attrs["notes"]


def test_masks_lie_on_the_injury(tmp_path):
    table = reader.read(bone.write(tmp_path / "bone", patients=18, size=64))
    assert table["mask"].isna().eq(table["class"] == "healthy").all()
    broken = table[table["mask"].notna()]
    for image, mask in zip(broken["image"], broken["mask"], strict=True):
        picture, mask = np.asarray(Image.open(image)), np.asarray(Image.open(mask))
        assert mask.shape == picture.shape and set(np.unique(mask)) == {0, 255}
        assert 0.002 < (mask > 0).mean() < 0.3
        # Edges of fragments: steeper than elsewhere.
        steep = np.hypot(*np.gradient(picture.astype(float)))
        assert steep[mask > 0].mean() > steep[mask == 0].mean()


def test_the_same_arguments_give_the_same_bytes(tmp_path):
    first = content(bone.write(tmp_path / "a", **SMALL, seed=1))
    assert first == content(bone.write(tmp_path / "b", **SMALL, seed=1))
    other = content(bone.write(tmp_path / "c", **SMALL, seed=2))
    assert not {first[path] for path in first if path.endswith(".png")} & set(other.values())


def test_it_is_reused_and_replaced(tmp_path):
    root = bone.write(tmp_path / "bone", **SMALL)
    inode = os.stat(root).st_ino
    assert os.stat(bone.write(root, **SMALL)).st_ino == inode
    bone.write(root, classes=("healthy", "fractured"), **SMALL)
    assert set(reader.read(root)["class"]) == {"healthy", "fractured"}
    assert [path.name for path in tmp_path.iterdir()] == ["bone"]


def test_a_folder_of_the_user_is_not_touched(tmp_path):
    (tmp_path / "mine.png").write_bytes(b"x")
    with pytest.raises(UsageError, match="nothing was overwritten"):
        bone.write(tmp_path, **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.png"]


def test_a_failed_write_leaves_the_old_folder(tmp_path, monkeypatch):
    root = bone.write(tmp_path / "bone", **SMALL)
    before = content(root)

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder, "save", fail)
    with pytest.raises(OSError, match="No space"):
        bone.write(root, **{**SMALL, "patients": 12})
    assert content(root) == before
    assert [path.name for path in tmp_path.iterdir()] == ["bone"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"classes": ("healthy", "cracked")},
        {"classes": ()},
        {"classes": ("healthy", "healthy")},
        {"patients": 2},
        {"pictures_per_patient": (2, 1)},
        {"size": 16},
        {"difficulty": 1.5},
        {"seed": -1},
    ],
)
def test_wrong_arguments_are_named(tmp_path, wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        bone.write(tmp_path / "bone", **wrong)
    assert not list(tmp_path.iterdir())


def test_shapes_tell_the_class_and_brightness_does_not(tmp_path):
    root = bone.write(tmp_path / "bone", patients=150, pictures_per_patient=(2, 2), size=64)
    table = reader.read(root)
    pictures = pixels(table).astype(float)
    flat = pictures.reshape(len(pictures), -1)
    brightness = np.stack(
        [flat.mean(1), flat.std(1), flat.max(1), flat.min(1), np.median(flat, 1)], 1
    )
    edges = np.stack([_edges(picture) for picture in pictures])

    by_shape, auc_shape = _score(edges, table)
    by_brightness, auc_brightness = _score(brightness, table)

    assert by_shape > 0.6 and auc_shape > 0.8
    # Standard error of 1/3 with 150 patients: 0.04.
    assert by_brightness < 0.45 and auc_brightness < 0.62


def test_hopeless_is_hopeless(tmp_path):
    options = {"patients": 150, "pictures_per_patient": (1, 1), "size": 48}
    table = reader.read(bone.write(tmp_path / "bone", **options, difficulty=1.0))
    accuracy, auc = _score(np.stack([_edges(picture) for picture in pixels(table)]), table)
    assert accuracy < 0.47 and auc < 0.68


def test_names_and_order_tell_nothing(tmp_path):
    table = pd.read_csv(bone.write(tmp_path / "bone", **{**SMALL, "patients": 90}) / "patients.csv")
    patients = table.drop_duplicates("patient")
    number = patients["patient"].str[1:].astype(int)
    means = number.groupby(patients["class"]).mean()
    # Standard error of a mean of 30 of 90 numbers: 4.
    assert means.between(44.5 - 13, 44.5 + 13).all()
    # Nor does counting through the classes show: a third each, standard error 0.09.
    assert pd.crosstab(number % 3, patients["class"], normalize="index").to_numpy().max() < 0.65


def _edges(picture):
    """How much of each direction and strength of edge there is, whatever the exposure."""
    picture = (picture - picture.mean()) / picture.std()
    found = []
    for step in (1, 2):
        down, right = (np.gradient(picture[::step, ::step], axis=axis) for axis in (0, 1))
        angle = np.arctan2(down, right) % np.pi
        strength = np.hypot(down, right)
        histogram = np.histogram(angle, 12, (0, np.pi), weights=strength)[0]
        found += [np.sort(histogram / histogram.sum()), histogram / strength.size]
        curved = np.abs(np.gradient(down, axis=1))
        found.append(np.quantile(curved, [0.5, 0.9, 0.98, 0.995]))
        found.append(np.quantile(strength, [0.5, 0.9, 0.98, 0.995]))
    return np.concatenate(found)


def _score(features, table):
    """Accuracy over all classes, and AUC of healthy against fractured, across patients."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    folds = GroupKFold(5)
    predicted = cross_val_predict(
        model, features, table["class"], groups=table["patient"], cv=folds
    )
    two = (table["class"] != "beyond_repair").to_numpy()
    fractured = (table["class"] == "fractured")[two]
    chance = cross_val_predict(
        model, features[two], fractured, groups=table["patient"][two], cv=folds,
        method="predict_proba",
    )[:, 1]  # fmt: skip
    return (predicted == table["class"]).mean(), roc_auc_score(fractured, chance)
