import hashlib
import itertools
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from medkeras.errors import UsageError
from medkeras.phantoms import chest
from medkeras.phantoms.drawing import thorax, thorax_findings, thorax_views
from medkeras.phantoms.outcome import chest_reports
from medkeras.phantoms.outcome.chest_reports import FINDINGS, SHOWN
from medkeras.preparation import audit
from medkeras.readers import chexpert

SMALL = {"patients": 12, "valid_patients": 6, "size": 48, "lateral": 0.3}
PATHOLOGY = list(SHOWN[:-1])
LOCAL = [name for name in SHOWN if name != "Edema"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms") / "chest"
    return chest.write(folder, patients=30, valid_patients=60, size=48, lateral=0.2)


def content(root):
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def truth(root):
    return pd.read_csv(root / "truth.csv", keep_default_na=False).set_index("path")


def mask_of(root, finding, path):
    return root / "masks" / finding.replace(" ", "_") / Path(path).with_suffix(".png")


def anatomy(size=64, number=0):
    return thorax.draw(np.random.default_rng([9, number]), size, bool(number % 2), 60)


def picture(drawn, findings, number=0, size=64, side="left", difficulty=0.0):
    """A frontal picture, the same but for its findings whenever the number is."""
    findings = {name: (np.random.default_rng(number), side, 1.0) for name in findings}
    rng = np.random.default_rng(number)
    return thorax_views.frontal(rng, drawn, findings, size, difficulty, ap=False, tag=False)


def test_the_reader_reads_what_was_written(root):
    table = chexpert.read(root, views="all").set_index("path")
    known = truth(root)
    assert set(table.index) == set(known.index)
    assert table.attrs["labels"] == list(FINDINGS)
    assert table["split"].eq("test").eq(known["part"].reindex(table.index) == "valid").all()
    assert table["patient"].eq(known["patient"].reindex(table.index)).all()
    written = pd.concat(pd.read_csv(root / f"{part}.csv") for part in ("train", "valid"))
    written = written.set_index(written["Path"].str.removeprefix(chest.PREFIX)).loc[table.index]
    for name in FINDINGS:
        assert table[name].equals(written[name].where(written[name] >= 0).rename(name))
        assert (table[f"uncertain {name}"] == (written[name] == -1)).all()


def test_it_passes_the_audit(root):
    table = audit.checked(chexpert.read(root))
    assert not table.attrs["skipped"]
    assert set(table["height"]) == set(table["width"]) == {48}
    assert (table.groupby("patient")["split"].nunique() == 1).all()


def test_columns_and_values_are_the_published_ones(root):
    header = "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,"
    header += "Cardiomegaly,Lung Opacity,Lung Lesion,Edema,Consolidation,Pneumonia,Atelectasis,"
    header += "Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
    place = r"CheXpert-v1\.0-small/(train|valid)/patient\d{5}/study[1-3]/view"
    for part, allowed in [("train", {"1.0", "0.0", "-1.0", ""}), ("valid", {"1.0", "0.0"})]:
        assert (root / f"{part}.csv").read_text().splitlines()[0] == header
        rows = pd.read_csv(root / f"{part}.csv", dtype=str, keep_default_na=False)
        assert set(np.unique(rows[list(FINDINGS)])) == allowed
        frontal = rows["Frontal/Lateral"] == "Frontal"
        assert rows["Path"][frontal].str.fullmatch(place + r"1_frontal\.jpg").all()
        assert rows["Path"][~frontal].str.fullmatch(place + r"2_lateral\.jpg").all()
        assert set(rows["AP/PA"][frontal]) == {"AP", "PA"} and set(rows["AP/PA"][~frontal]) == {""}
        assert set(rows["Sex"]) == {"Male", "Female"}
        assert rows["Age"].astype(int).between(18, 90).all()


def test_nothing_else_is_written(root):
    files = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    assert {path for path in files if "/" not in path} == {
        "train.csv", "valid.csv", "truth.csv", "phantom.json",
    }  # fmt: skip
    assert {path.partition("/")[0] for path in files if "/" in path} == {"train", "valid", "masks"}
    for path in files:
        if path.startswith(("train/", "valid/", "masks/")):
            with Image.open(root / path) as image:
                expected = "PNG" if path.startswith("masks/") else "JPEG"
                assert (image.format, image.mode, image.size) == (expected, "L", (48, 48))


def test_the_same_arguments_give_the_same_bytes(tmp_path):
    first = content(chest.write(tmp_path / "a", **SMALL, seed=1))
    assert first == content(chest.write(tmp_path / "b", **SMALL, seed=1))
    other = content(chest.write(tmp_path / "c", **SMALL, seed=2))
    pictures = {first[path] for path in first if path.endswith(".jpg")}
    assert not pictures & set(other.values())


def test_the_process_of_the_labels_moves_no_pixel(tmp_path):
    first = content(chest.write(tmp_path / "a", **SMALL))
    words = {"uncertain": 0.5, "informative": 1.0, "blank": 0.0, "shortcut_finding": "Edema"}
    second = content(chest.write(tmp_path / "b", **SMALL, **words))
    assert first.keys() == second.keys()
    changed = {path for path in first if first[path] != second[path]}
    assert {"train.csv", "truth.csv", "phantom.json"} == changed


def test_patients_are_on_one_side(root):
    patients = truth(root).groupby("part")["patient"].unique()
    assert len(patients["train"]) == 30 and len(patients["valid"]) == 60
    assert not set(patients["train"]) & set(patients["valid"])


def test_a_patient_keeps_sex_age_and_size(root):
    rows = pd.read_csv(root / "train.csv")
    rows["patient"] = rows["Path"].str.split("/").str[2]
    assert (rows.groupby("patient")[["Sex", "Age"]].nunique() == 1).all().all()
    assert set(rows["Path"].str.split("/").str[3]) == {"study1", "study2", "study3"}


def test_the_truth_keeps_the_order_of_findings(root):
    known = truth(root)
    for name, parent in chest_reports.PARENTS.items():
        assert (known[parent] >= known[name]).all()
    assert (known["No Finding"] == (known[PATHOLOGY].max(axis=1) == 0)).all()


def test_masks_lie_where_a_finding_is(root):
    known = truth(root)
    frontal = [path for path in known.index if path.endswith("frontal.jpg")]
    written = {path.relative_to(root).as_posix() for path in root.glob("masks/**/*.png")}
    expected = [(name, path) for name in SHOWN for path in frontal if known.loc[path, name]]
    files = {mask_of(root, name, path).relative_to(root).as_posix() for name, path in expected}
    assert files == written
    for name, path in expected:
        mask = np.asarray(Image.open(mask_of(root, name, path)))
        assert set(np.unique(mask)) == {0, 255}
        across = np.nonzero(mask)[1].mean() / mask.shape[1]
        side = known.loc[path, f"{name} side"]
        # The patient's left is on the right of the picture.
        assert {"left": across > 0.52, "right": across < 0.48}.get(side, 0.25 < across < 0.75)
        assert side in ("left", "right", "both", "middle")
    absent = [known[f"{name} side"][known[name] == 0] for name in FINDINGS]
    assert all((sides == "").all() for sides in absent)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", LOCAL)
def test_a_twin_without_the_finding_differs_only_there(name, side):
    reach = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (13, 13))
    for number in range(3):
        drawn = anatomy(number=number)
        shown, masks = picture(drawn, [name], number, side=side)
        healthy, _ = picture(drawn, [], number)
        change = np.abs(shown.astype(int) - healthy)
        near = cv2.dilate(masks[name], reach) > 0
        # Nothing reaches below: the window stays as it was, to the last digit.
        assert change[~near].max() <= 6 and not change[60:].any()
        assert change[masks[name] > 0].mean() > 4
        assert change[masks[name] > 0].mean() > 8 * change[~near].mean()


def test_edema_is_in_both_lungs():
    drawn = anatomy()
    shown, masks = picture(drawn, ["Edema"])
    change = shown.astype(float) - picture(drawn, [])[0]
    for half in (np.s_[:, :32], np.s_[:, 32:]):
        assert (masks["Edema"][half] > 0).any()
        assert change[half][masks["Edema"][half] > 0].mean() > 10


@pytest.mark.parametrize("name", thorax_findings.DRAWN)
def test_a_finding_fades_with_difficulty(name):
    drawn = anatomy()
    added = [
        np.abs(thorax_findings.DRAWN[name](np.random.default_rng(1), drawn, "left", plain)[0]).sum()
        for plain in (1.0, 0.5, 0.05)
    ]
    assert added[0] > added[1] > 3 * added[2]


def test_the_heart_of_a_cardiomegaly_is_wider_than_half_the_chest():
    for number in range(5):
        drawn = anatomy(number=number)
        draws = np.random.default_rng(number)
        _, shadow = thorax_findings.cardiomegaly(draws, drawn, "middle", 1.0)
        healthy = thorax.heart(drawn, drawn.heart_ratio)[1]
        widths = []
        for silhouette in (healthy, shadow):
            columns = np.nonzero((silhouette > 0.5).any(axis=0))[0]
            widths.append(np.ptp(drawn.across[0, columns]) / (2 * drawn.wall))
        assert widths[0] < 0.5 and 0.54 < widths[1] < 0.68


def test_brightness_and_file_size_hardly_tell(tmp_path):
    root = chest.write(tmp_path / "chest", patients=1, valid_patients=180, size=48, lateral=0)
    known = truth(root).query("part == 'valid'")
    pictures = np.stack([np.asarray(Image.open(root / path)) for path in known.index])
    plain = {
        "mean": pictures.mean((1, 2)),
        "spread": pictures.std((1, 2)),
        "brightest": pictures.max((1, 2)),
        "bytes": np.array([(root / path).stat().st_size for path in known.index]),
    }
    for name in ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion"):
        for what, values in plain.items():
            area = roc_auc_score(known[name].astype(int), values)
            # Standard error with 45 of 180: 0.05. An effusion is white, as it is in life.
            assert 0.3 < area < 0.75, (name, what)


def test_reports_follow_the_stated_process():
    known = np.tile(chest_reports.states()[0][::7], (20, 1))
    for part, words in [
        ("train", {}),
        ("train", {"uncertain": 0.5, "informative": 1.0, "blank": 0.2}),
        ("train", {"informative": 0.2, "blank": 1.0}),
        ("valid", {}),
    ]:
        rates = chest_reports.rates(part, **words)
        np.testing.assert_allclose(rates.sum(axis=2), 1)
        said = chest_reports.labels(np.random.default_rng(0), known, rates, part)
        for row in range(len(SHOWN)):
            for present in (0, 1):
                cells = said[known[:, row + 1] == present, row + 1]
                found = [np.mean(cells == value) for value in (1, 0, -1)]
                expected = rates[row, present, :3]
                # Four standard errors.
                error = 4 * np.sqrt(expected * (1 - expected) / len(cells))
                assert (np.abs(found - expected) <= error + 1e-9).all()


def test_uncertain_at_random_says_nothing_of_the_truth():
    hedged = chest_reports.rates("train", informative=1.0)[:, :, 2]
    np.testing.assert_allclose(hedged[:, 0], hedged[:, 1])
    informative = chest_reports.rates("train", informative=4.0)[:, :, 2]
    np.testing.assert_allclose(informative[:, 1], 4 * informative[:, 0])
    assert not chest_reports.rates("train", uncertain=0.0)[:, :, 2].any()


def test_no_finding_follows_from_the_other_labels(root):
    for part, otherwise in [("train", np.nan), ("valid", 0.0)]:
        rows = pd.read_csv(root / f"{part}.csv")
        healthy = ~rows[PATHOLOGY].isin([1, -1]).any(axis=1)
        expected = pd.Series(np.where(healthy, 1.0, otherwise), name="No Finding")
        pd.testing.assert_series_equal(rows["No Finding"].astype(float), expected)


def test_the_findings_are_as_common_as_stated():
    rng = np.random.default_rng(0)
    drawn = chest_reports.implied(np.stack([chest_reports.causes(rng) for _ in range(4000)]))
    for share, (name, expected) in zip(
        drawn.mean(axis=0), chest_reports.prevalence().items(), strict=True
    ):
        assert abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / 4000), name
    assert chest_reports.prevalence()["Edema"] == pytest.approx(0.15 * 0.75 + 0.4 * 0.25)


def test_the_consensus_is_the_majority_of_three():
    rates = chest_reports.rates("valid")
    for row, name in enumerate(SHOWN):
        sensitivity, specificity = chest_reports.READERS[name]
        for present, sees in enumerate((1 - specificity, sensitivity)):
            votes = list(itertools.product([0, 1], repeat=3))
            chances = [np.prod([sees if vote else 1 - sees for vote in each]) for each in votes]
            expected = sum(c for c, each in zip(chances, votes, strict=True) if sum(each) > 1)
            assert rates[row, present, 0] == pytest.approx(expected)


def test_the_table_of_the_manual_is_true():
    rows = [line.split() for line in chest_reports.__doc__.splitlines() if line[-5:-4] in "01 "]
    found = {" ".join(row[:-3]): row[-3:] for row in rows if len(row) > 3}
    worked_out = chest_reports.prevalence(), chest.ceiling("valid"), chest.ceiling("train")
    for name in FINDINGS:
        expected = ["-" if np.isnan(part[name]) else f"{part[name]:.3f}" for part in worked_out]
        assert found[name] == expected


@pytest.mark.parametrize("part", ["train", "valid"])
def test_the_ceiling_is_the_formula(part):
    rates = chest_reports.rates(part)
    for row, name in enumerate(SHOWN):
        prevalence = chest_reports.prevalence()[name]
        weights = np.array([1 - prevalence, prevalence])
        # Shares of label 1 and of label 0 among absent and present.
        ones, zeros = weights * rates[row, :, 0], weights * rates[row, :, 1]
        expected = (ones[1] / ones.sum() + zeros[0] / zeros.sum()) / 2
        assert chest.ceiling(part)[name] == pytest.approx(expected)


def test_the_ceiling_is_undefined_where_labels_are_all_alike():
    assert np.isnan(chest.ceiling("train")["No Finding"])
    silent = chest.ceiling("train", blank=1.0, uncertain=0.0)
    assert all(0.5 < silent[name] < 1 for name in SHOWN if not np.isnan(silent[name]))


@pytest.mark.parametrize("part", ["train", "valid"])
def test_the_ideal_observer_reaches_the_ceiling(part):
    rng = np.random.default_rng(3)
    truths, chances = chest_reports.states()
    known = truths[rng.choice(len(truths), 20_000, p=chances / chances.sum())]
    rates = chest_reports.rates(part)
    said = chest_reports.labels(rng, known, rates, part)
    ones, zeros = chest_reports.scores(known, rates, part)
    for column, (name, expected) in enumerate(chest.ceiling(part).items()):
        told = np.isin(said[:, column], [0, 1])
        if name == "No Finding" and part == "train":
            assert (said[told, column] == 1).all()
            continue
        score = (ones / (ones + zeros))[told, column]
        low, high = interval(said[told, column], score, 3.5)
        assert low < expected < high, name


def test_the_ideal_score_of_a_written_set_reaches_the_ceiling(root):
    known = truth(root).query("part == 'valid'")
    rows = pd.read_csv(root / "valid.csv")
    rows.index = rows["Path"].str.removeprefix(chest.PREFIX)
    frontal = rows.index[rows["Frontal/Lateral"] == "Frontal"]
    for name, expected in chest.ceiling().items():
        labels, score = rows.loc[frontal, name], known.loc[frontal, f"{name} score"].astype(float)
        if labels.nunique() == 2:
            low, high = interval(labels, score, 1.96)
            assert low <= expected <= high, name


def interval(labels, score, width):
    """Interval around the empirical AUC (Hanley and McNeil 1982), kept open at a perfect one."""
    labels = np.asarray(labels)
    area, ones = roc_auc_score(labels, score), int(labels.sum())
    zeros = len(labels) - ones
    safe = min(area, 1 - 1 / (ones + 2))
    first, second = safe / (2 - safe), 2 * safe**2 / (1 + safe)
    spread = safe * (1 - safe) + (ones - 1) * (first - safe**2) + (zeros - 1) * (second - safe**2)
    error = np.sqrt(spread / (ones * zeros))
    return area - width * error, min(1.0, area + width * error)


def test_the_shortcut_goes_with_its_finding_in_train_and_against_it_in_valid(tmp_path):
    root = chest.write(tmp_path / "chest", **SMALL, shortcut=1.0, shortcut_finding="Edema")
    known = truth(root)
    assert ((known["tag"] == known["Edema"]) == (known["part"] == "train")).all()
    absent = truth(chest.write(tmp_path / "b", **SMALL, shortcut=1.0, shortcut_valid="absent"))
    assert set(absent.query("part == 'valid'")["tag"]) == {0}
    assert absent.query("part == 'train'").eval("tag == `Pleural Effusion`").all()


def test_without_a_shortcut_the_tag_says_nothing(root):
    known = truth(root)
    effusion = known["Pleural Effusion"] == 1
    shares = known["tag"][effusion].mean(), known["tag"][~effusion].mean()
    assert 0.25 < shares[0] < 0.75 and 0.3 < shares[1] < 0.7


def test_the_tag_is_seen_in_its_box_alone(tmp_path):
    plain = chest.write(tmp_path / "a", **SMALL)
    strong = chest.write(tmp_path / "b", **SMALL, shortcut=1.0)
    left, top, right, bottom = (round(share * 48) for share in thorax_views.TAG)
    known, other = truth(plain), truth(strong)
    assert (known["tag"] != other["tag"]).any()
    for path in known.index:
        first, second = (np.asarray(Image.open(base / path), int) for base in (plain, strong))
        if known.loc[path, "tag"] == other.loc[path, "tag"]:
            assert (first == second).all()
            continue
        change = np.abs(first - second)
        assert change[top:bottom, left:right].max() > 60
        # Blur and the blocks of JPEG reach a little further.
        assert change[16:].max() <= 4 and change[:, 32:].max() <= 4


@pytest.mark.parametrize(
    "wrong",
    [
        {"patients": 0},
        {"valid_patients": 0},
        {"size": 16},
        {"difficulty": 1.5},
        {"difficulty": float("nan")},
        {"uncertain": 0.7},
        {"informative": 0.0},
        {"blank": -0.1},
        {"shortcut": 2},
        {"shortcut_finding": "Effusion"},
        {"shortcut_valid": "random"},
        {"lateral": 1.2},
        {"seed": -1},
    ],
)
def test_wrong_arguments_are_named(tmp_path, wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        chest.write(tmp_path / "chest", **wrong)
    assert not list(tmp_path.iterdir())


def test_a_folder_of_the_user_is_not_touched(tmp_path):
    (tmp_path / "mine.png").write_bytes(b"x")
    with pytest.raises(UsageError, match="nothing was overwritten"):
        chest.write(tmp_path, **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.png"]
