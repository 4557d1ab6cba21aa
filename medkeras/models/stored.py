"""A trained model out of its run folder: built again from its recipe, then filled with weights."""

import json
from pathlib import Path

from medkeras.errors import UsageError
from medkeras.models import recipe

FILES = ("predictor.json", "model.keras")


def load(folder) -> tuple:
    """Loads the model of a finished run. No code out of a file is run.

    Args:
        folder: of the run.

    Returns:
        (uncompiled model with its weights, content of `predictor.json`).

    Raises:
        UsageError: there is no such folder, the run is not finished, or a file is damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UsageError(f"run {folder}: is not a folder")
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise UsageError(
            f"run {folder}: has no {' and no '.join(missing)}, so it is not finished, or holds "
            "several runs: finish it with --resume, or name one of its folders"
        )
    try:
        predictor = json.loads((folder / "predictor.json").read_text(encoding="utf-8"))
        model = recipe.rebuild(predictor["recipe"])
        model.load_weights(folder / "model.keras")
    except Exception as fault:  # Keras and h5py raise half a dozen kinds for a damaged file
        reason = " ".join(str(fault).split())[:300]
        raise UsageError(f"run {folder}: is damaged, or not of this version ({reason})") from fault
    return model, predictor
