"""Compressed DICOM pixels: who can decompress them, and whether they are what the header says.

The size inside a compressed frame decides what a decoder allocates, and a frame without its
end is filled up with grey, so both are looked at before a decoder sees them.
"""

import io
import struct

from pydicom import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels import get_decoder
from pydicom.uid import (
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    UID_dictionary,
)

from medkeras.files.foreign import Unreadable

ELSEWHERE = "decompress it first, for example with `dcmdjpeg` or `gdcmconv --raw`"
AGAIN = "export it again from where it came"
# Frames of these end with the marker FFD9 and tell their size.
MARKED = {*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes, *JPEG2000TransferSyntaxes}
HIGH_THROUGHPUT = {f"1.2.840.10008.1.2.4.{number}" for number in (201, 202, 203)}


def decoder(syntax: str):
    """Finds pydicom's decoder of a transfer syntax.

    Args:
        syntax: UID of the transfer syntax; "" where the file names none.

    Returns:
        `pydicom.pixels.decoders.base.Decoder`.

    Raises:
        Unreadable: no such syntax, or nothing is installed that decodes it; what to install
            is the remedy.
    """
    if not syntax:
        raise Unreadable("does not name its transfer syntax", AGAIN)
    try:
        found = get_decoder(syntax)
    except NotImplementedError as fault:
        raise missing(syntax) from fault
    if not found.is_available:
        raise missing(syntax, "pip install python-gdcm")
    return found


def missing(syntax: str, remedy: str = ELSEWHERE) -> Unreadable:
    """Returns the error that names a transfer syntax without decoder, and what to do."""
    # A name that is not in the standard could be anything, so it is not repeated.
    name = UID_dictionary[syntax][0] if syntax in UID_dictionary else ""
    named = f"{name} ({syntax})" if name else "an unknown transfer syntax"
    if syntax in HIGH_THROUGHPUT:
        remedy = "pip install pylibjpeg pylibjpeg-openjpeg"
    return Unreadable(f"is compressed as {named}, for which no decoder is installed", remedy)


def check(dataset: Dataset, syntax: str, wanted: tuple[int, int, int]) -> None:
    """Checks number, size and end of the compressed frames.

    Args:
        dataset: as pydicom read it.
        syntax: UID of the transfer syntax.
        wanted: (frames, rows, columns) of the header.

    Raises:
        Unreadable: they differ from the header, or a frame is cut off.
    """
    frames, rows, columns = wanted
    offsets = None
    if "ExtendedOffsetTable" in dataset:
        offsets = (dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths)
    try:
        parts = generate_frames(
            dataset.PixelData, number_of_frames=frames, extended_offsets=offsets
        )
        found = 0
        for part in parts:
            found += 1
            if syntax in MARKED or syntax in HIGH_THROUGHPUT:
                _refuse_wrong_stream(part, rows, columns)
            if found > frames:
                break
    except Unreadable:
        raise
    except Exception as fault:  # their texts may quote the file
        raise Unreadable("has damaged pixels: its frames cannot be told apart", AGAIN) from fault
    if found != frames:
        more = "more than" if found > frames else f"{found} of"
        raise Unreadable(f"holds {more} the {frames} frames that its header says", AGAIN)


def _refuse_wrong_stream(part, rows, columns):
    # Decoders fill the missing rest of a truncated picture with grey.
    if b"\xff\xd9" not in part[-16:].rstrip(b"\0")[-3:]:
        raise Unreadable("has truncated pixels: a compressed frame does not end", AGAIN)
    # The size inside decides what a decoder allocates, so it must be the one just checked.
    size = _stream_size(part)
    if size != (rows, columns):
        found = f"{size[0]} x {size[1]}" if size else "unknown size"
        raise Unreadable(
            f"holds a compressed frame of {found}, its header says {rows} x {columns}", AGAIN
        )


def _stream_size(part):
    part = io.BytesIO(part)
    start = part.read(2)
    try:
        if start == b"\0\0":  # boxes of a JP2 file around the stream
            part.seek(0)
            while (box := struct.unpack(">I4s", part.read(8)))[1] != b"jp2c":
                if box[0] < 8:  # pydicom 3.0.2 would read this box for ever
                    return None
                part.seek(box[0] - 8, 1)
            start = part.read(2)
        if start == b"\xff\x4f":
            marker, _, _, width, height, left, top = struct.unpack(">2sHHIIII", part.read(22))
            return (height - top, width - left) if marker == b"\xff\x51" else None
        while start == b"\xff\xd8":
            mark, kind, length = struct.unpack(">BBH", part.read(4))
            if mark != 0xFF or length < 2:
                return None
            if (0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC)) or kind == 0xF7:
                return struct.unpack(">xHH", part.read(5))
            part.seek(length - 2, 1)
    except struct.error:
        pass
    return None
