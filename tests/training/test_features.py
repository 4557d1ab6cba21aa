import shutil
from collections import namedtuple
from dataclasses import replace

import keras
import numpy as np
import pytest

from medkeras.preparation import augment, risks
from medkeras.training import cut, features, fit, loop, settling

RULES = loop.Rules(5, patience=None, plateau_patience=2, min_learning_rate=1e-5)


@pytest.fixture
def data(tiny_data):
    return tiny_data(augment=augment.radiograph(), views=2)


@pytest.fixture
def computed(monkeypatch):
    """Counts the pictures that go through a trunk."""
    counted, make = [], features._forward

    def counting(trunk):
        forward = make(trunk)
        return lambda pictures: counted.append(len(pictures)) or forward(pictures)

    monkeypatch.setattr(features, "_forward", counting)
    return counted


def trained(model, data, *, plain=False, stage=1):
    settling.settle(model, data)
    feed = features.feed(model, data, plain=plain)
    return feed, loop.train(feed, data, RULES, seed=0, stage=stage).history


def close(one, other):
    assert len(one) == len(other) == RULES.epochs
    for left, right in zip(one, other, strict=True):
        assert left == pytest.approx(right, abs=1e-6)


def both_ways(model, data):
    """Trains two stages on features and on pictures; the second with the trunk's last layers."""
    histories = {}
    for plain in (False, True):
        made = model()
        feed, first = trained(made, data, plain=plain)
        fit.unfreeze(made, "conv2")
        made.compile(keras.optimizers.Adam(1e-3), made.loss, metrics=["accuracy"])
        tuned, second = trained(made, data, plain=plain, stage=2)
        histories[plain] = first, second, made, feed, tuned
    return histories


def test_features_and_pictures_give_equal_losses_in_both_stages(tiny_model, data):
    ways = both_ways(lambda: tiny_model(frozen=True, l2=1e-3), data)
    (first, second, model, feed, tuned), (plain, plainly, whole, *feeds) = ways[False], ways[True]
    assert isinstance(feed, features.Features) and isinstance(tuned, features.Features)
    assert all(isinstance(one, features.Pictures) for one in feeds)
    (first_trunk,), (second_trunk,) = feed.trunks, tuned.trunks
    assert len(first_trunk.shapes) == 2, "the residual cut has two borders"
    assert len(first_trunk.model.layers) > len(second_trunk.model.layers), "the cut is found anew"
    close(first, plain)
    close(second, plainly)
    assert first[0]["loss"] != pytest.approx(first[-1]["loss"], rel=1e-3), "it has learned"
    for one, other in zip(model.weights, whole.weights, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), atol=1e-5)


def test_each_view_is_used_in_its_epochs(tiny_model, data):
    feed = features.feed(tiny_model(frozen=True), data)
    feed.prepare(epochs=5)
    rows, trunk = np.array([3, 0]), feed.trunks[0].model
    for epoch in range(4):
        (moved,) = data.train.inputs(rows, epoch % 2)
        expected = trunk.predict_on_batch(moved.astype("float32"))
        for one, other in zip(feed.train(rows, epoch), expected, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)
    assert not np.allclose(feed.train(rows, 0)[0], feed.train(rows, 1)[0])
    expected = trunk.predict_on_batch(data.val.pictures(rows).astype("float32"))
    np.testing.assert_allclose(feed.val(rows)[0], expected[0], atol=1e-5)


def test_only_the_views_that_epochs_need_are_computed(tiny_model, tiny_data, computed):
    data = tiny_data(augment=augment.radiograph(), views=8)
    features.feed(tiny_model(frozen=True), data).prepare(epochs=3)
    assert sum(computed) == 3 * 16 + 4


def test_two_builds_in_a_process_share_their_features(tiny_model, data, computed):
    features.feed(tiny_model(frozen=True), data).prepare(2)
    assert sum(computed) == 2 * 16 + 4
    computed.clear()
    other = tiny_model(frozen=True, learning_rate=0.5, dropout=0.1)
    features.feed(other, data.without_test()).prepare(2)
    assert computed == []


def test_other_pictures_weights_or_moves_share_nothing(tiny_model, tiny_data, data, computed):
    features.feed(tiny_model(frozen=True), data).prepare(1)
    others = [
        (tiny_model(1, frozen=True), data),
        (tiny_model(frozen=True), tiny_data(signal=61, augment=data.augment, views=2)),
        (tiny_model(frozen=True), replace(data, seed=1)),
        (tiny_model(frozen=True), replace(data, augment=augment.radiograph(10))),
    ]
    for model, other in others:
        computed.clear()
        features.feed(model, other).prepare(1)
        assert sum(computed) >= 16


@pytest.mark.parametrize("left", [0, 100, -4])
def test_truncated_features_are_computed_again(tiny_model, data, computed, own_cache, left):
    feed = features.feed(tiny_model(frozen=True), data)
    feed.prepare(2)
    expected = [array.copy() for array in feed.train(np.arange(16), 1)]
    file = sorted((own_cache / "features").iterdir())[-1]
    file.write_bytes(file.read_bytes()[:left])
    computed.clear()
    again = features.feed(tiny_model(frozen=True), data)
    again.prepare(2)
    assert 0 < sum(computed) <= 16
    for one, other in zip(again.train(np.arange(16), 1), expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_stop_while_computing_leaves_no_half_file(tiny_model, data, own_cache):
    asked = iter(range(100))
    feed = features.feed(tiny_model(frozen=True), data)
    with pytest.raises(InterruptedError):
        feed.prepare(2, stopped=lambda: next(asked) == 8)
    names = [path.name for path in (own_cache / "features").iterdir()]
    assert len(names) == 2, "the first view's two tensors are whole, of the second nothing is left"
    assert not any("tmp" in name for name in names)


def test_progress_says_how_much_is_computed(tiny_model, data):
    told = []
    feed = features.feed(tiny_model(frozen=True), data)
    feed.prepare(2, lambda done, total: told.append((done, total)))
    assert told == sorted(told) and told[-1] == (3, 3)


def test_endless_views_train_the_whole_model_and_say_so(tiny_model, data):
    feed = features.feed(tiny_model(frozen=True), replace(data, views=None))
    assert isinstance(feed, features.Pictures) and "views=None" in feed.description
    asked = features.feed(tiny_model(frozen=True), data, plain=True)
    assert isinstance(asked, features.Pictures) and "asked for" in asked.description
    none = features.feed(tiny_model(), data)
    assert isinstance(none, features.Pictures) and "no frozen part" in none.description
    cached = features.feed(tiny_model(frozen=True), data)
    assert "computed once" in cached.description and "2 view" in cached.description


def test_a_disk_that_is_too_small_trains_the_whole_model_and_says_so(tiny_model, data, monkeypatch):
    model = tiny_model(frozen=True)
    need = features.feed(model, data).bytes(data.views)
    assert need == 4 * (2 * 16 + 4) * 2 * 7 * 7 * 4
    usage = namedtuple("usage", "total used free")
    for free, kind in ((2 * need, features.Features), (2 * need - 2, features.Pictures)):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: usage(0, 0, free))
        feed = features.feed(model, data)
        assert isinstance(feed, kind)
    assert "half of the" in feed.description and "free" in feed.description


# The cut.


def names(border):
    return [tensor._keras_history.operation.name for tensor in border.fixed["image"]]


def test_the_cut_is_every_fixed_tensor_that_learning_layers_read(tiny_model):
    assert sorted(names(cut.cut(tiny_model(frozen=True)))) == ["bn1", "relu2"]


def chain(*layers):
    image = keras.Input((16, 16, 1), name="image")
    x = keras.layers.Conv2D(2, 3, name="conv", trainable=False)(image)
    for layer in layers:
        x = layer(x)
    x = keras.layers.Flatten(name="flat")(x)
    return keras.Model(image, keras.layers.Dense(1, name="logits")(x))


def test_what_learns_or_draws_ends_the_fixed_part():
    layers = keras.layers
    assert names(cut.cut(chain())) == ["flat"]
    learning = layers.BatchNormalization(name="bn")
    assert names(cut.cut(chain(learning))) == ["conv"]
    frozen = layers.BatchNormalization(name="bn", trainable=False)
    assert names(cut.cut(chain(frozen))) == ["flat"]
    # Nothing of it is trained, but its statistics would be.
    bare = layers.BatchNormalization(name="bn", center=False, scale=False)
    assert names(cut.cut(chain(bare))) == ["conv"]
    assert names(cut.cut(chain(layers.Dropout(0.5, name="drop", trainable=False)))) == ["conv"]
    assert names(cut.cut(chain(layers.Dropout(0.0, name="drop")))) == ["flat"]
    assert names(cut.cut(chain(layers.SpatialDropout2D(0.1)))) == ["conv"]
    assert names(cut.cut(chain(layers.GaussianNoise(0.1)))) == ["conv"]
    assert names(cut.cut(chain(layers.RandomFlip()))) == ["conv"]


def test_without_weights_before_it_a_cut_is_worth_nothing(tiny_model):
    assert cut.cut(tiny_model()) is None


# The statistics of a random trunk.


def test_normalised_pixels_are_not_worth_storing():
    image = keras.Input((8, 8, 1))
    x = keras.layers.Normalization()(image)
    model = keras.Model(image, keras.layers.Dense(1)(keras.layers.Flatten()(x)))
    assert model.weights and cut.cut(model) is None


def test_settling_gives_the_trunk_the_statistics_of_training_pictures(tiny_model, data):
    model = tiny_model(frozen=True)
    assert settling.settle(model, data)
    pictures = data.train.pictures().astype("float32")
    before = keras.Model(model.input, model.get_layer("bn1").input).predict(pictures, verbose=0)
    norm = model.get_layer("bn1")
    np.testing.assert_allclose(norm.moving_mean, before.mean((0, 1, 2)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(norm.moving_variance, before.var((0, 1, 2)), rtol=1e-3, atol=1e-7)
    after = keras.Model(model.input, norm.output).predict(pictures, verbose=0)
    assert np.abs(after.mean((0, 1, 2))).max() < 1e-3
    assert [norm.trainable, norm.momentum] == [False, 0.5]
    assert np.any(model.get_layer("bn2").moving_mean.numpy())


def test_settling_happens_once_and_leaves_trained_statistics_alone(tiny_model, data):
    model = tiny_model(frozen=True)
    settling.settle(model, data)
    before = [weight.numpy().copy() for weight in model.weights]
    assert not settling.settle(model, data)
    touched = tiny_model(frozen=True)
    touched.get_layer("bn2").moving_mean.assign([0.0, 0.1, 0.0, 0.0])
    assert not settling.settle(touched, data)
    assert not np.any(touched.get_layer("bn1").moving_mean.numpy())
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), value)


def test_settling_needs_a_frozen_norm(tiny_model, data):
    model = tiny_model()
    assert not settling.settle(model, data)
    assert not np.any(model.get_layer("bn1").moving_mean.numpy())


def test_settling_leaves_a_pretrained_backbone_beside_a_random_one_alone(data):
    image = keras.Input((16, 16, 1), name="image")
    branches = []
    for name in ("pretrained", "random"):
        x = keras.layers.Conv2D(2, 3, trainable=False)(image)
        x = keras.layers.BatchNormalization(name=name, trainable=False)(x)
        branches.append(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(image, keras.layers.Dense(1)(keras.layers.Concatenate()(branches)))
    known = model.get_layer("pretrained").moving_mean
    known.assign([1.0, 2.0])
    assert settling.settle(model, data)
    assert known.numpy().tolist() == [1.0, 2.0]
    assert np.any(model.get_layer("random").moving_mean.numpy())


def test_settling_reaches_every_branch(data):
    """The last norm of InceptionV3 does not lie behind those beside it."""
    image = keras.Input((16, 16, 1), name="image")
    branches = []
    for name in ("left", "right"):
        x = keras.layers.Conv2D(2, 3, trainable=False)(image)
        branches.append(keras.layers.BatchNormalization(name=name, trainable=False)(x))
    x = keras.layers.Flatten()(keras.layers.Concatenate()(branches))
    model = keras.Model(image, keras.layers.Dense(1)(x))
    assert settling.settle(model, data)
    for name in ("left", "right"):
        assert np.any(model.get_layer(name).moving_mean.numpy())


# The name of a trunk.


def trunk(model):
    return keras.Model(model.input, cut.cut(model).fixed["image"])


def test_a_fingerprint_is_what_is_computed_and_not_how_it_is_called(tiny_model):
    name = cut.fingerprint(trunk(tiny_model(frozen=True)))
    assert cut.fingerprint(trunk(tiny_model(frozen=True))) == name
    renamed = tiny_model(frozen=True)
    renamed.get_layer("conv1").name = "conv2d_17"
    assert cut.fingerprint(trunk(renamed)) == name


def test_a_fingerprint_sees_weights_settings_and_wiring(tiny_model):
    made = {cut.fingerprint(trunk(tiny_model(frozen=True)))}
    made.add(cut.fingerprint(trunk(tiny_model(1, frozen=True))))
    one_bit = tiny_model(frozen=True)
    kernel = one_bit.get_layer("conv2").kernel
    value = kernel.numpy()
    value[0, 0, 0, 0] = np.nextafter(value[0, 0, 0, 0], np.float32(9))
    kernel.assign(value)
    made.add(cut.fingerprint(trunk(one_bit)))
    moved = tiny_model(frozen=True)
    moved.get_layer("bn1").moving_mean.assign_add([0, 0, 0, 1e-3])
    made.add(cut.fingerprint(trunk(moved)))
    assert len(made) == 4


def test_a_fingerprint_sees_which_tensors_are_asked_for():
    image = keras.Input((8, 8, 1))
    one, other = (keras.layers.Conv2D(2, 3, trainable=False)(image) for _ in range(2))
    both = keras.Model(image, [one, other])
    names = {
        cut.fingerprint(keras.Model(image, outputs))
        for outputs in ([one, other], [other, one], [both.outputs[0]])
    }
    assert len(names) == 3


def test_a_fingerprint_sees_the_order_of_inputs():
    """a - b and b - a have the same layers, weights and parents."""
    made = set()
    for turn in (1, -1):
        keras.utils.set_random_seed(0)
        image = keras.Input((4, 4, 1))
        pair = [keras.layers.Conv2D(1, 1)(image), image]
        difference = keras.layers.Subtract()(pair[::turn])
        made.add(cut.fingerprint(keras.Model(image, difference)))
    assert len(made) == 2


def test_a_fingerprint_sees_operations_that_are_no_layers():
    made = []
    for change in (
        lambda x: x / 255,
        lambda x: x / 127.5,
        lambda x: x * 255,
        lambda x: keras.ops.flip(x, axis=1),
        lambda x: keras.ops.flip(x, axis=2),
        lambda x: x / 255,
    ):
        keras.utils.set_random_seed(0)
        image = keras.Input((4, 4, 1))
        made.append(cut.fingerprint(keras.Model(image, keras.layers.Conv2D(1, 1)(change(image)))))
    assert made[0] == made[-1] and len(set(made)) == 5


def test_a_fingerprint_stays_when_the_model_is_called(tiny_model):
    model = tiny_model(frozen=True)
    name = cut.fingerprint(trunk(model))
    model(keras.Input((16, 16, 1)))
    assert cut.fingerprint(trunk(model)) == name


def test_settings_that_compute_nothing_do_not_change_the_fingerprint():
    made = []
    for factor in (1e-6, 1e-3):
        keras.utils.set_random_seed(0)
        image = keras.Input((4, 4, 1))
        conv = keras.layers.Conv2D(2, 3, kernel_regularizer=keras.regularizers.L2(factor))
        made.append(cut.fingerprint(keras.Model(image, conv(image))))
    assert made[0] == made[1]


def side_by_side(seeds):
    """One input, a frozen trunk for each seed, their features joined."""
    image = keras.Input((16, 16, 1))
    pooled = []
    for seed in seeds:
        start = keras.initializers.GlorotUniform(seed)
        x = keras.layers.Rescaling(1 / 255)(image)
        x = keras.layers.Conv2D(3, 3, kernel_initializer=start, trainable=False)(x)
        pooled.append(keras.layers.GlobalAveragePooling2D()(x))
    x = keras.layers.Concatenate()(pooled) if len(pooled) > 1 else pooled[0]
    start = keras.initializers.GlorotUniform(0)
    model = keras.Model(image, keras.layers.Dense(1, kernel_initializer=start)(x))
    model.compile(keras.optimizers.Adam(1e-2), keras.losses.BinaryCrossentropy(from_logits=True))
    return model


def test_trunks_side_by_side_are_computed_apart_and_found_again_alone(tiny_data, computed):
    data = tiny_data(views=1)
    both, histories = side_by_side([1, 2]), []
    feed = features.feed(both, data)
    histories.append(loop.train(feed, data, RULES, seed=0).history)
    once = len(data.train) + len(data.val)
    assert len(feed.trunks) == 2 and sum(computed) == 2 * once
    alone = side_by_side([2])
    loop.train(features.feed(alone, data), data, RULES, seed=0)
    assert sum(computed) == 2 * once
    plain = side_by_side([1, 2])
    histories.append(
        loop.train(features.feed(plain, data, plain=True), data, RULES, seed=0).history
    )
    close(*histories)


def test_what_shares_a_layer_with_weights_stays_together():
    image = keras.Input((16, 16, 1))
    shared = keras.layers.Conv2D(2, 3)(image)
    one, other = keras.layers.Conv2D(2, 3)(shared), keras.layers.MaxPooling2D()(shared)
    alone = keras.layers.Conv2D(2, 3)(image)
    grouped = cut.apart([one, alone, other])
    assert [[id(tensor) for tensor in group] for group in grouped] == [
        [id(alone)],
        [id(one), id(other)],
    ]


def test_risk_factors_beside_a_frozen_trunk_reach_the_tail_as_they_are(
    tiny_data, computed, tmp_path
):
    plain = tiny_data(views=1)
    rng = np.random.default_rng(0)
    plain.table[["age", "bmi"]] = rng.normal([60, 27], [9, 4], (len(plain.table), 2))
    data = risks.beside(plain, ("age", "bmi"))

    def build():
        keras.utils.set_random_seed(1)
        image, factors = keras.Input((16, 16, 1), name="image"), keras.Input((2,), name="risk")
        x = keras.layers.Conv2D(3, 3, trainable=False)(image)
        x = keras.layers.GlobalAveragePooling2D()(x)
        x = keras.layers.Concatenate()([x, keras.layers.Dense(4)(factors)])
        model = keras.Model([image, factors], keras.layers.Dense(1)(x))
        loss = keras.losses.BinaryCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(1e-2), loss)
        return model

    histories = []
    for whole in (False, True):
        model = build()
        feed = features.feed(model, data, plain=whole)
        histories.append(loop.train(feed, data, RULES, seed=0).history)
        model.save(tmp_path / "model.keras")
    close(*histories)
    assert sum(computed) == len(data.train) + len(data.val)
