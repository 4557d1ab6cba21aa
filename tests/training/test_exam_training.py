"""Training on exams of three planes: the frozen part, histograms, resuming, and what is refused."""

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from medkeras.errors import UsageError
from medkeras.evaluation import evaluate
from medkeras.losses import compiled, compiled_findings
from medkeras.models import mrnet, recipe
from medkeras.preparation import augment, exams, pipeline
from medkeras.readers import tables
from medkeras.training import features, fit, loop, optimizers

SIZE, EXAMS = 32, 10
# Two of the three show all that several planes do, in two thirds of the time.
PLANES = mrnet.PLANES[:2]
RULES = loop.Rules(epochs=3, patience=None, plateau_patience=None)


@pytest.fixture
def table(tmp_path):
    """Ten exams of two to four slices: six to train, two to validate, two to test."""
    rng, rows = np.random.default_rng(0), []
    for exam in range(EXAMS):
        row = {"path": f"train/{exam:04d}", "patient": f"{exam:04d}"}
        for plane in mrnet.PLANES:
            row[plane] = str(tmp_path / "data" / plane / f"{exam:04d}.npy")
            Path(row[plane]).parent.mkdir(parents=True, exist_ok=True)
            shape = (int(rng.integers(2, 5)), SIZE, SIZE)
            np.save(row[plane], rng.integers(0, 200, shape, dtype=np.uint8))
        row |= {"abnormal": 1.0 - exam % 3 // 2, "acl": float(exam % 2), "meniscus": 0.0}
        row["split"] = ("train", "train", "train", "val", "test")[exam % 5]
        rows.append(row)
    table = pd.DataFrame(rows)
    table.loc[::4, "meniscus"] = 1.0
    table.attrs = {"images": list(mrnet.PLANES), "labels": ["abnormal", "acl", "meniscus"]}
    return table


def opened(table, task="acl", planes=PLANES, **options):
    table = tables.single(table, task)
    return exams.volumes(table, (SIZE, SIZE, 1), 2, planes=planes, **options)


def built(variant="basic", rate=1e-3, planes=PLANES, **options):
    keras.utils.set_random_seed(0)
    model = mrnet.views(variant, (SIZE, SIZE, 1), planes=planes, **options)
    return compiled(model, optimizers.CoupledAdam(rate, decay=0.01), curves=True)


def trained(model, data, *, plain=False):
    feed = features.feed(model, data, plain=plain)
    return feed, loop.train(feed, data, RULES, seed=0).history


@pytest.mark.parametrize("slices", ["max", "attention"])
def test_slice_features_and_slices_give_equal_losses(table, slices):
    moves = augment.knee_mri()
    data = opened(table, augment=moves, views=2)
    options = {"rate": 1e-3, "frozen": True, "slices": slices}
    feed, ours = trained(built(**options), data)
    whole, theirs = trained(built(**options), data, plain=True)
    assert isinstance(feed, features.Features) and isinstance(whole, features.Pictures)
    for one, other in zip(ours, theirs, strict=True):
        assert one == pytest.approx(other, abs=1e-5, nan_ok=True)
    assert len({row["val_loss"] for row in ours}) == len(ours), "it has learned"


@pytest.fixture
def computed(monkeypatch):
    """Counts the slices that go through a trunk."""
    counted, make = [], features._forward

    def counting(trunk):
        forward = make(trunk)
        return lambda slices: counted.append(len(slices)) or forward(slices)

    monkeypatch.setattr(features, "_forward", counting)
    return counted


def test_tasks_poolings_and_sweeps_share_the_features_of_all_slices(table, computed):
    data = opened(table)
    slices = sum(
        data.stored[plane].lengths[table["split"] != "test"].sum() for plane in data.planes
    )
    features.feed(built(frozen=True), data).prepare(3)
    assert sum(computed) == slices, "each slice once, those to test on never"
    computed.clear()
    for task in ("abnormal", "meniscus"):
        features.feed(built(frozen=True, slices="mean"), opened(table, task)).prepare(3)
    alone = opened(table, planes=("coronal",))
    features.feed(built(frozen=True, planes=("coronal",)), alone).prepare(3)
    assert computed == []


def test_histograms_are_those_of_a_separately_computed_gradient(table, new_run):
    import tensorflow as tf

    data, run, model = opened(table), new_run(), built()
    fit.fit(model, data, run, epochs=1, plateau_patience=None)

    # The weights after the epoch; the first training exams in the table's order.
    given, count = data.train.inputs(np.arange(2)), len(PLANES)
    inputs = [*(array.astype("float32") for array in given[:count]), *given[count:]]
    labels = data.train.labels[:2].astype("float32")
    with tf.GradientTape() as tape:
        logits = model([tf.constant(array) for array in inputs], training=False)[:, 0]
        losses = tf.nn.sigmoid_cross_entropy_with_logits(labels, logits)
        loss = tf.reduce_mean(losses)
    expected = dict(
        zip(
            [variable.path for variable in model.trainable_variables],
            tape.gradient(loss, [variable.value for variable in model.trainable_variables]),
            strict=True,
        )
    )
    events = EventAccumulator(
        str(run.folder / "tensorboard" / "train"), size_guidance={"tensors": 0}
    )
    events.Reload()
    for number in range(1, 5):
        for variable in ("kernel", "bias"):
            name = f"block{number}_conv/{variable}"
            (event,) = events.Tensors(f"gradients/{name}")
            buckets = tf.make_ndarray(event.tensor_proto)
            gradient = expected[name].numpy().ravel()
            counts, edges = np.histogram(gradient, bins=len(buckets))
            np.testing.assert_allclose(buckets[:, 0], edges[:-1], rtol=1e-3, atol=1e-6)
            assert np.abs(buckets[:, 2] - counts).sum() <= 0.01 * len(gradient)
            kind = "weights" if variable == "kernel" else "biases"
            (event,) = events.Tensors(f"{kind}/{name}")
            assert tf.make_ndarray(event.tensor_proto)[:, 2].sum() == len(gradient)


@pytest.mark.usefixtures("deterministic")
def test_a_stopped_run_goes_on_to_the_same_bits(table, new_run):
    data = opened(table, augment=augment.knee_mri(), planes=("axial",))
    data, histories = replace(data, batch_size=1), {}
    for folder, stops in (("whole", ()), ("stopped", (8,))):
        for stop in [*stops, None]:
            run = new_run(*(["--resume"] if folder == "stopped" else []), folder=folder)
            calls = iter(range(10_000))
            run.stopping = lambda calls=calls, stop=stop: stop is not None and next(calls) >= stop
            model = built("leaky", planes=("axial",))
            try:
                fit.fit(model, data, run, epochs=2, plateau_patience=None)
            except InterruptedError:
                continue
        histories[folder] = run.history, [weight.numpy() for weight in model.weights]
    assert str(histories["whole"][0]) == str(histories["stopped"][0])
    for one, other in zip(histories["whole"][1], histories["stopped"][1], strict=True):
        np.testing.assert_array_equal(one, other)


def test_many_findings_are_trained_with_unknown_labels(table, new_run):
    findings = ("abnormal", "acl", "meniscus")
    table.loc[table["split"] == "train", "meniscus"] = np.nan
    data = exams.volumes(table, (SIZE, SIZE, 1), 2, planes=PLANES, findings=findings)
    keras.utils.set_random_seed(0)
    model = mrnet.views("basic", (SIZE, SIZE, 1), 3, planes=PLANES)
    compiled_findings(model, keras.optimizers.Adam(1e-3), findings)
    before = model.get_layer("logits").kernel.numpy()
    run = new_run()
    fit.fit(model, data, run, epochs=1, plateau_patience=None)
    after = model.get_layer("logits").kernel.numpy()
    np.testing.assert_array_equal(before[:, 2], after[:, 2])
    assert np.abs(before[:, :2] - after[:, :2]).max() > 0
    split = pd.read_csv(run.folder / "split.csv")
    assert split.loc[split["split"] == "train", "meniscus"].isna().all()


def test_every_exam_counts_alike_in_the_loss_however_many_slices_it_has(table):
    data, model = replace(opened(table), batch_size=1), built()
    history = loop.train(features.feed(model, data), data, RULES, seed=0).history
    best = min(history, key=lambda row: row["val_loss"])["val_loss"]
    each = []
    for row in range(len(data.val)):
        inputs, labels = pipeline.as_tensors((data.val.inputs([row]), data.val.labels[[row]]))
        each.append(float(model.compute_loss(inputs, labels, model(inputs, training=False))))
    assert best == pytest.approx(np.mean(each), rel=1e-5)
    lengths = data.val.lengths("axial")
    assert len(set(lengths)) > 1 and best != pytest.approx(
        np.average(each, weights=lengths), rel=1e-5
    )


@pytest.mark.parametrize("weigh", [True, False])
def test_validation_is_weighed_as_training_where_that_is_asked_for(table, weigh):
    data, model = opened(table), built()
    rules = replace(RULES, epochs=1, weigh_validation=weigh)
    feed = features.feed(model, data)
    (row,) = loop.train(feed, data, rules, seed=0, class_weight=[1.0, 5.0]).history
    (*inputs, labels) = *data.val.inputs(np.arange(2)), data.val.labels
    inputs, labels = pipeline.as_tensors((inputs, labels))
    factors = np.where(labels == 1, 5.0, 1.0) if weigh else None
    logits = model(inputs, training=False)
    expected = float(model.compute_loss(inputs, labels, logits, factors))
    assert row["val_loss"] == pytest.approx(expected, rel=1e-5)


def test_several_gpus_are_refused_for_exams(table, new_run, monkeypatch):
    model = built()
    strategy = type("Two", (), {"num_replicas_in_sync": 2})()
    monkeypatch.setattr(type(model), "distribute_strategy", strategy)
    with pytest.raises(UsageError, match="mirrored"):
        fit.fit(model, opened(table), new_run(), epochs=1)


@pytest.mark.parametrize("build", [mrnet.views, mrnet.triple])
def test_a_frozen_run_is_saved_and_rebuilt_to_the_same_answers(build, table, new_run):
    data, run = opened(table), new_run()
    keras.utils.set_random_seed(0)
    model = build(image_shape=(SIZE, SIZE, 1), classes=1, planes=PLANES, frozen=True)
    fit.fit(compiled(model, keras.optimizers.Adam(1e-3)), data, run, epochs=1)
    other = recipe.rebuild(model.recipe)
    other.load_weights(run.folder / "model.keras")
    ours, theirs = (evaluate.logits(one, data.test.batches()) for one in (model, other))
    np.testing.assert_array_equal(ours, theirs)


def test_a_frozen_head_reads_no_pixels(table, monkeypatch):
    feed = features.feed(built(frozen=True), opened(table))
    feed.prepare(1)
    monkeypatch.setattr(exams.Part, "inputs", lambda *args: pytest.fail("pixels were gathered"))
    *_, numbers = feed.train(np.array([1, 0]), 0)
    assert set(numbers) == {0, 1}


def test_weights_of_classes_by_the_share_of_the_other_or_its_root(table):
    data = opened(table, "abnormal")
    share = (data.train.labels == 1).mean()
    assert fit.weights_of("complement", data) == pytest.approx([share, 1 - share])
    root = fit.weights_of("square_root", data)
    assert root[1] / root[0] == pytest.approx(np.sqrt((1 - share) / share))
    assert np.mean(np.array(root)[data.train.labels]) == pytest.approx(1)
    many = exams.volumes(table, (SIZE, SIZE, 1), 2, findings=("acl",))
    with pytest.raises(UsageError, match="positive_weights"):
        fit.weights_of("balanced", many)
