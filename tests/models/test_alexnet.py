import logging

import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

from medkeras import layers
from medkeras.errors import ResourceError, UsageError
from medkeras.models import alexnet, convert, imagenet, mrnet

value = keras.ops.convert_to_numpy
SHAPES = {0: (64, 3, 11), 3: (192, 64, 5), 6: (384, 192, 3), 8: (256, 384, 3), 10: (256, 256, 3)}


def network(side):
    image = keras.Input((side, side, 3))
    *_, maps = layers.applied(alexnet.stack(), image).values()
    return keras.Model(image, maps)


@pytest.fixture(scope="module")
def state():
    """Random weights under torchvision's names, of a size that keeps the activations near 1."""
    rng = np.random.default_rng(0)
    made = {"classifier.1.weight": np.ones((4096, 9), np.float32)}
    for number, (filters, channels, size) in SHAPES.items():
        shape = (filters, channels, size, size)
        scale = np.sqrt(1 / (channels * size**2))
        made[f"features.{number}.weight"] = (scale * rng.normal(size=shape)).astype(np.float32)
        made[f"features.{number}.bias"] = (0.1 * rng.normal(size=filters)).astype(np.float32)
    return made


@pytest.fixture(scope="module")
def converted(state, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alexnet")
    save_file(state, folder / "alexnet.safetensors")
    convert.convert("alexnet", folder / "alexnet.safetensors", folder / "alexnet.weights.h5")
    return folder / "alexnet.weights.h5"


def picture(side):
    return np.random.default_rng(1).normal(size=(2, side, side, 3)).astype(np.float32)


def reference(x, state):
    """PyTorch's AlexNet in NumPy and float64: zeros on all four sides, pools rounded down."""
    strides = {0: (4, 2), 3: (1, 2), 6: (1, 1), 8: (1, 1), 10: (1, 1)}
    windows = np.lib.stride_tricks.sliding_window_view
    x = x.astype(np.float64).transpose(0, 3, 1, 2)
    for number, (stride, pad) in strides.items():
        kernel = state[f"features.{number}.weight"].astype(np.float64)
        x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
        seen = windows(x, kernel.shape[2:], (2, 3))[:, :, ::stride, ::stride]
        x = np.tensordot(seen, kernel, ((1, 4, 5), (1, 2, 3))).transpose(0, 3, 1, 2)
        x = np.maximum(x + state[f"features.{number}.bias"][:, None, None], 0)
        if number in (0, 3, 10):
            x = windows(x, (3, 3), (2, 3))[:, :, ::2, ::2].max(axis=(4, 5))
    return x.transpose(0, 2, 3, 1)


def test_the_layers_are_the_published_ones():
    model = network(256)
    found = [
        (x.name, x.filters, x.kernel_size[0], x.strides[0], x.output.shape[1])
        for x in model.layers
        if isinstance(x, keras.layers.Conv2D)
    ]
    pools = [
        (x.name, x.pool_size, x.strides, x.padding, x.output.shape[1])
        for x in model.layers
        if isinstance(x, keras.layers.MaxPooling2D)
    ]
    assert found == [
        ("conv1", 64, 11, 4, 63),
        ("conv2", 192, 5, 1, 31),
        ("conv3", 384, 3, 1, 15),
        ("conv4", 256, 3, 1, 15),
        ("conv5", 256, 3, 1, 15),
    ]
    assert pools == [
        (f"pool{n}", (3, 3), (2, 2), "valid", size) for n, size in ((1, 31), (2, 15), (5, 7))
    ]
    assert sum(isinstance(x, keras.layers.ReLU) for x in model.layers) == 5
    assert model.count_params() == 2_469_696
    assert f"{model.count_params():,}" in alexnet.__doc__


@pytest.mark.parametrize("side", [63, 80, 96])
def test_converted_weights_compute_what_pytorch_defines(side, state, converted):
    model = network(side)
    model.load_weights(converted)
    expected = reference(picture(side), state)
    assert expected.std() > 0.1
    np.testing.assert_allclose(value(model(picture(side))), expected, atol=1e-5)


@pytest.mark.parametrize("side", [96, pytest.param(256, marks=pytest.mark.slow)])
def test_converted_weights_compute_what_pytorch_computes(side, tmp_path):
    torch = pytest.importorskip("torch")
    nn = torch.nn
    torch.manual_seed(0)
    theirs = nn.Sequential()
    theirs.features = nn.Sequential(
        nn.Conv2d(3, 64, kernel_size=11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, kernel_size=5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, kernel_size=3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 256, kernel_size=3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, kernel_size=3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2),
    )  # fmt: skip
    for parameter in theirs.parameters():  # PyTorch's own start dies away over five layers
        spread = parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.1
        nn.init.normal_(parameter, std=spread)
    arrays = {name: tensor.numpy() for name, tensor in theirs.state_dict().items()}
    save_file(arrays, tmp_path / "alexnet.safetensors")
    convert.convert("alexnet", tmp_path / "alexnet.safetensors", tmp_path / "alexnet.weights.h5")
    model = network(side)
    model.load_weights(tmp_path / "alexnet.weights.h5")

    with torch.no_grad():
        expected = theirs.features(torch.from_numpy(picture(side).transpose(0, 3, 1, 2).copy()))

    expected = expected.numpy().transpose(0, 2, 3, 1)
    assert expected.std() > 0.1
    np.testing.assert_allclose(value(model(picture(side))), expected, atol=1e-5)


# What cannot be converted


def without(state, name):
    return {key: array for key, array in state.items() if key != name}


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda s: without(s, "features.8.bias"), "no tensor features.8.bias"),
        (lambda s: s | {"features.3.bias": np.ones(64, np.float32)}, r"\(64,\), expected \(192,\)"),
        (
            lambda s: s | {"features.0.weight": s["features.0.weight"].transpose(2, 3, 1, 0)},
            r"features.0.weight has shape \(11, 11, 3, 64\)",
        ),
        (lambda s: s | {"features.3.bias": np.full(192, np.nan, np.float32)}, "finite"),
        (lambda s: s | {"features.3.bias": np.ones(192, np.int64)}, "int64"),
        (lambda s: {"x": np.ones(3)}, "no tensor features.0.weight"),
    ],
)
def test_another_networks_weights_are_named(spoil, named, state, tmp_path, capsys):
    spoiled = {name: np.ascontiguousarray(array) for name, array in spoil(state).items()}
    save_file(spoiled, tmp_path / "other.safetensors")
    refused(tmp_path, "other.safetensors", named, capsys)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (None, "cannot be read"),
        (b"", "cannot be read"),
        (b"PK\x03\x04" + bytes(300), "cannot be read"),
        (b"\x80\x02}q\x00." + bytes(300), "cannot be read"),
        (b"\x40\x00\x00\x00\x00\x00\x00\x00{", "cannot be read"),
    ],
)
def test_what_is_not_safetensors_is_named(content, named, tmp_path, capsys):
    if content is not None:
        (tmp_path / "weights.safetensors").write_bytes(content)
    refused(tmp_path, "weights.safetensors", named, capsys)


def test_half_a_file_is_named(converted, tmp_path, capsys):
    whole = (converted.parent / "alexnet.safetensors").read_bytes()
    (tmp_path / "half.safetensors").write_bytes(whole[: len(whole) // 2])
    refused(tmp_path, "half.safetensors", "cannot be read", capsys)


@pytest.mark.parametrize("name", ["alexnet-owt-7be5be79.pth", "alexnet.PT", "weights.pickle"])
def test_a_pickle_is_never_opened_and_the_way_out_is_shown(name, tmp_path, capsys):
    # Nothing is there to open: the name is enough.
    said = refused(tmp_path, name, "pickle", capsys, lines=3)
    assert 'torchvision.models.alexnet(weights="IMAGENET1K_V1")' in said
    assert "safetensors.torch.save_file(state_dict" in said


def refused(folder, name, named, capsys, lines=1):
    before = sorted(folder.iterdir())
    with pytest.raises(UsageError, match=named):
        convert.convert("alexnet", folder / name, folder / "out.weights.h5")
    code = convert.main(["alexnet", str(folder / name), str(folder / "out.weights.h5")])
    said = capsys.readouterr().err
    assert code == 2
    assert name in said and len(said.strip().splitlines()) == lines
    assert sorted(folder.iterdir()) == before
    return said


def test_a_target_that_keras_would_not_read_is_refused(converted, tmp_path):
    source = converted.parent / "alexnet.safetensors"
    with pytest.raises(UsageError, match=r"\.weights\.h5"):
        convert.convert("alexnet", source, tmp_path / "alexnet.h5")


def test_a_target_that_cannot_be_written_is_named(converted, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ResourceError, match="cannot be written"):
        convert.convert(
            "alexnet", converted.parent / "alexnet.safetensors", tmp_path / "file/a.weights.h5"
        )


# Where the weights are looked for


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    return tmp_path / "keras" / "models"


def first_kernel(model, name="conv1"):
    return value(model.get_layer(name).kernel)


def test_by_default_the_weights_go_where_imagenet_is_looked_for(cache, converted, state, capsys):
    assert convert.main(["alexnet", str(converted.parent / "alexnet.safetensors")]) == 0
    assert capsys.readouterr().out.strip() == str(cache / "alexnet_imagenet_notop.weights.h5")
    expected = state["features.0.weight"].transpose(2, 3, 1, 0)
    for weights in ("imagenet", "auto"):
        model = mrnet.views("pretrained", (64, 64, 1), planes=("axial",), weights=weights)
        assert model.weights_origin == "imagenet"
        np.testing.assert_array_equal(first_kernel(model), expected)


def test_a_file_goes_into_every_trunk(converted, state):
    model = mrnet.triple((64, 64, 1), planes=("axial", "coronal"), weights=str(converted))
    assert model.weights_origin.startswith(f"file {converted.name} sha256 ")
    for plane in ("axial", "coronal"):
        np.testing.assert_array_equal(
            first_kernel(model, f"{plane}_conv1"), state["features.0.weight"].transpose(2, 3, 1, 0)
        )


def test_without_converted_weights_imagenet_names_the_command(cache):
    with pytest.raises(ResourceError, match=r"python -m medkeras\.models\.convert alexnet"):
        mrnet.triple((64, 64, 1), weights="imagenet")


def test_without_converted_weights_auto_warns_once_and_starts_random(cache, caplog):
    with caplog.at_level(logging.WARNING, "medkeras"):
        model = mrnet.triple((64, 64, 1), planes=("axial", "coronal"), weights="auto")
    assert model.weights_origin == "random"
    assert len(caplog.records) == 1
    assert "RANDOM" in caplog.text and "alexnet" in caplog.text


def test_a_damaged_file_in_the_cache_is_named(cache):
    cache.mkdir(parents=True)
    imagenet.converted("alexnet").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(300))
    with pytest.raises(UsageError, match="does not fit"):
        mrnet.views("pretrained", (64, 64, 1), weights="imagenet")
