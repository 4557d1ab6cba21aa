"""A finished run asked about files: the answers of its evaluation, one line for each."""

import json
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from medkeras.errors import DataError, UsageError
from medkeras.evaluation.evaluate import evaluate
from medkeras.evaluation.numbers import metrics
from medkeras.models import custom_cnn, recipe, stored
from medkeras.preparation import conform, pipeline
from medkeras.serving import predict, risk_table

SHAPE = (32, 32, 1)
CLASSES = ("healthy", "broken", "gone")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of pictures of several sizes, colours and depths, and the table of them."""
    root, rng, rows = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0), []
    for n in range(45):
        pixels = rng.integers(0, 256, (30 + n, 40), dtype=np.uint8)
        if n % 3 == 1:
            pixels = np.stack([pixels, pixels // 2, 255 - pixels], axis=2)
        if n % 5 == 2:
            pixels = rng.integers(0, 65536, (50, 40), dtype=np.uint16)
        path = f"{n}.{'jpg' if n % 7 == 3 and pixels.dtype == np.uint8 else 'png'}"
        Image.fromarray(pixels).save(root / path)
        side = ("train", "val", "test", "test", "test")[n % 5]
        rows.append((str(root / path), path, f"p{n}", side, n % 3, CLASSES[n % 3]))
    columns = ["image", "path", "patient", "split", "label", "class"]
    return root, pd.DataFrame(rows, columns=columns)


@pytest.fixture(scope="module")
def finished(pictures, tmp_path_factory):
    """Makes the folder of a finished run of a task; nobody may write into it."""
    written = {}

    def make(task):
        if task not in written:
            table, names = pictures[1], CLASSES[: 2 if task == "binary" else 3]
            table = table[table["class"].isin(names)].reset_index(drop=True)
            findings = names if task == "multilabel" else ()
            for name in findings:
                table[name] = (table["class"] == name).astype(float)
            if findings:
                table.loc[table["split"] == "train", "gone"] = np.nan
                table.attrs["labels"] = list(findings)
            data = pipeline.images(table, SHAPE, 8, findings=findings)
            keras.utils.set_random_seed(0)
            model = custom_cnn.v3(SHAPE, data.outputs, units=(8,))
            folder = written[task] = tmp_path_factory.mktemp(task)
            run, views = SimpleNamespace(folder=folder, seed=0), 6 if task == "ordinal" else 1
            evaluate(model, data, run, task=task, views=views)
            model.save(folder / "model.keras")
        return written[task]

    return make


@pytest.mark.parametrize("task", ["binary", "multiclass", "ordinal", "multilabel"])
def test_answers_are_those_of_the_evaluation(task, finished, pictures):
    run, root = finished(task), pictures[0]
    table = metrics.read(run / "predictions.csv").iloc[::-1]
    answers = predict.probabilities(run, [root / path for path in table["path"]])
    assert [one["path"] for one in answers] == [str(root / path) for path in table["path"]]
    assert len(answers) > predict.BATCH or task == "binary", "more than a batch"
    for row, answer in zip(table.to_dict("records"), answers, strict=True):
        said = answer["probabilities"]
        names = {"binary": ["broken"], "multilabel": ["healthy", "broken"]}.get(task, CLASSES)
        for name in names:
            assert said[name] == pytest.approx(row[f"probability_{name}"], abs=1e-6)
        if task == "binary":
            assert list(said) == ["healthy", "broken"] and sum(said.values()) == pytest.approx(1)
        else:
            assert list(said) == list(names)
        assert answer.get("grade") == (
            list(said.values()).index(max(said.values())) if task == "ordinal" else None
        )
        assert answer.get("untrained") == (["gone"] if task == "multilabel" else None)


def test_broken_files_are_named_and_the_others_answered(finished, pictures, tmp_path, capfd):
    good = pictures[0] / "0.png"
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:200])
    (tmp_path / "1.tif").write_bytes(b"II*\0")
    (tmp_path / "in" / "masks").mkdir(parents=True)
    for name in ("10.png", "9.png", "masks/9.png", "notes.txt", ".hidden.png"):
        (tmp_path / "in" / name).write_bytes(good.read_bytes())
    (tmp_path / "none").mkdir()
    files = [tmp_path / name for name in ("cut.png", "in", "gone.png", "1.tif", "none")]
    assert predict.main([str(finished("multiclass")), *map(str, [good, *files, good])]) == 3
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    expected = ["0.png", "cut.png", "9.png", "10.png", "gone.png", "1.tif", "none", "0.png"]
    assert [line["path"].rpartition("/")[2] for line in lines] == expected
    assert lines[0] == lines[-1] and lines[0]["path"] == str(good)
    assert lines[0]["probabilities"] == lines[2]["probabilities"]
    refused = {line["path"].rpartition("/")[2]: line for line in lines if "error" in line}
    assert list(refused) == ["cut.png", "gone.png", "1.tif", "none"]
    for name, words in zip(refused, ("damaged", "cannot be opened", "TIFF", "no pictures")):
        assert words in refused[name]["error"] and refused[name]["remedy"]
        assert "probabilities" not in refused[name]
    assert predict.main([str(finished("multiclass")), str(good)]) == 0


def test_runs_that_cannot_answer_are_refused_with_2(
    finished, pictures, tmp_path, capfd, monkeypatch
):
    good, prepared = str(pictures[0] / "0.png"), conform.CONFIG
    model, described = stored.load(finished("multiclass"))
    for folder, words in ((tmp_path, "not finished"), (tmp_path / "no", "not a folder")):
        assert predict.main([str(folder), good]) == 2 and words in capfd.readouterr().err
    with pytest.raises(SystemExit) as ended:
        predict.main([str(tmp_path)])
    assert ended.value.code == 2 and "FILE" in capfd.readouterr().err
    for values, words in (
        ({"task": "location"}, "its task is location"),
        ({"task": "multitask", "heads": {"kl": {}, "jsl": {}}}, f"ask {Path('run', 'kl')} or"),
        ({"preprocessing": {**prepared, "version": 2}}, "another way than today"),
        ({"preprocessing": {"version": 1, "planes": ["axial"]}}, "volumes come later"),
        ({"calibration": {"temperature": 2}}, "calibrated"),
        ({"labels": ["a", "b"]}, "does not fit its model"),
        ({"risks": {"columns": ["age"]}}, "does not fit its model"),
    ):
        monkeypatch.setattr(stored, "load", lambda run, found=described | values: (model, found))
        assert predict.main(["run", good]) == 2
        said = capfd.readouterr()
        assert words in said.err and not said.out
    monkeypatch.setattr(stored, "load", lambda run: (model, described))
    assert predict.main(["run", good, "--risks", "table.csv"]) == 2
    assert "knows no risk factors" in capfd.readouterr().err


def test_an_answer_that_is_no_number_is_no_probability(finished, pictures):
    predictor = predict.Predictor(finished("multiclass"))
    predictor.model.get_layer("logits").bias.assign([np.nan, 0, 0])
    (answer,) = predictor.answers([pictures[0] / "0.png"])
    assert "no number" in answer["error"] and "probabilities" not in answer


RISKS = {"columns": ["age", "bmi"], "fill": [60, 28], "mean": [60, 25], "deviation": [10, 5]}


@pytest.fixture
def with_risks(monkeypatch, tmp_path):
    """A run whose logit is the mean grey, over 255, plus its two risk factors."""

    def build(weights=None):
        image, risk = keras.Input(SHAPE, name="image"), keras.Input((2,), name="risk")
        grey = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(image))
        x = keras.layers.Concatenate()([grey, risk])
        ones = keras.layers.Dense(1, kernel_initializer="ones", name="logits")(x)
        return keras.Model([image, risk], ones)

    monkeypatch.setattr(recipe, "rebuild", lambda recorded: build())
    described = {"task": "binary", "labels": ["no", "yes"], "image_shape": list(SHAPE)}
    described |= {"preprocessing": conform.CONFIG, "recipe": None, "risks": RISKS}
    described |= {"calibration": None}
    folder = tmp_path / "fused"
    folder.mkdir()
    (folder / "predictor.json").write_text(json.dumps(described))
    build().save(folder / "model.keras")
    return folder


def test_risk_factors_are_read_filled_and_scaled(with_risks, pictures, tmp_path):
    root, table = pictures[0], tmp_path / "knees.csv"
    grey = conform.load(root / "0.png", SHAPE).mean() / 255
    files = [root / "0.png", root / "5.png", root / "6.png"]
    for head, rows in (
        ("BMI;sex;path;Age", ("30;1;pictures0/0.png;50", ";1;5.png;")),
        ("ID,age,bmi", ("0,50,30", "5,NA,")),
    ):
        rows = [row.replace("pictures0", root.name) for row in rows]
        table.write_text("\n".join([head, *rows]))
        first, second, third = predict.probabilities(with_risks, files, table)
        logit = grey + (50 - 60) / 10 + (30 - 25) / 5
        assert first["probabilities"]["yes"] == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-6)
        logit = conform.load(files[1], SHAPE).mean() / 255 + 0 + (28 - 25) / 5
        assert second["probabilities"]["yes"] == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-6)
        assert "no row" in third["error"]


def test_tables_that_do_not_fit_are_refused(with_risks, pictures, tmp_path, capfd):
    good, table = str(pictures[0] / "0.png"), tmp_path / "knees.csv"
    assert predict.main([str(with_risks), good]) == 2
    assert "--risks TABLE.csv with a column path or ID, and age, bmi" in capfd.readouterr().err
    table.write_text("knee,age\n0,3\n")
    with pytest.raises(UsageError, match="no column path or ID, bmi"):
        risk_table.read(table, RISKS)
    table.write_text("ID,age,bmi\n0,old,3\n1,50,inf\n1,50,30\n")
    with pytest.raises(DataError) as found:
        risk_table.read(table, RISKS)
    assert [(one.path, one.reason) for one in found.value.problems] == [
        ("0", "has age = 'old'"),
        ("1", "has bmi = 'inf'"),
        ("1", "stands in knees.csv more than once"),
    ]
    assert predict.main([str(with_risks), good, "--risks", str(tmp_path / "no.csv")]) == 3
    assert "cannot be opened" in capfd.readouterr().err


def test_the_table_of_the_oai_is_read_as_in_training(tmp_path):
    """Progression is what such a run foretells, so the table of new patients has none."""
    table = tmp_path / "JSL.csv"
    head = "ID,BL_KL_grade,Age,BMI,Sex,Race,Knee_Injury,Alignment_degree"
    table.write_text(f"{head}\n9001897_1,3,61,30,2,1,0,1.5\n9001897_2,,61,30,2,1,,\n")
    columns = ["female", "age", "kl_3", "race_0"]
    one = {"columns": columns, "fill": [0.5, 60, 0.25, 0], "mean": [0.5, 60, 0, 0]}
    found = risk_table.read(table, one | {"deviation": [0.5, 10, 1, 1]})
    np.testing.assert_allclose(found.of("in/9001897_1.png"), [1, 0.1, 1, 0], atol=1e-6)
    np.testing.assert_allclose(found.of("in/9001897_2.png"), [1, 0.1, 0.25, 0], atol=1e-6)

    table.write_text(f"{head}\n9001897_1,9,61,30,f,1,0,1.5\n")
    with pytest.raises(DataError) as fault:
        risk_table.read(table, one | {"deviation": [1, 1, 1, 1]})
    reasons = [problem.reason for problem in fault.value.problems]
    assert reasons == ["has BL_KL_grade = '9' in JSL.csv", "has Sex = 'f' in JSL.csv"]
