import hashlib

import cv2
import numpy as np
import pandas as pd
import pydicom
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medkeras.errors import UsageError
from medkeras.phantoms import knee_xray
from medkeras.phantoms.outcome import knee_grade, knee_ideal, risk
from medkeras.preparation import audit
from medkeras.readers import knee as reader

SMALL = {"patients": 4, "size": 32, "film": (96, 128)}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """120 patients without films."""
    folder = tmp_path_factory.mktemp("phantom") / "knees"
    return knee_xray.write(folder, patients=120, size=64, films=None, missing=0.2, unfollowed=0.3)


@pytest.fixture(scope="module")
def with_films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom") / "films"
    return knee_xray.write(folder, patients=10, size=96, difficulty=0.1)


def content(root):
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def listed(root):
    """The rows of JSL.csv beside those of truth.csv."""
    table = pd.read_csv(root / "JSL.csv").merge(pd.read_csv(root / "truth.csv"), on="ID")
    table["subject"] = table["ID"].str[:-2]
    return table


def pictures(root, ids, *, mirrored=True):
    """Single knees, left ones mirrored so that the medial side is at the right."""
    found = []
    for knee in ids:
        picture = cv2.imread(str(root / "complete_images" / f"{knee}.png"), cv2.IMREAD_UNCHANGED)
        found.append(picture[:, ::-1] if mirrored and knee.endswith("_2") else picture)
    return np.stack(found)


def gap(picture):
    """Width in mm of the dark band between the bones, right of the middle of a picture."""
    side = len(picture)
    mm = side / 92
    picture = cv2.GaussianBlur(picture.astype(np.float32), (0, 0), 0.4)
    middle = slice(int(0.38 * side), int(0.74 * side))
    notch = picture[int(0.38 * side) : int(0.6 * side), int(0.47 * side) : int(0.53 * side)]
    dark, widths = np.quantile(notch, 0.1), []
    for x in range(int(side / 2 + 14 * mm), int(side / 2 + 28 * mm) + 1):
        column = picture[middle, x]
        bone = np.median(column)
        darker = np.clip((bone - column) / (bone - dark), 0, 1)
        darkest, reach = darker[4:-4].argmax() + 4, int(4.5 * mm) + 1
        widths.append(darker[max(0, darkest - reach) : darkest + reach + 1].sum() / mm)
    return np.quantile(widths, 0.3)


def reached(knees, scores, progression):
    """AUC of each ideal observer."""
    truths = dict.fromkeys(knee_xray.SCORES, progression) | {"oa": knees["grade"] >= 2}
    return {name: roc_auc_score(truth, scores[name]) for name, truth in truths.items()}


def simulated(patients, risk_effect, seed):
    rng = np.random.default_rng(seed)
    knees, factors = knee_grade.draw(rng, patients), risk.draw(rng, patients)
    both, _, _ = risk.logits(knees, factors, risk_effect)
    progression = risk.loss(both, factors["luck"], knees["medial"]) >= risk.PROGRESSION
    return knees, knee_ideal.scores(knees, factors, risk_effect), progression


def many(patients, sets, risk_effect=1.0):
    """AUC of each ideal observer in sets of some patients, a row per set."""
    found = []
    knees, scores, progression = simulated(patients * sets, risk_effect, 99)
    for number in range(sets):
        rows = slice(2 * patients * number, 2 * patients * (number + 1))
        found.append(reached(knees[rows], scores[rows], progression[rows]))
    return pd.DataFrame(found)


def test_the_layout_is_as_published(with_films):
    table = pd.read_csv(with_films / "JSL.csv", dtype=str)
    assert tuple(table) == (
        "ID", "Age", "Sex", "BMI", "Race", "BL_KL_grade", "Knee_Injury", "Alignmnet_TRIN",
        "Alignment_degree", "JSL_Prog",
    )  # fmt: skip
    assert table["ID"].str.fullmatch(r"[1-8]\d{6}_[12]").all()
    subjects = table["ID"].str[:-2]
    assert subjects.nunique() == 10 and subjects.value_counts().eq(2).all()
    assert table["BL_KL_grade"].isin(list("01234")).all()
    assert table["JSL_Prog"].isin(["0", "1"]).all()
    whole = table.drop(columns=["ID", "BMI", "Alignment_degree"]).stack().dropna()
    assert whole.str.fullmatch("[0-9]+").all()
    shared = table.groupby(subjects)[["Age", "Sex", "BMI", "Race"]].nunique(dropna=False)
    assert shared.eq(1).all(axis=None)
    files = {f"complete_images/{knee}.png" for knee in table["ID"]}
    files |= {f"films/{subject}.png" for subject in subjects}
    others = {"JSL.csv", "joints.csv", "truth.csv", "phantom.json"}
    assert set(content(with_films)) == files | others
    for file in files:
        picture = cv2.imread(str(with_films / file), cv2.IMREAD_UNCHANGED)
        assert picture.dtype == np.uint8
        assert picture.shape == ((96, 96) if file.startswith("complete") else (256, 352))


def test_the_reader_reads_what_was_written_and_the_audit_is_content(root):
    table, rows = reader.read(root), pd.read_csv(root / "JSL.csv").set_index("ID")
    rows = rows.loc[[path.split("/")[1][:-4] for path in table["path"]]].reset_index()
    pd.testing.assert_series_equal(table["jsl"], rows["JSL_Prog"], check_names=False)
    pd.testing.assert_series_equal(table["bmi"], rows["BMI"], check_names=False)
    assert (table["kl"] == rows["BL_KL_grade"]).all()
    assert set(reader.RISK_FACTORS) <= set(table)
    assert (table["patient"] == rows["ID"].str[:-2]).all()
    checked = audit.checked(table)
    assert len(checked) == 240 and set(checked["height"]) == {64}
    assert not checked.attrs["skipped"] and not checked.attrs["duplicates"]


def test_grades_are_read_from_class_folders(tmp_path, root):
    grades = knee_xray.write_grades(tmp_path / "kl", patients=20, size=32)
    table = reader.read(grades)
    labels = pd.read_csv(grades / "labels.csv", dtype={"patient_id": str}).set_index("path")
    assert tuple(labels) == ("patient_id", "side", "kl")
    assert len(table) == len(labels) == 40
    assert (table.set_index("path")["label"] == labels["kl"]).all()
    assert (table.set_index("path")["patient"] == labels["patient_id"]).all()
    assert (table.set_index("path")["side"] == labels["side"]).all()
    assert table.groupby("patient")["side"].agg(set).eq({"left", "right"}).all()


def test_both_layouts_show_the_same_knees(tmp_path):
    arguments = {"patients": 4, "size": 32, "seed": 3}
    grades = knee_xray.write_grades(tmp_path / "kl", **arguments)
    table = knee_xray.write(tmp_path / "oai", **arguments, films=None)
    grade = pd.read_csv(table / "JSL.csv").set_index("ID")["BL_KL_grade"]
    sides = {"L": 2, "R": 1}
    found = {f"{path.stem[:-1]}_{sides[path.stem[-1]]}": path for path in grades.glob("train/*/*")}
    assert len(found) == 8
    for knee, path in found.items():
        assert path.parent.name == str(grade[knee])
        assert path.read_bytes() == (table / "complete_images" / f"{knee}.png").read_bytes()


@pytest.mark.parametrize("films", ["png", "dicom"])
def test_the_same_arguments_give_the_same_bytes(tmp_path, films):
    first = content(knee_xray.write(tmp_path / "a", **SMALL, films=films, seed=1))
    assert first == content(knee_xray.write(tmp_path / "b", **SMALL, films=films, seed=1))
    other = content(knee_xray.write(tmp_path / "c", **SMALL, films=films, seed=2))
    assert not set(first.values()) & set(other.values())


def test_pictures_know_nothing_of_risk_and_outcome(tmp_path):
    first = content(knee_xray.write(tmp_path / "a", **SMALL))
    changed = {"risk_effect": 0.0, "missing": 0.9, "unfollowed": 0.5}
    other = content(knee_xray.write(tmp_path / "b", **SMALL, **changed))
    assert first["JSL.csv"] != other["JSL.csv"]
    assert {name for name in first if first[name] != other[name]} == {
        "JSL.csv", "truth.csv", "phantom.json",
    }  # fmt: skip


def test_difficulty_changes_pictures_and_not_the_truth(tmp_path):
    arguments = {"patients": 12, "size": 64, "films": None}
    easy = knee_xray.write(tmp_path / "easy", **arguments, difficulty=0.0)
    hard = knee_xray.write(tmp_path / "hard", **arguments, difficulty=1.0)
    table = listed(easy)
    pd.testing.assert_frame_equal(table, listed(hard))
    off = []
    for root in (easy, hard):
        measured = [gap(picture) for picture in pictures(root, table["ID"])]
        off.append(np.abs(measured - table["jsw_medial_mm"]).mean())
    assert off[0] < 0.5 and off[1] > 2 * off[0]


def test_it_is_reused_and_a_folder_of_the_user_is_not_touched(tmp_path):
    root = knee_xray.write(tmp_path / "knees", **SMALL)
    before = root.stat().st_ino
    assert knee_xray.write(root, **SMALL).stat().st_ino == before
    knee_xray.write_grades(root, patients=2, size=32)
    assert not (root / "JSL.csv").exists()
    with pytest.raises(UsageError, match="nothing was overwritten"):
        knee_xray.write(tmp_path, **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["knees"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"patients": 0},
        {"size": 31},
        {"film": (95, 128)},
        {"film": (96,)},
        {"films": "jpeg"},
        {"difficulty": 1.1},
        {"risk_effect": -1},
        {"missing": 2},
        {"unfollowed": -0.1},
        {"seed": -1},
    ],
)
def test_wrong_arguments_are_named(tmp_path, wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        knee_xray.write(tmp_path / "knees", **{**SMALL, **wrong})
    assert not list(tmp_path.iterdir())


def test_the_gap_in_the_picture_is_as_wide_as_the_truth_says(root):
    table = listed(root)
    measured = np.array([gap(picture) for picture in pictures(root, table["ID"])])
    slope, _ = np.polyfit(table["jsw_medial_mm"], measured, 1)
    assert 0.85 < slope < 1.1
    assert np.corrcoef(measured, table["jsw_medial_mm"])[0, 1] > 0.9
    # On the other side of the knee is the other joint space.
    other = np.array([gap(picture[:, ::-1]) for picture in pictures(root, table["ID"])])
    assert np.corrcoef(other, table["jsw_lateral_mm"])[0, 1] > 0.75
    assert np.corrcoef(other, table["jsw_medial_mm"])[0, 1] < 0.7


def test_the_narrower_the_joint_the_higher_the_grade():
    knees = knee_grade.draw(np.random.default_rng(0), 20_000)
    by_grade = knees.groupby("grade")[["medial", "osteophyte"]].mean()
    assert by_grade["medial"].is_monotonic_decreasing
    assert by_grade["osteophyte"].is_monotonic_increasing
    share = knees["grade"].value_counts(normalize=True).sort_index()
    assert np.allclose(share, [0.40, 0.18, 0.26, 0.13, 0.03], atol=0.015)
    right, left = (knees[knees["side"] == side]["index"].to_numpy() for side in (1, 2))
    assert 0.45 < np.corrcoef(right, left)[0, 1] < 0.65


def test_the_ideal_observer_is_calibrated():
    knees = knee_grade.draw(np.random.default_rng(1), 20_000)
    chances = knee_grade.chances(knees["index"])
    assert np.allclose(chances.sum(axis=1), 1) and (chances >= 0).all()
    assert np.allclose(chances.mean(axis=0), np.bincount(knees["grade"]) / len(knees), atol=0.01)
    right = (chances.argmax(axis=1) == knees["grade"]).mean()
    assert abs(right - knee_xray.ceiling()["grade_accuracy"]) < 0.01
    assert np.abs(knees["true_grade"] - knees["grade"]).max() <= 2


@pytest.mark.parametrize("risk_effect", [0.0, 1.0])
def test_ideal_scores_of_many_knees_reach_the_ceiling(risk_effect):
    found = many(500, 60, risk_effect)
    highest = pd.Series(knee_xray.ceiling(risk_effect=risk_effect))
    error = found.std() / 60**0.5
    # The ceiling is known to 0.001 itself.
    assert ((found.mean() - highest[found.columns]).abs() <= 1.96 * error + 0.001).all()


def test_ideal_scores_are_chances():
    knees, scores, progression = simulated(10_000, 1.0, 7)
    for name in knee_xray.SCORES:
        truth = (knees["grade"] >= 2 if name == "oa" else progression).to_numpy()
        tenth = np.array_split(np.argsort(scores[name].to_numpy()), 10)
        expected = [scores[name].to_numpy()[rows].mean() for rows in tenth]
        # Standard error of a share of 2,000: 0.011 or less.
        assert np.allclose([truth[rows].mean() for rows in tenth], expected, atol=0.035), name


def test_ideal_scores_of_written_knees_lie_around_the_ceiling(root):
    table = listed(root).rename(columns={"BL_KL_grade": "grade"})
    found = pd.Series(reached(table, table, table["loss_mm"] >= 0.7))
    off = found - pd.Series(knee_xray.ceiling())[found.index]
    assert (off.abs() <= 1.96 * many(120, 60).std()).all()


def test_the_ceiling_is_as_documented():
    on, off = knee_xray.ceiling(), knee_xray.ceiling(risk_effect=0.0)
    documented = {"jsl_image": 0.745, "jsl_risk": 0.745, "jsl_both": 0.856, "oa": 0.985}
    documented |= {"jsl_risk_grade": 0.843}
    assert all(abs(on[name] - value) < 0.001 for name, value in documented.items())
    assert abs(on["grade_accuracy"] - 0.81) < 0.005 and abs(off["jsl_image"] - 0.799) < 0.001
    assert off["jsl_risk"] == 0.5 and off["jsl_both"] == off["jsl_image"]
    assert all(0.28 < each["jsl_share"] < 0.34 for each in (on, off))


def test_without_their_effect_the_risk_factors_tell_nothing():
    rng = np.random.default_rng(8)
    knees, factors = knee_grade.draw(rng, 10_000), risk.draw(rng, 10_000)
    columns = factors[list(risk.FACTORS)]
    found = {}
    for effect in (0.0, 1.0):
        both, _, _ = risk.logits(knees, factors, effect)
        progression = risk.loss(both, factors["luck"], knees["medial"]) >= 0.7
        model = make_pipeline(StandardScaler(), LogisticRegression())
        half = len(columns) // 2
        model.fit(columns[:half], progression[:half])
        chance = model.predict_proba(columns[half:])[:, 1]
        found[effect] = roc_auc_score(progression[half:], chance)
    assert abs(found[0.0] - 0.5) < 0.02 and found[1.0] > 0.72
    # Nor do they know the picture.
    assert np.abs(columns.corrwith(knees["index"])).max() < 0.025


def test_outcome_and_blanks_are_as_asked_for(root):
    table = listed(root)
    assert ((table["loss_mm"] >= 0.7) == table["JSL_Prog"])[table["JSL_Prog"].notna()].all()
    assert (table["loss_mm"] <= table["jsw_medial_mm"]).all()
    blank = table.isna().groupby(table["subject"]).mean()
    # Of 120 patients, or 240 knees: within three standard errors.
    assert abs(blank["BMI"].mean() - 0.2) < 0.11 and blank["BMI"].isin([0, 1]).all()
    assert abs(blank["JSL_Prog"].mean() - 0.3) < 0.13 and blank["JSL_Prog"].isin([0, 1]).all()
    for column in ("Knee_Injury", "Alignment_degree"):
        assert abs(table[column].isna().mean() - 0.2) < 0.08
        assert blank[column].eq(0.5).any(), "by knee, not by patient"
    assert (table["Alignmnet_TRIN"].isna() == table["Alignment_degree"].isna()).all()
    always = ["Age", "Sex", "Race", "BL_KL_grade", "jsl_both", "loss_mm"]
    assert not table[always].isna().any(axis=None)


def test_the_picture_tells_the_grade_and_brightness_does_not(root):
    table = listed(root)
    arthrosis = table["BL_KL_grade"] >= 2
    shown = pictures(root, table["ID"]).astype(float)
    flat = shown.reshape(len(shown), -1)
    brightness = np.stack(
        [flat.mean(1), flat.std(1), flat.max(1), flat.min(1), np.median(flat, 1)], 1
    )
    narrow = -np.array([gap(picture) for picture in shown])
    model = make_pipeline(StandardScaler(), LogisticRegression())
    chance = cross_val_predict(
        model, brightness, arthrosis, groups=table["subject"], cv=GroupKFold(5),
        method="predict_proba",
    )[:, 1]  # fmt: skip
    assert roc_auc_score(arthrosis, narrow) > 0.88
    assert roc_auc_score(arthrosis, chance) < 0.68


def test_joint_boxes_hold_the_joint(with_films):
    boxes = pd.read_csv(with_films / "joints.csv")
    assert tuple(boxes) == ("film", "side", "x", "y", "width", "height")
    assert len(boxes) == 20 and boxes.groupby("film")["side"].agg(list).map(str).eq("[1, 2]").all()
    assert (boxes[["x", "y"]] >= 0).all(axis=None)
    assert (boxes["x"] + boxes["width"] <= 352).all() and (
        boxes["y"] + boxes["height"] <= 256
    ).all()
    # The patient's right knee is at the left of the picture.
    assert ((boxes["x"] + boxes["width"] / 2 < 176) == (boxes["side"] == 1)).all()
    assert boxes["x"].nunique() == 20 and boxes["width"].max() > 1.08 * boxes["width"].min()
    truth = pd.read_csv(with_films / "truth.csv").set_index("ID")["jsw_medial_mm"]
    measured, rows = {}, []
    for knee, cut, _ in cuts(with_films, boxes):
        cut = cut[:, ::-1] if knee.endswith("_2") else cut
        measured[knee] = gap(cut)
        rows.append(36 + cv2.GaussianBlur(cut, (0, 0), 1)[36:66, 68:72].mean(axis=1).argmin())
    assert np.corrcoef(pd.Series(measured), truth.loc[list(measured)])[0, 1] > 0.8
    # The plateau lies 5 mm, and as many pixels, below the middle, and the gap just above it.
    assert 49 <= np.median(rows) <= 52


def test_the_film_cut_at_the_box_is_the_single_picture(with_films):
    alike, singles = {}, {}
    boxes = pd.read_csv(with_films / "joints.csv")
    for knee, cut, single in cuts(with_films, boxes):
        singles[knee], alike[knee] = detail(single), detail(cut)
    shifts = []
    for knee, cut in alike.items():
        match = {other: agreement(cut, single)[0] for other, single in singles.items()}
        assert max(match, key=match.get) == knee and match[knee] > 0.7
        shifts.append(agreement(cut, singles[knee])[1])
    # Single pictures are off the box by up to 6 %, the boxes themselves on average by nothing.
    assert np.abs(np.mean(shifts, axis=0)).max() < 2.2


def cuts(root, boxes):
    """Yields (knee, film cut at its box, single picture), the latter two (96, 96)."""
    for row in boxes.itertuples():
        film = cv2.imread(str(root / row.film), cv2.IMREAD_UNCHANGED)
        scale = 96 / row.width
        camera = np.array([[scale, 0, -row.x * scale], [0, scale, -row.y * scale]])
        cut = cv2.warpAffine(film, camera, (96, 96), flags=cv2.INTER_LINEAR)
        knee = f"{row.film[6:-4]}_{row.side}"
        yield knee, cut, pictures(root, [knee], mirrored=False)[0]


def detail(picture):
    picture = picture.astype(np.float32)
    return cv2.GaussianBlur(picture, (0, 0), 1) - cv2.GaussianBlur(picture, (0, 0), 6)


def agreement(cut, single):
    """Correlation at the best of all shifts, and that shift in pixels."""
    found = cv2.matchTemplate(cut, single[10:-10, 10:-10], cv2.TM_CCOEFF_NORMED)
    _, best, _, (x, y) = cv2.minMaxLoc(found)
    return best, (x - 10, y - 10)


def test_dicom_films_are_strict_and_show_the_same_picture(tmp_path, monkeypatch):
    arguments = {"patients": 8, "size": 32, "film": (96, 128)}
    png = knee_xray.write(tmp_path / "png", **arguments)
    root = knee_xray.write(tmp_path / "dicom", **arguments, films="dicom")
    monkeypatch.setattr(pydicom.config.settings, "reading_validation_mode", pydicom.config.RAISE)
    assert set(pd.read_csv(root / "joints.csv")["film"]) == {
        path.relative_to(root).as_posix() for path in (root / "films").iterdir()
    }
    kinds = set()
    for path in (root / "films").iterdir():
        film = pydicom.dcmread(path)
        kinds |= {film.Modality, film.PhotometricInterpretation}
        assert film.BodyPartExamined == "KNEE" and film.ImageLaterality == "B"
        assert str(film.PatientName) == f"PHANTOM^{path.stem}" and film.PatientID == path.stem
        assert not film.StudyDate and not film.PatientBirthDate
        assert (film.BitsAllocated, film.BitsStored) == (16, 12)
        assert film.PixelSpacing[0] * 128 == pytest.approx(350, abs=0.01)
        stored = film.pixel_array
        assert stored.max() < 4096
        shown = 4095 - stored if film.PhotometricInterpretation == "MONOCHROME1" else stored
        expected = cv2.imread(str(png / "films" / f"{path.stem}.png"), cv2.IMREAD_UNCHANGED)
        assert np.abs(shown / 4095 * 255 - expected).max() < 0.6
    assert kinds == {"CR", "DX", "MONOCHROME1", "MONOCHROME2"}
