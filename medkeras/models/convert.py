"""Converts ImageNet weights that are published for PyTorch only.

AlexNet, VGG19 with batch norm and MNASNet are not in Keras. Whoever has PyTorch and torchvision
writes their weights once as safetensors, which hold numbers and nothing that runs:

    python -c "import torchvision, safetensors.torch
    state_dict = torchvision.models.alexnet(weights='IMAGENET1K_V1').state_dict()
    safetensors.torch.save_file(state_dict, 'alexnet.safetensors')"

and converts them here, where neither is needed:

    python -m medkeras.models.convert alexnet alexnet.safetensors

The networks are alexnet, vgg19_bn and mnasnet; torchvision calls the last one mnasnet1_0.

The file is written to Keras's cache (`$KERAS_HOME/models`, else `~/.keras/models`), where
`--weights auto` and `--weights imagenet` look, or to TARGET, for `--weights TARGET`. A pickle
(.pth, .pt) is never opened.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from safetensors import SafetensorError, safe_open

from medkeras import commands
from medkeras.errors import MedkerasError, ResourceError, UsageError
from medkeras.files import atomic
from medkeras.models import alexnet, imagenet, mnasnet, vgg

PICKLES = (".pth", ".pt", ".pkl", ".pickle", ".bin", ".ckpt", ".tar")
WRITE_SAFETENSORS = """\
    state_dict = torchvision.models.{0}(weights="IMAGENET1K_V1").state_dict()
    safetensors.torch.save_file(state_dict, "{0}.safetensors")"""
# Order of the axes: PyTorch's kernels are (filters, channels, height, width).
KERNEL, DEPTHWISE, VECTOR = (2, 3, 1, 0), (2, 3, 0, 1), (0,)


@dataclass(frozen=True)
class Network:
    """A network that can be converted.

    Args:
        build: function from a picture's tensor to the Keras model.
        torch_names: function without arguments to what PyTorch calls the layers with weights.
        torchvision: name of the network there.
    """

    build: object
    torch_names: object
    torchvision: str


def _alexnet(image):
    return keras.Sequential([image, *alexnet.stack()], name="alexnet")


NETWORKS = {
    "alexnet": Network(_alexnet, alexnet.torch_names, "alexnet"),
    "vgg19_bn": Network(vgg.vgg19_bn, vgg.torch_names, "vgg19_bn"),
    "mnasnet": Network(mnasnet.mnasnet, mnasnet.torch_names, "mnasnet1_0"),
}


def convert(name, source, target) -> None:
    """Writes torchvision's weights of a network as Keras has them, without the classifier.

    Args:
        name: a key of `NETWORKS`.
        source: safetensors file with the tensors of the state dict, such as
            `features.0.weight`; those that are not needed are ignored.
        target: file to write, named `*.weights.h5`; its folder is made where it is missing.

    Raises:
        UsageError: a file that cannot be used.
        ResourceError: the target cannot be written.
    """
    source, target, network = Path(source), Path(target), NETWORKS[name]
    if not target.name.endswith(".weights.h5"):
        raise UsageError(f'{target}: the name of the target must end in ".weights.h5"')
    if source.suffix.lower() in PICKLES:
        write = WRITE_SAFETENSORS.format(network.torchvision)
        raise UsageError(
            f"{source}: {source.suffix} files are pickles, which can run code when opened; write "
            f"safetensors instead, in your own PyTorch:\n{write}"
        )
    model = network.build(keras.Input((64, 64, 3)))
    tensors = {
        layer: _tensors(model.get_layer(layer), torch_name)
        for layer, torch_name in network.torch_names().items()
    }
    arrays = _read(source, name, [one for of_layer in tensors.values() for one in of_layer])
    for layer, of_layer in tensors.items():
        weights = [arrays[tensor].transpose(axes) for tensor, _, axes in of_layer]
        model.get_layer(layer).set_weights(weights)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic.writing(target) as temporary:
            model.save_weights(temporary)
    except OSError as fault:
        raise ResourceError(f"{target}: cannot be written ({fault})") from fault


def _tensors(layer, torch_name):
    """Lists PyTorch's tensors of a layer in Keras's order: (name, shape, order of its axes)."""
    if isinstance(layer, keras.layers.BatchNormalization):
        parts = ("weight", "bias", "running_mean", "running_var")
    else:
        parts = ("weight", "bias")
    kernel = DEPTHWISE if isinstance(layer, keras.layers.DepthwiseConv2D) else KERNEL
    listed = []
    # A convolution without bias has one weight only.
    for part, weight in zip(parts, layer.weights, strict=False):
        axes = kernel if len(weight.shape) == 4 else VECTOR
        shape = tuple(weight.shape[axis] for axis in np.argsort(axes))
        listed.append((f"{torch_name}.{part}", shape, axes))
    return listed


def _read(source, name, tensors):
    """Reads and checks the tensors out of a safetensors file: float32 arrays by name."""
    arrays = {}
    try:
        with safe_open(source, framework="numpy") as file:
            present = set(file.keys())
            for tensor, shape, _ in tensors:
                if tensor not in present:
                    raise UsageError(f"{source}: has no tensor {tensor}; expected {name}'s")
                found = tuple(file.get_slice(tensor).get_shape())
                if found != shape:
                    raise UsageError(f"{source}: {tensor} has shape {found}, expected {shape}")
                arrays[tensor] = file.get_tensor(tensor)
    except (OSError, SafetensorError, TypeError) as fault:
        raise UsageError(f"{source}: cannot be read as safetensors ({fault})") from fault
    for tensor, array in arrays.items():
        if array.dtype.kind != "f" or not np.isfinite(array).all():
            raise UsageError(
                f"{source}: {tensor} holds {array.dtype}, not only finite floating-point numbers"
            )
    return {tensor: array.astype(np.float32) for tensor, array in arrays.items()}


def main(arguments=None) -> int:
    """Runs the command line above; returns its exit code."""
    parser = commands.parser("python -m medkeras.models.convert", __doc__)
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("source", type=Path, metavar="SOURCE.safetensors")
    parser.add_argument(
        "target", type=Path, nargs="?", metavar="TARGET.weights.h5", help="default: Keras's cache"
    )
    given = parser.parse_args(arguments)
    target = given.target or imagenet.converted(given.network)
    try:
        convert(given.network, given.source, target)
    except MedkerasError as fault:
        print(fault, file=sys.stderr)
        return fault.exit_code
    print(target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
