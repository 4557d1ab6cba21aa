"""Messages to a decoder process and back: a JSON header, then raw bytes, sizes checked first.

Not the pipes of `multiprocessing`: those unpickle what arrives, so a decoder that a hostile
file took over could run its code in the process that asked.
"""

import json
import math

import numpy as np

from medkeras.files.foreign import MAX_BYTES

MAX_HEADER = 2**20
MAX_DIMENSIONS = 4
DTYPES = ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float16", "float32", "float64")


class Malformed(ValueError):
    """A message that nobody who keeps to the format sends."""


def send(file, header: dict, *buffers) -> None:
    """Writes one message.

    Args:
        file: binary file that a pipe is behind.
        header: what JSON can say; NumPy scalars become numbers.
        buffers: objects with the buffer protocol, contiguous.
    """
    text = json.dumps(header, allow_nan=False, default=_plain).encode()
    for buffer in (len(text).to_bytes(4, "big") + text, *buffers):
        view = memoryview(buffer)
        while view:
            view = view[file.write(view) :]


def receive(file) -> dict:
    """Reads the header of the next message.

    Raises:
        EOFError: the other end is closed.
        Malformed: no JSON object of at most 1 MiB.
    """
    size = int.from_bytes(_exactly(file, 4), "big")
    if size > MAX_HEADER:
        raise Malformed(f"a header of {size:,} bytes")
    try:
        header = json.loads(bytes(_exactly(file, size)))
    except (ValueError, RecursionError) as fault:
        raise Malformed("a header that is no JSON") from fault
    if not isinstance(header, dict):
        raise Malformed("a header that is no object")
    return header


def described(arrays) -> list:
    """Returns what a header says about arrays: [name of the dtype, [sizes]] each."""
    return [[array.dtype.name, list(array.shape)] for array in arrays]


def flat(array: np.ndarray) -> np.ndarray:
    """Returns the bytes of an array in C order, as a buffer to send."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def receive_arrays(file, descriptions) -> list[np.ndarray]:
    """Reads the arrays that follow a header.

    Args:
        file: binary file that a pipe is behind.
        descriptions: as `described` made them; not trusted.

    Raises:
        EOFError: the other end is closed.
        Malformed: an unknown dtype, an impossible shape, or more than 512 MiB in all.
    """
    arrays = []
    for array in _allocated(descriptions):
        _fill(file, memoryview(flat(array)))
        arrays.append(array)
    return arrays


def _allocated(descriptions):
    try:
        pairs = [(dtype, tuple(shape)) for dtype, shape in descriptions]
    except (TypeError, ValueError) as fault:
        raise Malformed("no list of arrays") from fault
    total = 0
    for dtype, shape in pairs:
        whole = all(type(size) is int and 0 <= size <= MAX_BYTES for size in shape)
        if dtype not in DTYPES or not whole or len(shape) > MAX_DIMENSIONS:
            raise Malformed(f"an array of {dtype!r:.40}, {shape!r:.80}")
        total += math.prod(shape) * np.dtype(dtype).itemsize
    if total > MAX_BYTES:
        raise Malformed(f"arrays of {total:,} bytes")
    try:
        return [np.empty(shape, dtype) for dtype, shape in pairs]
    except ValueError as fault:  # no pixels, but the other sizes multiply beyond 64 bits
        raise Malformed("an array of an impossible shape") from fault


def _exactly(file, size):
    buffer = bytearray(size)
    _fill(file, memoryview(buffer))
    return buffer


def _fill(file, view):
    while view:
        read = file.readinto(view)
        if not read:
            raise EOFError("the other end is closed")
        view = view[read:]


def _plain(value):
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a {type(value).__name__} cannot be sent")
