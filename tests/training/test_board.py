import io
from collections import defaultdict

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

from medkeras.preparation import augment
from medkeras.training import board, features, fit, histograms


def events(folder):
    """Reads everything back: {tag: [(step, tensor)]}."""
    read = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    read.Reload()
    found = defaultdict(list)
    for tag in read.Tags()["tensors"]:
        for event in read.Tensors(tag):
            found[tag].append((event.step, tensor_util.make_ndarray(event.tensor_proto)))
    return found


def test_scalars_come_back(tmp_path):
    one = board.Board(tmp_path / "train")
    one.scalars(1, {"epoch/loss": 0.5, "epoch/accuracy": 0.25})
    one.scalars(2, {"epoch/loss": 0.125})
    one.close()
    found = events(tmp_path / "train")
    assert [(step, float(value)) for step, value in found["epoch/loss"]] == [(1, 0.5), (2, 0.125)]
    assert found["epoch/accuracy"][0][1] == 0.25


@pytest.mark.parametrize(
    "values",
    [np.random.default_rng(0).normal(size=(5, 7)), np.zeros(4), np.array(3.0), np.zeros((0, 2))],
    ids=["spread", "equal", "scalar", "empty"],
)
def test_a_histogram_has_numpys_bins_and_counts(tmp_path, values):
    one = board.Board(tmp_path)
    one.histogram(3, "weights/a", values)
    one.close()
    ((step, buckets),) = events(tmp_path)["weights/a"]
    counts, edges = np.histogram(values.astype(np.float32), bins=30)
    assert step == 3 and buckets.shape == (30, 3)
    np.testing.assert_allclose(buckets[:, 0], edges[:-1])
    np.testing.assert_allclose(buckets[:, 1], edges[1:])
    np.testing.assert_array_equal(buckets[:, 2], counts)


def test_neighbouring_numbers_of_float32_are_counted(tmp_path):
    one = board.Board(tmp_path)
    one.histogram(0, "a", np.array([1, 1, np.nextafter(np.float32(1), 2)], np.float32))
    one.close()
    assert events(tmp_path)["a"][0][1][:, 2].tolist() == [2, *[0] * 28, 1]


def test_values_that_are_not_finite_are_left_out(tmp_path):
    one = board.Board(tmp_path)
    one.histogram(0, "a", np.array([1, np.nan, 2, np.inf, -np.inf]))
    one.histogram(0, "b", np.array([np.nan]))
    one.close()
    found = events(tmp_path)
    assert found["a"][0][1][:, 2].sum() == 2 and found["b"][0][1][:, 2].sum() == 0


def test_pictures_and_trials_come_back(tmp_path):
    from tensorboard.plugins.hparams import plugin_data_pb2

    png = io.BytesIO()
    Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4)).save(png, "PNG")
    one = board.Board(tmp_path)
    one.picture(5, "grad_cam", png.getvalue(), "a panel")
    one.trial("0007", {"units": 64, "dropout": 0.5, "grey": True, "head": "plain"}, {"score": 0.9})
    one.close()
    read = EventAccumulator(str(tmp_path))
    read.Reload()
    width, height, content = events(tmp_path)["grad_cam"][0][1]
    assert (width, height, content) == (b"4", b"3", png.getvalue())
    assert float(events(tmp_path)["score"][0][1]) == pytest.approx(0.9)
    stored = read.SummaryMetadata("_hparams_/session_start_info").plugin_data
    content = plugin_data_pb2.HParamsPluginData.FromString(stored.content)
    values = content.session_start_info.hparams
    assert {name: value.WhichOneof("kind") for name, value in values.items()} == {
        "units": "number_value",
        "dropout": "number_value",
        "grey": "bool_value",
        "head": "string_value",
    }
    assert values["units"].number_value == 64 and values["head"].string_value == "plain"


def test_a_full_disk_stops_nothing(tmp_path, monkeypatch, caplog):
    one = board.Board(tmp_path)

    def full(*args):
        raise OSError(28, "no space left on device")

    monkeypatch.setattr(one._writer, "add_event", full)
    monkeypatch.setattr(one._writer, "close", full)
    for step in range(3):
        one.scalars(step, {"a": 1.0})
        one.histogram(step, "b", np.zeros(3))
    one.close()
    assert "no space left" in caplog.text
    assert len(caplog.records) == 1, "it is said once, not at every epoch"


# Histograms of a stage.


@pytest.fixture
def watched(tiny_model, tiny_data, new_run, deterministic):
    """Trains a small stage of two epochs; notes weights and model at every epoch's end."""

    def make(frozen):
        data = tiny_data(pictures=48, augment=augment.radiograph(), views=2, batch_size=8)
        model, run, seen = tiny_model(frozen=frozen, l2=1e-2, dropout=0.5), new_run(), []
        ended = run.epoch_ended

        def epoch_ended(*args):
            seen.append([variable.numpy().copy() for variable in model.weights])
            ended(*args)

        run.epoch_ended = epoch_ended
        fit.fit(model, data, run, epochs=2, class_weight=[3.0, 1.0], patience=None)
        return model, data, events(run.folder / "tensorboard" / "train"), seen, run

    return make


def expected_tags(model):
    learning, frozen = set(), set()
    for layer in model.layers:
        for variable in layer.weights:
            name = f"{layer.name}/{variable.name}"
            kind = "biases" if variable.name in ("bias", "beta") else "weights"
            if variable.trainable:
                learning |= {f"{kind}/{name}", f"gradients/{name}"}
            else:
                frozen.add(f"{kind}/{name}")
    return learning, frozen


@pytest.mark.parametrize("frozen", [False, True], ids=["small CNN", "head on features"])
def test_weights_biases_and_gradients_are_there_and_right(watched, frozen):
    model, data, found, seen, run = watched(frozen)
    assert ("computed once" in (run.folder / "log.txt").read_text()) == frozen

    # What is there: what learns in every epoch, what is frozen once, scalars.
    learning, still = expected_tags(model)
    if frozen:
        assert "weights/conv1/kernel" in still
    for tag in learning:
        assert [step for step, _ in found[tag]] == [1, 2], tag
    for tag in still:
        assert [step for step, _ in found[tag]] == [1], tag
    scalars = {"epoch/loss", "epoch/accuracy", "epoch/learning_rate"}
    assert set(found) - learning - still - scalars == set()
    assert all(len(found[tag]) == 2 for tag in scalars)

    # The gradients are those of the training loss on the stated batch, by another way.
    probe = np.arange(histograms.probe_size(len(data.train), data.batch_size))
    assert len(probe) == 4
    pictures = data.train.inputs(probe, 0)[0].astype("float32")
    labels = data.train.labels[probe].astype("float32")[:, None]
    weights = np.where(labels > 0, 1.0, 3.0)[:, 0]
    for epoch, values in enumerate(seen, start=1):
        for variable, value in zip(model.weights, values, strict=True):
            variable.assign(value)
        with tf.GradientTape() as tape:
            logits = model(pictures, training=False)
            each = tf.nn.sigmoid_cross_entropy_with_logits(labels, logits)[:, 0]
            l2 = 1e-2 * tf.reduce_sum(tf.square(model.get_layer("dense").kernel.value))
            loss = tf.reduce_mean(each * weights) + l2
        named = histograms.names(model)
        variables = model.trainable_variables
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        for variable, gradient in zip(variables, gradients, strict=True):
            name = named[id(variable)]
            same_distribution(found[f"gradients/{name}"], epoch, gradient.numpy())
            kind = "biases" if variable.name in ("bias", "beta") else "weights"
            same_distribution(found[f"{kind}/{name}"], epoch, variable.numpy(), 0)


def same_distribution(events, epoch, values, tolerance=1e-5):
    """Compares edges, and counts as far as rounding may move a value over an edge."""
    buckets = dict(events)[epoch]
    counts, edges = np.histogram(values, bins=30)
    atol = tolerance * max(1e-30, np.abs(edges).max()) + 1e-7 * (tolerance > 0)
    np.testing.assert_allclose(buckets[:, 0], edges[:-1], rtol=tolerance, atol=atol)
    np.testing.assert_allclose(buckets[:, 1], edges[1:], rtol=tolerance, atol=atol)
    assert buckets[:, 2].sum() == values.size
    if np.ptp(values) > 1e-6:
        assert np.abs(np.cumsum(buckets[:, 2]) - np.cumsum(counts)).max() <= (1 if tolerance else 0)


def test_validation_has_its_own_side_under_the_same_tags(watched):
    *_, run = watched(False)
    found = events(run.folder / "tensorboard" / "validation")
    assert set(found) == {"epoch/loss", "epoch/accuracy"}
    history = [float(value) for _, value in found["epoch/loss"]]
    rows = (run.folder / "history.csv").read_text().splitlines()
    column = rows[0].split(",").index("val_loss")
    assert history == pytest.approx([float(row.split(",")[column]) for row in rows[1:]], rel=1e-6)


def test_every_variable_of_a_backbone_has_a_name_of_its_own():
    from medkeras.models import transfer

    model = transfer.mobilenet_v2((32, 32, 1), 3, units=8, weights=None)
    names = histograms.names(model)
    assert len(names) == len(set(names.values())) == len(model.weights)


def test_the_probe_is_a_small_share_of_the_pictures():
    assert histograms.probe_size(3, 32) == 3
    assert histograms.probe_size(40, 32) == 4
    assert histograms.probe_size(640, 32) == 20
    assert histograms.probe_size(10_000, 32) == 32


def test_gradients_are_of_the_weights_of_now(tiny_model, tiny_data, tmp_path):
    data = tiny_data()
    model = tiny_model()
    feed = features.feed(model, data)
    writer = fit._histograms(board.Board(tmp_path), model, feed, data, None)
    before = writer.now()
    model.get_layer("logits").bias.assign([5.0])
    after = writer.now()
    assert not np.allclose(before[-1], after[-1])
    assert [gradient.shape for gradient in before] == [v.shape for v in model.trainable_variables]
    assert isinstance(model, keras.Model)
