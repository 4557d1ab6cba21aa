"""A stage's whole state in one file: written whole or not at all, resumed to the same bits.

Kept are all variables of the model (seed states included) and of the optimizer, the
metrics of an unfinished epoch, the best weights so far, and the progress: epoch, batch,
history, early stopping and plateau. The data order needs no state, being a function of
(seed, stage, epoch). The file is safetensors with the progress as JSON in its header: no
pickle, and a size that is checked against the declared one on opening.
"""

import json
from pathlib import Path

import keras
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from medkeras.files import atomic

FILE, PREVIOUS = "state.safetensors", "previous.safetensors"


def save(folder: Path, variables: dict, progress: dict) -> None:
    """Writes the state of a stage; the one before is kept as the previous generation.

    Args:
        folder: of the stage.
        variables: arrays by name, from `gather`.
        progress: JSON values.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with atomic.writing(folder / FILE) as temporary:
        save_file(variables, temporary, metadata={"progress": json.dumps(progress)})
        if (folder / FILE).exists():
            (folder / FILE).replace(folder / PREVIOUS)


def load(folder: Path) -> tuple[dict, dict] | None:
    """Reads the newest readable state of a stage.

    Args:
        folder: of the stage.

    Returns:
        (arrays by name, progress), or None where there is none.
    """
    for name in (FILE, PREVIOUS):
        try:
            with safe_open(folder / name, framework="numpy") as file:
                progress = json.loads((file.metadata() or {})["progress"])
                return {key: file.get_tensor(key) for key in file.keys()}, progress
        except (OSError, SafetensorError, KeyError, ValueError):
            continue
    return None


def gather(groups: dict) -> dict:
    """Copies variables to arrays named `<group>/<number>`.

    Args:
        groups: lists of Keras variables, or of arrays, by group name.
    """
    return {
        f"{group}/{number:05d}": copied(value)
        for group, values in groups.items()
        for number, value in enumerate(values)
    }


def copied(variable) -> np.ndarray:
    """Copies a variable: on the CPU its array can share the variable's memory."""
    return np.array(keras.ops.convert_to_numpy(variable))


def restore(arrays: dict, group: str, variables) -> None:
    """Assigns the arrays of a group to its variables, in order.

    Raises:
        ValueError: another number of variables or another shape than was saved.
    """
    saved = values(arrays, group)
    if len(saved) != len(variables):
        raise ValueError(f"{group}: {len(saved)} variables saved, {len(variables)} expected")
    for variable, value in zip(variables, saved, strict=True):
        variable.assign(value)


def values(arrays: dict, group: str) -> list[np.ndarray]:
    """Returns the arrays of a group, in order."""
    return [arrays[name] for name in sorted(arrays) if name.startswith(f"{group}/")]
