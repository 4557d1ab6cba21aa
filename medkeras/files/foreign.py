"""Bytes from outside: the limits they must keep, and what they are when not what was wanted."""

MAX_PIXELS = 40_000_000
MAX_BYTES = 512 * 2**20

# What files begin with, and how to call them.
SIGNATURES = (
    (b"\xff\xd8\xff", "a JPEG"),
    (b"\x89PNG\r\n\x1a\n", "a PNG"),
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


def named(data: bytes) -> str | None:
    """Names what kind of file begins like this, with its article, or returns None."""
    if data[128:132] == b"DICM":
        return "a DICOM file"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "a WebP"
    return next((name for begin, name in SIGNATURES if data.startswith(begin)), None)


def printable(text: str, instead: str = "?") -> str:
    """Replaces what is no sign: a file, or its name, may hold what a terminal obeys."""
    return "".join(sign if sign.isprintable() else instead for sign in text)


def refuse_lost(data: bytes, wanted: str) -> None:
    """Refuses what copying or downloading went wrong with: it holds nothing of the file.

    Args:
        data: the file's content.
        wanted: what it should be, such as "picture".

    Raises:
        Unreadable: an empty file, a Git LFS pointer or a web page.
    """
    if not data:
        raise Unreadable("is empty", "copy or download it again")
    if data.startswith(b"version https://git-lfs"):
        raise Unreadable(f"is a Git LFS pointer, not the {wanted}", "run `git lfs pull`")
    start = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml")) or b"<html" in start:
        raise Unreadable(
            f"is a web page, not a {wanted}", "download it again; the link may need a login"
        )
