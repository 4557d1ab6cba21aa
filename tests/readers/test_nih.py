import pandas as pd
import pytest

from medkeras.errors import DataError
from medkeras.readers import chexpert, layouts, nih, tables

# As published, commas inside two names of the header and at its end.
HEADER = ",".join(nih.COLUMNS) + ",OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
ROWS = [
    "00000001_000.png,Cardiomegaly,0,1,058Y,M,PA,2682,2749,0.143,0.143,",
    "00000001_001.png,Cardiomegaly|Emphysema,1,1,58,M,PA,2894,2729,0.143,0.143,",
    "00000002_000.png,No Finding,0,2,013M,F,AP,2500,2048,0.168,0.168,",
    "00000003_000.png,Infiltration|Pleural_Thickening,0,3,414,,LL,2582,2991,0.143,0.143,",
]
BOXES = [
    "00000001_001.png,Cardiomegaly,68.5,131.7,185.2,313.4,,,",
    "00000003_000.png,Infiltrate,0.0,1000.5,10,100,,,",
    "00099999_000.png,Mass,1,2,3,4,,,",
]
BOX_HEADER = "Image Index,Finding Label,Bbox [x,y,w,h],,,"


@pytest.fixture
def chests(tmp_path):
    """Writes four pictures in two folders, their csv and three boxes; returns the folder."""
    root = tmp_path / "nih"
    for row, folder in zip(ROWS, ["images_001/images", "images", "images", "."], strict=True):
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder / row.split(",")[0]).write_bytes(b"\x89PNG")
    write(root)
    (root / "BBox_List_2017.csv").write_text("\n".join([BOX_HEADER, *BOXES]) + "\n")
    return root


def write(root, rows=ROWS, header=HEADER, name="Data_Entry_2017.csv"):
    (root / name).write_text("\n".join([header, *rows]) + "\n")


def problems(call):
    with pytest.raises(DataError) as caught:
        call()
    return [(p.path, p.reason) for p in caught.value.problems]


def noted(table):
    return " | ".join(f"{note['path']}: {note['reason']}" for note in table.attrs["notes"])


@pytest.mark.parametrize("inner", [True, False])
def test_one_row_per_picture_wherever_it_lies(chests, inner):
    assert layouts.recognised(chests if inner else chests.parent) == "nih"
    table = nih.read(chests if inner else chests.parent)
    assert table["path"].tolist() == [
        "images_001/images/00000001_000.png",
        "images/00000001_001.png",
        "images/00000002_000.png",
        "00000003_000.png",
    ]
    assert table["image"].iloc[0] == str(chests.resolve() / table["path"].iloc[0])
    assert table["patient"].tolist() == ["1", "1", "2", "3"]
    assert table["study"].tolist() == ["0", "1", "0", "0"]
    assert table["sex"].fillna("?").tolist() == ["M", "M", "F", "?"]
    assert table["age"].fillna(-1).tolist() == [58, 58, pytest.approx(13 / 12), -1]
    assert table["projection"].fillna("?").tolist() == ["PA", "PA", "AP", "?"]
    assert set(table["view"]) == {"frontal"} and "split" not in table
    assert tables.labels(table) == list(nih.LABELS) and tables.files(table) == ["image"]
    for words in ("1 pictures have an age above 120", "of unknown sex", "neither AP nor PA"):
        assert words in noted(table)


def test_what_a_report_does_not_list_is_absent(chests):
    table = nih.read(chests)
    listed = [[name for name in nih.LABELS if row[name]] for _, row in table.iterrows()]
    assert listed == [
        ["Cardiomegaly"],
        ["Cardiomegaly", "Emphysema"],
        ["No Finding"],
        ["Infiltration", "Pleural_Thickening"],
    ]
    assert table[list(nih.LABELS)].isin([0.0, 1.0]).all(axis=None)


def test_the_newer_of_two_csv_files_is_read(chests):
    newer = [ROWS[0].replace("Cardiomegaly", "Hernia"), *ROWS[1:]]
    write(chests, newer, name="Data_Entry_2017_v2020.csv")
    table = nih.read(chests)
    assert table["Hernia"].tolist() == [1, 0, 0, 0]
    assert "Data_Entry_2017_v2020.csv: is read, Data_Entry_2017.csv is not" in noted(table)


def test_the_published_split_needs_both_lists(chests):
    (chests / "train_val_list.txt").write_text("00000001_000.png\n00000001_001.png\n")
    assert problems(lambda: nih.read(chests)) == [
        ("test_list.txt", "does not exist, but train_val_list.txt does")
    ]
    (chests / "test_list.txt").write_text("00000003_000.png\n00000001_001.png\n")
    both = "of train_val_list.txt and test_list.txt"
    assert problems(lambda: nih.read(chests)) == [
        ("images/00000001_001.png", f"stands in both {both}"),
        ("images/00000002_000.png", f"stands in none {both}"),
    ]
    (chests / "test_list.txt").write_text("00000003_000.png\n00000002_000.png\n")
    assert nih.read(chests)["split"].tolist() == ["train", "train", "test", "test"]


FIRST = "00000001_000.png"


@pytest.mark.parametrize(
    ("rows", "path", "reason"),
    [
        ([ROWS[0].replace("Cardiomegaly", "Cough"), *ROWS[1:]], FIRST,
         "has Finding Labels = 'Cough' in Data_Entry_2017.csv"),
        ([ROWS[0].replace("Cardiomegaly", "Mass|No Finding"), *ROWS[1:]], FIRST,
         "has Finding Labels = 'Mass|No Finding' in Data_Entry_2017.csv"),
        ([ROWS[0].replace("Cardiomegaly", ""), *ROWS[1:]], FIRST,
         "has Finding Labels = '' in Data_Entry_2017.csv"),
        ([ROWS[0].replace("058Y", "old"), *ROWS[1:]], FIRST,
         "has Patient Age = 'old' in Data_Entry_2017.csv"),
        ([ROWS[0].replace(",M,", ",X,"), *ROWS[1:]], FIRST,
         "has Patient Gender = 'X' in Data_Entry_2017.csv"),
        ([ROWS[0].replace(",0,1,", ",0,,"), *ROWS[1:]], FIRST,
         "has Patient ID = '' in Data_Entry_2017.csv"),
        ([*ROWS, ROWS[0]], FIRST, "stands in Data_Entry_2017.csv more than once"),
        (ROWS[1:], "images_001/images/00000001_000.png", "has no row in Data_Entry_2017.csv"),
        ([row.replace("png", "jpg") for row in ROWS], "Data_Entry_2017.csv",
         "names 4 pictures, none of which is there (the first: 00000001_000.jpg)"),
    ],
)  # fmt: skip
def test_broken_rows_are_named(chests, rows, path, reason):
    write(chests, rows)
    assert (path, reason) in problems(lambda: nih.read(chests))


def test_a_wrong_row_leaves_the_others(chests):
    write(chests, [ROWS[0].replace("Cardiomegaly", "Cough"), *ROWS[1:]])
    with pytest.raises(DataError) as caught:
        nih.read(chests)
    assert len(caught.value.problems) == 1 and len(caught.value.table) == 3


def test_a_missing_picture_keeps_its_row_for_the_audit(chests):
    (chests / "images" / "00000002_000.png").unlink()
    table = nih.read(chests)
    assert table["path"].iloc[2] == "00000002_000.png"


def test_a_name_that_two_files_have_is_refused(chests):
    (chests / "images_001" / "images" / "00000002_000.png").write_bytes(b"\x89PNG")
    ((path, reason),) = problems(lambda: nih.read(chests))
    assert path == "00000002_000.png" and reason.startswith("is the name of 2 files: images")


def test_a_folder_without_its_csv_or_columns_says_so_alone(chests):
    write(chests, header=HEADER.replace("Patient ID", "Patient"))
    assert problems(lambda: nih.read(chests)) == [
        ("Data_Entry_2017.csv", "has no column Patient ID")
    ]
    (chests / "Data_Entry_2017.csv").unlink()
    ((path, _),) = problems(lambda: nih.read(chests))
    assert path == "Data_Entry_2017*.csv"


def test_boxes_are_read_below_their_broken_header(chests):
    found = nih.boxes(chests)
    assert found.to_numpy().tolist() == [
        ["images/00000001_001.png", "Cardiomegaly", 68.5, 131.7, 185.2, 313.4],
        ["00000003_000.png", "Infiltration", 0.0, 1000.5, 10.0, 100.0],
    ]
    assert noted(found) == (
        "BBox_List_2017.csv: 1 boxes are of pictures that are not there, and left out"
    )
    assert set(found["finding"]) <= set(nih.AS_CHEXPERT)


@pytest.mark.parametrize(
    "cells",
    ["Cough,1,2,3,4", "Mass,1,2,3", "Mass,1,2,3,x", "Mass,1,2,nan,4", "Mass,1,2,0,4",
     "Mass,1024,2,3,4", "Mass,1,-9,3,4"],
)  # fmt: skip
def test_what_is_no_box_is_refused(chests, cells):
    row = f"00000001_000.png,{cells}"
    (chests / "BBox_List_2017.csv").write_text(f"{BOX_HEADER}\n{row}\n")
    ((path, reason),) = problems(lambda: nih.boxes(chests))
    assert path == "BBox_List_2017.csv" and reason.startswith(f"has the row '{row}'")
    (chests / "BBox_List_2017.csv").unlink()
    assert problems(lambda: nih.boxes(chests)) == [("BBox_List_2017.csv", "does not exist")]


def test_names_of_chexpert_are_its_own(shared):
    assert list(nih.AS_CHEXPERT) == list(nih.LABELS)
    assert {name for name in nih.AS_CHEXPERT.values() if name} <= set(chexpert.LABELS)
    # The same pictures in CheXpert's layout, whose labels were mapped by someone else.
    mine = nih.read(shared / "data" / "nih_cxr14")
    theirs = chexpert.read(shared / "data" / "CheXpert-v1.0-small").set_index("patient")
    mine.index = "patient" + mine["patient"].str.zfill(5)
    both = mine.index.intersection(theirs.index)
    assert len(both) > 5
    for name, as_chexpert in nih.AS_CHEXPERT.items():
        if as_chexpert:
            present = mine.loc[both, name] == 1
            assert (theirs.loc[both, as_chexpert][present] == 1).all(), name


def test_the_real_sample_is_read_whole(shared):
    table, found = (read(shared / "data" / "nih_cxr14") for read in (nih.read, nih.boxes))
    assert len(table) == 18 and table["patient"].nunique() == 18 and not table.attrs["notes"]
    assert len(found) == 6 and not found.attrs["notes"]
    there = table.set_index("path")
    assert all(there.loc[row.path, row.finding] == 1 for row in found.itertuples())
    assert isinstance(table, pd.DataFrame)
