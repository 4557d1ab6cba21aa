"""The report: one file, complete, escaped, honest about sample data."""

import re
from xml.dom import minidom

import numpy as np
import pandas as pd
import pytest

from medkeras.evaluation import explain, explore, report
from medkeras.evaluation.evaluate import evaluate
from medkeras.evaluation.exploration import sizes
from medkeras.evaluation.figures import curves, diagram, plots
from medkeras.preparation import pipeline

SHAPE = (24, 24, 1)
BANNER = "Synthetic sample data (phantoms): these numbers say nothing about patients"


def written(table, model, run):
    data = pipeline.images(table, SHAPE, 8)
    scores = evaluate(model, data, run)
    cams = explain.grad_cam(model, data, run, most=6)
    path = report.write(run, model, data, scores, cams)
    return path.read_text(), (run.folder / "README.md").read_text()


def test_page_is_self_contained_has_every_section_and_names_nobody(
    small_table, small_model, small_run
):
    run = small_run()
    named = small_table().assign(path=lambda t: t["patient"] + "/" + t["path"])
    page, card = written(named, small_model(), run)
    assert not re.search(r'(?:src|href)="(?!data:|#)', page) and "<script" not in page
    assert not re.search(r"url\((?!#)|@import", page)
    for section in "data size model sweep training results mistakes explanations again".split():
        assert f'id="{section}"' in page, section
    assert BANNER in page and "not a medical device" in page
    assert "cut short" in page and "Left out" in page
    assert page.count("data:image/png") >= 8 + 6
    assert "_not stated_" in card and "not a medical device" in card and "phantoms" in card.lower()
    for text in ("patient-0", ".png", "/data/"):
        assert text not in page.replace("data:image/png", "") and text not in card

    line = int(re.search(r"true <b>(\w+)</b><br>answered .*?line (\d+)", page, re.DOTALL)[2])
    true = re.search(r"true <b>(\w+)</b><br>answered", page)[1]
    header, *rows = (run.folder / "predictions.csv").read_text().splitlines()
    row = dict(zip(header.split(","), rows[line - 2].split(","), strict=True))
    assert row["split"] == "test" and row[f"label_{true}"] == "1", "a mistake is found by its line"


def test_real_data_carry_no_banner(small_table, small_model, small_run):
    page, card = written(small_table(), small_model(), small_run(synthetic=False))
    assert "ynthetic" not in page and "hantom" not in page + card


def test_names_are_escaped(small_table, small_model, small_run):
    hostile = "<img src=x onerror=alert(1)>"
    page, card = written(
        small_table(("normal", hostile)).assign(path=lambda t: "=<script>" + t["path"]),
        small_model(1),
        small_run(),
    )
    assert "<img src=x" not in page and "<script>" not in page and "<img" not in card
    assert "&lt;img src=x" in page


def test_undefined_numbers_are_spelled_out(small_table, small_model, small_run):
    table = small_table()
    table = table[~((table["split"] == "test") & (table["label"] == 2))].reset_index(drop=True)
    page, _ = written(table, small_model(), small_run())
    assert "undefined: 0 positives" in page and "2 of 3 classes" in page


def test_sections_without_files_are_left_out(small_table, small_model, small_run):
    run = small_run()
    for name in ("history.csv", "environment.json", "hyperparameters.json", "tuning/trials.csv"):
        (run.folder / name).unlink()
    table = small_table().drop(columns=["width", "height"])
    data, model = pipeline.images(table, SHAPE, 8), small_model()
    page = report.write(run, model, data, evaluate(model, data, run)).read_text()
    for section in ("size", "sweep", "training", "explanations"):
        assert f'id="{section}"' not in page


def test_pictures_standing_alone_are_pointed_out(small_table, small_model, small_run):
    page, card = written(
        small_table().assign(patient=lambda t: t["path"]), small_model(), small_run()
    )
    assert "each picture stands alone" in page and "each picture stands alone" in card


def test_diagram_holds_every_layer_once():
    import keras

    x = image = keras.Input((64, 64, 3))
    x = keras.applications.Xception(include_top=False, weights=None, input_tensor=x).output
    for layer in keras.Model(image, x).layers:
        layer.trainable = layer.name.startswith("block14")
    model = keras.Model(image, keras.layers.Dense(3, name="<logits>")(x))
    boxes = diagram.boxes(model.layers)
    assert len(boxes) <= 25 and sum(len(box.layers) for box in boxes) == len(model.layers)
    assert sum(box.parameters for box in boxes) == model.count_params()
    by_name = {box.name: box for box in boxes}
    assert {f"block{n}" for n in range(1, 15)} <= set(by_name)
    assert by_name["block13"].trainable == 0 and by_name["block14"].trainable > 0
    drawn = minidom.parseString(diagram.svg(model))
    assert len(drawn.getElementsByTagName("rect")) == len(boxes)


@pytest.mark.parametrize("shared", [True, False])
def test_diagram_of_an_exam_has_a_row_for_each_plane(shared):
    from medkeras.models import mrnet

    model = (mrnet.views if shared else mrnet.triple)(image_shape=(64, 64, 1))
    rows = [[layer.name for layer in row] for row in diagram.lanes(model)]
    for plane, row in zip(mrnet.PLANES, rows, strict=False):
        assert row[0] == plane and all(name.startswith(plane) for name in row)
    assert rows[-1] == ["planes", "logits"] and len(rows) == 4 + shared
    shown = [name for row in rows for name in row]
    hidden = {f"{plane}_exam" for plane in mrnet.PLANES}
    assert sorted(shown) == sorted({layer.name for layer in model.layers} - hidden)
    minidom.parseString(diagram.svg(model))


def test_long_model_without_block_names_is_grouped():
    import keras

    x = image = keras.Input((64, 64, 1))
    for n in range(20):
        x = keras.layers.Conv2D(4, 3, padding="same", strides=2 if n % 4 == 3 else 1)(x)
        x = keras.layers.Activation("relu")(x)
    model = keras.Model(image, keras.layers.Flatten()(x))
    boxes = diagram.boxes(model.layers)
    assert len(boxes) <= 25 and sum(len(box.layers) for box in boxes) == len(model.layers)


@pytest.mark.parametrize(
    ("short", "expected"), [(90, 224), (224, 224), (260, 256), (400, 384), (3000, 512)]
)
def test_recommended_size_follows_the_rule(short, expected):
    found = sizes.study(np.full(40, short), np.full(40, short + 100))
    assert found["recommended"] == expected and len(found["centres"]) == 1


def test_centres_are_those_of_the_clusters():
    generator = np.random.default_rng(0)
    widths = np.r_[generator.normal(300, 3, 60), generator.normal(900, 3, 20)]
    found = sizes.study(widths, widths + 50, clusters=2)
    assert np.allclose(found["centres"], [[300, 350], [900, 950]], atol=3)


def test_figures_of_synthetic_data_differ_and_are_deterministic():
    labels, p = np.array([[1.0], [0.0]] * 20), np.linspace(0, 1, 40)[:, None]
    plain, again = (plots.roc(labels, p, ["a"], np.arange(40)) for _ in range(2))
    assert plain == again and plain.startswith(b"\x89PNG")
    assert plots.roc(labels, p, ["a"], np.arange(40), synthetic=True) != plain


def test_absent_class_keeps_its_place_in_the_confusion_matrix():
    assert plots.confusion([0, 0], [0, 1], ["a", "b", "$c_"]).startswith(b"\x89PNG")


def test_explore_writes_a_page_and_nothing_into_the_data(small_table, tmp_path, capsys):
    small_table()
    data = tmp_path / "data"
    for mask in data.rglob("*_mask.png"):
        mask.unlink()
    (data / "class0" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n cut")
    before = sorted(data.rglob("*"))
    assert explore.main([str(data), "--out", str(tmp_path / "page.html")]) == 0
    assert "recommended size: 224 x 224" in capsys.readouterr().out
    page = (tmp_path / "page.html").read_text()
    assert "1 file that could not be read" in page and "class0/0.png" not in page
    assert sorted(data.rglob("*")) == before
    assert explore.main([str(data), "--out", str(data / "page.html")]) == 2
    assert explore.main([str(tmp_path / "nowhere"), "--out", str(tmp_path / "x.html")]) == 3


def test_learning_curves_without_validation_columns_are_drawn():
    assert curves.learned(pd.DataFrame({"epoch": [1], "loss": [0.5]})).startswith(b"\x89PNG")
