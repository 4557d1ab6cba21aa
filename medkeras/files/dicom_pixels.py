"""The pixels of a DICOM file: stored numbers, then what they measure, before any window.

Which decoder: pydicom's own choice (gdcm, else Pillow; its own for RLE), because all of them
give the same pixels wherever several can decode. Only 8-bit JPEG is left to Pillow alone, at a
third of gdcm's time. On damaged JPEG 2000 gdcm can end the whole process, so foreign files are
decoded through `medkeras.files.child`.
"""

import numpy as np
from pydicom import Dataset
from pydicom.pixels import apply_modality_lut

from medkeras.files import dicom_streams
from medkeras.files.dicom_streams import AGAIN
from medkeras.files.foreign import MAX_BYTES, MAX_PIXELS, Unreadable

# The facts of all frames travel in one message of limited length.
MAX_FRAMES = 2_000
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"


def shape(dataset: Dataset) -> tuple[int, int, int]:
    """Checks what a file declares about its pixels, before anything is allocated.

    Args:
        dataset: as pydicom read it.

    Returns:
        (frames, rows, columns), each at least 1.

    Raises:
        Unreadable: colour, sizes that cannot be or are too large, contradictory bits.
    """
    frames = _count(dataset, "NumberOfFrames") if "NumberOfFrames" in dataset else 1
    rows, columns = _count(dataset, "Rows"), _count(dataset, "Columns")
    # Numbers of another width than the standard's have overrun parsers.
    if dataset["Rows"].VR != "US" or dataset["Columns"].VR != "US":
        raise Unreadable("declares Rows or Columns as something else than 16-bit numbers", AGAIN)
    kind = str(dataset.get("PhotometricInterpretation", ""))
    if _count(dataset, "SamplesPerPixel") != 1 or kind not in ("MONOCHROME1", "MONOCHROME2"):
        raise Unreadable("is a colour picture", "export the grey picture")
    if rows * columns > MAX_PIXELS or frames > MAX_FRAMES:
        raise Unreadable(
            f"claims {frames} x {rows} x {columns} pixels, at most {MAX_FRAMES:,} frames of "
            f"{MAX_PIXELS:,} are decoded",
            "export it smaller, or remove it",
        )
    # Four bytes: the pixels leave as 32-bit numbers.
    if 4 * frames * rows * columns > MAX_BYTES:
        raise Unreadable(
            f"claims {frames} x {rows} x {columns} pixels, at most {MAX_BYTES // 4:,} are decoded",
            "export fewer frames at once",
        )
    allocated, stored = _count(dataset, "BitsAllocated"), _count(dataset, "BitsStored")
    if allocated not in (8, 16):
        raise Unreadable(f"has {allocated} bits a pixel, expected 8 or 16", "export it as 16 bit")
    if stored > allocated:
        raise Unreadable(f"says {stored} of {allocated} bits are used", AGAIN)
    if _number(dataset, "HighBit") != stored - 1:
        raise Unreadable(
            f"says that {stored} bits are used, but not which: HighBit is not {stored - 1}", AGAIN
        )
    if _number(dataset, "PixelRepresentation") not in (0, 1):
        raise Unreadable("does not say whether its numbers have a sign", AGAIN)
    return frames, rows, columns


def stored(dataset: Dataset, notes: list[str]) -> np.ndarray:
    """Decompresses the pixels, and keeps the bits that are in use.

    Args:
        dataset: as pydicom read it.
        notes: list that grows by what a fixed rule changed.

    Returns:
        uint8, int8, uint16 or int16 (frames, rows, columns), little endian.

    Raises:
        Unreadable: as in `shape`; damaged, truncated, or no decoder for it is installed.
    """
    wanted = shape(dataset)
    if "PixelData" not in dataset:
        raise Unreadable("holds no pixels", AGAIN)
    meta = getattr(dataset, "file_meta", None) or Dataset()
    syntax = str(meta.get("TransferSyntaxUID", ""))
    decoder = dicom_streams.decoder(syntax)
    if decoder.is_native:
        _refuse_wrong_length(dataset, wanted)
    else:
        dicom_streams.check(dataset, syntax, wanted)
    signed = dataset.PixelRepresentation == 1
    try:
        pixels, _ = decoder.as_array(
            dataset,
            raw=True,
            decoding_plugin="pillow" if syntax == JPEG_BASELINE else "",
            allow_excess_frames=False,
            # Uncompressed, the bits are checked below. Compressed numbers with a sign come
            # without it from some decoders, so there pydicom puts it in place.
            correct_unused_bits=signed and not decoder.is_native,
        )
    except (Unreadable, MemoryError):
        raise
    except Exception as fault:  # each decoder has its own types; their texts may quote the file
        if syntax == JPEG_EXTENDED and dataset.BitsStored > 8:
            raise dicom_streams.missing(syntax) from fault
        raise Unreadable("has damaged pixels, which cannot be decompressed", AGAIN) from fault
    if pixels.size != np.prod(wanted):
        raise Unreadable(f"holds {pixels.size} pixels, its header says {np.prod(wanted)}", AGAIN)
    pixels = pixels.astype(pixels.dtype.newbyteorder("<"), copy=False).reshape(wanted)
    return _in_use(pixels, dataset, signed, notes)


def padded(dataset: Dataset, pixels: np.ndarray, notes: list[str]) -> np.ndarray:
    """Finds the pixels that show nothing: padding values, and what lies outside a shutter.

    A rectangular shutter or collimator counts only where its edges lie inside the picture,
    because some machines write them in millimetres.

    Args:
        dataset: as pydicom read it.
        pixels: stored numbers (frames, rows, columns).
        notes: list that grows where a shutter of another shape is ignored.

    Returns:
        bool, of the shape of `pixels`.
    """
    mask = np.zeros(pixels.shape, bool)
    value = _number(dataset, "PixelPaddingValue")
    if value is not None:
        limit = _number(dataset, "PixelPaddingRangeLimit")
        low, high = sorted((value, value if limit is None else limit))
        mask |= (pixels >= low) & (pixels <= high)
    _, rows, columns = pixels.shape
    for name in ("Shutter", "Collimator"):
        shapes = dataset.get(f"{name}Shape")
        if not shapes:
            continue
        left, right = (_number(dataset, f"{name}{side}VerticalEdge") for side in ("Left", "Right"))
        up, down = (_number(dataset, f"{name}{side}HorizontalEdge") for side in ("Upper", "Lower"))
        known = str(shapes) == "RECTANGULAR" and None not in (left, right, up, down)
        if not (known and 0 <= left < right <= columns + 1 and 0 <= up < down <= rows + 1):
            notes.append(f"{name.lower()} not rectangular inside the picture, not applied")
            continue
        inside = np.zeros((rows, columns), bool)
        inside[max(up - 1, 0) : down, max(left - 1, 0) : right] = True
        mask |= ~inside
    if mask.all():
        notes.append("every pixel is padding, which was therefore not applied")
        mask[:] = False
    return mask


def measured(dataset: Dataset, pixels: np.ndarray, items: list) -> tuple[np.ndarray, list]:
    """Applies the modality LUT, or the rescale slope and intercept of each frame.

    Args:
        dataset: as pydicom read it.
        pixels: stored numbers (frames, rows, columns).
        items: per frame the dataset that holds its rescale values, or None for `dataset`.

    Returns:
        float32 (frames, rows, columns), and [lowest, highest] that the declared bits allow.

    Raises:
        Unreadable: a slope of 0, or a LUT that contradicts itself.
    """
    bits, signed = dataset.BitsStored, dataset.PixelRepresentation == 1
    ends = np.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if signed else [0, 2**bits - 1])
    if dataset.get("ModalityLUTSequence"):
        values, top = looked_up(dataset, "ModalityLUTSequence", pixels)
        return values.astype(np.float32), [0.0, float(top)]
    values, limits = np.empty(pixels.shape, np.float32), []
    for number, frame in enumerate(pixels):
        source = dataset if items[number] is None else items[number]
        slope, intercept = source.get("RescaleSlope", 1), source.get("RescaleIntercept", 0)
        if not _finite(slope) or not _finite(intercept) or float(slope) == 0:
            raise Unreadable("has a rescale slope or intercept that is no usable number", AGAIN)
        values[number] = apply_modality_lut(frame, source)
        limits += apply_modality_lut(ends, source).tolist()
    return values, [float(min(limits)), float(max(limits))]


def looked_up(dataset: Dataset, sequence: str, values: np.ndarray) -> tuple[np.ndarray, int]:
    """Sends numbers through the first lookup table of a sequence (PS3.3 C.11.1, C.11.2).

    By hand, because pydicom 3.0.2 keeps the index of a VOI LUT in the type of its output, so
    that 8-bit tables with over 256 entries wrap, and refuses modality LUTs of 9 to 15 bits.

    Args:
        dataset: holds the sequence.
        sequence: "ModalityLUTSequence" or "VOILUTSequence".
        values: whole numbers of any shape.

    Returns:
        uint16 of the shape of `values`, and the highest value that the table's bits allow.

    Raises:
        Unreadable: the table contradicts its descriptor.
    """
    item = dataset[sequence].value[0]
    entries, first, bits = (int(number) for number in item.LUTDescriptor)
    entries = entries or 2**16
    data = item.LUTData
    if isinstance(data, bytes):
        order = "<" if dataset.file_meta.TransferSyntaxUID.is_little_endian else ">"
        table = np.frombuffer(data, np.uint8 if len(data) < 2 * entries else f"{order}u2")
    else:
        table = np.atleast_1d(np.asarray(data, np.int64))
    if not 1 <= bits <= 16 or len(table) < entries or int(table[:entries].max()) >= 2**bits:
        raise Unreadable("has a lookup table that contradicts its descriptor", AGAIN)
    table = table[:entries].astype(np.uint16)
    return table[np.clip(values.astype(np.int64) - first, 0, entries - 1)], 2**bits - 1


def _refuse_wrong_length(dataset, wanted):
    expected = int(np.prod(wanted)) * dataset.BitsAllocated // 8
    found = len(dataset.PixelData)
    # One byte more makes the length even; a few are sloppy; a frame more is a contradiction.
    frame = expected // wanted[0]
    if found < expected or found >= expected + max(frame, 2):
        raise Unreadable(f"has {found} bytes of pixels, its header says {expected}", AGAIN)


def _in_use(pixels, dataset, signed, notes):
    """Masks the numbers to BitsStored; bits above may only be sign or an old overlay."""
    unsigned = pixels.view(pixels.dtype.str.replace("i", "u"))
    kept = unsigned & np.array(2**dataset.BitsStored - 1, unsigned.dtype)
    values = kept
    if signed:
        half = np.array(2 ** (dataset.BitsStored - 1), unsigned.dtype)
        values = ((kept ^ half) - half).view(pixels.dtype.str.replace("u", "i"))
    if not np.array_equal(kept, unsigned) and not np.array_equal(
        values.view(unsigned.dtype), unsigned
    ):
        if not _overlay_in_high_bits(dataset):
            raise Unreadable(
                f"uses more than the {dataset.BitsStored} bits that it declares", AGAIN
            )
        notes.append("overlay in the high bits removed")
    return values


def _overlay_in_high_bits(dataset):
    return any(
        (_integer(element.value) or 0) >= dataset.BitsStored
        for group in range(0x6000, 0x6020, 2)
        if (element := dataset.get((group, 0x0102))) is not None
    )


def _count(dataset, keyword):
    number = _number(dataset, keyword)
    if number is None or number < 1:
        raise Unreadable(f"has no usable {keyword}", AGAIN)
    return number


def _number(dataset, keyword):
    try:
        return _integer(dataset.get(keyword))
    except Exception:  # a malformed element: the types are many
        return None


def _integer(value):
    try:
        return int(value) if value is not None and int(value) == value else None
    except (TypeError, ValueError, OverflowError):
        return None


def _finite(value):
    try:
        return bool(np.isfinite(float(value)))
    except (TypeError, ValueError):
        return False
