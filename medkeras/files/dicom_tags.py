"""What is kept of a DICOM header: technical values in a closed form, and keyed hashes of ids.

An allow-list, because a list of what to remove is never complete. Each value is a number in a
plausible range or a word of a closed list; anything else, also in an allowed tag, is dropped.
No text of a file is ever passed on, neither here nor in an error.
"""

import hashlib
import hmac
import math
import re
from datetime import date

from pydicom import Dataset

from medkeras.files import dicom_anatomy

MODALITIES = {
    "CR": "computed radiography",
    "DX": "digital radiography",
    "IO": "intra-oral radiography",
    "MG": "mammography",
    "MR": "magnetic resonance",
    "PX": "panoramic X-ray",
}
# Named when they are refused.
OTHER_MODALITIES = {
    *("AU", "BDUS", "BI", "BMD", "CT", "CTPROTOCOL", "DG", "DOC", "ECG", "EPS", "ES", "FID"),
    *("GM", "HC", "HD", "IOL", "IVOCT", "IVUS", "KER", "KO", "LEN", "LS", "NM", "OAM", "OCT"),
    *("OP", "OPM", "OPT", "OPV", "OT", "PLAN", "PR", "PT", "REG", "RESP", "RF", "RG"),
    *("RTDOSE", "RTIMAGE", "RTPLAN", "RTRECORD", "RTSTRUCT", "RWV", "SEG", "SM", "SMR", "SR"),
    *("STAIN", "TG", "US", "VA", "XA", "XC"),
}
STORAGE = {
    "1.2.840.10008.5.1.4.1.1.1": "CR",
    "1.2.840.10008.5.1.4.1.1.1.1": "DX",
    "1.2.840.10008.5.1.4.1.1.1.1.1": "DX",
    "1.2.840.10008.5.1.4.1.1.1.2": "MG",
    "1.2.840.10008.5.1.4.1.1.1.2.1": "MG",
    "1.2.840.10008.5.1.4.1.1.1.3": "IO",
    "1.2.840.10008.5.1.4.1.1.1.3.1": "IO",
    "1.2.840.10008.5.1.4.1.1.4": "MR",
    "1.2.840.10008.5.1.4.1.1.4.1": "MR",
    "1.2.840.10008.5.1.4.1.1.4.4": "MR",
}
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
# Name: tag, lowest and highest plausible value; units as in PS3.6.
NUMBERS = {
    "kvp": ("KVP", 1, 500),
    "magnetic_field_strength": ("MagneticFieldStrength", 0.01, 30),
    "repetition_time": ("RepetitionTime", 0, 100_000),
    "echo_time": ("EchoTime", 0, 10_000),
    "slice_thickness": ("SliceThickness", 0.001, 1000),
}
# Older than this, a year of age narrows it down to few people.
OLDEST = 90


def described(
    dataset: Dataset, shared: Dataset | None = None, notes: list[str] | None = None
) -> dict:
    r"""Reads the allow-list.

    Args:
        dataset: as pydicom read it.
        shared: functional groups of all frames, or None.
        notes: list that grows where tags contradict each other, or None.

    Returns:
        Dict of words ("" where unknown) and numbers (None where unknown): modality,
        body_part, side ("R", "L", "B" for both) and view (see `dicom_anatomy`), intent
        ("presentation", "processing"), sex ("M", "F", "O"), age (whole years, 90 for older),
        photometric, burned_in ("yes", "no", "not checked"), orientation
        ("L\F" and the like: where rows and columns lead), pixel_spacing (mm between rows and
        between columns, or None), instance (number in the series), and `NUMBERS`.
    """
    part = _text(dataset, "BodyPartExamined")
    regions, views = (
        [_text(item, "CodeValue") for item in _items(dataset, f"{name}Sequence")]
        for name in ("AnatomicRegion", "ViewCode")
    )
    frames = [_text(item, "FrameLaterality") for item in _items(shared, "FrameAnatomySequence")]
    sides = [_text(dataset, keyword) for keyword in ("ImageLaterality", "Laterality")]
    sex = _text(dataset, "PatientSex").upper()
    row, column = (_texts(dataset, "PatientOrientation") + ["", ""])[:2]
    instance = number(dataset, "InstanceNumber", -(10**6), 10**6)
    tags = {
        "modality": modality(dataset),
        "body_part": dicom_anatomy.body_part(part, regions),
        "side": dicom_anatomy.side(
            [sides[0], *frames, sides[1]], part, [] if notes is None else notes
        ),
        "view": dicom_anatomy.view(_text(dataset, "ViewPosition"), views, part),
        "intent": {"FOR PRESENTATION": "presentation", "FOR PROCESSING": "processing"}.get(
            _text(dataset, "PresentationIntentType").upper(), ""
        ),
        "sex": _one_of(sex, {"M", "F", "O"}),
        "age": _age(dataset),
        "photometric": _one_of(
            _text(dataset, "PhotometricInterpretation"), {"MONOCHROME1", "MONOCHROME2"}
        ),
        "burned_in": {"YES": "yes", "NO": "no"}.get(
            _text(dataset, "BurnedInAnnotation").upper(), "not checked"
        ),
        "orientation": "\\".join(_one_of(way[:1], set("RLAPHF")) for way in (row, column)),
        "pixel_spacing": _spacing(dataset, shared),
        "instance": None if instance is None else int(instance),
    }
    for name, (keyword, low, high) in NUMBERS.items():
        tags[name] = number(dataset, keyword, low, high)
    thickness = _inner(shared, "PixelMeasuresSequence", "SliceThickness", 1, 1000)
    tags["slice_thickness"] = thickness[0] if thickness else tags["slice_thickness"]
    return tags


def modality(dataset: Dataset) -> str:
    """Returns the modality, one of the two closed lists; "" where it is none of them."""
    named = _one_of(_text(dataset, "Modality"), MODALITIES.keys() | OTHER_MODALITIES)
    # The last one is still there where the data set broke off.
    meta = getattr(dataset, "file_meta", None) or Dataset()
    stored = _text(dataset, "SOPClassUID") or _text(meta, "MediaStorageSOPClassUID")
    return named or STORAGE.get(stored, "")


def screenshot(dataset: Dataset) -> str:
    """Names the tag that says: text is likely to stand in the pixels; "" where none does."""
    if _text(dataset, "BurnedInAnnotation").upper() == "YES":
        return "BurnedInAnnotation is YES"
    kind = _text(dataset, "SOPClassUID")
    if kind == SECONDARY_CAPTURE or kind.startswith(SECONDARY_CAPTURE + "."):
        return "it is a secondary capture"
    if _text(dataset, "ConversionType"):
        return "ConversionType says that it was captured or scanned"
    if any("SCREEN" in word.upper() for word in _texts(dataset, "ImageType")):
        return "ImageType says that it is a screenshot"
    return ""


def identity(dataset: Dataset, key: bytes) -> dict[str, str]:
    """Replaces the ids of a file by keyed hashes.

    A file without PatientID counts as a patient of its own study; without a UID, as something
    of its own.

    Args:
        dataset: as pydicom read it.
        key: secret; the same one gives the same hashes.

    Returns:
        {"patient", "study", "series", "image"}, 16 hexadecimal digits each.
    """
    names = {
        "patient": "PatientID",
        "study": "StudyInstanceUID",
        "series": "SeriesInstanceUID",
        "image": "SOPInstanceUID",
    }
    # An id with a backslash arrives as several values, and is one id all the same.
    raw = {kind: "\\".join(_texts(dataset, keyword)) for kind, keyword in names.items()}
    pixels = dataset.get("PixelData") or b""
    raw["image"] = raw["image"] or hashlib.sha256(pixels).hexdigest()
    raw["series"] = raw["series"] or raw["image"]
    raw["study"] = raw["study"] or raw["series"]
    raw["patient"] = raw["patient"] or f"study {raw['study']}"
    return {kind: keyed(key, kind, text) for kind, text in raw.items()}


def keyed(key: bytes, kind: str, text: str) -> str:
    """Returns the first 16 hexadecimal digits of HMAC-SHA-256 of `kind` and `text`."""
    # Names of files need not be UTF-8; Python escapes what is not.
    message = f"{kind}\0{text}".encode(errors="surrogateescape")
    return hmac.new(key, message, hashlib.sha256).hexdigest()[:16]


def place(dataset: Dataset, item: Dataset | None, shared: Dataset | None) -> list | None:
    """Reads where a slice lies.

    Args:
        dataset: as pydicom read it.
        item: functional groups of one frame, or None.
        shared: functional groups of all frames, or None.

    Returns:
        [x, y, z, and the six cosines of the row's and the column's direction] (mm, patient
        coordinates), or None unless it is there and the directions are at right angles.
    """
    where, way = ("ImagePositionPatient", 3, 1e5), ("ImageOrientationPatient", 6, 1.001)
    position = orientation = None
    for group in (item, shared):
        position = position or _inner(group, "PlanePositionSequence", *where)
        orientation = orientation or _inner(group, "PlaneOrientationSequence", *way)
    position = position or _numbers(dataset, *where)
    orientation = orientation or _numbers(dataset, *way)
    if not position or not orientation:
        return None
    row, column = orientation[:3], orientation[3:]
    across = sum(a * b for a, b in zip(row, column))
    if abs(across) > 0.01 or abs(math.hypot(*row) - 1) + abs(math.hypot(*column) - 1) > 0.02:
        return None
    return [*position, *orientation]


def window(dataset: Dataset) -> list | None:
    """Reads the first window, as [function, center, width]; None where there is no usable one."""
    center = _texts(dataset, "WindowCenter")[:1]
    width = _texts(dataset, "WindowWidth")[:1]
    function = _text(dataset, "VOILUTFunction").upper() or "LINEAR"
    try:
        center, width = float(center[0]), float(width[0])
    except (IndexError, ValueError):
        return None
    least = 1 if function == "LINEAR" else 0
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID") or not math.isfinite(center):
        return None
    # A LINEAR window of width 1 is a threshold (PS3.3 C.11.2.1.2): no picture.
    return [function, center, width] if least < width < math.inf else None


def number(dataset: Dataset, keyword: str, low: float, high: float) -> float | None:
    """Reads a number; None where it is absent, several, malformed, or outside the range."""
    try:
        value = float(_texts(dataset, keyword)[0])
    except (IndexError, ValueError):
        return None
    return value if low <= value <= high else None


def _inner(group, sequence, keyword, count, largest):
    items = _items(group, sequence)
    return _numbers(items[0], keyword, count, largest) if items else None


def _items(holder, sequence):
    try:
        return list(holder[sequence].value) if holder is not None and sequence in holder else []
    except Exception:  # a malformed sequence: the types are many
        return []


def _numbers(dataset, keyword, count, largest):
    try:
        values = [float(text) for text in _texts(dataset, keyword)]
    except ValueError:
        return None
    good = len(values) == count and all(abs(value) <= largest for value in values)
    return values if good else None


def _spacing(dataset, shared):
    found = (
        _inner(shared, "PixelMeasuresSequence", "PixelSpacing", 2, 100),
        _numbers(dataset, "PixelSpacing", 2, 100),
        _numbers(dataset, "ImagerPixelSpacing", 2, 100),
    )
    return next((spacing for spacing in found if spacing and min(spacing) > 0), None)


def _age(dataset):
    found = re.fullmatch(r"(\d{3})([DWMY])", _text(dataset, "PatientAge"))
    if found:
        years = int(found[1]) // {"D": 365, "W": 52, "M": 12, "Y": 1}[found[2]]
        return min(years, OLDEST) if years <= 130 else None
    born, then = (_date(dataset, keyword) for keyword in ("PatientBirthDate", "StudyDate"))
    if not born or not then:
        return None
    years = then.year - born.year - ((then.month, then.day) < (born.month, born.day))
    return min(years, OLDEST) if 0 <= years <= 130 else None


def _date(dataset, keyword):
    found = re.fullmatch(r"(\d{4})(\d{2})(\d{2})", _text(dataset, keyword))
    try:
        return date(*map(int, found.groups())) if found else None
    except ValueError:
        return None


def _one_of(word, allowed):
    return word if word in allowed else ""


def _text(dataset, keyword):
    texts = _texts(dataset, keyword)
    return texts[0] if len(texts) == 1 else ""


def _texts(dataset, keyword):
    try:
        value = dataset.get(keyword)
    except Exception:  # a malformed element: the types are many
        return []
    if value is None:
        return []
    several = hasattr(value, "__iter__") and not isinstance(value, str | bytes)
    return [str(part).strip() for part in (value if several else [value])]
