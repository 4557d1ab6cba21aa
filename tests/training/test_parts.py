import json
import re
import runpy
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from medkeras.errors import ControlFailed
from medkeras.preparation import control, splits
from medkeras.readers import tables
from medkeras.training import carry, commandline, parts, runs

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
    model = compiled(keras.Model(image, logits), keras.optimizers.Adam(2e-2))
    fit.fit(model, data, run, epochs=10)
    evaluate.evaluate(model, data, run)


if __name__ == "__main__":
    runs.start(main, __doc__, data="data/bone", sample=None)
'''

GROUPED = "return splits.by_patient(table, **splitting)"
# As a public system did: the classes are enlarged by mixtures of neighbouring pictures (SMOTE),
# then the rows are divided at random.
OVERSAMPLED = """import cv2
    from medkeras.files import decode
    pixels = [cv2.resize(decode.picture(file).pixels, (16, 16)) for file in table["image"]]
    flat, rng, rows = np.reshape(pixels, (-1, 256)).astype(float), np.random.default_rng(0), []
    folder = {folder!r}
    for name in np.unique(table["class"]):
        own = np.flatnonzero(table["class"] == name)
        far = ((flat[own, None] - flat[own]) ** 2).sum(-1)
        for number, row in enumerate(own):
            other = own[np.argsort(far[number])[rng.integers(1, 6)]]
            mixed = flat[row] + rng.random() * (flat[other] - flat[row])
            file = f"{folder}/{name}-{number}.png"
            cv2.imwrite(file, mixed.reshape(16, 16).astype(np.uint8))
            rows.append(table.iloc[row].to_dict() | dict(image=file, path=file, sha256=file))
    table = pd.concat([table, pd.DataFrame(rows)], ignore_index=True)
    side = rng.choice(["train", "val", "test"], len(table), p=[0.6, 0.2, 0.2])
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
        (tmp_path / "mixed").mkdir(exist_ok=True)
        divided = divided.replace("{folder!r}", repr(str(tmp_path / "mixed")))
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


def control_of(out):
    return json.loads((out / "null_control.json").read_text())


def test_the_null_control_is_quiet_on_a_split_by_patient(start, knees):
    code, said, out = start(GROUPED, "--data", knees, "--null-control")
    assert code == 0 and "null control passed" in said
    assert control_of(out)["outcome"] == "passed"
    for null in control_of(out)["nulls"]:
        described = json.loads((out / null["null"] / "environment.json").read_text())
        assert described["data"]["null_control"] == null["null"]
        assert null["auc"]["mean"]["low"] < 0.5 < null["auc"]["mean"]["high"]
    assert json.loads((out / "status.json").read_text())["status"] == "finished"
    # Without --resume, what was found for one page or data set is not taken for another's.
    code, _, _ = start(GROUPED, "--data", knees, "--null-control", "--seed", "7")
    assert code == 2


@pytest.mark.parametrize(
    ("pipeline", "caught"),
    [(OVERSAMPLED, {"permuted", "noise"}), (BY_PICTURE, {"noise"})],
    ids=["oversampled", "by picture"],
)
def test_the_null_control_catches_a_pipeline_that_leaks(start, knees, pipeline, caught):
    code, said, out = start(pipeline, "--data", knees, "--null-control")
    assert code == 3 and "null control failed" in said, said
    found = control_of(out)
    assert found["outcome"] == "failed"
    assert {null["null"] for null in found["nulls"] if null["outcome"] == "failed"} >= caught
    status = json.loads((out / "status.json").read_text())
    assert status["status"] == "failed" and "recognised" in status["reason"]
    # Mending the page does not mend the verdict: it stays until it is made again.
    assert start(GROUPED, "--data", knees, "--null-control")[0] == 2


def test_a_control_that_could_not_see_a_leak_does_not_pass(start, phantom_folder):
    code, said, out = start(GROUPED, "--data", phantom_folder(), "--null-control", "--epochs", "1")
    assert code == 3 and "null control inconclusive" in said and "passed" not in said
    assert control_of(out)["outcome"] == "inconclusive"


def test_folds_test_every_patient_once(start, phantom_folder):
    knees = phantom_folder(patients=40)
    code, said, out = start(GROUPED, "--data", knees, "--folds", "3", "--epochs", "2")
    assert code == 0 and "3 folds" in said
    found = [pd.read_csv(out / f"fold-{k}" / "split.csv") for k in (1, 2, 3)]
    tested = sum((split["split"] == "test").astype(int) for split in found)
    assert tested.eq(1).all()
    table = pd.read_csv(out / "folds.csv")
    for row in table.itertuples():
        scores = json.loads((out / row.part / "metrics.json").read_text())
        assert row.auc == scores["mean"]["auc"]["value"] and row.n == scores["n"]
    assert start(GROUPED, "--data", knees)[0] == 2, "a run of several is something to lose"
    before = (out / "fold-1" / "predictions.csv").stat().st_mtime_ns
    (out / "status.json").write_text('{"status": "failed"}')
    assert start(GROUPED, "--resume")[0] == 0
    assert (out / "fold-1" / "predictions.csv").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("aucs", "outcome"),
    [
        ({"mean": (0.62, 0.55, 0.69)}, "failed"),
        ({"mean": (0.60, 0.51, 0.69)}, "passed"),  # 99 % reach further than 95 %
        ({"mean": (0.38, 0.30, 0.45)}, "passed"),
        ({"mean": (0.99, None, None)}, "inconclusive"),
        ({"mean": (0.9, None, None), "a": (0.9, 0.8, 1.0), "b": (0.9, None, None)}, "failed"),
        ({"mean": (0.5, None, None), "a": (0.5, 0.4, 0.6)}, "passed"),
        ({}, "inconclusive"),
    ],
)
def test_a_null_is_judged_by_its_interval(tmp_path, aucs, outcome):
    entries = {
        name: {"auc": dict(zip(("value", "low", "high"), auc, strict=True))}
        for name, auc in aucs.items()
    }
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "history.csv").write_text("epoch,loss\n1,0.7\n2,0.2\n")
    if entries:
        found = {"mean": entries.pop("mean"), "classes": entries}
        (tmp_path / "one" / "metrics.json").write_text(json.dumps(found))
    parts_of = [parts.Part("one", "", null="noise")]
    if outcome == "passed":
        parts.summary(tmp_path, parts_of)
    else:
        with pytest.raises(ControlFailed, match=f"null control {outcome}"):
            parts.summary(tmp_path, parts_of)
    assert control_of(tmp_path)["outcome"] == outcome


def test_a_model_that_learned_nothing_is_pointed_out(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "history.csv").write_text("epoch,loss\n1,0.70\n2,0.69\n")
    auc = {"auc": {"value": 0.5, "low": 0.4, "high": 0.6}}
    (tmp_path / "one" / "metrics.json").write_text(json.dumps({"mean": auc, "classes": {}}))
    said = parts.summary(tmp_path, [parts.Part("one", "", null="noise")])
    assert "a leak may not show" in said


def test_folds_of_a_published_test_part_say_so(start, phantom_folder, tmp_path):
    knees, published = phantom_folder(patients=40), tmp_path / "published"
    for name in ("healthy", "fractured"):
        for picture in sorted((knees / name).glob("*.png")):
            part = "test" if int(picture.name[1:4]) % 4 == 0 else "train"
            (published / part / name).mkdir(parents=True, exist_ok=True)
            shutil.copy(picture, published / part / name)
    shutil.copy(knees / "patients.csv", published)
    table = pd.read_csv(published / "patients.csv")
    table["path"] = [path.split("/")[-1] for path in table["path"]]
    table.to_csv(published / "patients.csv", index=False)
    code, said, _ = start(GROUPED, "--data", published, "--folds", "2", "--epochs", "1")
    assert code == 0 and "the published test part is the same" in said


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


def test_uncertainty_is_permuted_with_its_finding_and_masks_are_gone():
    table = exams()
    table["uncertain acl"] = table["acl"].isna()
    made = control.permuted(table.assign(mask="file"), 3)
    assert (made["uncertain acl"] == made["acl"].isna()).all() and made["uncertain acl"].any()
    assert "mask" not in made


def test_joined_patients_are_permuted_as_one():
    table = exams().assign(group=lambda table: table["patient"].replace({"p3": "p2"}))
    made = control.permuted(table, 3)
    assert made.groupby("group")[["acl", "abnormal"]].nunique(dropna=False).max().max() == 1
    assert made.attrs == {**table.attrs, "lesions": False}


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


# A grid.

GRID = '''"""Which activation?

    python experiments/grid.py
"""

import json

from medkeras.errors import UsageError
from medkeras.evaluation import compare
from medkeras.training import carry, runs

GRID = (
    {"variant": "relu", "rate": 1e-05, "wide": True},
    {"variant": "leaky", "rate": 1e-06, "wide": False},
    {"variant": "leaky", "rate": 1e-05, "wide": False},
)


def main(run):
    with (run.project / "calls.txt").open("a") as calls:
        print(run.folder.name, file=calls)
    if (run.project / "broken").exists() and run.fixed["variant"] == "leaky":
        raise UsageError("out of order")
    run.say("trained")
    run.used("values", run.fixed)
    (run.folder / "history.csv").write_text("stage,epoch,loss,val_loss\\n1,1,0.5,0.6\\n")


if __name__ == "__main__":
    runs.start(main, __doc__, data="data", sample=None, grid=GRID, compare=compare.write)
'''
MEMBERS = ["relu-1e-05-True", "leaky-1e-06-False", "leaky-1e-05-False"]


@pytest.fixture
def grid(tmp_path, monkeypatch, capsys):
    """Runs the page with a grid; returns exit code, all that was said and the run folder."""
    page = tmp_path / "experiments" / "grid.py"
    page.parent.mkdir()
    page.write_text(GRID)

    def run(*argv):
        out = tmp_path / "run"
        monkeypatch.setattr(sys, "argv", [str(page), "--out", str(out), *argv])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(page), run_name="__main__")
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        return ended.value.code, said.out + said.err, out

    return run


def read(path):
    return json.loads(path.read_text())


def test_each_run_of_a_grid_is_complete_and_has_its_values_fixed(grid):
    code, said, out = grid("--set", "units=3", "--seed", "5")
    assert code == 0 and "leaky-1e-06-False: run 2 of 3, variant leaky, rate 1e-06" in said
    table = pd.read_csv(out / "comparison.csv")
    assert list(table["run"]) == MEMBERS and f"comparison: {out / 'comparison.html'}" in said
    for member, variant, rate, wide in zip(
        MEMBERS, ["relu", "leaky", "leaky"], ["1e-05", "1e-06", "1e-05"], ["True", "False", "False"]
    ):
        assert read(out / member / "status.json")["status"] == "finished"
        facts = read(out / member / "environment.json")
        pairs = ["units=3", f"variant={variant}", f"rate={rate}", f"wide={wide}"]
        assert facts["arguments"]["set"] == pairs and facts["seed"] == 5
        values = read(out / member / "hyperparameters.json")["values"]
        assert values == dict(pair.split("=") for pair in pairs)
        assert "trained" in (out / member / "log.txt").read_text()
    assert read(out / "status.json")["status"] == "finished"


def test_a_grid_goes_on_with_the_run_that_did_not_finish(grid, tmp_path):
    (tmp_path / "broken").touch()
    code, said, out = grid("--set", "units=3")
    assert code == 2 and "out of order" in said and not (out / "comparison.csv").exists()
    assert read(out / MEMBERS[1] / "status.json")["status"] == "failed"
    (tmp_path / "broken").unlink()
    assert grid()[0] == 2, "without --resume nothing is overwritten"
    code, said, _ = grid("--resume")
    assert code == 0 and "comparison: " in said
    calls = (tmp_path / "calls.txt").read_text().split()
    assert calls == [*MEMBERS[:2], *MEMBERS[1:]], "what is finished is not run again"
    assert "units=3" in read(out / MEMBERS[2] / "environment.json")["arguments"]["set"]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--set", "rate=0.1"], "--set rate"),
        (["--folds", "2"], "--folds"),
        (["--null-control"], "--null-control"),
        (["--tune", "2"], "--tune"),
    ],
)
def test_what_a_grid_decides_itself_is_refused(grid, argv, words):
    code, said, out = grid(*argv)
    assert code == 2 and words in said and "grid" in said and not out.exists()


def test_another_grid_is_not_mixed_with_the_one_that_was_begun(grid, tmp_path):
    (tmp_path / "broken").touch()
    grid()
    page = tmp_path / "experiments" / "grid.py"
    page.write_text(GRID.replace('"rate": 1e-06', '"rate": 1e-07'))
    code, said, out = grid("--resume")
    assert code == 2 and "grid" in said and not (out / "leaky-1e-07-False").exists()


def named(*grid):
    flags = SimpleNamespace(grid=grid, set=[], folds=None, null_control=False, tune=None)
    return [part.name for part in parts.of(flags)]


def test_folders_of_a_grid_have_names_that_every_system_takes():
    texts = ["relu", "ReLU", "relu-2", "con", "NUL.txt", "", "../x:y*", "-1", "x.", "ü" * 9]
    found = named(*({"a": text} for text in [*texts, "long" * 99]))
    assert len({name.lower() for name in found}) == len(found), "Windows and macOS fold case"
    for name in found:
        assert len(name) < 100 and name[0].isalnum() and name[-1] != "."
        assert re.fullmatch(r"[A-Za-z0-9.+_-]+", name)
        assert name.lower().split(".")[0] not in ("con", "nul")
    assert named({"a": "relu", "b": 1e-5, "c": 3}) == ["relu-1e-05-3"]


def test_a_run_of_a_grid_that_diverges_leaves_the_others_their_turn(tmp_path):
    from medkeras.errors import Diverged

    page = tmp_path / "experiments" / "page.py"
    argv = ["--out", str(tmp_path / "run"), "--sample"]
    flags = commandline.parse("A page.", "page", argv)
    compared = []
    grid = ({"rate": 9.0}, {"rate": 0.1})
    compare = lambda folder, members: compared.append(len(members)) or "compared"  # noqa: E731
    run = runs.Run(page, flags, argv, "data/x", None, 32, grid, compare)

    def main(run):
        if run.fixed["rate"] == "9.0":
            raise Diverged("the loss is NaN")

    assert carry.carry_out(run, main) == Diverged.exit_code and compared == [2]
    states = [
        json.loads(p.read_text())["status"]
        for p in sorted((tmp_path / "run").glob("*/status.json"))
    ]
    assert sorted(states) == ["failed", "finished"]
