import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medkeras import layers, losses
from medkeras.errors import UsageError


def value(tensor):
    return keras.ops.convert_to_numpy(tensor)


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 2), (8, 8.5, 1), (7, 8, 3), (8, None, 1)])
def test_an_impossible_image_shape_is_named(shape):
    with pytest.raises(UsageError, match="image_shape"):
        layers.image_input(shape, smallest=8)


def test_grey_becomes_three_equal_channels():
    image = layers.image_input((4, 4, 1))
    model = keras.Model(image, layers.grey_to_rgb(image))
    pixels = np.arange(16, dtype="float32").reshape(1, 4, 4, 1)

    rgb = value(model(pixels))

    assert rgb.shape == (1, 4, 4, 3)
    np.testing.assert_array_equal(rgb, np.repeat(pixels, 3, axis=-1))


def test_colour_stays_as_it_is():
    image = layers.image_input((4, 4, 3))
    assert layers.grey_to_rgb(image) is image


def test_rescale_takes_one_number_for_each_channel():
    image = layers.image_input((2, 2, 3))
    model = keras.Model(image, layers.rescale(image, [1.0, 2.0, 3.0], [0.0, 0.0, 1.0]))
    np.testing.assert_allclose(value(model(np.ones((1, 2, 2, 3))))[0, 0, 0], [1, 2, 4])


def test_conv_block_halves_the_image_and_names_its_layers():
    image = layers.image_input((9, 6, 1))
    model = keras.Model(image, layers.conv_block(image, 4, 3, "block1", convs=2))
    assert model.output_shape == (None, 4, 3, 4)
    assert [layer.name for layer in model.layers[1:]] == [
        "block1_conv1",
        "block1_conv2",
        "block1_bn",
        "block1_pool",
    ]


def test_dense_bn_has_no_bias_and_counts_its_l2():
    features = keras.Input((5,))
    model = keras.Model(features, layers.dense_bn(features, 3, "head", l2=0.1))
    assert model.count_params() == 5 * 3 + 4 * 3
    kernel = value(model.get_layer("head_dense").kernel)
    assert float(sum(model.losses)) == pytest.approx(0.1 * np.sum(kernel**2), rel=1e-5)


def test_no_dropout_means_no_layer():
    features = keras.Input((5,))
    assert layers.dropout(features, 0.0, "dropout") is features


@pytest.mark.parametrize("rate", [-0.1, 1.0, 2])
def test_an_impossible_dropout_is_named(rate):
    with pytest.raises(UsageError, match="dropout"):
        layers.dropout(keras.Input((5,)), rate, "dropout")


def test_logits_are_linear_and_need_a_class():
    features = keras.Input((2,))
    with pytest.raises(UsageError, match="at least one"):
        layers.logits(features, 0)
    model = keras.Model(features, layers.logits(features, 1))
    x = np.array([[1.0, -2.0]], "float32")
    np.testing.assert_allclose(value(model(-x)), -value(model(x)), atol=1e-6)


@pytest.mark.parametrize("outputs", [1, 3])
def test_cross_entropy_and_accuracy_are_those_of_the_logits(outputs):
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(20, outputs)).astype("float32")
    labels = rng.integers(0, max(outputs, 2), 20)
    full = np.hstack([np.zeros((20, 1)), scores]) if outputs == 1 else scores
    probability = np.exp(full) / np.exp(full).sum(1, keepdims=True)
    # One logit is compared with labels of its own shape, as `fit` hands them over.
    given = labels[:, None] if outputs == 1 else labels

    loss = float(losses.cross_entropy(outputs)(given, scores))
    metric = losses.accuracy(outputs)
    metric.update_state(given, scores)

    assert loss == pytest.approx(-np.log(probability[range(20), labels]).mean(), rel=1e-5)
    assert metric.name == "accuracy"
    assert float(metric.result()) == pytest.approx((full.argmax(1) == labels).mean())


@pytest.mark.parametrize("outputs", [1, 3])
def test_flat_integer_labels_train(outputs):
    features = keras.Input((4,))
    model = keras.Model(features, layers.logits(features, outputs))
    model.compile("sgd", losses.cross_entropy(outputs), metrics=[losses.accuracy(outputs)])
    result = model.train_on_batch(np.ones((6, 4)), np.array([0, 1, 0, 1, 1, 0]), return_dict=True)
    assert set(result) == {"loss", "accuracy"}
    assert np.isfinite(result["loss"])


COUNTS = (2, 5, 1, 3)  # slices of each exam


def exam_of(counts):
    return np.repeat(np.arange(len(counts)), counts).astype("int32")


def slices_of(counts, features=6, scale=1.0):
    return (scale * np.random.default_rng(0).normal(size=(sum(counts), features))).astype("float32")


def slice_pooling(how, features=6):
    keras.utils.set_random_seed(0)
    x, exam = keras.Input((features,)), keras.Input((), dtype="int32")
    return keras.Model([x, exam], layers.pool_slices(x, exam, how, "axial_slices"))


def expected_pooling(model, how, own):
    if how == "max":
        return own.max(axis=0)
    if how == "mean":
        return own.mean(axis=0)
    hidden, score = (model.get_layer(f"axial_slices_{name}") for name in ("tanh", "score"))
    scores = np.tanh(own @ value(hidden.kernel) + value(hidden.bias)) @ value(score.kernel)
    weights = np.exp(scores.astype("float64") - scores.max())
    return (weights * own).sum(axis=0) / weights.sum()


@pytest.mark.parametrize("how", layers.SLICES)
def test_slices_are_pooled_within_their_exam(how):
    model, x, exam = slice_pooling(how), slices_of(COUNTS), exam_of(COUNTS)
    pooled = value(model([x, exam]))
    expected = [expected_pooling(model, how, x[exam == e]) for e in range(len(COUNTS))]
    np.testing.assert_allclose(pooled, expected, atol=1e-6)


@pytest.mark.parametrize("how", layers.SLICES)
def test_an_exam_is_pooled_the_same_in_any_batch(how):
    model, x, exam = slice_pooling(how), slices_of(COUNTS), exam_of(COUNTS)
    together = value(model([x, exam]))
    for e in range(len(COUNTS)):
        own = x[exam == e]
        alone = value(model([own, np.zeros(len(own), "int32")]))
        np.testing.assert_allclose(alone[0], together[e], atol=1e-6)


@pytest.mark.parametrize("how", layers.SLICES)
def test_gradients_reach_only_the_slices_of_the_exam(how):
    import tensorflow as tf

    model, x, exam = slice_pooling(how), tf.constant(slices_of(COUNTS)), exam_of(COUNTS)
    with tf.GradientTape() as tape:
        tape.watch(x)
        second = tf.reduce_sum(model([x, tf.constant(exam)])[1])
    reached = np.any(tape.gradient(second, x).numpy() != 0, axis=1)
    assert not reached[exam != 1].any()
    assert reached[exam == 1].sum() > 1


def test_attention_stays_finite_at_any_score():
    model, x, exam = slice_pooling("attention"), slices_of(COUNTS), exam_of(COUNTS)
    score = model.get_layer("axial_slices_score")
    score.set_weights([1e4 * score.get_weights()[0]])
    pooled = value(model([x, exam]))
    assert np.isfinite(pooled).all()
    np.testing.assert_allclose(pooled[2], x[exam == 2][0], rtol=1e-6)


@pytest.mark.parametrize("how", layers.SLICES)
def test_slices_are_pooled_in_float32_in_half_precision_too(how):
    x, exam = keras.Input((6,), dtype="bfloat16"), keras.Input((), dtype="int32")
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        pooled = layers.pool_slices(x, exam, how, "axial_slices")
    finally:
        keras.config.set_dtype_policy(before)
    model = keras.Model([x, exam], pooled)
    given = slices_of(COUNTS).round()
    own = given[exam_of(COUNTS) == 1]
    found = value(model([given, exam_of(COUNTS)]))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[1], expected_pooling(model, how, own), atol=1e-6)


def test_another_way_of_pooling_is_named():
    with pytest.raises(UsageError, match="max, mean, attention.*median"):
        layers.pool_slices(keras.Input((6,)), keras.Input((), dtype="int32"), "median", "slices")


def test_pools_that_no_longer_fit_are_left_out():
    stack = [keras.layers.MaxPooling2D(3, 2, name=f"pool{n}") for n in range(3)]
    outputs = layers.applied(stack, keras.Input((7, 20, 1)))
    assert {name: x.shape[1:3] for name, x in outputs.items()} == {"pool0": (3, 9), "pool1": (1, 4)}


@pytest.mark.parametrize("channels", [1, 3])
def test_a_grey_convolution_is_one_of_three_equal_channels(channels):
    keras.utils.set_random_seed(0)
    image = keras.Input((9, 9, channels))
    ours = keras.Model(image, layers.GreyConv2D(4, 3, strides=2, name="conv")(image))
    rgb = keras.Input((9, 9, 3))
    plain = keras.Model(rgb, keras.layers.Conv2D(4, 3, strides=2, name="conv")(rgb))
    assert ours.count_params() == plain.count_params() == 3 * 3 * 3 * 4 + 4
    plain.set_weights(ours.get_weights())
    pixels = np.random.default_rng(0).normal(size=(2, 9, 9, channels)).astype("float32")
    repeated = pixels if channels == 3 else np.repeat(pixels, 3, axis=-1)
    expected = plain.predict_on_batch(repeated)
    np.testing.assert_allclose(ours.predict_on_batch(pixels), expected, rtol=1e-5, atol=1e-5)


# Ordered grades


def ordinal(weights=None, grades=5):
    """A model of the layer alone, with thresholds of those weights: the first, then the steps."""
    score = keras.Input((1,))
    model = keras.Model(score, layers.OrdinalLogits(grades, name="grade")(score))
    if weights is not None:
        scaled = np.float32(weights) / layers.GAIN
        model.set_weights([scaled[:1], scaled[1:]])
    return model


def thresholds(model):
    first, steps = (layers.GAIN * w.astype("float64") for w in model.get_weights())
    steps = np.logaddexp(0, steps) + layers.LEAST_STEP
    return np.concatenate([first, first + np.cumsum(steps)])


def proportional_odds(score, thresholds):
    """Probabilities of the grades, (n, grades): differences of those of at least each grade."""
    at_least = 1 / (1 + np.exp(thresholds - score.astype("float64")))
    ends = np.ones((len(score), 1)), np.zeros((len(score), 1))
    return -np.diff(np.hstack([ends[0], at_least, ends[1]]), axis=1)


@pytest.mark.parametrize("grades", [3, 5, 8])
def test_ordinal_logits_are_the_log_probabilities_of_proportional_odds(grades):
    rng = np.random.default_rng(grades)
    score = rng.normal(0, 3, (50, 1)).astype("float32")
    model = ordinal(rng.normal(0, 2, grades - 1), grades)
    expected = np.log(proportional_odds(score, thresholds(model)))
    np.testing.assert_allclose(value(model(score)), expected, rtol=1e-5, atol=1e-5)


def test_a_grade_between_close_thresholds_keeps_its_precision():
    model, score = ordinal([0.5, -12, -9, -6]), np.float32([[-4], [0.5], [4]])
    expected = np.log(proportional_odds(score, thresholds(model)))
    np.testing.assert_allclose(value(model(score)), expected, atol=2e-5)


def test_thresholds_start_one_apart_around_zero():
    model = ordinal()
    np.testing.assert_allclose(thresholds(model), [-1.5, -0.5, 0.5, 1.5], atol=1e-6)
    found = value(model(np.zeros((1, 1), "float32")))[0]
    np.testing.assert_allclose(found, found[::-1], rtol=1e-5)
    np.testing.assert_allclose(thresholds(ordinal(grades=4)), [-1, 0, 1], atol=1e-6)


def test_thresholds_keep_up_with_a_network_at_a_small_learning_rate():
    model = ordinal()
    before = thresholds(model)
    model.compile(keras.optimizers.Adam(1e-4), losses.cross_entropy(5))
    scores, grades = np.zeros((8, 1), "float32"), np.full(8, 4)
    model.fit(scores, grades, batch_size=1, epochs=25, shuffle=False, verbose=0)
    assert (before - thresholds(model))[0] > 0.5


FINITE = st.floats(-1e4, 1e4, width=32)
WEIGHTS = st.lists(FINITE | st.floats(-3, 3, width=32), min_size=4, max_size=4)


@settings(max_examples=60, deadline=None)
@given(weights=WEIGHTS, scores=st.lists(FINITE, min_size=1, max_size=5))
def test_any_score_and_thresholds_give_a_rank_consistent_distribution(weights, scores):
    model = ordinal(weights)
    near = thresholds(model).clip(-1e4, 1e4)
    scores = np.sort(np.float32([*scores, *near, 0])).reshape(-1, 1)

    logs = value(model(scores))
    chances = np.exp(logs.astype("float64"))
    at_least = np.cumsum(chances[:, ::-1], axis=1)[:, ::-1]

    assert np.isfinite(logs).all()
    np.testing.assert_allclose(at_least[:, 0], 1, atol=1e-5)
    assert (np.diff(at_least, axis=1) <= 0).all()  # it falls with the grade
    assert (np.diff(at_least, axis=0) >= -1e-5).all()  # and rises with the score


@settings(max_examples=30, deadline=None)
@given(weights=WEIGHTS, score=FINITE, grade=st.integers(0, 4))
def test_the_gradient_of_a_grade_is_finite_everywhere(weights, score, grade):
    import tensorflow as tf

    model, score = ordinal(weights), tf.constant([[score]])
    with tf.GradientTape() as tape:
        tape.watch(score)
        loss = losses.cross_entropy(5)(np.array([grade]), model(score))
    variables = [score, *(v.value for v in model.trainable_variables)]
    limits = (1, layers.GAIN, layers.GAIN)
    for gradient, limit in zip(tape.gradient(loss, variables), limits, strict=True):
        assert np.isfinite(gradient.numpy()).all()
        assert np.abs(gradient.numpy()).max() < limit * (1 + 1e-3)


def test_the_gradient_is_that_of_the_likelihood():
    import tensorflow as tf

    rng = np.random.default_rng(0)
    score = rng.normal(0, 2, (30, 1)).astype("float32")
    label, given = rng.integers(0, 5, 30), rng.normal(0, 1, 4)
    model = ordinal(given)

    def likelihood(weights, shift):
        steps = np.logaddexp(0, weights[1:]) + layers.LEAST_STEP
        limits = weights[0] + np.concatenate([[0], np.cumsum(steps)])
        return -np.log(proportional_odds(score + shift, limits)[range(30), label]).mean()

    with tf.GradientTape() as tape:
        loss = losses.cross_entropy(5)(label, model(score))
    first, steps = tape.gradient(loss, [v.value for v in model.trainable_variables])
    found = np.concatenate([first.numpy(), steps.numpy()]) / layers.GAIN

    assert float(loss) == pytest.approx(likelihood(given, 0), rel=1e-5)
    for k, step in enumerate(1e-5 * np.eye(4)):
        slope = (likelihood(given + step, 0) - likelihood(given - step, 0)) / 2e-5
        assert found[k] == pytest.approx(slope, abs=1e-5)


def test_an_ordinal_head_is_one_score_and_its_thresholds():
    keras.utils.set_random_seed(0)
    features = keras.Input((7,))
    model = keras.Model(features, layers.logits(features, 5, l2=0.1, ordinal=True))
    assert [layer.name for layer in model.layers[1:]] == ["logits_score", "logits"]
    assert model.count_params() == 7 + 4
    assert model.output.shape == (None, 5)
    kernel = value(model.get_layer("logits_score").kernel)
    assert float(sum(model.losses)) == pytest.approx(0.1 * np.sum(kernel**2), rel=1e-5)


def test_ordinal_logits_survive_saving(tmp_path):
    model, score = ordinal([-3.0, 0.2, -1.0, 2.0]), np.float32([[-2], [0], [5]])
    model.save(tmp_path / "model.keras")
    again = keras.Model.from_config(model.get_config())
    again.load_weights(tmp_path / "model.keras")
    np.testing.assert_array_equal(value(again(score)), value(model(score)))
    assert again.get_layer("grade").get_config() == model.get_layer("grade").get_config()


def test_ordinal_logits_need_three_grades_and_one_score():
    with pytest.raises(UsageError, match="at least 3 grades; got 2"):
        layers.OrdinalLogits(2)
    with pytest.raises(UsageError, match=r"scores \(batch, 1\); got \(None, 2\)"):
        layers.OrdinalLogits(5)(keras.Input((2,)))
