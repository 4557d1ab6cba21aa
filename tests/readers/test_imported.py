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


def test_an_import_without_classes_says_what_to_add(out):
    with pytest.raises(DataError, match="images.csv: has no column 'class'"):
        bone.read(out)
