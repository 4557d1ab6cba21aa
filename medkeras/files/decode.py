"""Foreign picture files to arrays: every pixel decoded, or a named refusal.

`picture` reads a file here and decodes its bytes in a child process, which answers to `task`;
`decode` is the same in this process, for bytes that medkeras wrote itself.

Bit rot that leaves a JPEG decodable cannot be seen in its pixels: libjpeg's warnings do not
come through Pillow. It changes `fingerprint`, which every run keeps of its pictures.
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

from medkeras.files import child
from medkeras.files.foreign import MAX_BYTES, MAX_PIXELS, Unreadable, named, refuse_lost

SUFFIXES = {".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG", ".png": "PNG"}

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
    facts, (pixels,) = child.run("picture", read_bytes(path), suffix=Path(path).suffix)
    return Decoded(pixels, tuple(facts["notes"]))


def task(data: bytes, suffix: str = "") -> tuple[dict, list[np.ndarray]]:
    """Decodes a picture for `child.run("picture", data, suffix=...)`.

    Args:
        data: the file's content.
        suffix: as in `decode`.

    Returns:
        {"height", "width" (pixels of the upright picture), "deep" (more than 8 bits), "notes"}
        and [pixels].
    """
    decoded = decode(data, suffix)
    height, width = decoded.pixels.shape[:2]
    deep = decoded.pixels.dtype.itemsize > 1
    facts = {"height": height, "width": width, "deep": deep, "notes": list(decoded.notes)}
    return facts, [decoded.pixels]


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
    for kind, begin in (("JPEG", b"\xff\xd8\xff"), ("PNG", b"\x89PNG\r\n\x1a\n")):
        if data.startswith(begin):
            return kind
    refuse_lost(data, "picture")
    raise Unreadable(f"is {named(data) or 'neither JPEG nor PNG'}", "save it as PNG or JPEG")


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
        used = int(pixels.max()).bit_length()
        kept = "16-bit grey kept" + (f", only {used} bits are used" if used < 16 else "")
        return Decoded(pixels, (*notes, kept))

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
