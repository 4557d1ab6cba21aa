import os
import shutil

import pytest

from medkeras.errors import DataError
from medkeras.readers import bone, listing


def touch(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"\xff\xd8\xff")
    return root


def problems(root):
    with pytest.raises(DataError) as caught:
        bone.read(root)
    return {(problem.path, problem.reason) for problem in caught.value.problems}


def says(root, path, reason):
    found = problems(root)
    assert any(p.endswith(path) and reason in r for p, r in found), found
    return found


def test_class_folders_with_a_csv(tmp_path):
    touch(
        tmp_path, "fractured/b.png", "Healthy_bones/a.jpg", "Healthy_bones/sub/c.png", ".git/x.png"
    )
    text = (
        "\ufeffPath;Patient_ID;note\r\n\r\nfractured/b.png;007;\r\na.jpg;7;x\r\nsub/c.png;1e3;\r\n"
    )
    (tmp_path / "list.csv").write_text(text, encoding="utf-8")
    table = bone.read(tmp_path)
    assert table["path"].tolist() == [
        "fractured/b.png",
        "Healthy_bones/a.jpg",
        "Healthy_bones/sub/c.png",
    ]
    assert table["patient"].tolist() == ["007", "7", "1e3"]
    assert table["label"].tolist() == [1, 0, 0]
    assert table["class"].tolist() == ["fractured", "Healthy_bones", "Healthy_bones"]
    assert table["image"].tolist() == [str(tmp_path.resolve() / path) for path in table["path"]]
    assert "split" not in table and "mask" not in table


def test_side_in_the_name_gives_the_patient(tmp_path):
    touch(tmp_path, "0/9001L.png", "0/9001R.png", "1/0042L.jpg")
    assert bone.read(tmp_path)["patient"].tolist() == ["9001", "9001", "0042"]
    touch(tmp_path, "1/323f21f4b767a0e9L.png", "1/323f21f4b767a0e9R.png")
    assert bone.read(tmp_path)["patient"].tolist()[3:] == ["323f21f4b767a0e9"] * 2
    touch(tmp_path, "1/other.png")
    table = bone.read(tmp_path)
    assert table["patient"].tolist() == table["path"].tolist()
    assert "stand alone" in table.attrs["notes"][0]["reason"]


@pytest.mark.parametrize(
    ("names", "order"),
    [
        (["fracture", "unmarked", "displaced"], ["unmarked", "displaced", "fracture"]),
        (["1_abnormal", "0_normal"], ["0_normal", "1_abnormal"]),
        (["10", "2", "1"], ["1", "2", "10"]),
        (["Fractured", "Non_fractured"], ["Non_fractured", "Fractured"]),
        (["positive", "negative"], ["negative", "positive"]),
        (["abnormal", "normal"], ["normal", "abnormal"]),
        (["malign", "no finding"], ["no finding", "malign"]),
        (["nonunion", "healed"], ["healed", "nonunion"]),
        (["unhealthy", "healthy"], ["healthy", "unhealthy"]),
        (["not_normal", "plain"], ["not_normal", "plain"]),
    ],
)
def test_class_order(names, order):
    assert listing.class_order(names) == order
    assert listing.class_order(reversed(names)) == order


@pytest.mark.parametrize(
    ("parts", "sides"),
    [
        (("train", "valid"), {"train": "train", "valid": "test"}),
        (("Training", "TEST"), {"Training": "train", "TEST": "test"}),
        (("train", "valid", "test"), {"train": "train", "valid": "val", "test": "test"}),
        (("train",), None),
        (("valid", "test"), None),
    ],
)
def test_published_parts(tmp_path, parts, sides):
    for part in parts:
        touch(tmp_path, f"{part}/healthy/{part}a.png", f"{part}/broken/{part}b.png")
    table = bone.read(tmp_path)
    assert set(table["class"]) == {"healthy", "broken"}
    if sides is None:
        assert "split" not in table
    else:
        assert (table["split"] == table["path"].str.split("/").str[0].map(sides)).all()


def test_mura(tmp_path):
    touch(
        tmp_path,
        "train/XR_WRIST/patient00001/study1_positive/image1.png",
        "train/XR_HAND/patient00001/study2_negative/image1.png",
        "valid/XR_HAND/patient00002/study1_negative/image1.png",
    )
    (tmp_path / "train_image_paths.csv").write_text("MURA-v1.1/train/XR_WRIST/x.png\n")
    table = bone.read(tmp_path).set_index("path")
    row = table.loc["train/XR_WRIST/patient00001/study1_positive/image1.png"]
    assert (row["patient"], row["label"], row["class"], row["split"]) == (
        "patient00001", 1, "positive", "train",
    )  # fmt: skip
    assert table.loc["valid/XR_HAND/patient00002/study1_negative/image1.png", "split"] == "test"
    direct = bone.read(tmp_path / "train")
    assert "split" not in direct and direct["patient"].nunique() == 1
    touch(tmp_path, "train/XR_HAND/patient00003/study1/image1.png")
    says(tmp_path, "study1/image1.png", "does not lie in")


@pytest.mark.parametrize(
    "paths",
    [
        ["patient00001/study1/a.jpg", "patient00002/study1/a.jpg"],
        ["train/patient00001/study1/a.jpg", "valid/Patient2/study1/a.jpg"],
        ["study1_negative/a.png", "study2_positive/a.png"],
        ["323f21f4b767a0e9/a/b.png", "healthy/b.png"],
    ],
)
def test_patients_are_no_classes(tmp_path, paths):
    touch(tmp_path, *paths)
    ((path, reason),) = problems(tmp_path)
    assert path == str(tmp_path.resolve()) and "named like a patient or a study" in reason


def test_patients_below_classes_are_fine(tmp_path):
    touch(tmp_path, "healthy/patient1/a.png", "patients with a fracture/patient2/a.png")
    assert bone.read(tmp_path).attrs["classes"] == ["healthy", "patients with a fracture"]


def fracatlas(root, rows, *paths):
    touch(root, *(f"images/{path}" for path in paths))
    (root / "dataset.csv").write_text("image_id,fractured,group\n" + "\n".join(rows) + "\n")
    return root


def test_fracatlas(tmp_path):
    fracatlas(tmp_path, ["a.jpg,1,g1", "b.jpg,0,g2"], "Fractured/a.jpg", "anywhere/b.jpg")
    table = bone.read(tmp_path).set_index("path")
    assert table.loc["images/Fractured/a.jpg", "label"] == 1
    assert table.loc["images/anywhere/b.jpg", "class"] == "Non_fractured"
    assert table["patient"].to_dict() == {
        "images/Fractured/a.jpg": "g1", "images/anywhere/b.jpg": "g2",
    }  # fmt: skip


def test_fracatlas_faults_come_all_at_once(tmp_path):
    rows = ["a.jpg,1,g1", "b.jpg,2,g2", "c.jpg,0,g3", "gone.jpg,0,g3", "a.jpg,0,g1"]
    fracatlas(tmp_path, rows, "Fractured/a.jpg", "b.jpg", "Fractured/c.jpg", "extra.jpg")
    found = says(tmp_path, "images/b.jpg", "fractured = '2'")
    for path, reason in [
        ("gone.jpg", "no such file"),
        ("images/Fractured/a.jpg", "more than once"),
        ("images/Fractured/c.jpg", "calls it Non_fractured"),
        ("images/extra.jpg", "no row"),
    ]:
        assert any(p == path and reason in r for p, r in found), (path, found)


def test_fracatlas_without_its_pictures(tmp_path):
    (tmp_path / "dataset.csv").write_text("image_id,fractured\na.jpg,1\n")
    says(tmp_path, "images", "does not exist")


def test_csv_and_folder_that_disagree(tmp_path):
    touch(tmp_path, "healthy/a.png", "healthy/b.png", "broken/c.png")
    rows = "path,patient,class\nhealthy/a.png,1,broken\nhealthy/b.png,2,Healthy\nbroken/c.png,3,\n"
    (tmp_path / "labels.csv").write_text(rows)
    found = says(tmp_path, "healthy/a.png", "calls it broken")
    assert len(found) == 1


def test_codes_in_the_csv_may_mean_the_classes(tmp_path):
    touch(tmp_path, "healthy/a.png", "healthy/b.png", "broken/c.png", "broken/d.png")
    head = "file,label\n"
    (tmp_path / "l.csv").write_text(head + "a.png,0\nb.png,0\nc.png,1\nd.png,1\n")
    assert len(bone.read(tmp_path)) == 4
    (tmp_path / "l.csv").write_text(head + "a.png,0\nb.png,0\nc.png,0\nd.png,1\n")
    says(tmp_path, "broken/c.png", "calls it 0")


@pytest.mark.parametrize(
    ("text", "path", "reason"),
    [
        ("path,patient\nhealthy/a.png,1\n", "broken/b.png", "no row"),
        ("path,patient\nhealthy/a.png,1\nbroken/b.png\n", "l.csv", "1 cells"),
        ("path,patient\nx.png,1\ny.png,1\n", "l.csv", "names 2 pictures"),
        ("path,path\nhealthy/a.png,1\n", "l.csv", "more than once"),
        ("path,patient\nhealthy/a.png,1\nhealthy/a.png,2\nb.png,3\n", "a.png", "more than once"),
        ("\n \n", "l.csv", "is empty"),
        ('path,patient\n"healthy/a.png,1\nbroken/b.png,2\n', "l.csv", "not a csv"),
    ],
)
def test_broken_csvs(tmp_path, text, path, reason):
    touch(tmp_path, "healthy/a.png", "broken/b.png")
    (tmp_path / "l.csv").write_text(text)
    says(tmp_path, path, reason)


def test_a_name_in_two_folders_needs_its_path(tmp_path):
    touch(tmp_path, "healthy/a.png", "broken/a.png")
    (tmp_path / "l.csv").write_text("path,patient\na.png,1\n")
    says(tmp_path, "a.png", "fits 2 files")


def test_layout_faults(tmp_path):
    says(tmp_path / "absent", "absent", "does not exist")
    says(tmp_path, "", "no pictures")
    touch(tmp_path, "healthy/a.png", "loose.png")
    (tmp_path / "broken").mkdir()
    found = says(tmp_path, "loose.png", "no class folder")
    assert ("broken", "is a class without pictures") in found
    shutil.rmtree(tmp_path / "broken")
    says(tmp_path, "", "1 class folders")


def test_a_class_only_in_the_test_part(tmp_path):
    touch(tmp_path, "train/a/1.png", "train/b/2.png", "test/a/3.png", "test/c/4.png")
    says(tmp_path, "c", "without training pictures")


def test_links_out_of_the_root_are_refused(tmp_path):
    touch(tmp_path / "outside", "secret.png")
    root = touch(tmp_path / "root", "healthy/a.png", "broken/b.png")
    (root / "healthy" / "inside.png").symlink_to(root / "healthy" / "a.png")
    assert len(bone.read(root)) == 3
    (root / "healthy" / "out.png").symlink_to(tmp_path / "outside" / "secret.png")
    (root / "broken" / "nothing.png").symlink_to(tmp_path / "nothing")
    (root / "broken" / "loop").symlink_to(root)
    (root / "linked").symlink_to(tmp_path / "outside")
    found = problems(root)
    for path, reason in [
        ("healthy/out.png", "out of the data folder"),
        ("broken/nothing.png", "to nothing"),
        ("broken/loop", "link to a folder"),
        ("linked", "link to a folder"),
    ]:
        assert any(p == path and reason in r for p, r in found), found
    assert not any("secret" in p for p, _ in found)


def test_a_name_that_is_no_text_is_named(tmp_path):
    touch(tmp_path, "healthy/a.png", "broken/b.png")
    os.close(os.open(os.fsencode(tmp_path) + b"/healthy/\xff.png", os.O_CREAT))
    says(tmp_path, "\\udcff.png", "not UTF-8")


def test_masks(tmp_path):
    touch(tmp_path, "healthy/a.png", "broken/b.jpg", "masks/broken/b.png")
    table = bone.read(tmp_path).set_index("path")
    assert set(table["class"]) == {"healthy", "broken"}
    assert table.loc["broken/b.jpg", "mask"] == str(tmp_path.resolve() / "masks/broken/b.png")
    assert table.loc["healthy/a.png", "mask"] is None


def test_nothing_is_written(tmp_path):
    touch(tmp_path, "healthy/a.png", "broken/b.png")
    before = sorted(tmp_path.rglob("*"))
    bone.read(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_real_layouts(shared):
    table = bone.read(shared / "data" / "bones_fracatlas")
    assert table["class"].value_counts().to_dict() == {"Non_fractured": 37, "Fractured": 27}
    assert table["patient"].nunique() == 23
    table = bone.read(shared / "data" / "bones_sr2022")
    assert table.attrs["classes"] == ["unmarked", "displaced", "fracture"]
    assert table.groupby("class")["patient"].nunique().to_dict() == {
        "unmarked": 10, "displaced": 26, "fracture": 30,
    }  # fmt: skip
    assert "split" not in table
    assert bone.read(shared / "data" / "nih64")["patient"].nunique() == 150
    assert bone.read(shared / "data" / "knee_kl")["patient"].nunique() == 1500
