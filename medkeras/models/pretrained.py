"""Starting weights of backbones: ImageNet's, a file, or those of a finished run.

Never a silent fallback: "auto" says aloud that it starts from random weights.
"""

import hashlib
import logging
from pathlib import Path

import h5py
import keras

from medkeras.errors import ResourceError, UsageError
from medkeras.models import imagenet, stored


def load(trunk, name, weights) -> str:
    """Loads the starting weights into a whole backbone.

    Args:
        trunk: the backbone without top, its layers named as it names them.
        name: of the backbone: a key of `imagenet.DOWNLOADS` or `imagenet.CONVERTED`, or any other
            name where `weights` is neither "auto" nor "imagenet".
        weights: see `transfer.backbone`.

    Returns:
        Where they came from: "random", "imagenet", "file NAME sha256 HASH", or
        "run NAME sha256 HASH".

    Raises:
        UsageError: the file cannot be used.
        ResourceError: `weights="imagenet"` finds neither cache nor network.
    """
    return load_each({name: trunk}, weights)[name]


def load_each(trunks, weights) -> dict:
    """Loads the starting weights into several backbones, side by side.

    Args:
        trunks: {name: trunk}, each as in `load`.
        weights: as in `load`, but no file where there are several; a run must hold them all.

    Returns:
        Where they came from, by name.

    Raises:
        UsageError: the file or run cannot be used.
        ResourceError: `weights="imagenet"` finds neither cache nor network.
    """
    if weights is None or weights == "none":
        return dict.fromkeys(trunks, "random")
    if weights in ("auto", "imagenet"):
        return {name: _load_imagenet(trunk, name, weights) for name, trunk in trunks.items()}
    path = Path(weights)
    if (path / "predictor.json").is_file():
        trained, recorded, digest = _read_run(path)
        for name, trunk in trunks.items():
            if not _holds(recorded, name):
                function = recorded["function"]
                raise UsageError(f"run {path}: is of {function}, which has no backbone {name}")
            _copy(trained, trunk, name, path)
        return dict.fromkeys(trunks, f"run {path.name} sha256 {digest}")
    if len(trunks) > 1:
        raise UsageError(
            f"weights {path}: a file holds one backbone, and this model has {len(trunks)} "
            f'({", ".join(trunks)}); use "imagenet", "auto", "none" or the folder of a run'
        )
    ((name, trunk),) = trunks.items()
    return {name: f"file {path.name} sha256 {_load_file(trunk, name, path)}"}


def _load_imagenet(trunk, name, weights):
    before = trunk.get_weights()
    try:
        _load_file(trunk, name, imagenet.file(name))
    except (ResourceError, UsageError) as fault:
        if weights == "imagenet":
            raise
        trunk.set_weights(before)  # of a file that broke off, the first layers are loaded
        logging.getLogger("medkeras").warning("%s; starting from RANDOM weights", fault)
        return "random"
    return "imagenet"


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
        _refuse_others(path, trunk)
        trunk.load_weights(path)
    except Exception as fault:  # Keras and h5py raise half a dozen kinds for a wrong file
        reason = " ".join(str(fault).split())[:300]
        raise refuse(f"does not fit ({reason})") from fault
    return digest


def _refuse_others(path, trunk):
    """Refuses a Keras 3 file with more arrays than the backbone: Keras would ignore the others."""
    arrays = []
    with h5py.File(path) as file:
        if "layers" in file:
            file.visititems(lambda _, one: arrays.append(1) if hasattr(one, "shape") else None)
    if len(arrays) > len(trunk.weights):
        raise ValueError(f"it holds {len(arrays)} arrays, this one has {len(trunk.weights)}")


def _read_run(folder):
    """Reads a finished run: its weights by layer, its recipe, the SHA-256 of its model."""
    model, predictor = stored.load(folder)
    with (folder / "model.keras").open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    weights = {layer.name: layer.get_weights() for layer in model.layers}
    return weights, predictor["recipe"], digest


def _holds(recorded, name):
    """Says whether a run's model has a backbone; the stacks of MRNet have no names of their own."""
    room, _, function = recorded["function"].partition(".")
    arguments = recorded["arguments"]
    return room == "mrnet" or name in (
        function,
        arguments.get("backbone"),
        *arguments.get("trunks", ()),
    )


def _copy(trained, trunk, name, folder):
    """Copies a run's weights into a backbone, which there may have been one of several."""
    for layer in trunk.layers:
        shapes = [tuple(weight.shape) for weight in layer.weights]
        if not shapes:
            continue
        found = trained.get(layer.name) or trained.get(f"{name}_{layer.name}") or []
        if shapes != [array.shape for array in found]:
            raise UsageError(
                f"run {folder}: its model has no layer {layer.name} of these shapes, as {name} "
                "has; start from a run with the same backbone, not cut"
            )
        layer.set_weights(found)
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()  # it computes with constants made from its weights
