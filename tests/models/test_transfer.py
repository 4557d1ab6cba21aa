import functools
import inspect
import json
import logging
import socket
from pathlib import Path

import keras
import numpy as np
import pytest

from medkeras.errors import ResourceError, UsageError
from medkeras.models import imagenet, transfer
from medkeras.models.recipe import rebuild

# Constructors of keras.applications; one backbone of a family, and the others of it.
QUICK = {
    "inception_v3": "InceptionV3",
    "xception": "Xception",
    "resnet50": "ResNet50",
    "vgg16": "VGG16",
    "densenet121": "DenseNet121",
    "mobilenet_v2": "MobileNetV2",
    "efficientnet_v2_b0": "EfficientNetV2B0",
}
OTHERS = {f"densenet{n}": f"DenseNet{n}" for n in (169, 201)} | {"vgg19": "VGG19"}
OTHERS |= {f"efficientnet_b{n}": f"EfficientNetB{n}" for n in (0, 5)}
ASKED = ("xception", "vgg16", "vgg19", "mobilenet_v2")
NAMES = [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)]
value = keras.ops.convert_to_numpy
SIDE = 75  # the least that every backbone takes


@functools.cache
def built(name, channels=3):
    """One model of each kind for all tests that only look at it."""
    return transfer.backbone(name, (SIDE, SIDE, channels), 3, l2=1e-3, weights=None)


@functools.cache
def application(name):
    """The backbone as Keras builds it."""
    return constructor(name)(include_top=False, weights=None, input_shape=(SIDE, SIDE, 3))


def constructor(name):
    number = name.removeprefix("efficientnet_b")
    title = (QUICK | OTHERS).get(name, f"EfficientNetB{number}")
    return getattr(keras.applications, title)


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3)).astype("float32")


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """An empty Keras cache, and a network that refuses every connection."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setattr(imagenet, "_unreachable", {})
    return tmp_path / "keras" / "models"


def sum_of_squares(variables):
    return sum(float(keras.ops.sum(keras.ops.square(v))) for v in variables)


def kernels(layers):
    return [v for layer in layers for v in layer.weights if v.name.endswith("kernel")]


# The architecture


@pytest.mark.parametrize("name", NAMES)
def test_the_model_is_flat_with_every_backbone_layer(name):
    model = built(name)
    expected = [
        type(layer).__name__
        for layer in application(name).layers
        if layer.weights and not isinstance(layer, keras.layers.Normalization)
    ]
    reached = [
        type(model.get_layer(layer.name)).__name__ for layer in model.layers if layer.weights
    ]
    assert [kind for kind in reached if kind != "Normalization"] == [*expected, "Dense"]
    assert not [x for x in model.layers if isinstance(x, (keras.Model, keras.layers.Lambda))]
    names = [operation.name for operation in model.operations]
    assert len(set(names)) == len(names)
    assert (model.input.name, model.layers[-1].name) == ("image", "logits")


@pytest.mark.parametrize("name", NAMES)
def test_only_the_head_trains(name):
    model = built(name)
    trainable = {id(v) for v in model.trainable_variables}
    assert trainable == {id(v) for v in model.get_layer("logits").weights}
    assert not any(layer.trainable for layer in model.layers[:-2] if layer.weights)
    features = model.get_layer("logits").input.shape[-1]
    assert model.count_params() == application(name).count_params() + 3 * (features + 1)


@pytest.mark.parametrize("name", NAMES)
def test_the_feature_map_is_a_map(name):
    assert len(built(name).get_layer(built(name).feature_map).output.shape) == 4


@pytest.mark.parametrize("name", NAMES)
def test_preprocessing_is_what_the_weights_expect(name, pixels):
    model = built(name)
    # Keras leaves EfficientNet's pixels as they are and standardises them in the network.
    families = {"resnet50": "resnet", "densenet": "densenet", "efficientnet_b": "densenet"}
    families |= {"efficientnet_v2_b0": "efficientnet_v2"}
    module = next((families[start] for start in families if name.startswith(start)), name)
    expected = getattr(keras.applications, module).preprocess_input(pixels.copy())
    last = "normalization" if name.startswith("efficientnet_b") else "rescale"
    tensor = model.input if name == "efficientnet_v2_b0" else model.get_layer(last).output
    found = keras.Model(model.input, tensor)(pixels) if tensor is not model.input else pixels
    np.testing.assert_allclose(value(found), expected, atol=1e-4)


def test_efficientnet_v2_normalises_by_itself(pixels):
    model, plain = built("efficientnet_v2_b0"), application("efficientnet_v2_b0")
    found, expected = (
        value(keras.Model(m.input, next(x for x in m.layers if "normal" in x.name).output)(pixels))
        for m in (model, plain)
    )
    np.testing.assert_array_equal(found, expected)
    assert abs(found.mean()) < 1


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("resnet50", "rescale"),
        ("densenet121", "rescale"),
        ("mobilenet_v2", "logits"),
        ("efficientnet_v2_b0", "stem_conv"),
    ],
)
def test_a_grey_picture_is_a_colour_picture_of_equal_channels(name, layer, pixels):
    models = built(name, 1), built(name, 3)
    models[0].set_weights(models[1].get_weights())
    grey, colour = (keras.Model(m.input, m.get_layer(layer).output) for m in models)
    np.testing.assert_allclose(
        value(grey(pixels[..., :1])),
        value(colour(np.repeat(pixels[..., :1], 3, axis=-1))),
        rtol=1e-5,
        atol=1e-6,
    )


def test_the_published_inception_head():
    model = transfer.inception_v3(
        (224, 224, 3), cut="mixed7", pooling="flatten", l2=1e-6, units=4, dropout=0.4, weights=None
    )
    assert model.get_layer("mixed7").output.shape == (None, 12, 12, 768)
    assert model.get_layer("head_dense").input.shape == (None, 110_592)
    assert model.get_layer("head_dropout").rate == 0.4
    assert model.feature_map == "mixed7"
    assert model.layers[-1].output.shape == (None, 3)
    assert "mixed8" not in [layer.name for layer in model.layers]


def test_the_published_xception_heads():
    plain = built("xception")
    assert sum(v.shape[0] * (v.shape + (1,))[1] for v in plain.trainable_variables) == 6_147
    model = transfer.xception((SIDE, SIDE, 3), units=1024, dropout=0.4, weights=None)
    # 2048 x 1024 kernel, the batch norm's scale and shift, and the logits.
    count = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    assert count == 2048 * 1024 + 2 * 1024 + 1024 * 3 + 3


def test_the_published_densenet_head():
    model = transfer.densenet121(
        (32, 32, 1), 14, units=500, hidden="linear", dropout=0.9, frozen=False, weights=None
    )
    assert [layer.name for layer in model.layers[-5:]] == [
        "relu", "pooling", "head_dense", "head_dropout", "logits"
    ]  # fmt: skip
    hidden = model.get_layer("head_dense")
    assert (hidden.input.shape, hidden.units) == ((None, 1024), 500)
    assert hidden.activation is keras.activations.linear
    assert hidden.use_bias
    assert model.get_layer("head_dropout").rate == 0.9
    # 6,953,856 of PyTorch's densenet121 without classifier, and the two dense layers.
    learned = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    assert learned == 6_953_856 + 1024 * 500 + 500 + 500 * 14 + 14


def test_the_published_network_for_knee_grades():
    model = transfer.vgg16(image_shape=(224, 224, 3), classes=5, weights=None)
    convolutions = [x for x in model.layers if isinstance(x, keras.layers.Conv2D)]
    assert len(convolutions) == 13
    assert sum(x.count_params() for x in convolutions) == 14_714_688
    assert model.count_params() == 14_714_688 + 2_565
    assert isinstance(model.get_layer("pooling"), keras.layers.GlobalAveragePooling2D)
    assert model.get_layer("logits").input.shape == (None, 512)
    assert model.output.shape == (None, 5)


def test_an_ordinal_head_ends_the_model_in_log_probabilities(small_backbones, pixels, tmp_path):
    model = small_backbones["unit"]((SIDE, SIDE, 3), 5, ordinal=True, weights=None)
    plain = small_backbones["unit"]((SIDE, SIDE, 3), 5, weights=None)
    assert model.layers[-1].name == "logits"
    assert plain.count_params() - model.count_params() == 5 * 6 - (5 + 4)
    np.testing.assert_allclose(np.exp(value(model(pixels))).sum(axis=1), 1, rtol=1e-5)

    model.save(tmp_path / "model.keras")
    again = rebuild(json.loads(json.dumps(model.recipe)))
    again.load_weights(tmp_path / "model.keras")
    np.testing.assert_array_equal(value(again(pixels)), value(model(pixels)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "parameters", "features"),
    [
        (1, 6_575_239, 1280),
        (2, 7_768_569, 1408),
        (3, 10_783_535, 1536),
        (4, 17_673_823, 1792),
        (5, 28_513_527, 2048),
        (6, 40_960_143, 2304),
        (7, 64_097_687, 2560),
    ],
)
def test_efficientnets_are_the_published_ones(number, parameters, features):
    model = transfer.backbone(f"efficientnet_b{number}", (32, 32, 1), 1, frozen=False, weights=None)
    assert model.count_params() == parameters + features + 1
    assert model.get_layer(model.feature_map).output.shape == (None, 1, 1, features)


def test_signatures_are_visible():
    signature = inspect.signature(transfer.efficientnet_b5)
    assert list(signature.parameters) == [
        "image_shape", "classes", "units", "dropout", "l2", "pooling", "cut", "weights",
        "frozen", "hidden", "ordinal",
    ]  # fmt: skip
    assert signature.parameters["image_shape"].default == (456, 456, 3)
    assert transfer.BACKBONES["efficientnet_b5"] is transfer.efficientnet_b5
    assert all(getattr(transfer, name) is build for name, build in transfer.BACKBONES.items())
    assert {build.__name__ for build in transfer.BACKBONES.values()} == set(transfer.BACKBONES)
    assert "Tan and Le 2019" in transfer.efficientnet_b5.__doc__


def test_names_do_not_depend_on_what_was_built_before():
    first, second = (
        transfer.inception_v3((SIDE, SIDE, 1), cut="mixed0", weights=None) for _ in range(2)
    )
    names = [operation.name for operation in first.operations]
    assert names == [operation.name for operation in second.operations]
    assert {"conv2d", "conv2d_1", "batch_normalization"} <= set(names)


def test_frozen_efficientnet_gives_a_picture_the_same_features_in_training(pixels):
    model = built("efficientnet_v2_b0")
    once, twice = (value(model(pixels, training=True)) for _ in range(2))
    np.testing.assert_array_equal(once, twice)
    assert not [v for v in model.variables if "seed" in v.path]


def test_training_leaves_the_backbone_alone(pixels):
    model = transfer.mobilenet_v2((SIDE, SIDE, 3), 2, units=4, dropout=0.5, weights=None)
    head = model.layers.index(model.get_layer("pooling"))
    before = [value(v) for layer in model.layers[:head] for v in layer.weights]
    bias = value(model.get_layer("logits").bias)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.train_on_batch(pixels, np.array([1, 1]))
    after = [value(v) for layer in model.layers[:head] for v in layer.weights]
    assert all((a == b).all() for a, b in zip(before, after, strict=True))
    assert (bias != value(model.get_layer("logits").bias)).any()


@pytest.mark.parametrize(("frozen", "momentum"), [(True, 0.99), (False, 0.9)])
def test_batch_norms_follow_the_batch_only_where_they_learn(
    frozen, momentum, pixels, small_backbones
):
    model = small_backbones["unit"]((SIDE, SIDE, 3), frozen=frozen, weights=None)
    norm = model.get_layer("conv1_bn")
    before = value(norm.moving_mean)
    model(pixels, training=True)
    assert (value(norm.moving_mean) != before).any() == (not frozen)
    assert norm.momentum == momentum
    learning = [v.path.split("/")[-1] for v in model.trainable_variables]
    backbone = ["kernel", "bias", "gamma", "beta", "kernel", "bias"]
    assert learning == ([] if frozen else backbone) + ["kernel", "bias"]


# L2


@pytest.mark.parametrize("name", ["xception", "mobilenet_v2"])
def test_l2_counts_on_the_head_and_on_what_is_unfrozen(name):
    model = transfer.backbone(name, (SIDE, SIDE, 1), l2=0.01, units=8, weights=None)
    heads = kernels([model.get_layer("head_dense"), model.get_layer("logits")])
    assert len(model.losses) == 2
    assert float(sum(model.losses)) == pytest.approx(0.01 * sum_of_squares(heads), rel=1e-4)

    thawed = [layer for layer in model.layers if kernels([layer])][-9:-2]
    for layer in thawed:
        layer.trainable = True

    assert len(model.losses) == 2 + len(kernels(thawed))
    assert float(sum(model.losses)) == pytest.approx(
        0.01 * sum_of_squares(heads + kernels(thawed)), rel=1e-4
    )


@pytest.mark.parametrize("name", NAMES)
def test_l2_stands_on_every_kernel(name):
    on = {id(v) for v in built(name).variables if v.regularizer is not None}
    assert on == {id(v) for v in kernels(built(name).layers)}
    assert len(on) > 10


@pytest.mark.parametrize("name", ["xception", "mobilenet_v2"])
def test_l2_survives_a_round_trip_of_the_configuration(name):
    copy = keras.Model.from_config(built(name).get_config())
    on = {id(v) for v in copy.variables if v.regularizer is not None}
    assert on == {id(v) for v in kernels(copy.layers)}
    assert len(on) == len(kernels(built(name).layers))


def test_without_l2_nothing_is_added():
    assert transfer.vgg16((32, 32, 1), weights=None).losses == []


# Saving


@pytest.mark.parametrize(
    ("name", "cut"),
    [
        ("mobilenet_v2", None),
        ("efficientnet_v2_b0", "block3b_add"),
        ("inception_v3", "mixed1"),
    ],
)
def test_survives_saving(name, cut, tmp_path, pixels):
    model = transfer.backbone(
        name,
        (SIDE, SIDE, 3),
        2,
        units=6,
        dropout=0.3,
        l2=0.01,
        pooling="max",
        cut=cut,
        weights=None,
    )
    model.save(tmp_path / "model.keras")

    again = rebuild(json.loads(json.dumps(model.recipe)))
    again.load_weights(tmp_path / "model.keras")

    for a, b in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(value(again(pixels)), value(model(pixels)))
    for layer in again.layers:
        layer.trainable = True
    assert float(sum(again.losses)) == pytest.approx(
        0.01 * sum_of_squares(kernels(again.layers)), rel=1e-4
    )
    assert again.recipe["function"] == f"transfer.{name}"


@pytest.mark.parametrize("frozen", [True, False])
def test_what_a_backbone_is_built_with_is_in_its_recipe(frozen, small_backbones):
    model = small_backbones["unit"](
        (32, 32, 1), 2, units=4, frozen=frozen, hidden="linear", weights=None
    )
    again = rebuild(json.loads(json.dumps(model.recipe)))
    assert again.recipe == model.recipe
    assert model.recipe["function"] == "transfer.unit"
    assert [x.get_config() for x in again.layers] == [x.get_config() for x in model.layers]
    assert {x.trainable for x in again.layers if x.name.startswith("conv")} == {not frozen}


def test_a_recipe_from_before_frozen_hidden_and_ordinal_is_rebuilt_as_it_was():
    arguments = {"image_shape": [32, 32, 1], "classes": 2, "units": 4, "dropout": 0.0}
    arguments |= {"l2": 0.0, "pooling": "avg", "cut": None}
    model = rebuild({"function": "transfer.vgg16", "arguments": arguments})
    assert [x.name for x in model.layers[-4:]] == ["head_dense", "head_bn", "head_relu", "logits"]
    assert not any(x.trainable for x in model.layers if x.name.startswith("block"))


# Arguments


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"name": "alexnet"}, "alexnet"),
        ({"image_shape": (31, 64, 1)}, "at least 32"),
        ({"image_shape": (64, 64, 4)}, "image_shape"),
        ({"pooling": "median"}, "median"),
        ({"cut": "mixed7"}, "mixed7"),
        ({"dropout": 1.5}, "dropout"),
        ({"hidden": "wide"}, "bn_relu, linear; got 'wide'"),
        ({"classes": 0}, "class"),
        ({"classes": 1, "ordinal": True}, "at least 3 grades; got 1"),
    ],
)
def test_an_argument_that_cannot_be_used_is_named(arguments, named):
    arguments = {"name": "mobilenet_v2", "image_shape": (64, 64, 1), "weights": None} | arguments
    with pytest.raises(UsageError, match=named):
        transfer.backbone(**arguments)


# Weights


@pytest.mark.parametrize("weights", [None, "none"])
def test_random_weights_ask_nobody(weights, monkeypatch):
    monkeypatch.setattr(imagenet, "file", lambda name: pytest.fail("asked for a file"))
    assert transfer.vgg16((32, 32, 1), weights=weights).weights_origin == "random"


def test_a_real_weights_file_is_loaded(shared, pixels):
    path = shared / "weights" / "mobilenet_v2_imagenet_notop.weights.h5"
    model = transfer.mobilenet_v2((SIDE, SIDE, 3), cut="block_13_expand_relu", weights=path)
    plain = keras.applications.MobileNetV2(
        input_shape=(SIDE, SIDE, 3), include_top=False, weights=str(path)
    )
    expected = keras.Model(plain.input, plain.get_layer("block_13_expand_relu").output)
    found = keras.Model(model.input, model.get_layer(model.feature_map).output)
    np.testing.assert_allclose(value(found(pixels)), value(expected(pixels / 127.5 - 1)), atol=1e-4)
    assert model.weights_origin.startswith(f"file {path.name} sha256 ")


def test_a_file_of_another_backbone_is_refused(shared):
    path = shared / "weights" / "mobilenet_v1_0.25_128_imagenet_notop.weights.h5"
    for name in ("mobilenet_v2", "vgg16"):
        with pytest.raises(UsageError, match=f"does not fit.*expected {name}"):
            transfer.backbone(name, (64, 64, 1), weights=str(path))


def test_an_efficientnet_that_learns_is_the_published_one(tmp_path, pixels):
    # As in Keras's file: deviations stand where its layer takes variances.
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    plain = keras.applications.EfficientNetB0(
        include_top=False, weights=None, input_shape=(32, 32, 3)
    )
    layer = next(x for x in plain.layers if isinstance(x, keras.layers.Normalization))
    layer.set_weights([mean, deviation, np.array(0)])
    plain.save(tmp_path / "published.h5")

    model = transfer.efficientnet_b0((32, 32, 3), frozen=False, weights=tmp_path / "published.h5")

    assert model.count_params() - 3 * 1281 == 4_049_571
    rates = [x.rate for x in model.layers if isinstance(x, keras.layers.Dropout)]
    assert rates == pytest.approx([0.2 * n / 16 for n in (2, 4, 6, 7, 9, 10, 12, 13, 14)])
    pixels = pixels[:, :32, :32]
    found = keras.Model(model.input, model.get_layer("normalization").output)(pixels)
    np.testing.assert_allclose(value(found), (pixels / 255 - mean) / deviation, atol=1e-4)
    for name in ("stem_conv", "block6a_bn", "top_conv"):
        loaded, original = (m.get_layer(name).get_weights() for m in (model, plain))
        assert all((a == b).all() for a, b in zip(loaded, original, strict=True))


def test_a_whole_model_of_keras_2_is_loaded(tmp_path):
    application("vgg16").save(tmp_path / "old.h5")
    model = transfer.vgg16((32, 32, 1), weights=tmp_path / "old.h5")
    for a, b in zip(application("vgg16").weights, model.weights, strict=False):
        np.testing.assert_array_equal(value(a), value(b))


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("absent.weights.h5", None, "does not exist"),
        ("folder.weights.h5", "folder", "is a folder"),
        ("empty.h5", b"", "is empty"),
        ("page.h5", b"<html>not found</html>", "is not an HDF5 file"),
        ("lfs.h5", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        ("broken.h5", b"\x89HDF\r\n\x1a\n" + bytes(300), "does not fit"),
        ("broken.weights.h5", b"\x89HDF\r\n\x1a\n" + bytes(300), "does not fit"),
        ("name.bin", b"\x89HDF\r\n\x1a\n" + bytes(300), "name must end"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_and_left_alone(file, content, reason, tmp_path):
    path = tmp_path / file
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=reason) as fault:
        transfer.vgg16((32, 32, 1), weights=str(path))
    assert str(path) in str(fault.value)
    assert "expected vgg16" in str(fault.value)
    if isinstance(content, bytes):
        assert path.read_bytes() == content


def test_imagenet_without_network_fails_and_names_the_remedy(offline):
    with pytest.raises(ResourceError, match=r"vgg16.*--weights none"):
        transfer.vgg16((32, 32, 1))
    assert not list(offline.glob("*"))


def test_auto_without_network_warns_and_starts_from_random_weights(offline, caplog):
    with caplog.at_level(logging.WARNING, "medkeras"):
        model = transfer.vgg16((32, 32, 1), weights="auto")
    assert model.weights_origin == "random"
    assert "RANDOM" in caplog.text
    assert "vgg16" in caplog.text


def test_a_failed_download_is_not_tried_again_but_told_again(offline, caplog, monkeypatch):
    calls = []

    def refused(*args, **kwargs):
        calls.append(args)
        raise Exception("no route")

    monkeypatch.setattr(keras.utils, "get_file", refused)
    for _ in range(2):
        transfer.vgg16((32, 32, 1), weights="auto")
    assert len(calls) == 1
    assert caplog.text.count("no route") == 2


def test_a_download_has_a_time_limit_and_ends_in_the_cache(offline, monkeypatch):
    seen = {}

    def download(name, url, *, cache_dir, cache_subdir, file_hash, force_download):
        seen.update(limit=socket.getdefaulttimeout(), name=name, url=url, hash=file_hash)
        part = Path(cache_dir) / cache_subdir / name
        part.parent.mkdir(parents=True)
        application("vgg16").save(part.with_suffix(".h5"))
        return str(part.with_suffix(".h5").rename(part))

    monkeypatch.setattr(keras.utils, "get_file", download)
    model = transfer.vgg16((32, 32, 1))

    assert model.weights_origin == "imagenet"
    assert 0 < seen["limit"] <= 30
    assert socket.getdefaulttimeout() is None
    cached = [path.name for path in offline.iterdir()]
    assert cached == [seen["url"].rpartition("/")[2]]
    assert seen["name"] != cached[0]


def test_a_cached_file_is_used_without_network(offline, monkeypatch):
    offline.mkdir(parents=True)
    url = imagenet.DOWNLOADS["mobilenet_v2"][0]
    application("mobilenet_v2").save(offline / url.rpartition("/")[2])
    model = transfer.mobilenet_v2((64, 64, 1), weights="auto")
    assert model.weights_origin == "imagenet"


def test_a_damaged_cached_file_is_named_and_left_alone(offline, caplog):
    offline.mkdir(parents=True)
    path = offline / imagenet.DOWNLOADS["vgg16"][0].rpartition("/")[2]
    path.write_bytes(b"\x89HDF half a file")
    with pytest.raises(UsageError, match="damaged"):
        transfer.vgg16((32, 32, 1))
    assert transfer.vgg16((32, 32, 1), weights="auto").weights_origin == "random"
    assert path.read_bytes() == b"\x89HDF half a file"
    assert "RANDOM" in caplog.text


def test_the_hashes_of_efficientnet_are_those_of_keras():
    from keras.src.applications import efficientnet

    for number in range(8):
        path, md5 = imagenet.DOWNLOADS[f"efficientnet_b{number}"]
        expected = f"{efficientnet.BASE_WEIGHTS_PATH}efficientnetb{number}_notop.h5"
        assert imagenet.SOURCE + path == expected
        assert md5 == efficientnet.WEIGHTS_HASHES[f"b{number}"][1]


def test_every_published_backbone_has_imagenet_weights():
    without = set(transfer.BACKBONES) - set(imagenet.DOWNLOADS) - set(imagenet.CONVERTED)
    assert without == {"densenet_tiny"}


class _Asked(Exception):
    pass


@pytest.mark.parametrize(
    "name",
    [
        *ASKED,
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in imagenet.DOWNLOADS
            if name not in ASKED
        ),
    ],
)
def test_the_addresses_are_those_of_keras(name, monkeypatch):
    asked = {}

    def ask(file, url, cache_subdir, file_hash=None):
        asked.update(url=url, md5=file_hash or "")
        raise _Asked

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", ask)
    path, md5 = imagenet.DOWNLOADS[name]
    with pytest.raises(_Asked):
        constructor(name)(include_top=False, weights="imagenet", input_shape=(96, 96, 3))
    # MobileNetV2 has a file for each size; the one for 224 serves them all.
    assert asked["url"].replace("_1.0_96_", "_1.0_224_") == imagenet.SOURCE + path
    assert asked["md5"] == md5


def test_a_run_gives_its_backbone_to_the_next(tmp_path, small_backbones):
    first = small_backbones["bgr"]((32, 32, 1), 3, units=4, weights=None)
    recorded = {"recipe": first.recipe}
    (tmp_path / "predictor.json").write_text(json.dumps(recorded), encoding="utf-8")
    first.save(tmp_path / "model.keras")
    second = small_backbones["bgr"]((32, 32, 1), 1, weights=str(tmp_path))
    assert second.weights_origin.startswith(f"run {tmp_path.name} sha256 ")
    for layer in second.layers:
        if layer.weights and layer.name != "logits":
            for ours, theirs in zip(
                layer.weights, first.get_layer(layer.name).weights, strict=True
            ):
                np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    with pytest.raises(UsageError, match="transfer.bgr, which has no backbone other"):
        small_backbones["other"]((32, 32, 1), weights=str(tmp_path))


def test_a_file_of_a_larger_backbone_is_refused(tmp_path, small_backbones):
    image = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(4, 3, strides=2)(image)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Conv2D(5, 3, strides=2)(x)
    x = keras.layers.BatchNormalization()(x)
    file = tmp_path / "larger.weights.h5"
    keras.Model(image, x).save_weights(file)
    with pytest.raises(UsageError, match="holds 12 arrays, this one has 8"):
        small_backbones["unit"]((32, 32, 3), weights=str(file))
