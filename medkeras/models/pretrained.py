"""Starting weights of a backbone: ImageNet's from Keras's cache or the network, or a file.

Never a silent fallback: "auto" says aloud that it starts from random weights.
"""

import hashlib
import json
import logging
import os
import socket
from pathlib import Path

import keras

from medkeras.errors import ResourceError, UsageError
from medkeras.models import recipe

SOURCE = "https://storage.googleapis.com/tensorflow/keras-applications/"
_TIMEOUT = 20  # seconds; a firewall that drops packets would otherwise hang the run for ever
_unreachable = {}  # downloads that failed in this process: a sweep must not wait at every trial

# Path below SOURCE and MD5 of the weights without top; "" where Keras publishes no hash.
_tf = "_weights_tf_dim_ordering_tf_kernels"
DOWNLOADS = {
    "inception_v3": (
        f"inception_v3/inception_v3{_tf}_notop.h5",
        "bcbd6486424b2319ff4ef7d526e38f63",
    ),
    "xception": (f"xception/xception{_tf}_notop.h5", "b0042744bf5b25fce3cb969f33bebb97"),
    "resnet50": (f"resnet/resnet50{_tf}_notop.h5", "4d473c1dd8becc155b73f8504c6f6626"),
    "vgg16": (f"vgg16/vgg16{_tf}_notop.h5", "6d6bbae143d832006294945121d1f1fc"),
    "densenet121": (f"densenet/densenet121{_tf}_notop.h5", "30ee3e1110167f948a6b9946edeeb738"),
    "mobilenet_v2": (f"mobilenet_v2/mobilenet_v2{_tf}_1.0_224_no_top.h5", ""),
    "efficientnet_v2_b0": (
        "efficientnet_v2/efficientnetv2-b0_notop.h5",
        "893217f2bb855e2983157299931e43ff",
    ),
}
# Not published for Keras: the module converts what the user has.
CONVERTED = {"alexnet": "python -m medkeras.models.alexnet SOURCE.safetensors"}


def load(trunk, name, weights) -> str:
    """Loads the starting weights into a whole backbone.

    Args:
        trunk: the backbone without top.
        name: of the backbone: a key of `DOWNLOADS` or `CONVERTED`, or any other name where
            `weights` is neither "auto" nor "imagenet".
        weights: see `transfer.backbone`.

    Returns:
        Where they came from: "random", "imagenet", "file NAME sha256 HASH", or
        "run NAME sha256 HASH".

    Raises:
        UsageError: the file cannot be used.
        ResourceError: `weights="imagenet"` finds neither cache nor network.
    """
    if weights is None or weights == "none":
        return "random"
    if weights not in ("auto", "imagenet"):
        path = Path(weights)
        if (path / "predictor.json").is_file():
            return f"run {path.name} sha256 {_load_run(trunk, path)}"
        return f"file {path.name} sha256 {_load_file(trunk, name, path)}"
    try:
        _load_file(trunk, name, _imagenet(name))
    except (ResourceError, UsageError) as fault:
        if weights == "imagenet":
            raise
        logging.getLogger("medkeras").warning("%s; starting from RANDOM weights", fault)
        return "random"
    return "imagenet"


def models_folder() -> Path:
    """Names the folder in Keras's cache where ImageNet weights lie."""
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "models"


def converted(name) -> Path:
    """Names the file where converted ImageNet weights of a backbone are looked for."""
    return models_folder() / f"{name}_imagenet_notop.weights.h5"


def _load_file(trunk, name, path):
    """Loads a weights file, which is only read; returns its SHA-256."""

    def refuse(reason):
        return UsageError(f"weights file {path}: {reason}; expected {name} without top")

    if not path.is_file():
        raise refuse("is a folder" if path.is_dir() else "does not exist")
    with path.open("rb") as file:
        start = file.read(64)
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if start.startswith(b"version https://git-lfs"):
        raise refuse("is a git-lfs pointer, not the file itself (run: git lfs pull)")
    if not start.startswith(b"\x89HDF"):
        raise refuse("is empty" if not start else "is not an HDF5 file")
    if path.suffix != ".h5":
        raise refuse('its name must end in ".weights.h5" or ".h5"')
    try:
        trunk.load_weights(path)
    except Exception as fault:  # Keras and h5py raise half a dozen kinds for a wrong file
        reason = " ".join(str(fault).split())[:300]
        raise refuse(f"does not fit ({reason})") from fault
    return digest


def _load_run(trunk, folder):
    """Copies a finished run's weights into the backbone; returns the SHA-256 of its model."""
    try:
        recorded = json.loads((folder / "predictor.json").read_text(encoding="utf-8"))["recipe"]
        model = recipe.rebuild(recorded)
        model.load_weights(folder / "model.keras")
    except Exception as fault:  # a run cut short is broken in as many ways as a foreign file
        reason = " ".join(str(fault).split())[:300]
        raise UsageError(f"run {folder}: is not complete, or damaged ({reason})") from fault
    trained = {layer.name: layer.get_weights() for layer in model.layers}
    for layer in trunk.layers:
        shapes = [tuple(weight.shape) for weight in layer.weights]
        if shapes and shapes != [array.shape for array in trained.get(layer.name, [])]:
            raise UsageError(
                f"run {folder}: its {recorded['function']} has no layer {layer.name} of these "
                "shapes; start from a run with the same backbone, not cut"
            )
        layer.set_weights(trained[layer.name] if shapes else [])
    with (folder / "model.keras").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _imagenet(name):
    """Finds the ImageNet weights in Keras's cache, or downloads them there.

    Keras itself deletes a cached file with the wrong hash; here it is left alone and named.
    """
    if name in CONVERTED:
        if converted(name).is_file():
            return converted(name)
        raise ResourceError(
            f"ImageNet weights of {name}: not at {converted(name)}, and not to be downloaded; "
            f"make them once with `{CONVERTED[name]}` (its --help says how), or use "
            "--weights FILE or --weights none"
        )
    path, md5 = DOWNLOADS[name]
    url = SOURCE + path
    cached = models_folder() / Path(url).name
    if cached.is_file():
        with cached.open("rb") as file:
            if not md5 or hashlib.file_digest(file, "md5").hexdigest() == md5:
                return cached
        raise UsageError(
            f"ImageNet weights of {name}: {cached} is damaged or another version; delete it "
            "to download it again, or give it by its path to use it as it is"
        )
    if name not in _unreachable:
        try:
            return _download(url, md5, cached)
        except Exception as fault:  # Keras raises a bare Exception where the network fails
            _unreachable[name] = str(fault).rpartition("-- ")[2]
    raise ResourceError(
        f"ImageNet weights of {name}: not at {cached}, and no download ({_unreachable[name]}); "
        "put the file there, or use --weights FILE or --weights none"
    )


def _download(url, md5, cached):
    """Downloads a file into Keras's cache, whole or not at all; returns its path."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT)
    name = f"{cached.name}.{os.getpid()}.part"  # a killed download must not pass for the file
    try:
        part = keras.utils.get_file(
            name,
            url,
            cache_dir=str(cached.parents[1]),
            cache_subdir=cached.parent.name,
            file_hash=md5 or None,
            force_download=True,
        )
        return Path(part).replace(Path(part).with_name(cached.name))
    finally:
        socket.setdefaulttimeout(before)
        cached.with_name(name).unlink(missing_ok=True)
