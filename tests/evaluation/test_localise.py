"""Heat maps against radiologists' boxes: right numbers, of the right pictures."""

import json

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from medkeras.evaluation import localise
from medkeras.evaluation.heat import boxes, explain_maps
from medkeras.models import custom_cnn
from medkeras.preparation import conform
from medkeras.readers import nih

SIZE = 32
LABELS = ["Cardiomegaly", "Lung Lesion", "Edema"]
# Picture, patient, findings; boxes of each in pixels of 1024.
PICTURES = [("1", "Cardiomegaly"), ("2", "Mass|Nodule"), ("3", "Cardiomegaly"), ("4", "Hernia")]
BOXES = [
    ("1", "Cardiomegaly", 256, 512, 512, 256),
    ("2", "Mass", 0, 0, 128, 128),
    ("2", "Nodule", 512, 512, 64, 64),
    ("3", "Cardiomegaly", 300, 300, 300, 300),
    ("4", "Hernia", 10, 10, 500, 500),
]


def box(x, y, width, height):
    return pd.DataFrame([(x, y, width, height)], columns=["x", "y", "width", "height"])


def test_a_box_marks_the_pixels_whose_centre_it_holds():
    found = boxes.mask(box(256, 512, 512, 256), 1024, (8, 16))
    expected = np.zeros((8, 16), bool)
    expected[4:6, 4:12] = True
    np.testing.assert_array_equal(found, expected)
    tiny = boxes.mask(box(700, 10, 5, 5), 1024, (4, 4))
    assert tiny.sum() == 1 and tiny[0, 2]
    assert boxes.mask(box(-50, -50, 2000, 2000), 1024, (4, 4)).all()
    both = pd.concat([box(0, 0, 256, 256), box(512, 0, 256, 256)])
    assert boxes.mask(both, 1024, (4, 4)).nonzero()[1].tolist() == [0, 2]


def test_scores_are_those_of_a_map_as_large_as_the_picture():
    marked = np.zeros((4, 4), bool)
    marked[:2, :2] = True
    coarse = np.zeros((4, 4))
    assert boxes.scores(coarse, marked) == {"hit": False, "iou": 0.0, "inside": 0.0}
    coarse[0, 0], coarse[3, 3], coarse[0, 3] = 4, 2, 1
    assert boxes.scores(coarse, marked) == {
        "hit": True,
        "iou": pytest.approx(1 / 5),
        "inside": pytest.approx(4 / 7),
    }
    coarse[3, 3] = 5
    assert not boxes.scores(coarse, marked)["hit"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Writes NIH's layout with five boxes, and a run that learned from patient 3."""
    root = tmp_path_factory.mktemp("localise")
    data, run = root / "nih", root / "run"
    (data / "images").mkdir(parents=True)
    run.mkdir()
    rng = np.random.default_rng(0)
    rows = [",".join(nih.COLUMNS)]
    for number, findings in PICTURES:
        name = f"0000000{number}_000.png"
        Image.fromarray(rng.integers(0, 256, (64, 64), np.uint8)).save(data / "images" / name)
        rows.append(f"{name},{findings},0,{number},50,F,PA")
    (data / "Data_Entry_2017.csv").write_text("\n".join(rows))
    lines = [f"0000000{number}_000.png,{','.join(map(str, cells))}" for number, *cells in BOXES]
    header = "Image Index,Finding Label,Bbox [x,y,w,h],,,"
    (data / "BBox_List_2017.csv").write_text("\n".join([header, *lines]))

    keras.utils.set_random_seed(5)
    model = custom_cnn.v1((SIZE, SIZE, 1), 3)
    model.save(run / "model.keras")
    predictor = {
        "task": "multilabel",
        "labels": LABELS,
        "untrained": ["Edema"],
        "image_shape": [SIZE, SIZE, 1],
        "preprocessing": conform.CONFIG,
        "recipe": model.recipe,
        "feature_map": model.feature_map,
    }
    (run / "predictor.json").write_text(json.dumps(predictor))
    split = "path,patient,split\na,patient00003,train\nb,patient00001,test\nc,004,val\n"
    (run / "split.csv").write_text(split)
    return run, data, model


def test_a_finished_run_is_scored_on_patients_it_never_saw(folders, tmp_path, capsys):
    run, data, model = folders
    before = sorted(path.name for path in run.iterdir())
    assert localise.main([str(run), str(data), "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "1 pictures of patients that the run learned from are left out" in said
    assert "1 boxes are of nothing that the run learned: Hernia" in said
    assert sorted(path.name for path in run.iterdir()) == before

    table = pd.read_csv(tmp_path / "out" / "localisation.csv")
    assert table["path"].tolist() == ["images/00000001_000.png", "images/00000002_000.png"]
    assert table["finding"].tolist() == ["Cardiomegaly", "Lung Lesion"]
    assert table["inside"].max() > 0
    assert table["boxed_as"].tolist() == ["Cardiomegaly", "Mass|Nodule"]
    for row, marks in zip(table.itertuples(), [BOXES[:1], BOXES[1:3]], strict=True):
        picture = conform.load(data / row.path, (SIZE, SIZE, 1))[None]
        layer = explain_maps.fine(model, model.feature_map)
        coarse = explain_maps.heat(model, [picture], layer, 3)
        marked = pd.concat([box(*cells) for _, _, *cells in marks])
        marked = boxes.mask(marked, 1024, (SIZE, SIZE))
        expected = boxes.scores(coarse[0, LABELS.index(row.finding)], marked)
        assert (row.hit, row.iou, row.inside) == (
            expected["hit"], pytest.approx(expected["iou"]), pytest.approx(expected["inside"])
        )  # fmt: skip
        assert row.box == pytest.approx(marked.mean())
        with Image.open(tmp_path / "out" / row.file) as shown:
            assert shown.width > 400 and "0000000" not in row.file
    found = json.loads((tmp_path / "out" / "localisation.json").read_text())["findings"]
    assert list(found) == ["Cardiomegaly", "Lung Lesion", "all"]
    assert found["all"]["hit"]["n"] == 2 and found["all"]["hit"]["chance"] == table["box"].mean()
    assert found["all"]["iou"] == pytest.approx(table["iou"].mean())


def test_other_patients_may_have_the_same_numbers(folders, tmp_path):
    run, data, _ = folders
    localise.localise(run, data, tmp_path, "Cardiomegaly", other_patients=True)
    table = pd.read_csv(tmp_path / "localisation.csv")
    assert table["patient"].tolist() == [1, 3]
    localise.localise(run, data, tmp_path, "Nodule")
    table = pd.read_csv(tmp_path / "localisation.csv")
    assert table[["finding", "boxed_as"]].values.tolist() == [["Lung Lesion", "Nodule"]]


def refused(folders, tmp_path, capsys, *argv, run=None):
    given = [str(run or folders[0]), str(folders[1]), "--out", str(tmp_path / "out"), *argv]
    code = localise.main(given)
    assert not (tmp_path / "out").exists()
    return code, capsys.readouterr().err


def test_what_cannot_be_scored_is_named(folders, tmp_path, capsys):
    def tried(*argv, run=None):
        return refused(folders, tmp_path, capsys, *argv, run=run)

    code, said = tried("--finding", "Hernia")
    assert code == 2 and "choose from Cardiomegaly, Lung Lesion" in said
    code, said = tried(run=tmp_path)
    assert code == 2 and "has no predictor.json and no model.keras" in said
    code, said = tried("--out", str(folders[1] / "out"))
    assert code == 2 and "lies in the data folder" in said

    other = tmp_path / "other"
    other.mkdir()
    (other / "model.keras").write_bytes((folders[0] / "model.keras").read_bytes())
    predictor = json.loads((folders[0] / "predictor.json").read_text())
    (other / "split.csv").write_text("patient,split\n1,train\n2,val\n3,train\n")

    def changed(**more):
        (other / "predictor.json").write_text(json.dumps(predictor | more))
        return tried(run=other)

    code, said = changed()
    assert code == 3 and "all 3 pictures with boxes are of patients that the run learned" in said
    code, said = changed(labels=["Edema", "Fracture", "Pneumonia"])
    assert code == 2 and "none of what the run learned (Fracture, Pneumonia) has a box" in said
    code, said = changed(untrained=["Cardiomegaly", "Lung Lesion"])
    assert code == 2 and "none of what the run learned (Edema) has a box" in said
    code, said = changed(preprocessing={"version": 0})
    assert code == 2 and "prepared by another version" in said
    code, said = changed(feature_map=None)
    assert code == 2 and "no map of a single picture" in said
