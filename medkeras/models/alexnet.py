"""AlexNet's convolutions with torchvision's widths, and the conversion of its weights.

Keras has no AlexNet. `stack` builds the `features` part of torchvision's (Krizhevsky, "One weird
trick for parallelizing convolutional neural networks", arXiv:1404.5997, 2014), without the
classifier; 2,469,696 parameters. At 256 x 256 pixels:

| layers | kernel | stride | padding | output |
|---|---|---|---|---|
| conv1, relu1 | 11 | 4 | 2 | 63 x 63 x 64 |
| pool1 (max) | 3 | 2 | 0 | 31 x 31 x 64 |
| conv2, relu2 | 5 | 1 | 2 | 31 x 31 x 192 |
| pool2 (max) | 3 | 2 | 0 | 15 x 15 x 192 |
| conv3, relu3 | 3 | 1 | 1 | 15 x 15 x 384 |
| conv4, relu4 | 3 | 1 | 1 | 15 x 15 x 256 |
| conv5, relu5 | 3 | 1 | 1 | 15 x 15 x 256 |
| pool5 (max) | 3 | 2 | 0 | 7 x 7 x 256 |

Random weights are He's (uniform). ImageNet weights are published for PyTorch only. Whoever has
PyTorch and torchvision writes them once as safetensors, which hold numbers and nothing that runs:

    python -c "import torchvision, safetensors.torch
    state_dict = torchvision.models.alexnet(weights='IMAGENET1K_V1').state_dict()
    safetensors.torch.save_file(state_dict, 'alexnet.safetensors')"

and converts them here, where neither is needed:

    python -m medkeras.models.alexnet alexnet.safetensors

The file is written to Keras's cache (`$KERAS_HOME/models`, else `~/.keras/models`), where
`--weights auto` and `--weights imagenet` look, or to TARGET, for `--weights TARGET`. A pickle
(.pth, .pt) is never opened.
"""

import argparse
import sys
from pathlib import Path

import keras
import numpy as np
from safetensors import SafetensorError, safe_open

from medkeras.errors import MedkerasError, ResourceError, UsageError
from medkeras.files import atomic
from medkeras.layers import GreyConv2D
from medkeras.models import pretrained

CONVOLUTIONS = {"conv1": 0, "conv2": 3, "conv3": 6, "conv4": 8, "conv5": 10}  # torch: features.N
PICKLES = (".pth", ".pt", ".pkl", ".pickle", ".bin", ".ckpt", ".tar")
WRITE_SAFETENSORS = """\
    state_dict = torchvision.models.alexnet(weights="IMAGENET1K_V1").state_dict()
    safetensors.torch.save_file(state_dict, "alexnet.safetensors")"""


def stack(prefix="") -> list:
    """Builds the layers in order, to be applied by `layers.applied`.

    Args:
        prefix: of every layer's name, such as "axial_".

    Returns:
        A list of layers for tensors (batch, height, width, 3); each use shares their weights.
    """

    def conv(number, filters, size, **options):
        kind = GreyConv2D if number == 1 else keras.layers.Conv2D
        return [
            kind(
                filters,
                size,
                kernel_initializer="he_uniform",
                name=f"{prefix}conv{number}",
                **options,
            ),
            keras.layers.ReLU(name=f"{prefix}relu{number}"),
        ]

    def pool(number):
        return keras.layers.MaxPooling2D(3, 2, name=f"{prefix}pool{number}")

    return [
        # With a stride, "same" pads less on the left than on the right; PyTorch pads evenly.
        keras.layers.ZeroPadding2D(2, name=f"{prefix}pad1"),
        *conv(1, 64, 11, strides=4),
        pool(1),
        *conv(2, 192, 5, padding="same"),
        pool(2),
        *conv(3, 384, 3, padding="same"),
        *conv(4, 256, 3, padding="same"),
        *conv(5, 256, 3, padding="same"),
        pool(5),
    ]


def convert(source, target) -> None:
    """Writes torchvision's AlexNet weights as Keras has them.

    Args:
        source: safetensors file with the tensors `features.0.weight` to `features.10.bias` of
            the state dict; others, such as the classifier's, are ignored.
        target: file to write, named `*.weights.h5`; its folder is made where it is missing.

    Raises:
        UsageError: a file that cannot be used.
        ResourceError: the target cannot be written.
    """
    source, target = Path(source), Path(target)
    if not target.name.endswith(".weights.h5"):
        raise UsageError(f'{target}: the name of the target must end in ".weights.h5"')
    arrays = read(source)
    model = keras.Sequential([keras.Input((64, 64, 3)), *stack()], name="alexnet")
    for name, number in CONVOLUTIONS.items():
        kernel, bias = arrays[f"features.{number}.weight"], arrays[f"features.{number}.bias"]
        model.get_layer(name).set_weights([kernel.transpose(2, 3, 1, 0), bias])
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic.writing(target) as temporary:
            model.save_weights(temporary)
    except OSError as fault:
        raise ResourceError(f"{target}: cannot be written ({fault})") from fault


def read(source) -> dict:
    """Reads and checks the convolutions' tensors out of a safetensors file.

    Args:
        source: see `convert`.

    Returns:
        float32 arrays by name, axes as PyTorch has them.

    Raises:
        UsageError: the file is not safetensors, or not AlexNet's.
    """
    source = Path(source)
    if source.suffix.lower() in PICKLES:
        raise UsageError(
            f"{source}: {source.suffix} files are pickles, which can run code when opened; write "
            f"safetensors instead, in your own PyTorch:\n{WRITE_SAFETENSORS}"
        )
    arrays = {}
    try:
        with safe_open(source, framework="numpy") as file:
            present = set(file.keys())
            for name, shape in _expected().items():
                if name not in present:
                    raise UsageError(f"{source}: has no tensor {name}; expected AlexNet's")
                found = tuple(file.get_slice(name).get_shape())
                if found != shape:
                    raise UsageError(f"{source}: {name} has shape {found}, expected {shape}")
                arrays[name] = file.get_tensor(name)
    except (OSError, SafetensorError, TypeError) as fault:
        raise UsageError(f"{source}: cannot be read as safetensors ({fault})") from fault
    for name, array in arrays.items():
        if array.dtype.kind != "f" or not np.isfinite(array).all():
            raise UsageError(
                f"{source}: {name} holds {array.dtype}, not only finite floating-point numbers"
            )
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def _expected():
    """Shapes of the tensors, from the layers: PyTorch has (filters, channels, height, width)."""
    shapes, channels = {}, 3
    for layer in stack():
        if layer.name in CONVOLUTIONS:
            number = CONVOLUTIONS[layer.name]
            shapes[f"features.{number}.weight"] = (layer.filters, channels, *layer.kernel_size)
            shapes[f"features.{number}.bias"] = (layer.filters,)
            channels = layer.filters
    return shapes


def main(arguments=None) -> int:
    """Runs the command line above; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m medkeras.models.alexnet",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", type=Path, metavar="SOURCE.safetensors")
    parser.add_argument(
        "target", type=Path, nargs="?", metavar="TARGET.weights.h5", help="default: Keras's cache"
    )
    given = parser.parse_args(arguments)
    target = given.target or pretrained.converted("alexnet")
    try:
        convert(given.source, target)
    except MedkerasError as fault:
        print(fault, file=sys.stderr)
        return fault.exit_code
    print(target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
