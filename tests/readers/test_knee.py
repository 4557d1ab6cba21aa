import pandas as pd
import pytest

from medkeras.errors import DataError
from medkeras.readers import knee, tables

COLUMNS = "ID,Age,Sex,BMI,Race,BL_KL_grade,Knee_Injury,Alignmnet_TRIN,Alignment_degree,JSL_Prog"
ROWS = {
    "9001897_1": "61,2,27.5,1,2,0,1,-3.5,1",
    "9001897_2": "61,2,27.5,1,0,1,,2,0",
    "9002316_1": "70,1,,,,,,,",
}
FACTORS = (
    "age", "female", "bmi", "injury", "alignment", "race_0", "race_1", "race_2", "race_3",
    "kl_0", "kl_1", "kl_2", "kl_3", "kl_4",
)  # fmt: skip
NAMED = "is not <subject>_1 (right) or <subject>_2 (left)"


def touch(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"\x89PNG")
    return root


def problems(root):
    with pytest.raises(DataError) as caught:
        knee.read(root)
    return [(p.path, p.reason) for p in caught.value.problems]


def noted(table):
    return " | ".join(f"{note['path']}: {note['reason']}" for note in table.attrs["notes"])


def test_class_folders(tmp_path):
    touch(tmp_path, *(f"{grade}/900{grade}L.png" for grade in range(5)), "0/9001R.jpg")
    table = knee.read(tmp_path)
    assert table["path"].tolist() == [
        "0/9000L.png", "0/9001R.jpg", "1/9001L.png", "2/9002L.png", "3/9003L.png", "4/9004L.png",
    ]  # fmt: skip
    assert table["patient"].tolist() == ["9000", "9001", "9001", "9002", "9003", "9004"]
    assert table["side"].tolist() == ["left", "right", "left", "left", "left", "left"]
    assert table["label"].tolist() == [0, 0, 1, 2, 3, 4]
    assert table["image"].iloc[1] == str(tmp_path.resolve() / "0/9001R.jpg")
    assert tables.classes(table) == ["0", "1", "2", "3", "4"] and "split" not in table


def test_patients_of_an_import_are_subjects(tmp_path):
    ids = ["323f21f4b767a0e9", "0123456789012345", "abcdefabcdefabcd", "00000000000000ff", "9001"]
    for grade, name in enumerate(ids):
        touch(tmp_path, f"{grade}/{name}L.png", f"{grade}/{name}R.png")
    table = knee.read(tmp_path)
    assert table["patient"].tolist() == [name for name in ids for _ in "LR"]
    assert table["side"].tolist() == ["left", "right"] * 5


@pytest.mark.parametrize("name", ["knee1L", "323f21f4b767a0eL", "323f21f4b767a0e9_L", "fadeL"])
def test_what_is_neither_number_nor_id_is_no_subject(tmp_path, name):
    touch(tmp_path, "0/1L.png", f"0/{name}.png")
    assert problems(tmp_path) == [(f"0/{name}.png", "is not named <subject>L or <subject>R")]


@pytest.mark.parametrize(
    ("parts", "sides"),
    [
        (("train", "val", "test"), {"train": "train", "val": "val", "test": "test"}),
        (("train", "valid"), {"train": "train", "valid": "test"}),
        (("train", "test"), {"train": "train", "test": "test"}),
        (("train",), None),
        (("val", "test"), None),
    ],
)
def test_published_parts(tmp_path, parts, sides):
    for number, part in enumerate(parts):
        touch(tmp_path, f"{part}/0/{number}1L.png", f"{part}/2/{number}2L.png")
    table = knee.read(tmp_path)
    if sides is None:
        assert "split" not in table
    else:
        assert (table["split"] == table["path"].str.partition("/")[0].map(sides)).all()


def test_automatic_crops_of_the_test_part_are_left_out(tmp_path):
    touch(tmp_path, "train/0/1L.png", "test/0/2L.png", "auto_test/0/2L.png")
    table = knee.read(tmp_path)
    assert table["path"].tolist() == ["test/0/2L.png", "train/0/1L.png"]
    assert "auto_test: holds 1 automatic crops" in noted(table)


def test_a_grade_that_a_part_lacks_leaves_the_labels_unchanged(tmp_path):
    parts = enumerate(("train", "val", "test"))
    whole = [f"{part}/{grade}/{grade}{n}L.png" for n, part in parts for grade in range(5)]
    before = knee.read(touch(tmp_path / "whole", *whole))
    lacking = [path for path in whole if not path.startswith("val/1/")]
    after = knee.read(touch(tmp_path / "lacking", *lacking))
    assert after.attrs["classes"] == before.attrs["classes"]
    labels = before.set_index("path")["label"]
    assert after["label"].tolist() == labels.loc[after["path"]].tolist()
    assert "val: has no pictures of grade 1; labels stay the grades" in noted(after)


def test_grades_that_nobody_has_keep_their_labels(tmp_path):
    table = knee.read(touch(tmp_path, "0/1L.png", "3/2L.png"))
    assert table["label"].tolist() == [0, 3]
    assert table.attrs["classes"] == ["0", "1", "2", "3", "4"]
    assert noted(table).count("is a grade that no knee has") == 3


def test_class_folder_faults_come_all_at_once(tmp_path):
    touch(
        tmp_path, "train/0/1L.png", "train/1/1L.png", "train/5/2L.png", "train/0/knee.png",
        "loose.png", "other/0/3L.png", "test/0/4L.png", "test/2/5R.png", "masks/0/1L.png",
    )  # fmt: skip
    assert problems(tmp_path) == [
        ("loose.png", "lies outside test or train/0..4"),
        ("other/0/3L.png", "lies outside test or train/0..4"),
        ("train/0/knee.png", "is not named <subject>L or <subject>R"),
        ("train/5/2L.png", "lies outside test or train/0..4"),
        ("left knee of 1", "lies in grades 0, 1: train/0/1L.png, train/1/1L.png"),
        ("2", "is a class without training pictures"),
    ]


@pytest.mark.parametrize(
    ("row", "path", "reason"),
    [
        ("0/1L.png,1,left,2", "0/1L.png", "lies in 0, but labels.csv says kl = 2"),
        ("0/1L.png,7,left,0", "0/1L.png",
         "has patient 1 in its name, but labels.csv says patient_id = 7"),
        ("0/1L.png,1,R,0", "0/1L.png",
         "has side left in its name, but labels.csv says side = right"),
        ("9L.png,1,L,0", "9L.png", "is named in labels.csv, but there is no such file"),
        ("2/2R.png,2,2,2", "2/2R.png", "stands in labels.csv more than once"),
    ],
)  # fmt: skip
def test_a_csv_that_contradicts_folder_or_name(tmp_path, row, path, reason):
    touch(tmp_path, "0/1L.png", "2/2R.png")
    rows = f"path,patient_id,side,kl\n2/2R.png,2,right,2.0\n{row}\n"
    (tmp_path / "labels.csv").write_text(rows)
    assert (path, reason) in problems(tmp_path)


def test_a_csv_that_agrees_changes_nothing(tmp_path):
    touch(tmp_path, "0/1L.png", "2/2R.png")
    expected = knee.read(tmp_path)
    (tmp_path / "labels.csv").write_text("path;kl;side\n0/1L.png;0;L\n2/2R.png;;\n")
    assert knee.read(tmp_path).equals(expected)
    (tmp_path / "labels.csv").write_text("file,kl\n0/1L.png,0\n")
    assert problems(tmp_path) == [("labels.csv", "has no column 'path'")]


@pytest.fixture
def oai(tmp_path):
    """Writes three knees of two subjects in the layout with a table, and returns the folder."""
    root = tmp_path / "OAI_data"
    touch(root, *(f"complete_images/{name}.png" for name in ROWS))
    touch(root, "films/9001897.png", "masks/9001897_1.png")
    for name in ("joints.csv", "truth.csv", "phantom.json"):
        (root / name).write_text("path\n")
    rewrite(root, ROWS)
    return root


def rewrite(root, rows, columns=COLUMNS):
    lines = [f"{name},{cells}" for name, cells in rows.items()]
    (root / "JSL.csv").write_text("\n".join([columns, *lines]) + "\n")


@pytest.mark.parametrize("inner", [True, False])
def test_the_table_of_the_oai(oai, inner):
    table = knee.read(oai if inner else oai.parent)
    assert knee.RISK_FACTORS == FACTORS
    assert table["path"].tolist() == [f"complete_images/{name}.png" for name in ROWS]
    assert table["image"].iloc[0] == str(oai.resolve() / "complete_images/9001897_1.png")
    assert table["patient"].tolist() == ["9001897", "9001897", "9002316"]
    assert table["side"].tolist() == ["right", "left", "right"]
    assert tables.labels(table) == ["jsl"] and tables.classes(table) is None
    assert table["jsl"].fillna(9).tolist() == [1, 0, 9]
    assert table["kl"].fillna(9).tolist() == [2, 0, 9]
    values = table[list(FACTORS)].fillna(9).to_numpy().tolist()
    assert values == [
        [61, 1, 27.5, 0, -3.5, 0, 1, 0, 0, 0, 0, 1, 0, 0],
        [61, 1, 27.5, 1, 2, 0, 1, 0, 0, 1, 0, 0, 0, 0],
        [70, 0, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9],
    ]
    assert "JSL.csv: bmi is unknown for 1 knee" in noted(table)
    assert "split" not in table


def test_grades_of_either_layout_are_alike(oai, tmp_path):
    table, whole = knee.grades(oai), knee.read(oai)
    known = whole[whole["kl"].notna()]
    assert 0 < len(known) < len(whole), "else this test shows nothing"
    assert table["path"].tolist() == known["path"].tolist()
    assert table["label"].tolist() == known["kl"].tolist() and table["label"].dtype == "int64"
    assert table["class"].tolist() == table["label"].astype(str).tolist()
    assert table.attrs["classes"] == list(knee.GRADES) and "labels" not in table.attrs
    assert "JSL.csv: kl is unknown for 1 knee" in noted(table)
    touch(tmp_path / "folders", "0/1L.png", "3/1R.png")
    folders = knee.grades(tmp_path / "folders")
    assert folders.columns.tolist() == table.columns.tolist()
    assert folders.equals(knee.read(tmp_path / "folders"))


def test_faults_of_a_table_leave_the_grades_of_its_sound_rows(oai):
    rewrite(oai, {**ROWS, "9002316_1": "70,2,30,1,9,0,0,1.5,0"})
    with pytest.raises(DataError) as fault:
        knee.grades(oai)
    assert fault.value.table["class"].isin(knee.GRADES).all() and len(fault.value.table)


def test_a_patient_imported_under_a_pseudonym_keeps_it(oai):
    name = "0123456789abcdef"
    touch(oai, f"complete_images/{name}_2.png")
    rewrite(oai, {**ROWS, f"{name}_2": "70,2,,3,,,,,"})
    row = knee.read(oai).iloc[-1]
    assert (row["patient"], row["side"]) == (name, "left")
    rewrite(oai, {**ROWS, f"{name}_2": "70,2,,3,,,,,", f"{name[:-1]}_1": ",,,,,,,,"})
    assert (f"{name[:-1]}_1", f"in JSL.csv {NAMED}") in problems(oai)


def test_columns_in_any_order_and_the_unused_one_may_be_missing(oai):
    expected = knee.read(oai)
    frame = pd.read_csv(oai / "JSL.csv", dtype=str).fillna("NaN")
    frame[frame.columns[::-1]].drop(columns="Alignmnet_TRIN").to_csv(oai / "JSL.csv", index=False)
    assert knee.read(oai).equals(expected)
    frame.drop(columns=["Race", "JSL_Prog"]).to_csv(oai / "JSL.csv", index=False)
    assert problems(oai) == [("JSL.csv", "has no column JSL_Prog, Race")]


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ("61,3,27,1,2,0,1,1,1", "has Sex = '3' in JSL.csv"),
        ("61,2,27,4,2,0,1,1,1", "has Race = '4' in JSL.csv"),
        ("61,2,27,1,5,0,1,1,1", "has BL_KL_grade = '5' in JSL.csv"),
        ("61,2,27,1,2.5,0,1,1,1", "has BL_KL_grade = '2.5' in JSL.csv"),
        ("61,2,27,1,2,x,1,1,1", "has Knee_Injury = 'x' in JSL.csv"),
        ("61,2,27,1,2,0,1,1,-1", "has JSL_Prog = '-1' in JSL.csv"),
        ("old,2,27,1,2,0,1,1,1", "has Age = 'old' in JSL.csv"),
        ("61,2,inf,1,2,0,1,1,1", "has BMI = 'inf' in JSL.csv"),
        ("61,2,27,1,2,0,1,999,1", "has Alignment_degree = '999' in JSL.csv"),
    ],
)
def test_values_that_mean_nothing_name_their_row(oai, cells, reason):
    rewrite(oai, {**ROWS, "9002316_1": cells})
    assert problems(oai) == [("9002316_1", reason)]


def test_table_faults_come_all_at_once(oai):
    touch(oai, "complete_images/9009999_2.png", "complete_images/9001L.png")
    (oai / "complete_images" / "9001897_2.png").unlink()
    rewrite(oai, {**ROWS, "9002316_2": "70,2,,3,,,,,", "9001L": ",,,,,,,,"})
    assert problems(oai) == [
        ("complete_images/9001897_2.png", "is named in JSL.csv, but there is no such file"),
        ("complete_images/9002316_2.png", "is named in JSL.csv, but there is no such file"),
        ("complete_images/9009999_2.png", "has no row in JSL.csv"),
        ("9001L", f"in JSL.csv {NAMED}"),
        ("patient 9002316", "has a different Sex for each knee in JSL.csv"),
    ]


def test_half_of_the_layout_is_named(oai):
    (oai / "complete_images").rename(oai / "elsewhere")
    assert problems(oai) == [("complete_images", "does not exist")]
    (oai / "elsewhere").rename(oai / "complete_images")
    (oai / "JSL.csv").unlink()
    assert problems(oai) == [("JSL.csv", "does not exist, but there is a folder complete_images")]


def test_layout_faults(tmp_path):
    assert problems(tmp_path / "absent")[0][1] == "does not exist"
    assert problems(tmp_path) == [(str(tmp_path.resolve()), "holds no pictures")]
    assert knee.fits(tmp_path) is False


def test_nothing_is_written(oai, content_of):
    before = content_of(oai)
    knee.read(oai)
    assert content_of(oai) == before


def test_real_knees(shared):
    table = knee.read(shared / "data" / "knee_kl")
    assert len(table) == 3000 and table["patient"].nunique() == 1500
    assert table["label"].value_counts().sort_index().tolist() == [1205, 533, 782, 382, 98]
    assert (table.groupby("patient")["side"].nunique() == 2).all()
    assert table.attrs["notes"] == [] and "split" not in table
