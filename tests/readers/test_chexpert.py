import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from medkeras.errors import DataError
from medkeras.preparation import audit
from medkeras.readers import chexpert, tables

HEADER = ",".join(chexpert.COLUMNS)
# Path in the part, sex, age, view, projection, then the 14 findings.
TRAIN = [
    ("patient00001/study1/view1_frontal.jpg", "Female,68,Frontal,AP,1.0,,,,,,,,,0.0,,,,1.0"),
    ("patient00002/study2/view1_frontal.jpg", "Female,87,Frontal,AP,,,-1.0,1.0,,-1.0,-1.0,,-1.0,,"
     "-1.0,,1.0,"),
    ("patient00002/study1/view2_lateral.jpg", "Male,83,Lateral,,,,,1.0,,,-1.0,,,,,,1.0,"),
    ("patient00003/study1/view1_frontal.jpg", "Unknown,0,Frontal,LL,,,,,,1.0,,,,0.0,,,,"),
]  # fmt: skip
VALID = [("patient64541/study1/view1_frontal.jpg", "Male,73,Frontal,PA" + ",0.0" * 14)]


@pytest.fixture
def chests(tmp_path):
    """Writes four pictures to train on and one to test, and returns the folder."""
    root = tmp_path / "CheXpert-v1.0-small"
    for part, rows in (("train", TRAIN), ("valid", VALID)):
        for path, _ in rows:
            (root / part / path).parent.mkdir(parents=True, exist_ok=True)
            (root / part / path).write_bytes(b"\xff\xd8\xff")
        rewrite(root, rows, part)
    return root


def rewrite(root, rows, part="train", header=HEADER, release="CheXpert-v1.0-small/"):
    lines = [f"{release}{part}/{path},{cells}" for path, cells in rows]
    (root / f"{part}.csv").write_text("\n".join([header, *lines]) + "\n")


def problems(root, **options):
    with pytest.raises(DataError) as caught:
        chexpert.read(root, **options)
    return [(p.path, p.reason) for p in caught.value.problems]


def noted(table):
    return " | ".join(f"{note['path']}: {note['reason']}" for note in table.attrs["notes"])


@pytest.mark.parametrize("inner", [True, False])
def test_one_row_per_frontal_picture(chests, inner):
    table = chexpert.read(chests if inner else chests.parent)
    assert table["path"].tolist() == [
        "train/patient00001/study1/view1_frontal.jpg",
        "train/patient00002/study2/view1_frontal.jpg",
        "train/patient00003/study1/view1_frontal.jpg",
        "valid/patient64541/study1/view1_frontal.jpg",
    ]
    assert table["image"].iloc[0] == str(chests.resolve() / table["path"].iloc[0])
    assert table["patient"].tolist() == [
        "patient00001", "patient00002", "patient00003", "patient64541",
    ]  # fmt: skip
    assert table["study"].tolist() == ["study1", "study2", "study1", "study1"]
    assert table["split"].tolist() == ["train", "train", "train", "test"]
    assert table["sex"].fillna("?").tolist() == ["F", "F", "?", "M"]
    assert table["age"].tolist() == [68, 87, 0, 73]
    assert table["projection"].fillna("?").tolist() == ["AP", "AP", "?", "PA"]
    assert tables.labels(table) == list(chexpert.LABELS) and tables.files(table) == ["image"]


def test_uncertain_and_blank_are_kept_apart_and_neither_is_a_number(chests):
    table = chexpert.read(chests).iloc[1]
    assert table[list(chexpert.LABELS)].fillna(9).tolist() == [
        9, 9, 9, 1, 9, 9, 9, 9, 9, 9, 9, 9, 1, 9,
    ]  # fmt: skip
    uncertain = [name for name in chexpert.LABELS if table[chexpert.UNCERTAIN + name]]
    assert uncertain == [
        "Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Pleural Effusion",
    ]  # fmt: skip


def test_views_are_chosen_and_the_others_counted(chests):
    assert chexpert.read(chests, views="all")["view"].tolist() == [
        "frontal", "frontal", "lateral", "frontal", "frontal",
    ]  # fmt: skip
    lateral = chexpert.read(chests, views="lateral")
    assert lateral["path"].tolist() == ["train/patient00002/study1/view2_lateral.jpg"]
    assert "train.csv: 1 lateral pictures are left out" in noted(chexpert.read(chests))
    assert "valid.csv: 1 frontal pictures are left out" in noted(lateral)
    with pytest.raises(ValueError, match="expected 'frontal'"):
        chexpert.read(chests, views="Frontal")


def test_what_the_numbers_hide_is_noted(chests):
    text = noted(chexpert.read(chests))
    for part in (
        "findings: 5 are uncertain",
        "age: 1 pictures are of the age 0",
        "sex: 1 pictures are of unknown sex",
        "projection: 1 frontal pictures are neither AP nor PA",
    ):
        assert part in text


@pytest.mark.parametrize("release", ["", "CheXpert-v1.0/", "/data/x/train/y/", "a\\"])
def test_what_stands_before_the_part_is_ignored(chests, release):
    expected = chexpert.read(chests)
    rewrite(chests, TRAIN, release=release)
    assert chexpert.read(chests).equals(expected)
    moved = chests.rename(chests.parent / "any name")
    assert chexpert.read(moved)["path"].equals(expected["path"])


def first(cells):
    return [(TRAIN[0][0], cells), *TRAIN[1:]]


FIRST = "train/patient00001/study1/view1_frontal.jpg"


@pytest.mark.parametrize(
    ("rows", "path", "reason"),
    [
        (first("Female,68,Frontal,AP,2" + "," * 13), FIRST, "has No Finding = '2' in train.csv"),
        (first("Female,68,Frontal,AP" + "," * 13 + ",x"), FIRST,
         "has Support Devices = 'x' in train.csv"),
        (first("f,68,Frontal,AP" + "," * 14), FIRST, "has Sex = 'f' in train.csv"),
        (first("Male,411,Frontal,AP" + "," * 14), FIRST, "has Age = '411' in train.csv"),
        (first("Male,old,Frontal,AP" + "," * 14), FIRST, "has Age = 'old' in train.csv"),
        (first("Male,6,,AP" + "," * 14), FIRST, "has Frontal/Lateral = '' in train.csv"),
        (first("Male,6,Frontal"), "train.csv",
         "row 'CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.' has 4 cells, "
         "expected 19"),
        ([*TRAIN, TRAIN[0]], FIRST, "stands in train.csv 2 times, with the same cells"),
        ([*TRAIN, (TRAIN[0][0], "Male,68,Frontal,AP" + "," * 14)], FIRST,
         "stands in train.csv 2 times, with different cells"),
        (TRAIN[1:], FIRST, "has no row in train.csv"),
        ([*TRAIN, ("patient1/study\x001/a.jpg", TRAIN[0][1])],
         "CheXpert-v1.0-small/train/patient1/study\x001/a.jpg",
         "in train.csv is not a picture in train/patient*/study*/"),
        ([*TRAIN, ("view1.jpg", TRAIN[0][1])], "CheXpert-v1.0-small/train/view1.jpg",
         "in train.csv is not a picture in train/patient*/study*/"),
        ([("patient9/study1/v.jpg", TRAIN[0][1])], "train.csv",
         "names 1 pictures, none of which is there (the first: train/patient9/study1/v.jpg)"),
    ],
)  # fmt: skip
def test_broken_rows_are_named(chests, rows, path, reason):
    rewrite(chests, rows)
    assert (path, reason) in problems(chests)


def test_all_faults_come_at_once_and_the_sound_rows_with_them(chests):
    rewrite(chests, first("Male,411,Frontal,AP,7" + "," * 13))
    rewrite(chests, [(VALID[0][0], "Male,1,Frontal,PA" + ",0.5" * 14)], "valid")
    with pytest.raises(DataError) as caught:
        chexpert.read(chests)
    assert len(caught.value.problems) == 16
    assert caught.value.table["patient"].tolist() == ["patient00002", "patient00003"]


def test_a_lost_picture_is_a_broken_one_that_can_be_left_out(chests):
    rng = np.random.default_rng(0)
    cells = ["Male,9,Frontal,AP,0" + "," * 13, "Male,9,Frontal,AP,1" + "," * 13]
    rows = [(f"patient{n}/study1/view1_frontal.jpg", cells[n % 2]) for n in range(8)]
    shutil.rmtree(chests)
    for path, _ in rows[:-1]:
        (chests / "train" / path).parent.mkdir(parents=True)
        pixels = rng.integers(0, 256, (20, 20), dtype=np.uint8)
        Image.fromarray(pixels).save(chests / "train" / path)
    rewrite(chests, rows)
    lost = "train/" + rows[-1][0]

    assert len(chexpert.read(chests)) == 8
    with pytest.raises(DataError) as caught:
        audit.opened(chexpert.read, chests)
    table = audit.opened(chexpert.read, chests, skip_bad=True)

    assert [(problem.path, problem.reason) for problem in caught.value.problems] == [
        (lost, "cannot be opened (No such file or directory)")
    ]
    assert len(table) == 7 and [bad["path"] for bad in table.attrs["skipped"]] == [lost]


def test_pictures_behind_links_are_refused_and_not_opened(chests, tmp_path):
    (chests / "train/patient00001").rename(tmp_path / "elsewhere")
    (chests / "train/patient00001").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError) as caught:
        chexpert.read(chests)
    assert [(problem.path, problem.reason) for problem in caught.value.problems] == [
        ("train/patient00001", "is a link to a folder, which is not followed"),
        (FIRST, "is named in train.csv, but is no picture in the data folder"),
    ]
    assert FIRST not in set(caught.value.table["path"])


def test_a_missing_lateral_picture_matters_only_to_those_who_read_it(chests):
    (chests / "train/patient00002/study1/view2_lateral.jpg").unlink()
    assert "lateral" not in set(chexpert.read(chests)["view"])
    assert len(chexpert.read(chests, views="all")) == 5


def test_columns_that_are_missing_are_named(chests):
    rewrite(chests, [], header="Path,Frontal/Lateral,Sex,Age,No Finding")
    assert problems(chests)[0] == (
        "train.csv",
        "has no column AP/PA, " + ", ".join(chexpert.LABELS[1:]),
    )


def test_without_the_training_part_the_fault_is_clear(chests):
    (chests / "train.csv").unlink()
    (chests / "train").rename(chests / "elsewhere")
    assert problems(chests) == [("train.csv", "does not exist, so there is nothing to train on")]


def test_without_the_published_test_part_there_is_no_split(chests):
    (chests / "valid.csv").unlink()
    assert problems(chests) == [("valid.csv", "does not exist, but there is a folder valid")]
    (chests / "valid").rename(chests / "elsewhere")
    assert "split" not in chexpert.read(chests)


def test_an_empty_folder_is_no_data(tmp_path):
    assert problems(tmp_path)[0][0] == "train.csv"
    (tmp_path / "train.csv").write_text(HEADER + "\n")
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match="holds no frontal pictures"):
        chexpert.read(tmp_path)


def test_order_of_columns_and_extra_ones_do_not_matter(chests):
    expected = chexpert.read(chests)
    frame = pd.read_csv(chests / "train.csv", dtype=str, keep_default_na=False)
    frame[frame.columns[::-1]].assign(more="x").to_csv(chests / "train.csv", index=False, sep=";")
    assert chexpert.read(chests).equals(expected)


def test_other_folders_are_left_alone_and_nothing_is_written(chests, content_of):
    (chests / "masks" / "train").mkdir(parents=True)
    (chests / "masks" / "train" / "x.png").write_bytes(b"")
    (chests / "truth.csv").write_text("path\n")
    before = content_of(chests)
    assert len(chexpert.read(chests)) == 4
    assert content_of(chests) == before


def test_real_pictures_have_exactly_their_labels(shared):
    root = shared / "data" / "CheXpert-v1.0-small"
    table = chexpert.read(root)
    assert table["split"].value_counts().to_dict() == {"train": 321, "test": 89}
    assert table.attrs["notes"] == []
    for part, side in (("train", "train"), ("valid", "test")):
        rows = pd.read_csv(root / f"{part}.csv")
        own = table[table["split"] == side].reset_index(drop=True)
        assert own["path"].tolist() == rows["Path"].str.partition("/")[2].tolist()
        assert own[list(chexpert.LABELS)].equals(rows[list(chexpert.LABELS)].astype(float))
        assert own["age"].tolist() == rows["Age"].tolist()
        assert own["sex"].tolist() == rows["Sex"].str[0].tolist()
        assert own["projection"].tolist() == rows["AP/PA"].tolist()
    sides = table.groupby("patient")["split"].nunique()
    assert (sides == 1).all()
    assert not table[[chexpert.UNCERTAIN + label for label in chexpert.LABELS]].any(axis=None)
