"""VGG19 with batch norm and MNASNet against PyTorch's; AlexNet's conversion is in test_alexnet."""

import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

from medkeras.errors import ResourceError, UsageError
from medkeras.models import convert, imagenet, mnasnet, transfer, vgg

value = keras.ops.convert_to_numpy
SIDES = {"vgg19_bn": 32, "mnasnet": 64}
# torchvision's: widths with pools; kernel, stride, channels in, expansion, channels out, repeats.
VGG19 = (64, 64, 0, 128, 128, 0, *4 * (256,), 0, *4 * (512,), 0, *4 * (512,), 0)
STACKS = (
    (3, 2, 16, 3, 24, 3),
    (5, 2, 24, 3, 40, 3),
    (5, 2, 40, 6, 80, 3),
    (3, 1, 80, 6, 96, 2),
    (5, 2, 96, 6, 192, 4),
    (3, 1, 192, 6, 320, 1),
)


def torch_modules(name):
    """Lists torchvision's convolutions and norms: (name, shape of the kernel or of a vector)."""
    if name == "vgg19_bn":
        number, channels = 0, 3
        for width in VGG19:
            if width:
                yield f"features.{number}", (width, channels, 3, 3)
                yield f"features.{number + 1}", (width,)
                channels = width
            number += 3 if width else 1
        return
    stem = [(32, 3, 3, 3), (32,), None, (32, 1, 3, 3), (32,), None, (16, 32, 1, 1), (16,)]
    yield from ((f"layers.{n}", shape) for n, shape in enumerate(stem) if shape)
    for stack, (size, _, channels, expansion, out, repeats) in enumerate(STACKS, start=8):
        for i in range(repeats):
            wide = channels * expansion
            parts = [(wide, channels, 1, 1), (wide,), None, (wide, 1, size, size), (wide,), None]
            parts += [(out, wide, 1, 1), (out,)]
            for n, shape in enumerate(parts):
                if shape:
                    yield f"layers.{stack}.{i}.layers.{n}", shape
            channels = out
    yield from (("layers.14", (1280, 320, 1, 1)), ("layers.15", (1280,)))


def random_state(name):
    """Random weights of a size that keeps the activations near 1, and a classifier's."""
    rng = np.random.default_rng(0)
    state = {"classifier.1.weight": np.ones((1000, 9))}
    for module, shape in torch_modules(name):
        if len(shape) == 4:
            scale = np.sqrt(2 / np.prod(shape[1:]))
            state[f"{module}.weight"] = scale * rng.standard_normal(shape, np.float32)
            if name == "vgg19_bn":
                state[f"{module}.bias"] = 0.1 * rng.standard_normal(shape[0])
            continue
        state[f"{module}.weight"] = rng.uniform(0.8, 1.2, shape)
        state[f"{module}.bias"] = 0.1 * rng.standard_normal(shape)
        state[f"{module}.running_mean"] = 0.1 * rng.standard_normal(shape)
        state[f"{module}.running_var"] = rng.uniform(0.5, 1.5, shape)
        state[f"{module}.num_batches_tracked"] = np.array(7, np.int64)
    floats = {key: array.astype(np.float32) for key, array in state.items() if array.ndim}
    return state | floats


@pytest.fixture(scope="module", params=["vgg19_bn", "mnasnet"])
def given(request, tmp_path_factory):
    """A network's name, its weights under torchvision's names, their file, our model of them."""
    name = request.param
    folder = tmp_path_factory.mktemp(name)
    state = random_state(name)
    save_file(state, folder / "source.safetensors")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("KERAS_HOME", str(folder))
        with pytest.raises(ResourceError, match=f"medkeras.models.convert {name} SOURCE"):
            imagenet.file(name)
        assert convert.main([name, str(folder / "source.safetensors")]) == 0
        model = transfer.backbone(name, (SIDES[name], SIDES[name], 3), weights="auto")
    return name, state, folder / "source.safetensors", model


def torch_network(torch, name):
    """The network's features as torchvision wires them, with its names."""
    nn = torch.nn

    def conv(channels, out, size, stride=1, groups=1):
        return nn.Conv2d(channels, out, size, stride, size // 2, groups=groups, bias=False)

    class Residual(nn.Module):
        def __init__(self, size, stride, channels, expansion, out):
            super().__init__()
            wide = channels * expansion
            self.added = channels == out and stride == 1
            self.layers = nn.Sequential(
                conv(channels, wide, 1), nn.BatchNorm2d(wide), nn.ReLU(),
                conv(wide, wide, size, stride, wide), nn.BatchNorm2d(wide), nn.ReLU(),
                conv(wide, out, 1), nn.BatchNorm2d(out),
            )  # fmt: skip

        def forward(self, x):
            return self.layers(x) + x if self.added else self.layers(x)

    network = nn.Sequential()
    if name == "vgg19_bn":
        parts, channels = [], 3
        for width in VGG19:
            if width:
                parts += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width)]
                channels = width
            parts.append(nn.ReLU() if width else nn.MaxPool2d(2, 2))
        network.features = nn.Sequential(*parts)
        return network
    parts = [conv(3, 32, 3, 2), nn.BatchNorm2d(32), nn.ReLU()]
    parts += [conv(32, 32, 3, 1, 32), nn.BatchNorm2d(32), nn.ReLU()]
    parts += [conv(32, 16, 1), nn.BatchNorm2d(16)]
    for size, stride, channels, expansion, out, repeats in STACKS:
        first = Residual(size, stride, channels, expansion, out)
        others = [Residual(size, 1, out, expansion, out) for _ in range(repeats - 1)]
        parts.append(nn.Sequential(first, *others))
    network.layers = nn.Sequential(*parts, conv(320, 1280, 1), nn.BatchNorm2d(1280), nn.ReLU())
    return network


def test_converted_weights_compute_what_pytorch_computes(given):
    torch = pytest.importorskip("torch")
    name, state, _, model = given
    side = SIDES[name]
    theirs = torch_network(torch, name).eval()
    tensors = {k: torch.from_numpy(a) for k, a in state.items() if "classifier" not in k}
    theirs.load_state_dict(tensors)
    pixels = np.random.default_rng(1).integers(0, 256, (2, side, side, 3)).astype(np.float32)
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    standardised = ((pixels / 255 - mean) / deviation).astype(np.float32)

    with torch.no_grad():
        expected = theirs(torch.from_numpy(standardised.transpose(0, 3, 1, 2).copy()))

    expected = expected.numpy().transpose(0, 2, 3, 1)
    found = value(keras.Model(model.input, model.get_layer("pooling").input)(pixels))
    assert expected.std() > 0.1
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * expected.std())


def test_converted_weights_are_on_their_layers(given):
    name, state, _, model = given
    assert model.weights_origin == "imagenet"
    expected = {
        "vgg19_bn": {
            "block1_conv1": ("features.0", "weight bias"),
            "block3_conv4": ("features.23", "weight bias"),
            "block5_bn4": ("features.50", "weight bias running_mean running_var"),
        },
        "mnasnet": {
            "stem_conv": ("layers.0", "weight"),
            "block2b_dwconv": ("layers.9.1.layers.3", "weight"),
            "block5d_project_bn": (
                "layers.12.3.layers.7",
                "weight bias running_mean running_var",
            ),
            "top_bn": ("layers.15", "weight bias running_mean running_var"),
        },
    }[name]
    for layer, (module, parts) in expected.items():
        weights = model.get_layer(layer).get_weights()
        for weight, part in zip(weights, parts.split(), strict=True):
            axes = {"block2b_dwconv": (2, 3, 0, 1)}.get(layer, (2, 3, 1, 0))[
                : 4 * (weight.ndim > 1)
            ]
            array = state[f"{module}.{part}"]
            np.testing.assert_array_equal(weight, array.transpose(axes) if axes else array)


def test_every_weight_has_a_name_in_pytorch(given):
    name, _, _, model = given
    module, learn, statistics = {
        "vgg19_bn": (vgg, 20_035_392, 11_008),
        "mnasnet": (mnasnet, 3_102_312, 37_920),
    }[name]
    weighted = [layer for layer in model.layers if layer.weights][:-1]
    assert [layer.name for layer in weighted] == list(module.torch_names())
    assert list(module.torch_names().values()) == [found for found, _ in torch_modules(name)]
    moving = [v for x in weighted for v in x.weights if v.path.split("/")[-1].startswith("moving")]
    assert sum(int(np.prod(v.shape)) for v in moving) == statistics
    assert sum(x.count_params() for x in weighted) == learn + statistics
    assert f"{learn:,}" in module.__doc__


def test_another_network_is_refused(given, tmp_path):
    name, _, source, _ = given
    other = {"vgg19_bn": "mnasnet", "mnasnet": "alexnet"}[name]
    with pytest.raises(UsageError, match=f"no tensor .*; expected {other}'s"):
        convert.convert(other, source, tmp_path / "x.weights.h5")
    assert not list(tmp_path.iterdir())


def test_a_pickle_names_the_network_that_torchvision_has(tmp_path):
    with pytest.raises(UsageError, match=r"torchvision\.models\.mnasnet1_0\("):
        convert.convert("mnasnet", tmp_path / "mnasnet.pth", tmp_path / "x.weights.h5")
