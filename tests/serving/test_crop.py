import json
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from medkeras.errors import UsageError
from medkeras.files import decode
from medkeras.models import stored
from medkeras.phantoms import knee_xray
from medkeras.preparation import halves
from medkeras.readers import knee
from medkeras.serving import crop


@pytest.fixture(autouse=True)
def own_key(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDKERAS_KEY", str(tmp_path / "dicom.key"))


@pytest.fixture(autouse=True)
def stub(monkeypatch):
    """A locator that finds one box in all but dark pictures."""

    class Model:
        def __call__(self, pictures, training):
            sure = pictures.mean(axis=(1, 2, 3)) > 20
            boxes = np.tile([0.5, 0.5, 0.3, 0.3], (len(pictures), 1))
            return np.column_stack([boxes, np.where(sure, 0.9, 0.2)]).astype(np.float32)

    predictor = {
        "task": "location",
        "preprocessing": halves.CONFIG,
        "thresholds": {"confidence": 0.5},
        "image_shape": [32, 32, 1],
    }
    monkeypatch.setattr(stored, "load", lambda run: (Model(), predictor))
    return predictor


@pytest.fixture(scope="module")
def dicom(tmp_path_factory):
    root = tmp_path_factory.mktemp("dicom") / "knee"
    return knee_xray.write(root, patients=2, size=32, film=(96, 128), films="dicom")


def film(path, grey=120, shape=(60, 90)):
    pixels = np.full(shape, grey, np.uint8)
    pixels[:, shape[1] // 2 - 2 : shape[1] // 2 + 2] = 0
    pixels[:, 10:14] = min(2 * grey, 255)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def listed(out):
    table = pd.read_csv(out / "not_cropped.csv", dtype=str, keep_default_na=False)
    return {f"{row.film} {row.side}".strip(): row for row in table.itertuples()}


def test_every_knee_is_cropped_or_listed_with_a_remedy(tmp_path, content_of, capsys):
    films, out = tmp_path / "films", tmp_path / "out"
    film(films / "11.png")
    film(films / "12.png", grey=0)  # blank
    film(films / "visit2" / "11.png")
    film(films / "13R.png", shape=(60, 40))
    film(films / "14.png", shape=(60, 40))
    film(films / "15L.png")
    film(films / "anna.png")
    (films / "16.png").write_bytes(b"\x89PNG\r\n\x1a\nlost")
    before = content_of(films)
    assert crop.main([str(films), str(out), "--model", "run", "--size", "32"]) == 3
    assert content_of(films) == before, "nothing is written into IN"

    assert sorted(path.name for path in out.glob("*.png")) == ["11L.png", "11R.png", "13R.png"]
    crops = pd.read_csv(out / "crops.csv")
    assert crops["file"].tolist() == ["11R.png", "11L.png", "13R.png"]
    left = crops.set_index("file").loc["11L.png"]
    # Of the padded half, 60 x 60, the box takes the middle 18 x 18.
    assert left["width"] == pytest.approx(18) and left["x"] > 45 and left["y"] == pytest.approx(21)
    found = listed(out)
    words = {
        "12.png left": "no confident joint (0.200, expected 0.500",
        "12.png right": "no confident joint",
        "14.png": "does not say which",
        "15L.png": "as wide as a film of both",
        "16.png": "damaged",
        "anna.png": "not named by a subject",
        "visit2/11.png left": "another film of the knee in 11L.png",
        "visit2/11.png right": "another film",
    }
    assert set(found) == set(words)
    for name, said in words.items():
        assert said in found[name].reason and found[name].remedy
    assert "12.png left" in capsys.readouterr().out


def test_pictures_show_the_box_and_left_ones_are_mirrored_on_demand(tmp_path):
    pixels = np.full((60, 100), 60, np.uint8)
    pixels[:, 48:52] = 0
    pixels[:, 76:78] = 240  # right of the middle of the left half
    (tmp_path / "films").mkdir()
    Image.fromarray(pixels).save(tmp_path / "films" / "7.png")
    shown = {}
    for name, options in (("plain", {}), ("mirrored", {"mirror_left": True})):
        done = crop.crop(tmp_path / "films", tmp_path / name, "run", size=36, **options)
        assert done.listed.empty
        shown[name] = [decode.picture(tmp_path / name / f"7{s}.png").pixels for s in "RL"]
    assert shown["plain"][0].shape == (36, 36) and shown["plain"][0].dtype == np.uint8
    np.testing.assert_array_equal(shown["plain"][0], shown["mirrored"][0])
    np.testing.assert_array_equal(shown["plain"][1][:, ::-1], shown["mirrored"][1])
    assert shown["plain"][1].max() == 240
    table = pd.read_csv(tmp_path / "mirrored" / "crops.csv")
    assert table["mirrored"].tolist() == [False, True]


def test_dicom_films_become_knees_that_a_reader_takes_and_name_nobody(dicom, tmp_path):
    films = tmp_path / "films"
    shutil.copytree(dicom / "films", films)
    first, second = sorted(films.iterdir())
    first.rename(films / "Smith_Anna.dcm")
    (films / "Jones_Eve.dcm").write_bytes(b"no film")
    out = tmp_path / "out"
    assert crop.main([str(films), str(out), "--model", "run", "--size", "32"]) == 3
    crops = pd.read_csv(out / "crops.csv")
    assert len(crops) == 4 and crops["file"].str.fullmatch("[0-9a-f]{16}[LR].png").all()
    (refused,) = listed(out).values()
    assert "not a DICOM file" in refused.reason
    everything = "".join(path.name for path in out.iterdir())
    everything += (out / "crops.csv").read_text() + (out / "not_cropped.csv").read_text()
    for name in ("Smith", "Anna", "Jones", "Eve", "PHANTOM", first.stem, second.stem):
        assert name not in everything

    for n, path in enumerate(sorted(out.glob("*.png"))):
        grade = tmp_path / "grades" / str(n)
        grade.mkdir(parents=True)
        path.rename(grade / path.name)
    table = knee.read(tmp_path / "grades")
    assert len(table) == 4 and table["patient"].nunique() == 2
    assert table["side"].value_counts().to_dict() == {"left": 2, "right": 2}


def test_an_import_and_its_dicom_files_give_the_same_knees(dicom, tmp_path):
    from medkeras.readers import dicom as imports

    imports.convert(dicom / "films", tmp_path / "imported")
    one = crop.crop(dicom / "films", tmp_path / "one", "run", size=32)
    two = crop.crop(tmp_path / "imported", tmp_path / "two", "run", size=32)
    pd.testing.assert_frame_equal(one.crops, two.crops)
    for name in one.crops["file"]:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_names_as_beside_a_table_of_the_oai(tmp_path):
    film(tmp_path / "films" / "11.png")
    crop.crop(tmp_path / "films", tmp_path / "out", "run", names="oai")
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == [
        "11_1.png",
        "11_2.png",
    ]


def test_places_and_runs_that_cannot_be_used_are_refused(tmp_path, stub, capsys):
    films = tmp_path / "films"
    film(films / "11.png")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "kept.txt").write_text("mine")
    for out in (films / "out", films, tmp_path, tmp_path / "full"):
        assert crop.main([str(films), str(out), "--model", "run"]) == 2
    assert crop.main([str(tmp_path / "none"), str(tmp_path / "out"), "--model", "run"]) == 2
    with pytest.raises(UsageError, match="margin"):
        crop.crop(films, tmp_path / "out", "run", margin=3)
    for change, said in (
        ({"task": "binary"}, "no locator"),
        ({"thresholds": {"confidence": None}}, "no threshold"),
        ({"preprocessing": {"version": 1}}, "another way"),
    ):
        before = json.loads(json.dumps(stub))
        stub.update(change)
        with pytest.raises(UsageError, match=said):
            crop.crop(films, tmp_path / "out", "run")
        stub.update(before)
    assert sorted(path.name for path in films.iterdir()) == ["11.png"]
    assert not (tmp_path / "out").exists()


def test_a_folder_without_films_is_no_success(tmp_path):
    (tmp_path / "films").mkdir()
    assert crop.main([str(tmp_path / "films"), str(tmp_path / "out"), "--model", "run"]) == 3
    assert "no films" in (tmp_path / "out" / "not_cropped.csv").read_text()
