import hashlib
import os
from functools import cache

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from medkeras.errors import UsageError
from medkeras.phantoms import knee_mri
from medkeras.phantoms.drawing import knee_anatomy, scanner
from medkeras.phantoms.drawing.knee_lesions import LESIONS
from medkeras.readers import mrnet

SMALL = {"exams": 10, "valid": 4, "size": 32, "slices": (3, 6)}
LABELS = ["abnormal", "acl", "meniscus"]


def content(root):
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@cache
def drawn(number, *lesions, plane="sagittal", size=48, slices=10, difficulty=0.3):
    """One stack of one knee: the same knee and noise for the same number."""
    rng = np.random.default_rng(number)
    knee, pose = knee_anatomy.draw(rng, difficulty), scanner.lay(rng)
    return scanner.scan(rng, knee, pose, plane, slices, size, lesions, difficulty)


@pytest.fixture
def labels_only(monkeypatch):
    """Writes tables without pictures, which take the time."""
    monkeypatch.setattr(knee_mri, "_write_exam", lambda *args: None)


def labelled(root):
    """Truth and labels of all exams, as the csv files have them."""
    truth = pd.read_csv(root / "truth.csv", index_col="path")
    for label in LABELS:
        parts = []
        for split in ("train", "valid"):
            rows = pd.read_csv(root / f"{split}-{label}.csv", header=None, dtype={0: str})
            parts.append(pd.Series(rows[1].to_numpy(), split + "/" + rows[0]))
        truth[f"label_{label}"] = pd.concat(parts)
    return truth


def test_the_reader_reads_what_was_written(tmp_path):
    root = knee_mri.write(tmp_path / "knees", **SMALL)
    table = mrnet.read(root)
    assert list(table["path"]) == [f"train/{k:04d}" for k in range(6)] + [
        f"valid/{k:04d}" for k in range(6, 10)
    ]
    assert list(table["split"]) == ["train"] * 6 + ["test"] * 4
    truth = labelled(root)
    for label in LABELS:
        assert (table[label].to_numpy() == truth[f"label_{label}"].to_numpy()).all()
    # Only what every set of this kind has: nobody knows the patients.
    assert {note["path"] for note in table.attrs["notes"]} <= {"patient"}
    found = set()
    for path in table[["axial", "coronal", "sagittal"]].to_numpy().ravel():
        stack = np.load(path)
        assert stack.dtype == np.uint8 and stack.shape[1:] == (32, 32)
        assert stack.std(axis=(1, 2)).min() > 0
        found.add(len(stack))
    assert found == {3, 4, 5, 6}


def test_the_files_are_those_of_mrnet(tmp_path):
    files = content(knee_mri.write(tmp_path / "knees", **SMALL))
    planes = {
        f"{split}/{plane}/{k:04d}.npy"
        for plane in ("axial", "coronal", "sagittal")
        for split, numbers in (("train", range(6)), ("valid", range(6, 10)))
        for k in numbers
    }
    csvs = {f"{split}-{label}.csv" for split in ("train", "valid") for label in LABELS}
    ours = {path for path in files if not path.startswith("masks/")}
    assert ours == planes | csvs | {"truth.csv", "phantom.json"}


def test_numbers_go_on_where_train_ends(tmp_path, labels_only):
    root = knee_mri.write(tmp_path / "knees", exams=1250, valid=120)
    lines = (root / "train-acl.csv").read_text().splitlines()
    assert len(lines) == 1130 and lines[0][:5] == "0000," and lines[-1][:5] == "1129,"
    lines = (root / "valid-acl.csv").read_text().splitlines()
    assert len(lines) == 120 and lines[0][:5] == "1130," and lines[-1][:5] == "1249,"


def test_the_same_arguments_give_the_same_bytes(tmp_path):
    first = content(knee_mri.write(tmp_path / "a", **SMALL, seed=1))
    assert first == content(knee_mri.write(tmp_path / "b", **SMALL, seed=1))
    other = content(knee_mri.write(tmp_path / "c", **SMALL, seed=2))
    stacks = {first[path] for path in first if path.startswith(("train/", "valid/"))}
    assert len(stacks) == 30 and not stacks & set(other.values())


def test_it_is_reused_and_replaced(tmp_path):
    root = knee_mri.write(tmp_path / "knees", **SMALL)
    inode = os.stat(root).st_ino
    assert os.stat(knee_mri.write(root, **SMALL)).st_ino == inode
    knee_mri.write(root, **{**SMALL, "valid": 5})
    assert len(list((root / "valid/axial").iterdir())) == 5
    assert [path.name for path in tmp_path.iterdir()] == ["knees"]


def test_masks_are_there_where_lesions_are(tmp_path):
    root = knee_mri.write(tmp_path / "knees", exams=24, size=48, slices=(8, 12), seed=3)
    truth = pd.read_csv(root / "truth.csv")
    truth["abnormal"] = truth[list(LESIONS)].max(axis=1)
    for label in LABELS:
        assert 0 < truth[label].mean() < 1
        for path, there in zip(truth["path"], truth[label], strict=True):
            for plane in ("axial", "coronal", "sagittal"):
                split, number = path.split("/")
                mask = root / "masks" / label / split / plane / f"{number}.npy"
                # The axial slices may pass above and below a meniscus.
                if there and (label, plane) != ("meniscus", "axial"):
                    assert mask.exists(), mask
                if mask.exists():
                    stack, pixels = np.load(mask), np.load(root / split / plane / f"{number}.npy")
                    assert there and stack.dtype == np.uint8 and stack.shape == pixels.shape
                    assert set(np.unique(stack)) == {0, 255}


@pytest.mark.parametrize("plane", scanner.PLANES)
@pytest.mark.parametrize("lesion", LESIONS)
def test_a_lesion_changes_the_picture_in_its_mask_and_nowhere_else(lesion, plane):
    inside = []
    for number in range(8):
        healthy, none = drawn(number, plane=plane)
        hurt, masks = drawn(number, lesion, plane=plane)
        assert none == {} and set(masks) == {lesion}
        changed = np.abs(hurt.astype(int) - healthy)
        assert not changed[~masks[lesion]].any()
        inside += list(changed[masks[lesion]])
    # Of 255; fluid is dark and so is a tendon on T1.
    assert np.mean(inside) > (25 if plane == "coronal" else 50)


@pytest.mark.parametrize("lesion", LESIONS)
def test_the_planes_show_the_same_lesion_at_the_same_place(lesion):
    for number in range(4):
        volumes, places = [], []
        for plane in scanner.PLANES:
            _, masks = drawn(number, lesion, plane=plane, size=64, slices=60)
            first, last = scanner.REACH[plane]
            steps = np.array([(last - first) / 59, scanner.FIELD / 64, scanner.FIELD / 64])
            found = np.argwhere(masks[lesion])
            volumes.append(len(found) * steps.prod())
            middle = found.mean(axis=0) * steps + [first, -scanner.FIELD / 2, -scanner.FIELD / 2]
            # From slice, row and column to right-left, front-back and up-down.
            a, b, c = middle
            seen = {"axial": (c, b, a), "coronal": (c, a, -b), "sagittal": (a, c, -b)}
            places.append(seen[plane])
        # Cubic mm, from a small cleft to a large effusion; mm.
        assert 800 < min(volumes) and max(volumes) < 1.5 * min(volumes) < 20_000
        assert np.ptp(places, axis=0).max() < 3


@pytest.mark.parametrize("lesion", LESIONS)
@pytest.mark.parametrize("difficulty, least, most", [(0.0, 0.97, 1), (0.3, 0.9, 1), (1, 0.3, 0.75)])
def test_local_contrast_tells_a_lesion_unless_hopeless(lesion, difficulty, least, most):
    truth, contrast = [], []
    for number in range(30):
        hurt, masks = drawn(number, lesion, difficulty=difficulty)
        truth.append(number % 2)
        pixels = hurt if number % 2 else drawn(number, difficulty=difficulty)[0]
        contrast.append(pixels[masks[lesion]].mean() / np.median(pixels[pixels > 30]))
    assert least <= roc_auc_score(truth, contrast) <= most


def test_counts_and_brightness_tell_nothing(tmp_path):
    root = knee_mri.write(
        tmp_path / "knees", exams=120, size=32, slices=(3, 6), difficulty=0, disagreement=0, seed=5
    )
    truth = labelled(root)
    seen = []
    for path in truth.index:
        split, number = path.split("/")
        stacks = [np.load(root / split / plane / f"{number}.npy") for plane in scanner.PLANES]
        seen.append([value(s) for s in stacks for value in (len, np.mean, np.std, np.median)])
    for label in LABELS:
        shown = truth[f"label_{label}"].to_numpy()
        # Of an AUC of one half (Mann and Whitney).
        error = np.sqrt((len(shown) + 1) / (12 * shown.sum() * (1 - shown).sum()))
        for values in np.transpose(seen):
            assert abs(roc_auc_score(shown, values) - 0.5) < 3.3 * error


def test_ceiling_is_what_a_simulation_finds():
    documented = knee_mri.ceiling(0.1)
    lesions, labels = knee_mri._cases(np.random.default_rng(0), 200_000, 0.1)
    scores = knee_mri._scores(lesions, 0.1)
    for column, label in enumerate(LABELS):
        assert roc_auc_score(labels[:, column], scores[:, column]) == pytest.approx(
            documented[label], abs=0.003
        )
        # No other order of the states does better: the share of 1 rises with the score.
        shares = pd.Series(labels[:, column]).groupby(scores[:, column]).mean()
        assert shares.is_monotonic_increasing and np.allclose(shares, shares.index, atol=0.01)


def test_ceiling_of_one_finding_is_its_closed_form():
    # One threshold: half of 1 plus sensitivity minus false alarms.
    q, p = 0.05, 0.3
    hit = p * (1 - q) / (p * (1 - q) + (1 - p) * q)
    alarm = p * q / (p * q + (1 - p) * (1 - q))
    assert knee_mri.ceiling(q)["acl"] == pytest.approx((1 + hit - alarm) / 2)
    assert knee_mri.ceiling(0.0) == pytest.approx(dict.fromkeys(LABELS, 1.0))
    assert all(auc == pytest.approx(0.5, abs=0.01) for auc in knee_mri.ceiling(0.4999).values())


@pytest.mark.parametrize("seed", range(3))
def test_the_ideal_score_reaches_the_ceiling(tmp_path, labels_only, seed):
    truth = labelled(knee_mri.write(tmp_path / "knees", exams=400, valid=100, seed=seed))
    for label in LABELS:
        auc, error = _delong(truth[f"label_{label}"].to_numpy(), truth[f"ideal_{label}"].to_numpy())
        assert abs(auc - knee_mri.ceiling(0.05)[label]) < 1.96 * error


def test_labels_follow_the_stated_process(tmp_path, labels_only):
    truth = labelled(knee_mri.write(tmp_path / "knees", exams=2000, valid=400))
    # Evenly drawn, so nearer to what is expected than chance would be.
    assert truth["acl"].mean() == pytest.approx(0.3, abs=0.002)
    assert truth["other"].mean() == pytest.approx(0.4, abs=0.002)
    shares = truth.groupby("acl")["meniscus"].mean()
    assert shares[0] == pytest.approx(0.3, abs=0.005) and shares[1] == pytest.approx(0.6, abs=0.005)
    # The standard error of 0.05 in 2000 is 0.005.
    for lesion in ("acl", "meniscus"):
        wrong = (truth[f"label_{lesion}"] != truth[lesion]).mean()
        assert wrong == pytest.approx(0.05, abs=0.015)
        assert (truth["label_abnormal"] >= truth[f"label_{lesion}"]).all()
    exact = labelled(knee_mri.write(tmp_path / "exact", exams=60, disagreement=0))
    assert (exact["label_acl"] == exact["acl"]).all()
    assert (exact["label_abnormal"] == exact[list(LESIONS)].max(axis=1)).all()


def test_a_small_split_has_every_class(tmp_path, labels_only):
    for seed in range(20):
        root = knee_mri.write(tmp_path / str(seed), exams=60, valid=20, seed=seed)
        for split, rows in labelled(root).groupby(lambda path: path.split("/")[0]):
            for label in LABELS:
                assert 0 < rows[f"label_{label}"].mean() < 1, (seed, split, label)


@pytest.mark.slow
def test_the_real_size_is_written(tmp_path):
    root = knee_mri.write(tmp_path / "knees", exams=3, valid=1, size=256)
    for path in mrnet.read(root)["sagittal"]:
        stack = np.load(path)
        assert stack.shape[1:] == (256, 256) and 17 <= len(stack) <= 61


@pytest.mark.parametrize(
    "wrong",
    [
        {"exams": 1},
        {"exams": 10_001},
        {"valid": 0},
        {"valid": 240},
        {"size": 16},
        {"slices": (0, 3)},
        {"slices": (9, 8)},
        {"difficulty": 1.5},
        {"disagreement": 0.5},
        {"seed": -1},
    ],
)
def test_wrong_arguments_are_named(tmp_path, wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        knee_mri.write(tmp_path / "knees", **wrong)
    assert not list(tmp_path.iterdir())


def _delong(truth, score):
    """AUC and its standard error (DeLong, DeLong and Clarke-Pearson 1988)."""
    wins = np.heaviside(score[truth == 1][:, None] - score[truth == 0], 0.5)
    positive, negative = wins.mean(axis=1), wins.mean(axis=0)
    error = positive.var(ddof=1) / len(positive) + negative.var(ddof=1) / len(negative)
    return wins.mean(), np.sqrt(error)
