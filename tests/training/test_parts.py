import json
import runpy
import sys

import numpy as np
import pandas as pd
import pytest

from medkeras.preparation import control, splits
from medkeras.readers import tables
from medkeras.training import parts

PAGE = '''"""What does a pipeline find where there is nothing?

    python experiments/linear.py
"""

import keras
import numpy as np
import pandas as pd

from medkeras.evaluation import evaluate
from medkeras.losses import compiled
from medkeras.preparation import pipeline, splits
from medkeras.readers import bone
from medkeras.training import fit, runs


def divided(table, splitting):
    {divided}


def main(run):
    table = divided(run.read(bone.read), run.splitting)
    data = pipeline.images(table, (16, 16, 1), 32, **run.loading)
    image = keras.Input((16, 16, 1), name="image")
    x = keras.layers.Rescaling(1 / 128, offset=-1)(image)
    logits = keras.layers.Dense(data.outputs, name="logits")(keras.layers.Flatten()(x))
    model = compiled(keras.Model(image, logits), keras.optimizers.Adam(1e-2))
    fit.fit(model, data, run, epochs=20)
    evaluate.evaluate(model, data, run)


if __name__ == "__main__":
    runs.start(main, __doc__, data="data/bone", sample=None)
'''

GROUPED = "return splits.by_patient(table, **splitting)"
# As a public system did: the rarer class is multiplied, then the rows are divided at random.
OVERSAMPLED = """table = pd.concat([table, table, table], ignore_index=True)
    side = np.random.default_rng(0).choice(["train", "val", "test"], len(table), p=[0.6, 0.2, 0.2])
    return table.assign(split=side)"""
# As another did: each knee on its own, whoever it belongs to.
BY_PICTURE = """alone = table.assign(patient=table["path"], group=table["path"])
    return splits.by_patient(alone, **splitting)"""


@pytest.fixture
def start(tmp_path, monkeypatch, capsys):
    """Runs the page with one way of dividing; returns exit code, output and run folder."""

    def run(divided, *argv):
        page = tmp_path / "experiments" / "linear.py"
        page.parent.mkdir(exist_ok=True)
        page.write_text(PAGE.replace("{divided}", divided))
        out = tmp_path / "run"
        monkeypatch.setattr(sys, "argv", [str(page), "--out", str(out), *map(str, argv)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(page), run_name="__main__")
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        return ended.value.code, said.out, out

    return run


@pytest.fixture
def knees(phantom_folder):
    """160 patients, two pictures each."""
    return phantom_folder(patients=160, pictures=(2, 2))


def nulls(out):
    found = json.loads((out / "null_control.json").read_text())["nulls"]
    return {null["part"]: null for null in found}


def test_the_null_control_is_quiet_on_a_split_by_patient(start, knees):
    code, said, out = start(GROUPED, "--data", knees, "--null-control")
    assert code == 0 and "null control passed" in said
    for null in nulls(out).values():
        assert null["auc_low"] < 0.5 < null["auc_high"]
    status = json.loads((out / "status.json").read_text())
    assert status["status"] == "finished"
    for name in ("permuted", "noise"):
        described = json.loads((out / name / "environment.json").read_text())
        assert described["data"]["null_control"] == name


@pytest.mark.parametrize("pipeline", [OVERSAMPLED, BY_PICTURE], ids=["oversampled", "by picture"])
def test_the_null_control_catches_a_pipeline_that_leaks(start, knees, pipeline):
    code, said, out = start(pipeline, "--data", knees, "--null-control")
    assert code == 3 and "the null control failed" in said, said
    assert nulls(out)["noise"]["auc_low"] > 0.5
    status = json.loads((out / "status.json").read_text())
    assert status["status"] == "failed" and "recognised" in status["reason"]


def test_folds_test_every_patient_once(start, knees):
    code, said, out = start(GROUPED, "--data", knees, "--folds", "3", "--epochs", "2")
    assert code == 0 and "3 folds" in said
    found = [pd.read_csv(out / f"fold-{k}" / "split.csv") for k in (1, 2, 3)]
    tested = sum((split["split"] == "test").astype(int) for split in found)
    assert tested.eq(1).all()
    table = pd.read_csv(out / "folds.csv")
    for row in table.itertuples():
        scores = json.loads((out / row.part / "metrics.json").read_text())
        assert row.auc == scores["mean"]["auc"]["value"] and row.n == scores["n"]
    before = (out / "fold-1" / "predictions.csv").stat().st_mtime_ns
    (out / "status.json").write_text('{"status": "interrupted"}')
    assert start(GROUPED, "--resume")[0] == 0
    assert (out / "fold-1" / "predictions.csv").stat().st_mtime_ns == before


def exams():
    table = pd.DataFrame(
        {
            "path": [f"train/{n:04d}" for n in range(12)],
            "patient": [f"p{n // 2}" for n in range(12)],
            "axial": [f"{n}.npy" for n in range(12)],
            "coronal": [f"c{n}.npy" for n in range(12)],
            "acl": np.where(np.arange(12) == 4, np.nan, np.arange(12) // 2 % 2),
            "abnormal": 1.0,
        }
    )
    table.attrs.update(images=["axial", "coronal"], labels=["acl", "abnormal"])
    return table


def test_noise_resembles_itself_in_a_patient_and_nobody_else(tmp_path):
    table = exams()
    made = control.noise(table, 0, tmp_path)
    assert tables.files(made) == ["axial", "coronal"] and made["acl"].equals(table["acl"])
    volumes = np.stack([np.load(file).astype(float).ravel() for file in made["axial"]])
    assert np.load(made["axial"][0]).dtype == np.uint8 and np.load(made["axial"][0]).ndim == 3
    likeness = np.corrcoef(volumes)
    same = made["patient"].to_numpy()[:, None] == made["patient"].to_numpy()
    assert likeness[same].min() > 0.8 and np.abs(likeness[~same]).max() < 0.3
    assert made["sha256"].nunique() == 12
    other = control.noise(table, 1, tmp_path / "other")
    assert not (other["sha256"] == made["sha256"]).any()


def test_joined_patients_are_permuted_as_one():
    table = exams().assign(group=lambda table: table["patient"].replace({"p3": "p2"}))
    made = control.permuted(table, 3)
    assert made.groupby("group")[["acl", "abnormal"]].nunique(dropna=False).max().max() == 1
    assert made.attrs == table.attrs


def test_only_what_was_asked_for_is_run_in_parts(new_run):
    assert parts.of(new_run("--seed", "1").flags) == []
    folds = parts.of(new_run("--folds", "4", folder="folds").flags)
    assert [part.fold for part in folds] == [(0, 4), (1, 4), (2, 4), (3, 4)]
    table = splits.by_patient(
        pd.DataFrame({"patient": list("abcdefgh"), "label": 0, "class": "one"}),
        seed=0,
        fold=folds[0].fold,
    )
    assert (table["split"] == "test").sum() == 2
