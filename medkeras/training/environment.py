"""What the machine is, and how it is set up before a run."""

import logging
import os
import platform
from importlib import metadata

import keras

import medkeras

PACKAGES = (
    "tensorflow",
    "tensorflow-cpu",
    "keras",
    "keras-tuner",
    "numpy",
    "pandas",
    "scikit-learn",
    "opencv-python-headless",
    "pillow",
)


def prepare(seed: int, precision: str) -> dict:
    """Seeds everything, makes a CPU deterministic, and sets the precision.

    Args:
        seed: of the run.
        precision: "float32" or "bfloat16".

    Returns:
        Versions and device, for `environment.json`.
    """
    import tensorflow as tf

    # A sweep makes graphs for every trial by design; TensorFlow takes it for a mistake.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    if not gpus:
        tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(seed)
    if precision == "bfloat16":
        keras.config.set_dtype_policy("mixed_bfloat16")
    return {
        "medkeras": medkeras.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": _versions(),
        "device": [gpu.name for gpu in gpus] or f"CPU, {os.cpu_count()} cores",
    }


def scope(strategy: str):
    """Opens the scope in which models are made.

    Args:
        strategy: "mirrored" for all GPUs of this machine, else "none".
    """
    import tensorflow as tf

    if strategy == "mirrored":
        return tf.distribute.MirroredStrategy().scope()
    return tf.distribute.get_strategy().scope()


def _versions():
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
