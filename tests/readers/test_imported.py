import numpy as np
import pandas as pd
import pytest

from medkeras.errors import DataError
from medkeras.readers import bone, dicom, layouts
from tests.files import dicoms


@pytest.fixture
def out(tmp_path, monkeypatch):
    """An import of four films of two patients."""
    monkeypatch.setenv("MEDKERAS_KEY", str(tmp_path / "key"))
    rng = np.random.default_rng(0)
    for number in range(4):
        made = dicoms.dataset(
            rng.integers(0, 4096, (24, 20), dtype=np.uint16),
            bits=12,
            PatientID=f"Somebody {number // 2}",
        )
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{number}.dcm").write_bytes(dicoms.saved(made))
    dicom.convert(tmp_path / "in", tmp_path / "out")
    return tmp_path / "out"


def test_an_import_with_classes_is_a_data_set(out):
    table = pd.read_csv(out / "images.csv", dtype=str)
    table["class"] = ["fractured", "healthy", "healthy", ""]
    table.to_csv(out / "images.csv", index=False)
    assert layouts.recognised(out) == "bone"
    found = bone.read(out)
    labelled = table[table["class"] != ""].set_index("path")
    assert set(found["path"]) == set(labelled.index)
    for row in found.itertuples():
        assert row.patient == labelled.loc[row.path, "patient"]
    assert found["patient"].nunique() == 2 and found.attrs["classes"] == ["healthy", "fractured"]
    assert "1 of 4 pictures have no class" in found.attrs["notes"][0]["reason"]


@pytest.fixture
def mixed(out):
    """The import with classes, and an MR volume beside the films."""
    table = pd.read_csv(out / "images.csv", dtype=str)
    table["class"] = ["fractured", "healthy", "healthy", "fractured"]
    volume = {"path": "aa/bb/cc.npy", "patient": "aa", "class": ""}
    (out / "aa" / "bb").mkdir(parents=True)
    np.save(out / volume["path"], np.zeros((2, 3, 3), np.uint8))
    # Before the films, so that rows do not stay in place.
    return out, pd.concat([pd.DataFrame([volume]), table], ignore_index=True)


def test_volumes_without_a_class_are_left_out_and_counted(mixed):
    out, table = mixed
    table.to_csv(out / "images.csv", index=False)
    found = bone.read(out).set_index("path")
    films = table[1:].set_index("path")
    assert found["patient"].to_dict() == films["patient"].to_dict()
    assert found["class"].to_dict() == films["class"].to_dict()
    assert found.attrs["notes"][0]["reason"] == "1 of 5 rows are volumes and were left out"


def test_a_volume_with_a_class_is_sent_to_the_layout_of_mrnet(mixed):
    out, table = mixed
    table.loc[0, "class"] = "torn"
    table.to_csv(out / "images.csv", index=False)
    with pytest.raises(DataError) as caught:
        bone.read(out)
    (problem,) = caught.value.problems
    assert problem.path == "aa/bb/cc.npy" and problem.reason.startswith("is a volume with a class")
    assert "MRNet" in problem.remedy and len(caught.value.table) == 4


def test_an_import_of_volumes_alone_is_not_asked_for_classes(mixed):
    out, table = mixed
    table.head(1).drop(columns="class").to_csv(out / "images.csv", index=False)
    with pytest.raises(DataError, match="lists 1 volumes and no picture") as caught:
        bone.read(out)
    assert "column 'class'" not in str(caught.value)


def test_an_import_without_classes_says_what_to_add(out):
    with pytest.raises(DataError, match="images.csv: has no column 'class'"):
        bone.read(out)
