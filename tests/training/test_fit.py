import json

import keras
import numpy as np
import pandas as pd
import pytest

from medkeras.errors import DataError, UsageError
from medkeras.losses import compiled
from medkeras.preparation import augment
from medkeras.training import cut, fit

pytestmark = pytest.mark.usefixtures("deterministic")


@pytest.fixture
def data(tiny_data):
    return tiny_data(augment=augment.radiograph(), views=2)


def two_stages(tiny_model, data, run, epochs=2):
    model = tiny_model(frozen=True)
    fit.fit(model, data, run, epochs=epochs)
    fit.unfreeze(model, "conv2")
    fit.fit(compiled(model, keras.optimizers.Adam(1e-3)), data, run, epochs=epochs)
    return model


def test_two_stages_leave_the_files_of_the_contract(tiny_model, data, new_run):
    run = new_run("--epochs", "2")
    model = two_stages(tiny_model, data, run, epochs=50)

    history = pd.read_csv(run.folder / "history.csv")
    assert history["stage"].tolist() == [1, 1, 2, 2] and history["epoch"].tolist() == [1, 2, 1, 2]
    assert list(history.columns) == [
        "stage", "epoch", "learning_rate", "loss", "accuracy", "val_loss", "val_accuracy",
    ]  # fmt: skip
    assert history["learning_rate"].tolist() == pytest.approx([1e-2, 1e-2, 1e-3, 1e-3])
    split = pd.read_csv(run.folder / "split.csv")
    assert list(split.columns) == ["path", "patient", "split", "label", "class"]
    assert split["path"].tolist() == data.table["path"].tolist()
    used = json.loads((run.folder / "hyperparameters.json").read_text())
    assert used["stage_1"]["epochs"] == 2 and used["stage_1"]["monitor"] == "val_loss"
    assert used["stage_2"]["optimizer"]["config"]["learning_rate"] == pytest.approx(1e-3)
    assert used["image_shape"] == [16, 16, 1] and used["views"] == 2
    assert used["augmentation"]["rotation"] == 30
    log = (run.folder / "log.txt").read_text()
    assert log.count("frozen part computed once") == 2 and "stage 2 epoch 2/2" in log
    status = json.loads((run.folder / "status.json").read_text())
    assert (status["status"], status["stage"], status["epoch"]) == ("running", 2, 2)
    for stage in ("stage-1", "stage-2"):
        assert (run.folder / "checkpoint" / stage / "state.safetensors").exists()

    other = tiny_model(3, frozen=True)
    other.load_weights(run.folder / "model.keras")
    for one, same in zip(model.weights, other.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), same.numpy())


class Killed(Exception):
    pass


def killed_at(run, line):
    """Ends a run at the n-th line it says about an epoch."""
    ended, lines = run.epoch_ended, iter(range(100))

    def epoch_ended(*args):
        ended(*args)
        if next(lines) == line:
            raise Killed

    run.epoch_ended = epoch_ended
    return run


def test_a_run_killed_again_and_again_goes_on_to_the_same_bits(tiny_model, data, new_run, tmp_path):
    """At the end of stage 1, before stage 2 was begun, and inside stage 2."""
    whole = two_stages(tiny_model, data, new_run(folder="whole"))
    for line in (1, 0):
        with pytest.raises(Killed):
            two_stages(tiny_model, data, killed_at(new_run("--resume", folder="killed"), line))
    run = new_run("--resume", folder="killed")
    assert run.resumed
    model = two_stages(tiny_model, data, run)
    for one, same in zip(model.variables, whole.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), same.numpy())
    texts = [(tmp_path / name / "history.csv").read_text() for name in ("whole", "killed")]
    assert texts[0] == texts[1]


def test_a_resumed_run_refuses_other_data(tiny_model, tiny_data, data, new_run, tmp_path):
    fit.fit(tiny_model(), data, new_run(), epochs=1)
    before = (tmp_path / "run" / "split.csv").read_bytes()
    moved = tiny_data(augment=augment.radiograph(), views=2)
    moved.table.loc[4, "split"] = "train"
    for other in (tiny_data(signal=61), moved):
        with pytest.raises(DataError, match="not what it was"):
            fit.fit(tiny_model(), other, new_run("--resume"), epochs=1)
    assert (tmp_path / "run" / "split.csv").read_bytes() == before


def test_a_resumed_run_refuses_another_model(tiny_model, data, new_run):
    fit.fit(tiny_model(), data, new_run(), epochs=1)
    with pytest.raises(UsageError, match="another"):
        fit.fit(tiny_model(frozen=True), data, new_run("--resume"), epochs=1)


def test_balanced_weights_undo_the_shares_of_the_training_classes(tiny_data):
    data = tiny_data(pictures=36, classes=3)
    assert fit.weights_of("balanced", data) == pytest.approx([1, 1, 1])
    data.table.loc[data.table["label"] == 2, ["label", "class"]] = [1, "class1"]
    weights = fit.weights_of("balanced", tiny_data(pictures=36, classes=3))
    assert np.dot(weights, [8, 8, 8]) == pytest.approx(24)
    uneven = tiny_data(pictures=24)
    uneven.table.loc[[6, 7], ["label", "class"]] = [0, "class0"]  # ten of class 0, six of 1
    assert fit.weights_of("balanced", uneven) == pytest.approx([16 / 20, 16 / 12])


def test_weights_come_from_training_pictures_alone(tiny_data):
    data = tiny_data()
    held_out = data.table["split"] != "train"
    data.table.loc[held_out, ["label", "class"]] = [0, "class0"]
    assert fit.weights_of("balanced", data) == pytest.approx([1, 1])


def test_weights_that_cannot_be_meant_are_refused(tiny_data):
    data = tiny_data()
    assert fit.weights_of(None, data) is None and fit.weights_of([1, 2], data) == [1.0, 2.0]
    with pytest.raises(UsageError, match="balanced"):
        fit.weights_of("even", data)
    with pytest.raises(UsageError, match="3 weights for 2"):
        fit.weights_of([1, 2, 3], data)


def test_unfreezing_reaches_all_behind_a_layer_but_norms(tiny_model):
    model = tiny_model(frozen=True)
    fit.unfreeze(model, "conv2")
    learning = {layer.name for layer in model.layers if layer.trainable_variables}
    assert learning == {"conv2", "learns", "dense", "logits"}
    (tensor,) = cut.cut(model).fixed["image"]
    assert tensor._keras_history.operation.name == "bn1"


def test_unfreezing_without_a_layer_reaches_all_but_norms(tiny_model):
    model = fit.unfreeze(tiny_model(frozen=True))
    learning = {layer.name for layer in model.layers if layer.trainable_variables}
    assert learning == {"conv1", "conv2", "learns", "dense", "logits"}


def test_an_unknown_layer_is_refused_with_the_nearest(tiny_model):
    with pytest.raises(UsageError, match="'conv9'.*conv1"):
        fit.unfreeze(tiny_model(), "conv9")
    with pytest.raises(UsageError, match="'nothing'.*logits"):
        fit.unfreeze(tiny_model(), "nothing")


def test_both_sides_of_a_row_have_the_same_tags():
    row = {"stage": 1, "epoch": 3, "learning_rate": 0.1, "loss": 1.0, "val_loss": 2.0, "auc": 0.5}
    assert fit.split_sides(row) == {
        "train": {"epoch/learning_rate": 0.1, "epoch/loss": 1.0, "epoch/auc": 0.5},
        "validation": {"epoch/loss": 2.0},
    }
