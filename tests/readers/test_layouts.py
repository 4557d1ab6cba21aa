import pytest

from medkeras.errors import DataError
from medkeras.readers import layouts


def touch(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"\x89PNG")
    return root


CHEXPERT = "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding\n"


@pytest.mark.parametrize(
    ("paths", "name"),
    [
        (["train/axial/0000.npy"], "mrnet"),
        (["MRNet-v1.0/valid/sagittal/1130.npy"], "mrnet"),
        (["train-acl.csv"], "mrnet"),
        (["JSL.csv"], "knee"),
        (["OAI_data/JSL.csv", "OAI_data/complete_images/9001_1.png"], "knee"),
        (["0/9001L.png", "4/9002R.jpg"], "knee"),
        (["train/0/9001L.png", "auto_test/0/9001L.png", "test/1/2R.png"], "knee"),
        (["train/0/a.png", "train/1/b.png"], "bone"),
        (["healthy/9001L.png", "broken/9002R.png"], "bone"),
        (["train/0_normal/1.png", "valid/1_abnormal/1.png"], "bone"),
        (["dataset.csv", "images/Fractured/a.jpg"], "bone"),
        (["train/XR_WRIST/patient1/study1_positive/image1.png"], "bone"),
        (["healthy/deep/a.tif", "broken/b.png", "masks/c.png", ".git/x.png"], "bone"),
    ],
)
def test_the_reader_of_a_layout(tmp_path, paths, name):
    assert layouts.recognised(touch(tmp_path, *paths)) == name
    assert name in layouts.READERS


@pytest.mark.parametrize("place", ["", "CheXpert-v1.0"])
def test_chexpert_is_known_by_its_header(tmp_path, place):
    touch(tmp_path, "train/a/x.png", "train/b/x.png")
    assert layouts.recognised(tmp_path) == "bone"
    (tmp_path / place).mkdir(exist_ok=True)
    (tmp_path / place / "train.csv").write_text("\ufeff" + CHEXPERT, encoding="utf-8")
    assert layouts.recognised(tmp_path) == "chexpert"


def refusal(root):
    with pytest.raises(DataError) as caught:
        layouts.recognised(root)
    return caught.value.problems


@pytest.mark.parametrize(
    "paths",
    [[], ["loose.png"], ["notes/a.txt"], ["images/a.png", "masks/a.png"], ["volumes/0001.npy"]],
)
def test_what_fits_nothing_is_told_what_each_reader_needs(tmp_path, paths):
    first, *others = refusal(touch(tmp_path, *paths))
    assert first.reason == "is in no layout that a reader knows"
    assert first.remedy == "see data/README.md for the layouts"
    assert [p.path for p in others] == [f"reader {name}" for name in layouts.READERS]
    assert all(p.reason.startswith("needs ") for p in others)


def test_a_folder_too_high_is_told_the_right_one(tmp_path):
    touch(tmp_path, "data/healthy/a.png", "data/broken/b.png", "notes.txt")
    inner = tmp_path.resolve() / "data"
    assert refusal(tmp_path)[0].remedy == f"name the folder that holds the classes: --data {inner}"


@pytest.mark.parametrize("name", ["a/b/1.dcm", "DICOMDIR", "IM0001", "1.2.840.113"])
def test_dicom_files_are_sent_to_the_import(tmp_path, name):
    touch(tmp_path, name)
    if "." not in name or name[-1].isdecimal():
        (tmp_path / name).write_bytes(bytes(128) + b"DICM")
    (found,) = refusal(tmp_path)
    assert found.reason == "holds DICOM files, which no reader takes"
    assert "python -m medkeras.readers.dicom IN OUT" in found.remedy


def test_a_folder_that_is_not_there(tmp_path):
    assert refusal(tmp_path / "absent")[0].reason == "does not exist"


def test_real_folders(shared):
    names = {
        "CheXpert-v1.0-small": "chexpert",
        "knee_kl": "knee",
        "bones_fracatlas": "bone",
        "bones_sr2022": "bone",
        "nih64": "bone",
    }
    for folder, name in names.items():
        assert layouts.recognised(shared / "data" / folder) == name
    assert "DICOM" in refusal(shared / "data" / "dicom")[0].reason


def test_class_folders_with_patients_in_a_csv(shared):
    table = layouts.READERS["bone"](shared / "data" / "nih64")
    assert table["class"].value_counts().to_dict() == {"1_abnormal": 261, "0_normal": 257}
    assert table["patient"].nunique() == 150
    assert (table.groupby("patient")["split"].nunique() > 1).sum() == 15
    assert table.attrs["classes"] == ["0_normal", "1_abnormal"]
