"""Where ImageNet weights are found: in Keras's cache or on the network; some were converted."""

import hashlib
import os
import socket
from pathlib import Path

import keras

from medkeras.errors import ResourceError, UsageError

SOURCE = "https://storage.googleapis.com/"
_TIMEOUT = 20  # seconds; a firewall that drops packets would otherwise hang the run for ever
_unreachable = {}  # downloads that failed in this process: a sweep must not wait at every trial

# Path below SOURCE and MD5 of the weights without top; "" where Keras publishes no hash.
_keras = "tensorflow/keras-applications/"
_tf = "weights_tf_dim_ordering_tf_kernels"
DOWNLOADS = {
    "inception_v3": (
        f"{_keras}inception_v3/inception_v3_{_tf}_notop.h5",
        "bcbd6486424b2319ff4ef7d526e38f63",
    ),
    "xception": (f"{_keras}xception/xception_{_tf}_notop.h5", "b0042744bf5b25fce3cb969f33bebb97"),
    "resnet50": (f"{_keras}resnet/resnet50_{_tf}_notop.h5", "4d473c1dd8becc155b73f8504c6f6626"),
    "vgg16": (f"{_keras}vgg16/vgg16_{_tf}_notop.h5", "6d6bbae143d832006294945121d1f1fc"),
    "vgg19": (f"{_keras}vgg19/vgg19_{_tf}_notop.h5", "253f8cb515780f3b799900260a226db6"),
    "densenet121": (
        f"{_keras}densenet/densenet121_{_tf}_notop.h5",
        "30ee3e1110167f948a6b9946edeeb738",
    ),
    "densenet169": (
        f"{_keras}densenet/densenet169_{_tf}_notop.h5",
        "b8c4d4c20dd625c148057b9ff1c1176b",
    ),
    "densenet201": (
        f"{_keras}densenet/densenet201_{_tf}_notop.h5",
        "c13680b51ded0fb44dff2d8f86ac8bb1",
    ),
    "mobilenet_v2": (f"{_keras}mobilenet_v2/mobilenet_v2_{_tf}_1.0_224_no_top.h5", ""),
    "efficientnet_v2_b0": (
        f"{_keras}efficientnet_v2/efficientnetv2-b0_notop.h5",
        "893217f2bb855e2983157299931e43ff",
    ),
    "efficientnet_b0": (
        "keras-applications/efficientnetb0_notop.h5",
        "50bc09e76180e00e4465e1a485ddc09d",
    ),
    "efficientnet_b1": (
        "keras-applications/efficientnetb1_notop.h5",
        "74c4e6b3e1f6a1eea24c589628592432",
    ),
    "efficientnet_b2": (
        "keras-applications/efficientnetb2_notop.h5",
        "111f8e2ac8aa800a7a99e3239f7bfb39",
    ),
    "efficientnet_b3": (
        "keras-applications/efficientnetb3_notop.h5",
        "af6d107764bb5b1abb91932881670226",
    ),
    "efficientnet_b4": (
        "keras-applications/efficientnetb4_notop.h5",
        "ebc24e6d6c33eaebbd558eafbeedf1ba",
    ),
    "efficientnet_b5": (
        "keras-applications/efficientnetb5_notop.h5",
        "38879255a25d3c92d5e44e04ae6cec6f",
    ),
    "efficientnet_b6": (
        "keras-applications/efficientnetb6_notop.h5",
        "9ecce42647a20130c1f39a5d4cb75743",
    ),
    "efficientnet_b7": (
        "keras-applications/efficientnetb7_notop.h5",
        "cbcfe4450ddf6f3ad90b1b398090fe4a",
    ),
}
# Not published for Keras: what the user has of PyTorch is converted.
CONVERTED = {
    name: f"python -m medkeras.models.convert {name} SOURCE.safetensors"
    for name in ("alexnet", "vgg19_bn", "mnasnet")
}


def file(name) -> Path:
    """Finds the ImageNet weights of a backbone in Keras's cache, or downloads them there.

    Keras itself deletes a cached file with the wrong hash; here it is left alone and named.

    Args:
        name: a key of `DOWNLOADS` or `CONVERTED`; others have no ImageNet weights.

    Returns:
        The weights file.

    Raises:
        UsageError: the cached file is damaged.
        ResourceError: there is neither a file nor a way to it.
    """
    if name in CONVERTED:
        if converted(name).is_file():
            return converted(name)
        raise ResourceError(
            f"ImageNet weights of {name}: not at {converted(name)}, and not to be downloaded; "
            f"make them once with `{CONVERTED[name]}` (its --help says how), or use "
            "--weights FILE or --weights none"
        )
    if name not in DOWNLOADS:
        raise ResourceError(
            f"ImageNet weights of {name}: there are none; use --weights none, or a run of it"
        )
    path, md5 = DOWNLOADS[name]
    url = SOURCE + path
    cached = models_folder() / Path(url).name
    if cached.is_file():
        with cached.open("rb") as stored:
            if not md5 or hashlib.file_digest(stored, "md5").hexdigest() == md5:
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


def models_folder() -> Path:
    """Names the folder in Keras's cache where ImageNet weights lie."""
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "models"


def converted(name) -> Path:
    """Names the file where converted ImageNet weights of a backbone are looked for."""
    return models_folder() / f"{name}_imagenet_notop.weights.h5"


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
