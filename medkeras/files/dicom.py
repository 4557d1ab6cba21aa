"""DICOM bytes to grey pixels and the few technical values that are kept of the header.

The order is the standard's: bits in use, padding aside, modality LUT or rescale, VOI LUT or
window, MONOCHROME1 turned round, padding black. Films (CR, DX, IO, MG, PX) come out as grey
values; slices (MR) as measured numbers, because a volume is windowed as a whole.

Nothing here names a file's text, not even in an error: `dicom_tags` says what is kept.
"""

import io
import logging
import warnings
import zlib

import numpy as np
from pydicom import Dataset, config, dcmread

from medkeras.files import dicom_pixels, dicom_tags, grey
from medkeras.files.dicom_streams import AGAIN
from medkeras.files.foreign import MAX_BYTES, Unreadable, named, refuse_lost

DICOMDIR = "1.2.840.10008.1.3.10"
DEFLATED = "1.2.840.10008.1.2.1.99"
# What is called so and is no DICOM file is a lost picture.
SUFFIXES = (".dcm", ".dicom", ".ima")
# Its messages quote the values of a file, which may be names.
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
config.settings.reading_validation_mode = config.IGNORE


def task(
    data: bytes,
    *,
    suffix: str = "",
    key: str = "",
    pixels: bool = True,
    voi: str = "first",
    bits: int = 8,
    allow_burned_in: bool = False,
) -> tuple[dict, list[np.ndarray]]:
    """Reads one DICOM file.

    Args:
        data: the file's content.
        suffix: ending of the file's name, such as ".dcm", in any case; "" where it has none.
        key: secret of the keyed hashes, hexadecimal; without it there are none.
        pixels: decode the pixels too; else the header alone is read and checked.
        voi: "first" takes the first VOI LUT or window in the file, "percentile" the 0.5th to
            the 99.5th percentile of the unpadded pixels, "none" the range of the declared
            bits. Where "first" finds none, or one that shows nothing, percentile is used.
        bits: of the grey values of a film, 8 or 16.
        allow_burned_in: accept what says that text may stand in its pixels.

    Returns:
        Facts that JSON can hold, and arrays. `facts["kind"]` is

        * "film": one array, uint8 or uint16 (rows, columns);
        * "slices": one array, float32 (frames, rows, columns), NaN where padded;
        * "directory": a DICOMDIR, no array;
        * "other": a sound file of another sort, no array; `reason` and `remedy` say what.

        Films and slices have `ids` (keyed hashes), `tags` (see `dicom_tags.described`),
        `shape` (frames, rows, columns), `bits_stored`, `notes`; with pixels `inverted` and
        `limits` (lowest and highest that the bits allow); films `voi` and `window` as used;
        slices `windows` and `places`, per frame or None.

    Raises:
        Unreadable: damaged, truncated, contradictory, too large, in colour, likely to have
            text in its pixels, or no decoder for it is installed.
    """
    if voi not in grey.POLICIES or bits not in (8, 16):
        raise ValueError(f"voi={voi!r}, bits={bits}: expected {grey.POLICIES}, 8 or 16")
    # pydicom warns of malformed values by quoting them.
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        try:
            return _read(data, suffix, key, pixels, voi, bits, allow_burned_in)
        except (Unreadable, MemoryError):
            raise
        except Exception as fault:  # ten types have been seen on damaged files
            raise Unreadable(
                f"is a damaged DICOM file ({type(fault).__name__} while reading it)", AGAIN
            ) from fault


def parsed(data: bytes, suffix: str = "") -> Dataset | dict:
    """Reads the header of a DICOM file.

    Args:
        data: the file's content.
        suffix: ending of the file's name.

    Returns:
        pydicom's dataset, or the facts of a file that is not DICOM.

    Raises:
        Unreadable: lost in copying, called DICOM but something else, without preamble, or
            compressed beyond what is read.
    """
    if data[128:132] != b"DICM":
        return _no_dicom(data, suffix.lower())
    if DEFLATED.encode() in data[132:1156]:
        _refuse_bomb(data)
    return dcmread(io.BytesIO(data))


def _read(data, suffix, key, pixels, voi, bits, allow_burned_in):
    dataset = parsed(data, suffix)
    if isinstance(dataset, dict):
        return dataset, []
    meta = getattr(dataset, "file_meta", None) or Dataset()
    if str(meta.get("MediaStorageSOPClassUID", "")) == DICOMDIR or "DirectoryRecordSequence" in (
        dataset
    ):
        return {"kind": "directory"}, []
    modality = dicom_tags.modality(dataset)
    if modality not in dicom_tags.MODALITIES:
        return _unwanted(dataset, modality), []
    sign = dicom_tags.screenshot(dataset)
    if sign and not allow_burned_in:
        raise Unreadable(
            f"may show text, such as a name, in its pixels: {sign}",
            "look at it; accept all such files with --allow-burned-in",
        )
    if "PixelData" not in dataset:
        raise Unreadable("holds no pixels", AGAIN)
    shape = dicom_pixels.shape(dataset)
    notes, shared = [], _shared(dataset)
    tags = dicom_tags.described(dataset, shared, notes)
    if tags["intent"] == "processing":
        notes.append("meant for processing, the same exposure may be there for display too")
    facts = {
        "kind": "slices" if modality == "MR" else "film",
        "ids": dicom_tags.identity(dataset, bytes.fromhex(key)) if key else {},
        "tags": tags,
        "shape": list(shape),
        "bits_stored": int(dataset.BitsStored),
        "notes": notes,
    }
    if facts["kind"] == "film" and shape[0] > 1:
        raise Unreadable(f"is a film of {shape[0]} frames", "export the wanted frame alone")
    groups = _groups(dataset, shape[0])
    if facts["kind"] == "slices":
        facts["places"] = [dicom_tags.place(dataset, group, shared) for group in groups]
    if not pixels:
        return facts, []

    stored = dicom_pixels.stored(dataset, notes)
    padding = dicom_pixels.padded(dataset, stored, notes)
    rescale = [_item(group, shared, "PixelValueTransformationSequence") for group in groups]
    values, facts["limits"] = dicom_pixels.measured(dataset, stored, rescale)
    del stored
    facts["inverted"] = dataset.PhotometricInterpretation == "MONOCHROME1"
    if facts["kind"] == "slices":
        sources = [_item(group, shared, "FrameVOILUTSequence") for group in groups]
        facts["windows"] = [
            dicom_tags.window(dataset if item is None else item) for item in sources
        ]
        values[padding] = np.nan
        return facts, [values]
    # The standard shows such a film as it is; a model takes it for another kind of picture.
    sign = dataset.get("PixelIntensityRelationshipSign")
    if sign == (-1 if facts["inverted"] else 1):
        notes.append("brighter means more exposure, so bones are dark")
    return facts, [_film(dataset, values[0], padding[0], facts, voi, bits)]


def _film(dataset, values, padding, facts, voi, bits):
    """Brings a film's numbers to grey values, and records by which window."""
    used, window, numbers = voi, None, values
    if voi == "none":
        window = grey.between(*facts["limits"])
    elif voi == "first" and dataset.get("VOILUTSequence"):
        if np.array_equal(values, np.rint(values)):
            found, top = dicom_pixels.looked_up(dataset, "VOILUTSequence", values)
            used, window, numbers = "lut", grey.between(0, top), found.astype(np.float32)
        else:
            facts["notes"].append("VOI LUT not applied, because the pixels are no whole numbers")
    elif voi == "first":
        window = dicom_tags.window(dataset)
        used = window[0].lower() if window else ""
    numbers[padding] = values[padding] = np.nan
    if window:
        rendered = grey.rendered(numbers, window, bits=bits, inverted=facts["inverted"])
        if voi != "first" or not grey.shows_nothing(values, rendered):
            facts["voi"], facts["window"] = used, list(window)
            return rendered
        facts["notes"].append("its window shows nothing of the picture, percentiles used")
    elif voi == "first":
        facts["notes"].append("no usable VOI LUT or window, percentiles used")
    window = grey.by_percentile(values)
    facts["voi"], facts["window"] = "percentile", list(window)
    return grey.rendered(values, window, bits=bits, inverted=facts["inverted"])


def _no_dicom(data, suffix):
    """Refuses what was a DICOM file or should be one; returns the facts of anything else."""
    # Many pictures are named by a number or a UID alone. What has another ending may well be a
    # page of help or an empty table: discs of pictures bring such files along.
    if not suffix or suffix in SUFFIXES or suffix[1:].isdecimal():
        refuse_lost(data, "picture")
        if not data.strip(b"\0"):
            raise Unreadable("holds nothing but zeros", "copy or download it again")
    # A bare data set begins with group 2 or 8; guessing the rest gives wrong pixels.
    if data[:2] in (b"\2\0", b"\x08\0", b"\0\x08"):
        raise Unreadable(
            "lacks the preamble of a DICOM file, so its coding would be a guess",
            "convert it, for example with `dcmconv +F`",
        )
    kind = named(data)
    packed = kind in ("a zip archive", "a gzip archive")
    reason = f"is {kind}, not a DICOM file" if kind else "is not a DICOM file"
    if suffix in SUFFIXES:
        raise Unreadable(reason, "unpack it" if packed else AGAIN)
    return _other(reason, "unpack it" if packed else "nothing to do, or move it away")


def _unwanted(dataset, modality):
    if modality:
        wanted = ", ".join(dicom_tags.MODALITIES)
        return _other(f"is of modality {modality}, imported are {wanted}", "nothing to do")
    if "PixelData" in dataset:
        raise Unreadable("has pixels, but no known modality", AGAIN)
    return _other("is DICOM, but no picture", "nothing to do")


def _other(reason, remedy):
    return {"kind": "other", "reason": reason, "remedy": remedy}


def _groups(dataset, frames):
    """Returns the functional groups of each frame, None where there are none."""
    try:
        groups = list(dataset.get("PerFrameFunctionalGroupsSequence") or [])
    except Exception:  # a malformed sequence: the types are many
        groups = []
    return groups if len(groups) == frames else [None] * frames


def _shared(dataset):
    try:
        return dataset.SharedFunctionalGroupsSequence[0]
    except Exception:  # absent, or malformed in one of many ways
        return None


def _item(group, shared, sequence):
    """Returns the first item of a functional group: the frame's own, else the shared one."""
    for holder in (group, shared):
        if holder is not None and holder.get(sequence):
            return holder[sequence].value[0]
    return None


def _refuse_bomb(data):
    # Inflated here with a limit first, because pydicom inflates without one.
    start = 144 + int.from_bytes(data[140:144], "little")
    if data[132:140] != b"\2\0\0\0UL\4\0" or start >= len(data):
        raise Unreadable("is deflated, but does not say where its header ends", AGAIN)
    inflating = zlib.decompressobj(-zlib.MAX_WBITS)
    size = len(inflating.decompress(data[start:], MAX_BYTES))
    if size >= MAX_BYTES:
        raise Unreadable(
            f"inflates to more than {MAX_BYTES:,} bytes", "export it without deflating"
        )
