import json
import os
import runpy
import shutil
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from medkeras.preparation import control
from medkeras.training import fit, runs

PAGE = '''"""Does a small page run?

    python experiments/small.py    # sample data
"""

from functools import partial

import keras

from medkeras.evaluation import evaluate
from medkeras.losses import compiled
from medkeras.phantoms import bone as phantom
from medkeras.preparation import augment, pipeline, splits
from medkeras.readers import bone
from medkeras.training import fit, runs, tune

RULES = dict(epochs=2, class_weight="balanced")


def build(hp, image_shape, outputs):
    image = keras.Input(image_shape, name="image")
    x = keras.layers.Rescaling(1 / 255)(image)
    x = keras.layers.Conv2D(hp.Int("units", 2, 8, default=4), 3, strides=2)(x)
    x = keras.layers.Dropout(0.2)(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(image, keras.layers.Dense(outputs, name="logits")(x))
    return compiled(model, keras.optimizers.Adam(hp.Choice("learning_rate", [1e-2, 1e-3])))


def main(run):
    image_shape = run.image_shape(32, 32, 1)
    table = splits.by_patient(run.read(bone.read), **run.splitting)
    data = pipeline.images(table, image_shape, 4, augment=augment.radiograph(), **run.loading)
    bound = partial(build, image_shape=image_shape, outputs=data.outputs)
    model = bound(tune.choose(bound, data, run, **RULES))
    fit.fit(model, data, run, **RULES)
    evaluate.evaluate(model, data, run)


if __name__ == "__main__":
    runs.start(
        main,
        __doc__,
        data="data/bone",
        sample=partial(phantom.write, classes=phantom.CLASSES[:2], patients=8),
        sample_size=32,
    )
'''


@pytest.fixture
def start(tmp_path, monkeypatch, capsys):
    """Runs a page in this process; returns exit code, standard output and error."""
    page = tmp_path / "experiments" / "small.py"
    page.parent.mkdir()
    page.write_text(PAGE)

    def run(*argv, traceback=False):
        monkeypatch.setattr(sys, "argv", [str(page), *map(str, argv)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(page), run_name="__main__")
        said = capsys.readouterr()
        assert ("Traceback" in said.out + said.err) == traceback
        return ended.value.code, said.out, said.err

    return run


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def read(folder, name):
    return json.loads((folder / name).read_text())


@pytest.fixture
def films(tmp_path):
    """Two classes of four sound pictures, without a csv: each is a patient."""
    rng = np.random.default_rng(0)
    for name in ("healthy", "fractured"):
        (tmp_path / "films" / name).mkdir(parents=True)
        for number in range(4):
            pixels = rng.integers(0, 256, (40, 36), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "films" / name / f"{number}.png")
    return tmp_path / "films"


# Ends.


def test_a_run_leaves_true_records_and_ends_with_its_folder(start, phantom_folder, out, content_of):
    root = phantom_folder()
    before = content_of(root)
    code, said, _ = start("--data", root, "--out", out, "--seed", 3, "--set", "units=3")
    assert code == 0
    assert said.splitlines()[-1] == str(out)
    assert content_of(root) == before, "nothing is written into the data folder"

    status = read(out, "status.json")
    assert (status["status"], status["reason"]) == ("finished", None)
    assert (status["stage"], status["epoch"]) == (1, 2)
    assert status["pid"] == os.getpid() and status["started"] <= status["changed"]
    facts = read(out, "environment.json")
    assert facts["command"].startswith("python experiments/small.py --data")
    assert facts["seed"] == 3 and facts["arguments"]["set"] == ["units=3"]
    assert facts["packages"]["keras"] and facts["python"].startswith("3.")
    data = facts["data"]
    pictures = len(list(root.glob("*/*.png")))
    assert (data["root_name"], data["pictures"], data["patients"]) == ("bone", pictures, 16)
    assert data["skipped"] == [] and len(data["fingerprint"]) == 40
    assert data["sample"] is False and data["synthetic"] is True, "phantoms, given by --data"
    used = read(out, "hyperparameters.json")
    assert used["values"] == {"units": 3, "learning_rate": 0.01}
    assert used["batch_size"] == 4 and used["stage_1"]["epochs"] == 2
    assert used["stage_1"]["class_weight"] == pytest.approx([1, 1], abs=0.5)
    log = (out / "log.txt").read_text()
    assert "stage 1 epoch 2/2" in log and f"{pictures} pictures of 16 patients" in log
    split = pd.read_csv(out / "split.csv")
    assert split.groupby("patient")["split"].nunique().max() == 1
    left = {path.name for path in out.iterdir()}
    assert not [name for name in left if ".tmp" in name]


def test_without_data_phantoms_are_written_and_it_is_said(start, tmp_path, own_cache):
    code, said, _ = start("--epochs", "1")
    folder = tmp_path / "saved_models" / "small"
    (run,) = folder.iterdir()
    assert code == 0 and said.splitlines()[-1] == str(run)
    assert "synthetic" in said and read(run, "environment.json")["data"]["sample"] is True
    assert (own_cache / "phantoms").is_dir() and not (tmp_path / "data").exists()
    code, said, _ = start("--resume")
    assert code == 0 and said.splitlines()[-1] == str(run), "the latest run is the one to resume"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--unknown"], "--unknown"),
        (["--set", "units"], "NAME=VALUE"),
        (["--set", "unit=3"], "known are learning_rate, units"),
        (["--set", "units=99"], "outside of 2..8"),
        (["--sample", "--data", "x"], "--data"),
    ],
)
def test_wrong_usage_ends_with_2(start, argv, words, out, phantom_folder):
    data = [] if "--data" in argv else ["--data", phantom_folder()]
    code, said, error = start(*argv, *data, "--out", out)
    assert code == 2 and words in said + error


def test_a_folder_that_holds_something_else_is_refused(start, out, phantom_folder):
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    code, _, error = start("--data", phantom_folder(), "--out", out)
    assert code == 2 and "not empty" in error and os.listdir(out) == ["thesis.txt"]
    code, _, error = start("--data", phantom_folder(), "--out", out / "thesis.txt" / "run")
    assert code == 2 and "file" in error
    (out / "thesis.txt").unlink()
    (out / "status.json").write_text('{"status": "finished"}')
    code, _, error = start("--data", phantom_folder(), "--out", out)
    assert code == 2 and "--resume" in error


def test_a_fault_of_the_program_shows_where_it_is(start, out, phantom_folder, monkeypatch):
    def broken(*args, **options):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(fit, "fit", broken)
    code, _, error = start("--data", phantom_folder(), "--out", out, traceback=True)
    assert code == 1 and "ZeroDivisionError: a bug" in error and "in main" in error
    status = read(out, "status.json")
    assert (status["status"], status["reason"]) == ("failed", "ZeroDivisionError: a bug")


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        (MemoryError(), 4, "memory"),
        (OSError(28, "No space left on device", "state"), 4, "no room left"),
        (KeyboardInterrupt(), 130, "--resume"),
    ],
)
def test_a_foreseeable_fault_has_its_code_and_no_traceback(
    start, out, phantom_folder, monkeypatch, fault, code, words
):
    def failing(*args, **options):
        raise fault

    monkeypatch.setattr(fit, "fit", failing)
    found, said, error = start("--data", phantom_folder(), "--out", out)
    assert found == code and words in said + error and said.splitlines()[-1] == str(out)
    status = read(out, "status.json")
    assert status["status"] == ("interrupted" if code == 130 else "failed")
    assert words in status["reason"]


def test_a_diverged_run_ends_with_5(start, out, phantom_folder):
    page = out.parent / "experiments" / "small.py"
    page.write_text(PAGE.replace("[1e-2, 1e-3]", "[1e30, 1e29]"))
    code, said, _ = start("--data", phantom_folder(), "--out", out)
    assert code == 5 and "nan" in said and "learning rate" in said
    assert read(out, "status.json")["status"] == "failed"
    assert not (out / "predictions.csv").exists()


# Bad data.


def test_a_missing_folder_ends_with_3(start, out, tmp_path):
    code, said, _ = start("--data", tmp_path / "nowhere", "--out", out)
    assert code == 3 and "nowhere" in said and "--sample" in said
    assert said.splitlines()[-1] == str(out)
    assert read(out, "status.json")["status"] == "failed"


def spoiled(films):
    """One picture of each kind of the issue's list; returns what its reason must hold."""
    good = (films / "healthy/0.png").read_bytes()
    jpeg = films / "healthy" / "whole.jpg"
    Image.open(films / "healthy/0.png").save(jpeg)
    (films / "healthy/cut.jpg").write_bytes(jpeg.read_bytes()[:400])
    jpeg.unlink()
    (films / "healthy/cut.png").write_bytes(good[: len(good) // 2])
    (films / "healthy/mislabelled.jpg").write_bytes(good)
    (films / "fractured/pointer.png").write_bytes(
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    )
    deep = np.random.default_rng(1).integers(0, 65536, (40, 36), dtype=np.uint16)
    Image.fromarray(deep).save(films / "fractured/deep.png")
    return {
        "healthy/cut.jpg": "damaged",
        "healthy/cut.png": "damaged",
        "healthy/mislabelled.jpg": "PNG",
        "fractured/pointer.png": "LFS",
        "fractured/deep.png": "16-bit",
    }


def test_every_bad_picture_is_named_in_one_go(start, films, out, content_of):
    expected = spoiled(films)
    (films / "beyond_repair").mkdir()
    shutil.copy(films / "healthy/0.png", films / "beyond_repair/only.png")
    pixels = np.random.default_rng(2).integers(0, 256, (40, 36), dtype=np.uint8)
    Image.fromarray(pixels).save(films / "beyond_repair/only.png")
    before = content_of(films)
    code, said, _ = start("--data", films, "--out", out)
    assert code == 3
    table = pd.read_csv(out / "problems.csv", index_col="path")
    assert set(table.index) == {*expected, "beyond_repair"}
    for path, reason in expected.items():
        assert reason in table["reason"][path]
    assert "1 patient" in table["reason"]["beyond_repair"]
    assert table["remedy"].notna().all()
    for path, row in table.iterrows():
        (line,) = [line for line in said.splitlines() if line.strip().startswith(path + " |")]
        assert row["reason"] in line and row["remedy"] in line
    assert not (out / "history.csv").exists() and content_of(films) == before


def test_an_empty_class_ends_with_3_and_the_bad_pictures_are_named_too(start, films, out):
    expected = spoiled(films)
    (films / "beyond_repair").mkdir()
    code, _, _ = start("--data", films, "--out", out)
    table = pd.read_csv(out / "problems.csv", index_col="path")
    assert code == 3 and "without pictures" in table["reason"]["beyond_repair"]
    assert set(expected) <= set(table.index)


def test_an_empty_class_ends_with_3(start, films, out):
    (films / "beyond_repair").mkdir()
    code, said, _ = start("--data", films, "--out", out)
    assert code == 3 and "beyond_repair | is a class without pictures | add" in said


def test_skip_bad_goes_on_and_counts(start, films, out):
    expected = spoiled(films)
    code, said, _ = start("--data", films, "--out", out, "--skip-bad", "--epochs", "1")
    assert code == 0 and "5 broken picture(s) left out" in said
    data = read(out, "environment.json")["data"]
    assert {problem["path"] for problem in data["skipped"]} == set(expected)
    assert data["pictures"] == 8
    paths = set(pd.read_csv(out / "split.csv")["path"])
    assert len(paths) == 8 and not paths & set(expected)


def test_alpha_that_hides_nothing_and_palettes_are_read_with_a_note(start, films, out):
    rng = np.random.default_rng(3)
    one, two = (Image.fromarray(rng.integers(0, 256, (40, 36), dtype=np.uint8)) for _ in "ab")
    one.convert("RGBA").save(films / "healthy/alpha.png")
    two.convert("P").save(films / "fractured/palette.png")
    code, _, _ = start("--data", films, "--out", out, "--epochs", "1")
    assert code == 0
    notes = read(out, "environment.json")["data"]["notes"]
    named = {note["path"] for note in notes if isinstance(note, dict)}
    assert {"healthy/alpha.png", "fractured/palette.png"} <= named


# Several at once, and resume.


def test_a_folder_in_use_by_another_process_ends_with_75(start, out, phantom_folder):
    out.mkdir()
    hold = (
        "import sys, filelock; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); "
        "print('held', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", hold, str(out / ".lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with other:
        assert other.stdout.readline() == "held\n"
        before = '{"status": "running", "pid": 4711, "host": "ward-pc"}'
        (out / "status.json").write_text(before)
        code, _, error = start("--data", phantom_folder(), "--out", out, "--resume")
        other.stdin.close()
    assert code == 75 and "4711" in error and "ward-pc" in error
    assert (out / "status.json").read_text() == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_resume_ends_where_the_whole_run_ends(
    start, out, tmp_path, phantom_folder, monkeypatch, number
):
    root = phantom_folder()
    whole = tmp_path / "whole"
    assert start("--data", root, "--out", whole)[0] == 0

    ended = runs.Run.epoch_ended
    handler = signal.getsignal(number)
    with monkeypatch.context() as context:

        def epoch_ended(run, row, rules, best):
            ended(run, row, rules, best)
            os.kill(os.getpid(), number)

        context.setattr(runs.Run, "epoch_ended", epoch_ended)
        code, said, error = start("--data", root, "--out", out)
    assert code == 128 + number and said.splitlines()[-1] == str(out)
    assert "stopping after this batch" in error
    assert signal.getsignal(number) is handler, "the handler of before is back"
    status = read(out, "status.json")
    assert (status["status"], status["epoch"]) == ("interrupted", 1)
    assert "--resume" in status["reason"]

    code, said, _ = start("--resume", "--out", out)
    assert code == 0 and "stage 1 epoch 1/2" not in said
    assert read(out, "status.json")["status"] == "finished"
    for name in ("predictions.csv", "history.csv", "split.csv", "metrics.json"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()


def test_a_second_signal_stops_at_once(start, out, phantom_folder, monkeypatch):
    def impatient(*args, **options):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("went on")

    monkeypatch.setattr(fit, "fit", impatient)
    code, _, _ = start("--data", phantom_folder(), "--out", out)
    assert code == 143 and read(out, "status.json")["status"] == "interrupted"


def test_resuming_a_finished_run_changes_nothing(start, out, phantom_folder, content_of):
    argv = ["--data", phantom_folder(), "--out", out, "--epochs", "1"]
    assert start(*argv, "--resume")[0] == 0, "--resume starts a run that is not there"
    before = content_of(out)
    code, said, _ = start(*argv, "--resume")
    assert code == 0 and "finished" in said and said.splitlines()[-1] == str(out)
    assert content_of(out) == before
    code, _, error = start("--out", out, "--resume", "--epochs", "7")
    assert code == 2 and "--epochs was 1" in error
    assert content_of(out) == before


def test_a_run_killed_before_it_wrote_its_flags_can_be_resumed(start, out, phantom_folder):
    out.mkdir()
    (out / "status.json").write_text('{"status": "running"}')
    code, _, _ = start("--data", phantom_folder(), "--out", out, "--resume", "--epochs", "1")
    assert code == 0


def test_data_that_changed_since_is_refused(start, films, out, monkeypatch):
    ended = runs.Run.epoch_ended
    with monkeypatch.context() as context:

        def epoch_ended(run, row, rules, best):
            ended(run, row, rules, best)
            os.kill(os.getpid(), signal.SIGTERM)

        context.setattr(runs.Run, "epoch_ended", epoch_ended)
        assert start("--data", films, "--out", out)[0] == 143
    pixels = np.random.default_rng(9).integers(0, 256, (40, 36), dtype=np.uint8)
    Image.fromarray(pixels).save(films / "healthy/0.png")
    code, said, _ = start("--resume", "--out", out)
    assert code == 3 and "not what it was" in said


# The null control.


def test_the_null_control_permutes_patients_and_keeps_their_pictures_together():
    rng = np.random.default_rng(0)
    patient = np.repeat([f"p{number:02d}" for number in range(30)], 3)
    label = np.repeat(rng.integers(0, 3, 30), 3)
    table = pd.DataFrame(
        {"patient": patient, "label": label, "class": [f"class{n}" for n in label], "x": 1}
    )
    table.attrs["notes"] = ["kept"]
    made = control.permuted(table.sample(frac=1, random_state=2), seed=1).sort_index()
    assert made.groupby("patient")["label"].nunique().max() == 1
    assert (made["class"] == [f"class{n}" for n in made["label"]]).all()
    firsts = [one.groupby("patient")["label"].first() for one in (table, made)]
    assert sorted(firsts[0]) == sorted(firsts[1]), "as many patients of each class as before"
    assert (firsts[0] != firsts[1]).mean() > 0.4
    assert made.attrs == {**table.attrs, "lesions": False} and made["label"].dtype == np.int64
    same = control.permuted(table, seed=1)
    pd.testing.assert_frame_equal(same, made)
    assert (control.permuted(table, seed=2)["label"] != same["label"]).any()


def test_the_null_control_is_recorded(start, out, phantom_folder):
    argv = ["--data", phantom_folder(), "--out", out, "--null-control", "--epochs", "1"]
    code, said, _ = start(*argv)
    assert code == 3 and "null control inconclusive" in said, "8 patients tell nothing"
    assert read(out, "permuted/environment.json")["data"]["null_control"] == "permuted"
    split = pd.read_csv(out / "permuted/split.csv")
    assert split.groupby("patient")["label"].nunique().max() == 1
    folder = split["path"].str.split("/").str[0]
    assert (folder != split["class"]).any()


# Several heads.


@pytest.mark.parametrize("flags", [["--folds", "3"], ["--null-control"]])
def test_what_sums_up_one_number_is_refused_where_a_page_has_several(start, tmp_path, out, flags):
    page = tmp_path / "experiments" / "small.py"
    page.write_text(page.read_text().replace("sample_size=32", "sample_size=32, several=False"))
    code, _, said = start("--out", out, *flags)
    assert code == 2 and f"{flags[0]} sums up one number" in said and "leave it out" in said
    assert not out.exists()


def test_the_run_of_a_head_says_how_the_whole_model_was_trained(new_run):
    run = new_run("--seed", "7")
    run.note(weights_origin="run grades")
    run.used("batch_size", 16)
    for file in ("split.csv", "lineage.csv", "history.csv"):
        (run.folder / file).write_text(f"content of {file}")
    own = run.head("kl")
    assert (own.experiment, own.folder, own.seed) == ("page kl", run.folder / "kl", 7)
    assert read(own.folder, "environment.json") == {"weights_origin": "run grades"}
    assert read(own.folder, "hyperparameters.json") == {"batch_size": 16}
    assert (own.folder / "lineage.csv").read_text() == "content of lineage.csv"
    assert (own.folder / "split.csv").read_text() == "content of split.csv"
    assert not (own.folder / "history.csv").exists(), "it may tell of the other heads"

    own.status("finished")
    own.note(own=True)
    assert read(own.folder, "status.json")["status"] == "finished"
    assert read(run.folder, "status.json")["status"] == "running"
    assert "own" not in read(run.folder, "environment.json") and run.experiment == "page"
    (run.folder / "lineage.csv").unlink()
    assert run.head("jsl").folder.name == "jsl"
    assert not (run.folder / "jsl" / "lineage.csv").exists()
