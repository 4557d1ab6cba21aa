from dataclasses import replace

import keras
import numpy as np
import pytest

from medkeras.errors import Diverged, UsageError
from medkeras.preparation import augment
from medkeras.training import checkpoint, features, loop, optimizers

pytestmark = pytest.mark.usefixtures("deterministic")

STEPS = 6  # 16 training pictures in batches of 3
RULES = loop.Rules(
    epochs=8, patience=3, min_delta=0.02, plateau_patience=1, plateau_factor=0.5,
    min_learning_rate=1e-4,
)  # fmt: skip


class Killed(Exception):
    """Stands for a kill: nothing is saved after it."""


@pytest.fixture(autouse=True)
def step_by_step(monkeypatch):
    """Runs one step a call of the graph, so that a test can stop at any of them."""
    monkeypatch.setattr(loop, "CALL_SECONDS", 0.0)


@pytest.fixture
def idle(monkeypatch):
    """Steps that compute nothing, so that no loss ever changes: for what the rules alone decide."""
    monkeypatch.setattr(loop, "_graph", lambda model, step: lambda iterator, count: None)


def trained(model, data, rules, folder=None, *, plain=False, hooks=None, **options):
    feed = features.feed(model, data, plain=plain)
    progress = loop.train(
        feed, data, rules, seed=0, folder=folder, hooks=hooks or loop.Hooks(), **options
    )
    return progress, feed


def everything(model):
    return [variable.numpy().copy() for variable in model.variables]


def equal(one, other):
    assert len(one) == len(other)
    for left, right in zip(one, other, strict=True):
        np.testing.assert_array_equal(left, right)


def stopped_after(calls):
    """Hooks that ask to stop after some calls of the graph."""
    left = [calls]

    def stopped():
        left[0] -= 1
        return left[0] == 0

    return loop.Hooks(stopped=stopped)


def killed_after(epochs):
    """Hooks that end everything when some epochs are over."""

    def epoch(history, best):
        if len(history) == epochs:
            raise Killed

    return loop.Hooks(epoch=epoch)


@pytest.fixture
def data(tiny_data):
    return tiny_data(augment=augment.radiograph(), views=None, signal=3)


@pytest.fixture
def viewed(tiny_data):
    return tiny_data(augment=augment.radiograph(), views=4, signal=3)


# Resume.


@pytest.mark.parametrize("frozen", [False, True])
def test_an_interrupted_stage_goes_on_to_the_same_bits(
    tiny_model, data, viewed, tmp_path, monkeypatch, frozen
):
    """Kills at an epoch's end, stops in the middle, in the last batch: one after the other.

    Dropout, augmentation, plateau and early stopping are at work; the uninterrupted stage runs
    many steps a call of the graph, the others one.
    """
    data = viewed if frozen else data
    whole = tiny_model(frozen=frozen, learning_rate=0.2)
    with monkeypatch.context() as context:
        context.setattr(loop, "CALL_SECONDS", 100.0)
        expected, feed = trained(whole, data, RULES)
    assert isinstance(feed, features.Features if frozen else features.Pictures)
    rates = [row["learning_rate"] for row in expected.history]
    assert len(set(rates)) > 1, "the plateau fires"
    assert len(rates) < RULES.epochs, "early stopping ends it"
    assert 1 < expected.best_epoch < len(rates), "the best epoch is not the last"

    interruptions = [stopped_after(2), killed_after(1), stopped_after(STEPS), killed_after(4)]
    for number, hooks in enumerate(interruptions[2:] if frozen else interruptions):
        # Another seed: what is not frozen comes from the state, nothing from the beginning.
        seed = 0 if frozen else number
        model = tiny_model(seed, frozen=frozen, learning_rate=0.2)
        with pytest.raises((InterruptedError, Killed)):
            trained(model, data, RULES, tmp_path, hooks=hooks)
    # A damaged state costs an epoch, and no bits.
    file = tmp_path / checkpoint.FILE
    file.write_bytes(file.read_bytes()[:-100])
    model = tiny_model(seed, frozen=frozen, learning_rate=0.2)
    progress, _ = trained(model, data, RULES, tmp_path)

    assert progress == expected
    equal(everything(model), everything(whole))


def test_a_stop_at_the_very_end_can_be_resumed(tiny_model, viewed, tmp_path):
    """After the last batch or epoch there is no further batch to look at, nor its view."""
    rules = loop.Rules(2)
    whole = tiny_model(frozen=True)
    expected, _ = trained(whole, viewed, rules)
    for hooks in (stopped_after(2 * STEPS), killed_after(2)):
        with pytest.raises((InterruptedError, Killed)):
            trained(tiny_model(frozen=True), viewed, rules, tmp_path, hooks=hooks)
    model = tiny_model(frozen=True)
    progress, _ = trained(model, viewed, rules, tmp_path)
    assert progress == expected
    equal(everything(model), everything(whole))


def test_the_stage_after_a_loaded_one_starts_from_the_same_state(tiny_model, data, tmp_path):
    """Dropout's seeds have moved on in stage 1; a resumed run must find them moved."""
    whole, model, steps = tiny_model(), tiny_model(), []
    expected, _ = trained(whole, data, RULES, tmp_path)
    before = (tmp_path / checkpoint.FILE).read_bytes()
    hooks = loop.Hooks(step=lambda *numbers: steps.append(numbers))
    progress, _ = trained(model, data, RULES, tmp_path, hooks=hooks)
    assert steps == [] and progress == expected, "a finished stage is loaded and not trained"
    assert (tmp_path / checkpoint.FILE).read_bytes() == before
    second = [trained(one, data, loop.Rules(2), stage=2)[0] for one in (whole, model)]
    assert second[0] == second[1]
    equal(everything(model), everything(whole))


def test_state_is_saved_inside_a_long_epoch(tiny_model, data, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)

    def step(batch, batches, epoch):
        if batch == 4:
            raise Killed

    with pytest.raises(Killed):
        trained(tiny_model(), data, RULES, tmp_path, hooks=loop.Hooks(step=step))
    assert checkpoint.load(tmp_path)[1]["batch"] == 3


# What a stage does.


def test_an_epoch_shows_every_picture_once_in_its_order(tiny_model, data, monkeypatch):
    from medkeras.preparation import pipeline

    seen = []
    feed = features.feed(tiny_model(), data)
    train = feed.train
    monkeypatch.setattr(
        feed, "train", lambda rows, epoch: seen.append((epoch, rows)) or train(rows, epoch)
    )
    loop.train(feed, replace(data, workers=1), loop.Rules(2), seed=0, stage=2)
    for epoch in (0, 1):
        # The pipeline looks at its first batch twice, for the shapes.
        rows = [rows for at, rows in seen[1:] if at == epoch]
        np.testing.assert_array_equal(np.concatenate(rows), pipeline.order(16, 0, 2, epoch))


def test_it_learns(tiny_model, tiny_data):
    progress, _ = trained(tiny_model(dropout=0), tiny_data(pictures=48), loop.Rules(12))
    assert progress.history[-1]["loss"] < 0.7 * progress.history[0]["loss"]


def test_the_best_weights_are_left_in_the_model(tiny_model, data):
    model = tiny_model(learning_rate=0.2)
    progress, _ = trained(model, data, loop.Rules(3, min_delta=0.0))
    assert progress.best_epoch < 3, "else this test shows nothing"
    losses = [row["val_loss"] for row in progress.history]
    assert progress.best == min(losses) == losses[progress.best_epoch - 1]
    found = model.evaluate(data.val.pictures().astype("float32"), data.val.labels, verbose=0)
    np.testing.assert_allclose(found[0], progress.best, rtol=1e-5)


def averaging(model):
    """The same model under an optimizer that keeps running means of the weights."""
    config = model.get_compile_config()
    config["optimizer"]["config"] |= {"use_ema": True, "ema_momentum": 0.8}
    model.compile_from_config(config)
    return model


def test_running_means_of_the_weights_are_judged_and_kept(tiny_model, data):
    steps = []
    hooks = loop.Hooks(step=lambda *_: steps.append([v.numpy() for v in plain.trainable_variables]))
    plain = tiny_model(learning_rate=0.05)
    trained(plain, data, loop.Rules(2, monitor="val_loss", mode="max"), hooks=hooks)
    model = averaging(tiny_model(learning_rate=0.05))
    progress, _ = trained(model, data, loop.Rules(2, monitor="val_loss", mode="max"))

    expected = steps[0]
    for step in steps[1 : progress.best_epoch * STEPS]:
        expected = [0.8 * mean + 0.2 * value for mean, value in zip(expected, step, strict=True)]
    for found, mean in zip(model.trainable_variables, expected, strict=True):
        np.testing.assert_allclose(found.numpy(), mean, rtol=1e-5, atol=1e-6)
    found = model.evaluate(data.val.pictures().astype("float32"), data.val.labels, verbose=0)
    np.testing.assert_allclose(found[0], progress.best, rtol=1e-5)


def test_a_schedule_of_the_optimizer_is_followed_and_resumed(tiny_model, data, tmp_path):
    def model(seed=0):
        made = tiny_model(seed)
        config = made.get_compile_config()
        averaging = optimizers.averaging(1e-2, data, epochs=5, momentum=0.8)
        config["optimizer"] = keras.optimizers.serialize(averaging)
        made.compile_from_config(config)
        return made

    whole, rules = model(), loop.Rules(5, patience=None, plateau_patience=None)
    expected, _ = trained(whole, data, rules)
    rates = [row["learning_rate"] for row in expected.history]
    assert rates == sorted(rates, reverse=True) and max(rates) <= 1e-2 and rates[-1] < 2e-4
    with pytest.raises(Killed):
        trained(model(), data, rules, tmp_path, hooks=killed_after(2))
    resumed = model(1)
    assert trained(resumed, data, rules, tmp_path)[0] == expected
    equal(everything(resumed), everything(whole))


def test_a_stage_with_running_means_goes_on_to_the_same_bits(tiny_model, data, tmp_path):
    whole, rules = averaging(tiny_model()), loop.Rules(3, patience=None)
    expected, _ = trained(whole, data, rules)
    for seed, hooks in enumerate((killed_after(1), stopped_after(STEPS - 1))):
        with pytest.raises((InterruptedError, Killed)):
            trained(averaging(tiny_model(seed)), data, rules, tmp_path, hooks=hooks)
    model = averaging(tiny_model(2))
    progress, _ = trained(model, data, rules, tmp_path)
    assert progress == expected
    equal(everything(model), everything(whole))


def test_mode_max_keeps_the_largest(tiny_model, data):
    rules = loop.Rules(4, monitor="val_loss", mode="max", min_delta=0.0)
    progress, _ = trained(tiny_model(), data, rules)
    assert progress.best == max(row["val_loss"] for row in progress.history)
    assert loop.Rules(1, mode="max").better(0.6, 0.5) and not loop.Rules(1).better(0.6, 0.5)


def test_less_than_min_delta_is_no_improvement():
    rules = loop.Rules(1, min_delta=0.1)
    assert rules.better(0.8, 1.0) and not rules.better(0.95, 1.0) and rules.better(9.0, None)


def test_early_stopping_waits_for_its_patience(tiny_model, data, idle):
    progress, _ = trained(tiny_model(), data, loop.Rules(20, patience=2))
    assert len(progress.history) == 3 and progress.best_epoch == 1


def test_without_patience_all_epochs_run_and_every_batch_is_one_step(tiny_model, data):
    rules = loop.Rules(4, patience=None, min_delta=10.0, plateau_patience=None)
    model = tiny_model()
    progress, _ = trained(model, data, rules)
    assert [row["learning_rate"] for row in progress.history] == pytest.approx([0.01] * 4)
    assert int(model.optimizer.iterations.numpy()) == 4 * STEPS


def test_a_plateau_lowers_the_rate_down_to_its_floor(tiny_model, data, idle):
    rules = loop.Rules(
        7, patience=None, plateau_patience=2, plateau_factor=0.1, min_learning_rate=5e-4
    )
    model = tiny_model()
    progress, _ = trained(model, data, rules)
    rates = [row["learning_rate"] for row in progress.history]
    assert rates == pytest.approx([1e-2] * 3 + [1e-3] * 2 + [5e-4] * 2)
    assert float(model.optimizer.learning_rate) == pytest.approx(5e-4)


def test_a_rate_decays_after_every_few_epochs(tiny_model, data, idle):
    rules = loop.Rules(5, patience=None, plateau_patience=None, decay=0.5, decay_every=2)
    progress, _ = trained(tiny_model(), data, rules)
    rates = [row["learning_rate"] for row in progress.history]
    assert rates == pytest.approx([1e-2] * 2 + [5e-3] * 2 + [2.5e-3])


def test_an_improvement_starts_the_waiting_anew(tiny_model, data, idle, monkeypatch):
    scripted = iter([5, 6, 4, 6, 3, 6, 6, 2])
    row = loop._Stage._row

    def scripted_row(self, prefix, metrics):
        return {"val_loss": float(next(scripted))} if prefix else row(self, prefix, metrics)

    monkeypatch.setattr(loop._Stage, "_row", scripted_row)
    rules = loop.Rules(8, patience=3, plateau_patience=2, plateau_factor=0.5)
    progress, _ = trained(tiny_model(), data, rules)
    rates = [row["learning_rate"] for row in progress.history]
    assert rates == pytest.approx([1e-2] * 7 + [5e-3]), "two in a row, once"
    assert progress.best == 2 and progress.best_epoch == 8


def test_a_plateau_that_can_never_fire_is_refused(tiny_model, data, idle):
    with pytest.raises(UsageError, match="never lower"):
        trained(tiny_model(), data, loop.Rules(1, min_learning_rate=1e-2))
    rules = loop.Rules(1, min_learning_rate=1.0, plateau_patience=None)
    trained(tiny_model(), data, rules)


def test_an_unknown_monitor_is_refused_with_the_known(tiny_model, data, idle):
    with pytest.raises(UsageError, match="val_auc.*loss, accuracy, val_loss, val_accuracy"):
        trained(tiny_model(), data, loop.Rules(1, monitor="val_auc"))


def test_an_unknown_mode_is_refused(tiny_model, data):
    with pytest.raises(UsageError, match="mode"):
        trained(tiny_model(), data, loop.Rules(1, mode="maximum"))


def finite(arrays):
    return all(np.isfinite(array).all() for name, array in arrays.items())


def poisoned(epoch_of_poison, model):
    """Hooks that spoil a weight when an epoch is over."""

    def epoch(history, best):
        if len(history) == epoch_of_poison:
            model.get_layer("logits").kernel.assign(np.full((8, 1), np.nan))

    return loop.Hooks(epoch=epoch)


def test_a_loss_that_is_not_finite_ends_the_stage_and_keeps_the_last_good_state(
    tiny_model, data, tmp_path
):
    model = tiny_model()
    with pytest.raises(Diverged, match="stage 1, epoch 3, batch 1.*0.01"):
        trained(model, data, loop.Rules(5), tmp_path, hooks=poisoned(2, model))
    arrays, progress = checkpoint.load(tmp_path)
    assert progress["epoch"] == 2 and finite(arrays)


def test_weights_that_blow_up_in_the_last_batch_are_never_the_best(
    tiny_model, data, tmp_path, monkeypatch
):
    """The accuracy of NaN is a number; the loss behind it is not."""
    model = tiny_model()

    def step(batch, batches, epoch):
        if epoch == 1 and batch == batches:
            model.get_layer("logits").kernel.assign(np.full((8, 1), np.nan))

    rules = loop.Rules(4, monitor="val_accuracy", mode="max", min_delta=-1.0)
    with pytest.raises(Diverged):
        trained(model, data, rules, tmp_path, hooks=loop.Hooks(step=step))
    arrays, progress = checkpoint.load(tmp_path)
    assert progress["epoch"] == 1 and finite(arrays)


def test_class_weights_are_sample_weights(tiny_model, tiny_data):
    data = tiny_data()
    weights = [0.5, 2.5]
    ours, keras_own = tiny_model(dropout=0), tiny_model(dropout=0)
    rules = loop.Rules(1, patience=None, plateau_patience=None)
    progress, _ = trained(ours, data, rules, class_weight=weights)

    from medkeras.preparation import pipeline

    order = pipeline.order(len(data.train), 0, 1, 0)
    labels = data.train.labels[order]
    fitted = keras_own.fit(
        data.train.pictures(order).astype("float32"),
        labels,
        sample_weight=np.take(weights, labels),
        batch_size=data.batch_size,
        shuffle=False,
        verbose=0,
    )
    assert progress.history[0]["loss"] == pytest.approx(fitted.history["loss"][0], rel=1e-5)
    for one, other in zip(ours.weights, keras_own.weights, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), atol=1e-6)
    # Validation is not weighted.
    pictures = data.val.pictures().astype("float32")
    found = keras_own.evaluate(pictures, data.val.labels, verbose=0)
    assert progress.history[0]["val_loss"] == pytest.approx(found[0], rel=1e-5)


def test_three_classes_train_too(tiny_model, tiny_data):
    data = tiny_data(classes=3, pictures=36)
    progress, _ = trained(tiny_model(outputs=3), data, loop.Rules(1), class_weight=[1, 1, 2])
    assert np.isfinite(progress.best) and isinstance(
        tiny_model(outputs=3).loss, keras.losses.SparseCategoricalCrossentropy
    )
