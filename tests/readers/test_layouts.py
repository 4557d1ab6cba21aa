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
        (["Data_Entry_2017_v2020.csv", "images/a/x.png", "images/b/y.png"], "nih"),
        (["NIH/Data_Entry_2017.csv"], "nih"),
        (["JSL.csv"], "knee"),
        (["OAI_data/JSL.csv", "OAI_data/complete_images/9001_1.png"], "knee"),
        (["0/9001L.png", "4/9002R.jpg"], "knee"),
        (["train/0/9001L.png", "auto_test/0/9001L.png", "test/1/2R.png"], "knee"),
        (["0/323f21f4b767a0e9L.png", "0/323f21f4b767a0e9R.png", "1/9001R.png"], "knee"),
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


def test_chexpert_is_known_below_what_a_spreadsheet_says(tmp_path):
    (tmp_path / "train.csv").write_text("sep=;\n" + CHEXPERT.replace(",", ";"))
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


CHESTS = ["train.csv", "train/patient1/study1/a.jpg", "train/patient1/study2/a.jpg"]
MURA = ["train/XR_HAND/patient1/study1_positive/1.png", "train/XR_HAND/patient2/study1/1.png"]


@pytest.mark.parametrize(
    ("paths", "inner"),
    [
        ([*CHESTS, "train/patient2/study1/a.jpg"], "train"),
        (CHESTS, "train/patient1"),
        (CHESTS, "train/patient1/study1"),
        (["train/axial/0.npy", "train/coronal/0.npy"], "train"),
        (["train/axial/0.npy", "train/coronal/0.npy"], "train/axial"),
        (["train/3/9001L.png"], "train/3"),
        (["3/9001L.png"], "3"),
        (["JSL.csv", "complete_images/9001_1.png"], "complete_images"),
        (MURA, "train/XR_HAND"),
        (["dataset.csv", "images/Fractured/a.jpg"], "images"),
    ],
)
def test_a_piece_of_a_data_set_is_told_the_whole(tmp_path, paths, inner):
    root = touch(tmp_path / "set", *paths)
    if "train.csv" in paths:
        (root / "train.csv").write_text(CHEXPERT)
    found = refusal(root / inner)[0]
    assert found.reason == "is in no layout that a reader knows"
    assert found.remedy == f"name the folder above: --data {root.resolve()}"


def test_an_import_is_not_read_below_its_table(tmp_path):
    touch(
        tmp_path,
        "323f21f4b767a0e9/aaaaaaaaaaaaaaaa/1.png",
        "323f21f4b767a0e9/b" + "0" * 15 + "/1.png",
    )
    (tmp_path / "images.csv").write_text("path,patient\n")
    found = refusal(tmp_path / "323f21f4b767a0e9")[0]
    assert found.remedy == f"name the folder above: --data {tmp_path.resolve()}"


def test_patients_are_no_classes_where_nothing_lies_above(tmp_path):
    touch(tmp_path, "patient1/study1/a.jpg", "patient2/study1/a.jpg")
    assert refusal(tmp_path)[0].remedy == "see data/README.md for the layouts"


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
        "nih_cxr14": "nih",
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
