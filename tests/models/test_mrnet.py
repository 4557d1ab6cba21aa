import functools
import itertools
import json

import keras
import numpy as np
import pytest

from medkeras.errors import UsageError
from medkeras.models import mrnet
from medkeras.models.recipe import rebuild

value = keras.ops.convert_to_numpy
SIDE = 64
COUNTS = ((3, 2, 5), (2, 4, 3), (4, 3, 2))  # slices of the exams, for each plane


@functools.cache
def built(variant, slices="max", side=SIDE, planes=mrnet.PLANES):
    """One model of each kind for all tests that only look at it or ask it."""
    keras.utils.set_random_seed(0)
    shape = (side, side, 1)
    if variant == "triple":
        return mrnet.triple(shape, planes=planes, slices=slices)
    return mrnet.views(variant, shape, planes=planes, slices=slices)


def exams(counts=COUNTS, seed=0):
    """Noise exams, each of its own brightness: for each exam a list of its planes' pixels."""
    rng = np.random.default_rng(seed)
    made = []
    for number, own in enumerate(zip(*counts, strict=True)):
        shape = (SIDE, SIDE, 1)
        made.append([rng.integers(40 * number, 256, (n, *shape), dtype=np.uint8) for n in own])
    return made


def batch(chosen):
    """Puts exams together as the models take them: slices concatenated, and their exam."""
    pixels = [np.concatenate(plane) for plane in zip(*chosen, strict=True)]
    index = [
        np.repeat(np.arange(len(chosen)), [len(exam[p]) for exam in chosen]).astype(np.int32)
        for p in range(len(pixels))
    ]
    return [*pixels, *index]


def outputs_of(model, layer):
    """The outputs of a layer at each of its uses, in the order of the planes."""
    return [node.outputs[0] for node in model.get_layer(layer)._inbound_nodes]


def learnable(model):
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


# The architecture


@pytest.mark.parametrize(
    ("variant", "learn", "all_"),
    [
        ("basic", 1_114_241, 1_114_241),
        ("relu", 1_115_649, 1_117_057),
        ("leaky", 1_115_649, 1_117_057),
        ("pretrained", 2_470_465, 2_470_465),
        ("triple", 7_411_395, 7_411_395),
    ],
)
def test_the_networks_have_the_published_number_of_parameters(variant, learn, all_):
    model = built(variant)
    assert (learnable(model), model.count_params()) == (learn, all_)
    assert f"{learn:,}" in mrnet.__doc__ and f"{all_:,}" in mrnet.__doc__
    assert model.output_shape == (None, 3 if variant == "triple" else 1)


def described(layer):
    kind = type(layer).__name__.removeprefix("Grey")
    if kind == "Conv2D":
        return kind, layer.filters, layer.kernel_size[0], layer.strides[0], layer.output.shape[1]
    if kind == "MaxPooling2D":
        return kind, layer.pool_size[0], layer.strides[0], layer.padding, layer.output.shape[1]
    if kind == "BatchNormalization":
        return kind, layer.momentum, layer.epsilon
    if kind == "LeakyReLU":
        return kind, pytest.approx(layer.negative_slope)
    return (kind, layer.rate, layer.noise_shape) if kind == "Dropout" else (kind,)


@pytest.mark.parametrize(
    ("variant", "rates", "activation"),
    [
        ("basic", None, ("ReLU",)),
        ("relu", (0.2, 0.4, 0.4, 0.4), ("ReLU",)),
        ("leaky", (0.2, 0.5, 0.5, 0.5), ("LeakyReLU", 0.1)),
    ],
)
def test_the_layers_of_the_shared_stack_are_the_published_ones(variant, rates, activation):
    model = built(variant, side=256, planes=("axial",))
    published = [
        ("Conv2D", 64, 11, 4, 63, 31),
        ("Conv2D", 128, 5, 1, 31, 15),
        ("Conv2D", 256, 3, 1, 15, 7),
        ("Conv2D", 256, 3, 1, 7, 3),
    ]
    expected = [("ZeroPadding2D",)]
    for block, (*conv, pooled) in enumerate(published):
        norm = [("BatchNormalization", 0.9, 1e-5)] if rates else []
        dropout = [("Dropout", rates[block], None)] if rates else []
        pool = ("MaxPooling2D", 3, 2, "valid", pooled)
        expected += [tuple(conv), *norm, activation, *dropout, pool]
    assert [described(x) for x in model.layers if x.name.startswith("block")] == expected
    assert model.get_layer("block1_pad").padding == ((2, 2), (2, 2))
    assert [x.name for x in model.layers[-4:]] == [
        "axial_average", "axial_exam", "axial_slices", "logits",
    ]  # fmt: skip


def test_the_planes_share_one_stack():
    for variant, last in (("basic", "block4_relu"), ("pretrained", "relu5")):
        model = built(variant)
        assert len(outputs_of(model, last)) == 3
        assert learnable(model) == learnable(built(variant, planes=("axial",))) + 2 * 256


def test_the_triple_network_has_a_trunk_for_each_plane():
    model = built("triple")
    kernels = [value(model.get_layer(f"{plane}_conv1").kernel) for plane in mrnet.PLANES]
    assert not np.array_equal(kernels[0], kernels[1])
    assert learnable(model) == 3 * (2_469_696 + 3 * 256) + 3


@pytest.mark.parametrize("variant", ["basic", "leaky", "triple"])
def test_names_do_not_depend_on_what_was_built_before(variant):
    again = built.__wrapped__(variant)
    names = [operation.name for operation in again.operations]
    assert names == [operation.name for operation in built(variant).operations]
    assert not [x for x in again.layers if isinstance(x, (keras.Model, keras.layers.Lambda))]


@pytest.mark.parametrize("variant", ["basic", "triple"])
def test_inputs_are_pixels_then_exams_in_the_order_of_the_planes(variant):
    planes = ("sagittal", "axial")
    model = built(variant, planes=planes)
    names = [x.name for x in model.inputs]
    assert names == ["sagittal", "axial", "sagittal_exam", "axial_exam"]
    assert [x.dtype for x in model.inputs] == ["float32"] * 2 + ["int32"] * 2
    assert list(model.feature_maps) == list(planes)


@pytest.mark.parametrize(
    ("variant", "expected"),
    [("basic", (1 - 58.09) / 49.73), ("pretrained", (1 - 58.09) / 49.73), ("triple", 1 / 255)],
)
def test_pixels_are_scaled_as_published(variant, expected):
    model = built(variant, planes=("axial",))
    scaled = keras.Model(model.inputs[0], model.get_layer("axial_rescale").output)
    found = value(scaled(np.ones((1, SIDE, SIDE, 1), np.uint8)))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


# Small pictures


@pytest.mark.parametrize(
    ("variant", "side", "layer", "size"),
    [
        ("basic", 256, "block3_relu", 15),
        ("basic", 127, "block2_relu", 15),
        ("basic", 96, "block1_relu", 23),
        ("basic", 32, "block1_relu", 7),
        ("pretrained", 256, "relu5", 15),
        ("pretrained", 96, "relu1", 23),
    ],
)
def test_the_map_to_explain_is_the_last_of_fourteen_pixels_or_the_first(variant, side, layer, size):
    model = built(variant, side=side, planes=("axial", "coronal"))
    assert model.feature_map == layer
    maps = model.feature_maps["axial"], model.feature_maps["coronal"]
    assert [x.shape[1:3] for x in maps] == [(size, size)] * 2
    assert maps[0] is not maps[1]
    assert [id(x) for x in maps] == [id(x) for x in outputs_of(model, layer)]


def test_the_maps_to_explain_of_separate_trunks_are_named_each():
    model = built("triple")
    assert model.feature_map == "axial_relu1, coronal_relu1, sagittal_relu1"
    assert model.feature_maps["coronal"] is model.get_layer("coronal_relu1").output


@pytest.mark.parametrize(
    ("variant", "side", "left_out"),
    [
        ("basic", 127, []),
        ("basic", 126, ["block4_pool"]),
        ("basic", 62, ["block3_pool", "block4_pool"]),
        ("pretrained", 63, []),
        ("pretrained", 62, ["pool5"]),
    ],
)
def test_small_pictures_lose_the_pools_that_no_longer_fit(variant, side, left_out):
    large, small = (built(variant, side=s, planes=("axial",)) for s in (256, side))
    names = [[x.name for x in model.layers] for model in (large, small)]
    assert [name for name in names[0] if name not in names[1]] == left_out
    assert small.count_params() == large.count_params()


# Exams


KINDS = [("basic", "max"), ("relu", "mean"), ("leaky", "attention"), ("triple", "max")]


@functools.cache
def answering(variant, slices):
    """The vector of each exam, and its chances."""
    model = built(variant, slices)
    chances = keras.ops.sigmoid(model.output)
    return keras.Model(model.inputs, [model.get_layer("planes").output, chances])


@pytest.mark.parametrize(("variant", "slices"), KINDS)
def test_an_exam_scores_the_same_alone_and_in_any_place_of_any_batch(variant, slices):
    model, known = answering(variant, slices), exams()
    found = [model(batch([exam])) for exam in known]
    alone = [np.concatenate([value(x) for x in parts]) for parts in zip(*found, strict=True)]
    assert np.ptp(alone[1], axis=0).max() > 1e-3
    for order in ([0, 1, 2], [2, 0, 1], [1, 1, 0], [2, 1]):
        together = model(batch([known[number] for number in order]))
        for one, other in zip(together, alone, strict=True):
            np.testing.assert_allclose(value(one), other[order], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("variant", "slices"), KINDS)
def test_the_order_of_slices_does_not_matter(variant, slices):
    model, known = answering(variant, slices), exams()
    turned = [[plane[::-1] for plane in exam] for exam in known]
    for one, other in zip(model(batch(turned)), model(batch(known)), strict=True):
        np.testing.assert_allclose(value(one), value(other), rtol=1e-6, atol=1e-6)


def test_every_plane_counts():
    model, (first, second, _) = built("basic"), exams()
    scores = [
        float(model(batch([[*first[:p], second[p], *first[p + 1 :]]]))[0, 0]) for p in range(3)
    ]
    assert len({*scores, float(model(batch([first]))[0, 0])}) == 4


def test_a_batch_norm_sees_one_plane_at_a_time():
    model = built.__wrapped__("relu")
    planes = [np.full((2, SIDE, SIDE, 1), grey, np.uint8) for grey in (10, 120, 250)]
    planes = [plane + exams()[0][0][:2] // 64 for plane in planes]
    given = batch([planes])
    before, after = outputs_of(model, "block1_conv"), outputs_of(model, "block1_bn")
    seen = keras.Model(model.inputs, [before, after])

    convolved, normed = seen(given, training=True)

    for plane in normed:
        np.testing.assert_allclose(value(plane).mean(axis=(0, 1, 2)), 0, atol=1e-3)
    found = value(model.get_layer("block1_bn").moving_mean)
    means = [value(plane).mean(axis=(0, 1, 2)) for plane in convolved]
    moved = [0.1 * c + 0.09 * b + 0.081 * a for a, b, c in itertools.permutations(means)]
    assert any(np.allclose(found, one, rtol=1e-4, atol=1e-4) for one in moved)


def test_dropout_draws_anew_for_each_plane():
    model = built("relu")
    same = [exams()[0][0]] * 3
    dropped = keras.Model(model.inputs, outputs_of(model, "block1_dropout"))
    kept = [value(plane) != 0 for plane in dropped(batch([same]), training=True)]
    assert (kept[0] != kept[1]).any() and (kept[1] != kept[2]).any()
    per_map = kept[0].mean(axis=(1, 2))
    assert 0 < np.median(per_map) < 1  # elements, not whole maps


# Training and saving


def optimized(model, given, labels):
    model.compile("adam", keras.losses.BinaryCrossentropy(from_logits=True), run_eagerly=True)
    return model.train_on_batch(given, labels)


def test_a_frozen_stack_keeps_its_weights_while_the_head_learns():
    model = mrnet.views("relu", (SIDE, SIDE, 1), classes=2, slices="attention", frozen=True)
    head = [x for x in model.layers if "slices" in x.name or x.name == "logits"]
    inner = [v for x in model.layers if x not in head for v in x.weights]
    before = [value(v).copy() for v in inner]
    bias = value(model.get_layer("logits").bias).copy()
    assert {id(v) for v in model.trainable_variables} == {id(v) for x in head for v in x.weights}

    optimized(model, batch(exams()), np.array([[0, 1], [1, 1], [1, 0]]))

    assert all(np.array_equal(a, value(b)) for a, b in zip(before, inner, strict=True))
    assert (bias != value(model.get_layer("logits").bias)).all()


def test_every_trunk_of_the_triple_network_is_frozen():
    model = mrnet.triple((SIDE, SIDE, 1), frozen=True)
    assert [v.path for v in model.trainable_variables] == ["logits/kernel", "logits/bias"]


def test_a_frozen_stack_gives_an_exam_the_same_features_in_training():
    model = mrnet.views("relu", (SIDE, SIDE, 1), frozen=True)
    given = batch(exams())
    once, twice = (value(model(given, training=True)) for _ in range(2))
    np.testing.assert_array_equal(once, twice)


def test_a_step_of_training_moves_every_convolution():
    model = built.__wrapped__("leaky", slices="attention")
    before = {x.name: value(x.kernel).copy() for x in model.layers if hasattr(x, "kernel")}
    loss = optimized(model, batch(exams()), np.array([[0], [1], [1]]))
    assert np.isfinite(loss)
    assert all((value(model.get_layer(n).kernel) != kernel).any() for n, kernel in before.items())


def test_a_network_survives_saving(tmp_path):
    planes = ("coronal", "axial")
    model = built("leaky", "attention", planes=planes)
    given = batch([exam[:2] for exam in exams()])
    model.save(tmp_path / "model.keras")

    again = rebuild(json.loads(json.dumps(model.recipe)))
    again.load_weights(tmp_path / "model.keras")

    np.testing.assert_array_equal(value(again(given)), value(model(given)))
    assert again.recipe == model.recipe
    assert model.recipe["arguments"]["planes"] == list(planes)
    assert model.weights_origin == again.weights_origin == "random"


def test_half_precision_ends_in_float32():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        half = built.__wrapped__("relu")
    finally:
        keras.config.set_dtype_policy(before)
    half.set_weights(built("relu").get_weights())
    found, exact = (value(model(batch(exams()))) for model in (half, built("relu")))
    assert found.dtype == np.float32
    assert half.get_layer("planes").output.dtype == "float32"
    assert half.feature_maps["axial"].dtype == "bfloat16"
    np.testing.assert_allclose(found, exact, atol=0.1 * np.abs(exact).max())


# Weights


def finished(model, folder):
    """Writes what a run leaves of its model."""
    recorded = json.dumps({"recipe": model.recipe})
    (folder / "predictor.json").write_text(recorded, encoding="utf-8")
    model.save(folder / "model.keras")
    return str(folder)


def same_weights(layers, others):
    pairs = [
        pair
        for layer, other in zip(layers, others, strict=True)
        for pair in zip(layer.get_weights(), other.get_weights(), strict=True)
    ]
    return len(pairs) > 0 and all(np.array_equal(one, other) for one, other in pairs)


def test_a_run_gives_its_stack_to_the_next(tmp_path):
    first = built("relu", "attention", planes=("axial",))
    second = mrnet.views("relu", (SIDE, SIDE, 1), frozen=True, weights=finished(first, tmp_path))
    assert second.weights_origin.startswith(f"run {tmp_path.name} sha256 ")
    stack = [x for x in second.layers if x.name.startswith("block")]
    assert same_weights(stack, [first.get_layer(x.name) for x in stack])


def test_a_run_gives_each_plane_its_own_trunk(tmp_path):
    first = built("triple", planes=("coronal", "axial"))
    second = mrnet.triple(
        (SIDE, SIDE, 1), planes=("axial", "coronal"), weights=finished(first, tmp_path)
    )
    for name in ("axial_conv5", "coronal_conv5"):
        assert same_weights([second.get_layer(name)], [first.get_layer(name)])
    with pytest.raises(UsageError, match="no layer sagittal_conv1.*same backbone"):
        mrnet.triple((SIDE, SIDE, 1), planes=("sagittal",), weights=str(tmp_path))


@pytest.mark.parametrize("weights", [None, "none", "auto"])
def test_an_own_stack_starts_random(weights, caplog):
    model = mrnet.views("basic", (SIDE, SIDE, 1), planes=("axial",), weights=weights)
    assert model.weights_origin == "random"
    assert not caplog.records


# Arguments


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"variant": "resnet"}, "variant.*resnet"),
        ({"planes": ("axial", "oblique")}, "planes.*oblique"),
        ({"planes": ()}, "planes"),
        ({"planes": "axial"}, "planes.*'axial'"),
        ({"planes": ("axial", "axial")}, "each once"),
        ({"slices": "median"}, "slices.*median"),
        ({"image_shape": (31, 64, 1)}, "at least 32"),
        ({"image_shape": (64, 64)}, "image_shape"),
        ({"classes": 0}, "class"),
        ({"weights": "imagenet"}, "no ImageNet weights of mrnet basic"),
        ({"weights": "absent.weights.h5"}, "does not exist; expected mrnet basic"),
    ],
)
def test_an_argument_that_cannot_be_used_is_named(arguments, named):
    with pytest.raises(UsageError, match=named):
        mrnet.views(**{"image_shape": (SIDE, SIDE, 1)} | arguments)


def test_a_triple_network_names_what_it_cannot_use():
    with pytest.raises(UsageError, match="planes"):
        mrnet.triple((SIDE, SIDE, 1), planes=("axial", "frontal"))
    with pytest.raises(UsageError, match="at least 32"):
        mrnet.triple((16, 16, 1))
