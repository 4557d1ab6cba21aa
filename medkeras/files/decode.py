"""Foreign picture files to arrays: every pixel decoded, or a named refusal.

The checks on bytes (`decode`) stand apart from the reading (`picture`), need nothing but
Pillow and NumPy, and exchange plain values: they can run in a child process as they are.
"""

import hashlib
import io
import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

MAX_PIXELS = 40_000_000
MAX_BYTES = 512 * 2**20
SUFFIXES = {".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG", ".png": "PNG"}

# What files that are no JPEG or PNG begin with, and how to call them.
SIGNATURES = (
    (b"GIF8", "a GIF"),
    (b"BM", "a BMP"),
    (b"II*\0", "a TIFF"),
    (b"MM\0*", "a TIFF"),
    (b"%PDF", "a PDF"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x89HDF", "an HDF5 file"),
)

# EXIF orientation to the turn or flip that sets the picture upright (EXIF 2.32, tag 274).
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Unreadable(ValueError):
    """A file that gives no picture.

    Args:
        reason: what was found.
        remedy: what the user can do about it.
    """

    def __init__(self, reason: str, remedy: str):
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy


@dataclass(frozen=True)
class Decoded:
    """A picture, upright.

    Args:
        pixels: uint8 (h, w) grey or (h, w, 3) RGB, or uint16 (h, w) grey.
        notes: what a fixed rule changed on the way, one sentence each.
    """

    pixels: np.ndarray
    notes: tuple[str, ...] = ()


def picture(path) -> Decoded:
    """Reads a JPEG or PNG file.

    Args:
        path: the file; its ending must agree with its content.

    Returns:
        The decoded picture, at its full size.

    Raises:
        Unreadable: not a whole, still, opaque JPEG or PNG of at most 40 million pixels.
    """
    return decode(read_bytes(path), Path(path).suffix)


def read_bytes(path) -> bytes:
    """Reads a whole regular file of at most 512 MiB, or raises `Unreadable`."""
    try:
        # Not to wait for ever on a pipe that has no writer.
        handle = os.open(
            path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        )
        with open(handle, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise Unreadable("is not a regular file", "replace it by the picture itself")
            if status.st_size > MAX_BYTES:
                raise Unreadable(
                    f"has {status.st_size:,} bytes, at most {MAX_BYTES:,} are read",
                    "save the picture smaller, or remove the file",
                )
            return file.read()
    except OSError as fault:
        raise Unreadable(
            f"cannot be opened ({fault.strerror or fault})",
            "check that the file exists and that you may read it",
        ) from fault


def fingerprint(path) -> str:
    """Returns the SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def decode(data: bytes, suffix: str = "") -> Decoded:
    """Decodes the bytes of a JPEG or PNG file.

    Fixed rules, each with a note: EXIF orientation is applied; an opaque alpha channel is
    dropped; palette and CMYK become RGB (grey where all colours are grey); 1 bit becomes
    0 and 255; 16-bit grey keeps its 16 bits.

    Args:
        data: the file's content.
        suffix: ending of its name with the dot, compared with the content; "" for unknown.

    Returns:
        The decoded picture.

    Raises:
        Unreadable: as in `picture`.
    """
    kind = _kind(data)
    expected = SUFFIXES.get(suffix.lower())
    if suffix and kind != expected:
        good = ".jpg" if kind == "JPEG" else ".png"
        raise Unreadable(
            f"is a {kind}, though its name ends in {suffix}", f"rename it to end in {good}"
        )
    _refuse_large(_declared_size(data, kind))
    try:
        with Image.open(io.BytesIO(data), formats=(kind,)) as image:
            _refuse_large(image.size)
            frames = getattr(image, "n_frames", 1)
            if frames > 1:
                raise Unreadable(f"holds {frames} frames", "save the wanted frame as a PNG")
            # Whole-file decoding: `verify` and lazy opening both pass truncated JPEGs.
            image.load()
            return _normalised(image, _bit_depth(data, kind))
    except (Unreadable, MemoryError):
        raise
    except Exception as fault:  # Pillow raises a dozen types on damaged bytes
        raise Unreadable(f"is damaged: {fault}", "copy or download it again") from fault


def _kind(data):
    if not data:
        raise Unreadable("is empty", "copy or download it again")
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"version https://git-lfs"):
        raise Unreadable("is a Git LFS pointer, not the picture", "run `git lfs pull`")
    start = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml")) or b"<html" in start:
        raise Unreadable(
            "is a web page, not a picture", "download it again; the link may need a login"
        )
    found = "neither JPEG nor PNG"
    if data[128:132] == b"DICM":
        found = "a DICOM file"
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        found = "a WebP"
    else:
        found = next((name for begin, name in SIGNATURES if data.startswith(begin)), found)
    raise Unreadable(f"is {found}", "save it as PNG or JPEG")


def _refuse_large(size):
    if size and size[0] * size[1] > MAX_PIXELS:
        raise Unreadable(
            f"claims {size[0]} x {size[1]} pixels, at most {MAX_PIXELS:,} are decoded",
            "save the picture smaller, or remove the file",
        )


def _declared_size(data, kind):
    # Read here, because Pillow only warns between 89 and 179 million pixels.
    if kind == "PNG":
        return struct.unpack(">II", data[16:24]) if len(data) >= 24 else None
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return width, height
        at += 1 if marker == 0xFF else 2 + length
    return None


def _bit_depth(data, kind):
    return data[24] if kind == "PNG" else 8


def _normalised(image, bits):
    notes = []
    orientation = image.getexif().get(274, 1)
    if orientation in UPRIGHT:
        image = _turned(image, UPRIGHT[orientation])
        notes.append(f"turned upright (EXIF orientation {orientation})")
    if bits == 16:
        if not image.mode.startswith("I"):
            raise Unreadable("is a 16-bit colour or alpha picture", "save it as 16-bit grey")
        pixels = np.asarray(image).astype(np.uint16)
        if np.any(pixels == image.info.get("transparency", -1)):
            raise Unreadable("is partly transparent", "save it without transparency")
        return Decoded(pixels, (*notes, "16-bit grey kept"))

    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        name = "palette" if image.mode.startswith("P") else "alpha channel"
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema()[0] < 255:
            raise Unreadable("is partly transparent", "save it without transparency")
        image = _grey_where_grey(image.convert("RGB"))
        notes.append(f"{name} dropped, every pixel is opaque")
    elif image.mode in ("P", "CMYK"):
        notes.append(f"{'palette' if image.mode == 'P' else 'CMYK'} converted")
        image = _grey_where_grey(image.convert("RGB"))
    elif image.mode == "1":
        notes.append("1-bit picture converted to 0 and 255")
        image = image.convert("L")
    if image.mode not in ("L", "RGB"):
        raise Unreadable(f"has the unknown colour mode {image.mode}", "save it as 8-bit grey")
    return Decoded(np.asarray(image).copy(), tuple(notes))


def _turned(image, method):
    info = image.info
    image = image.transpose(method)
    image.info.update(info)
    return image


def _grey_where_grey(image):
    red, green, blue = image.split()
    same = red.tobytes() == green.tobytes() == blue.tobytes()
    return red if same else image
