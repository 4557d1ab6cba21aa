import numpy as np
import pandas as pd
import pytest
from PIL import Image

from medkeras.errors import DataError
from medkeras.phantoms import knee_xray
from medkeras.readers import films

HEADER = "film,side,x,y,width,height"


@pytest.fixture
def folder(tmp_path):
    """Makes a folder of films of 40 x 30 pixels with the rows of joints.csv."""

    def make(names, rows, header=HEADER):
        (tmp_path / "films").mkdir()
        for name in names:
            Image.fromarray(np.zeros((30, 40), np.uint8)).save(tmp_path / "films" / name)
        (tmp_path / "joints.csv").write_text("\n".join([header, *rows]) + "\n")
        return tmp_path

    return make


def problems(root):
    with pytest.raises(DataError) as fault:
        films.read(root)
    return {problem.path: problem for problem in fault.value.problems}, fault.value.table


def test_a_phantom_is_read_with_the_boxes_that_it_wrote(tmp_path):
    root = knee_xray.write(tmp_path / "knee", patients=2, size=32, film=(96, 128))
    table = films.read(root)
    truth = pd.read_csv(root / "joints.csv").set_index(["film", "side"])
    assert sorted(table["path"]) == sorted(truth.index.unique("film"))
    assert set(table["class"]) == {"film"} and table.attrs["notes"] == []
    for row in table.itertuples():
        assert row.path == f"films/{row.patient}.png" and row.side == ""
        assert row.image == str(root.resolve() / row.path)
        for code, side in ((1, "right"), (2, "left")):
            box = table.loc[row.Index, films.columns(side)].tolist()
            assert box == truth.loc[(row.path, code)].tolist()


def test_films_of_one_knee_and_several_of_a_patient(folder):
    rows = ["films/11R.png,R,1,1,9,9,anna", "12_2.png,left,1,1,9,9,", "13.png,1,1,1,9,9,anna"]
    root = folder(["11R.png", "12_2.png", "13.png"], rows, HEADER + ",patient")
    table = films.read(root).set_index("path")
    assert table["side"].to_dict() == {
        "films/11R.png": "right",
        "films/12_2.png": "left",
        "films/13.png": "",
    }
    assert table["patient"].tolist() == ["anna", "12", "anna"]
    assert table.loc["films/12_2.png", films.columns("right")].isna().all()


def test_films_without_a_box_are_left_out_and_counted(folder):
    root = folder(["1.png", "2.png", "3.png"], ["2.png,right,1,1,9,9"])
    table = films.read(root)
    assert table["path"].tolist() == ["films/2.png"]
    assert "2 of 3 films have no box" in table.attrs["notes"][0]["reason"]


def test_everything_wrong_is_told_at_once(folder):
    rows = [
        "1.png,right,1,1,9,9",
        "1.png,R,2,2,9,9",
        "2.png,middle,1,1,9,9",
        "3.png,left,1,one,9,9",
        "4.png,left,1,1,0,9",
        "5.png,left,-7,1,9,9",
        "6L.png,right,1,1,9,9",
        "7.png,right,1,1,9,9",
        "8.png,right,1,1,9,9",
    ]
    names = ["1.png", "2.png", "3.png", "4.png", "5.png", "6L.png", "8.png"]
    found, table = problems(folder(names, rows))
    expected = {
        "films/1.png": "two boxes of the right knee",
        "films/2.png": "the side 'middle'",
        "films/3.png": "1, one, 9, 9",
        "films/4.png": "not on the film",
        "films/5.png": "not on the film",
        "films/6L.png": "shows the left knee, but has a box of the right",
        "7.png": "no such file",
    }
    assert set(found) == set(expected)
    for path, words in expected.items():
        assert words in found[path].reason and found[path].remedy
    assert table["path"].tolist() == ["films/1.png", "films/8.png"], "the sound rows stay"


def test_a_folder_that_is_none_says_what_it_lacks(tmp_path):
    (tmp_path / "films").mkdir()
    found, _ = problems(tmp_path)
    assert "no joints.csv" in found[str(tmp_path.resolve())].reason
    (tmp_path / "joints.csv").write_text("film,x,y\n1.png,1,1\n")
    found, _ = problems(tmp_path)
    assert "side, width, height" in found["joints.csv"].reason


def test_dicom_films_are_to_be_imported_whole(folder):
    root = folder(["1.png"], ["1.png,right,1,1,9,9"])
    (root / "films" / "2.dcm").write_bytes(b"DICM")
    found, _ = problems(root)
    assert "1 DICOM" in found["films"].reason and "--knees whole" in found["films"].remedy


def test_an_import_names_patients_and_sides(tmp_path):
    for name in ("a_R", "b"):
        path = tmp_path / "0123456789abcdef" / "study" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((30, 20), np.uint8)).save(path)
    start = "0123456789abcdef/study"
    images = ["path,patient,side", f"{start}/a_R.png,p1,R", f"{start}/b.png,p2,", "x/s.npy,p3,"]
    (tmp_path / "images.csv").write_text("\n".join(images) + "\n")
    rows = [HEADER, f"{start}/a_R.png,R,1,1,9,9", f"{start}/b.png,L,1,1,9,9"]
    (tmp_path / "joints.csv").write_text("\n".join(rows) + "\n")
    table = films.read(tmp_path)
    assert table["patient"].tolist() == ["p1", "p2"] and table["side"].tolist() == ["right", ""]


@pytest.mark.parametrize(
    ("stem", "subject", "side"),
    [
        ("9001695", "9001695", ""),
        ("9001695R", "9001695", "right"),
        ("9001695_l", "9001695", "left"),
        ("9001695_1", "9001695", "right"),
        ("0123456789abcdefL", "0123456789abcdef", "left"),
        ("90016952", "90016952", ""),
        ("Smith_R", None, ""),
        ("9001695_3", None, ""),
    ],
)
def test_names_say_subject_and_side(stem, subject, side):
    assert films.subject(stem) == (subject, side)
