"""Writes small DICOM files for tests, right or wrong in one chosen way."""

import io

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

STORAGE = {
    "CR": "1.2.840.10008.5.1.4.1.1.1",
    "DX": "1.2.840.10008.5.1.4.1.1.1.1",
    "MR": "1.2.840.10008.5.1.4.1.1.4",
}
SAGITTAL = [0, 1, 0, 0, 0, -1]
AXIAL = [1, 0, 0, 0, 1, 0]


def dataset(pixels, *, bits=None, modality="CR", syntax=ExplicitVRLittleEndian, **tags):
    """Makes a data set of integer pixels (rows, columns) or (frames, rows, columns)."""
    pixels = np.asarray(pixels)
    allocated = 8 * pixels.dtype.itemsize
    bits = bits or allocated
    made = Dataset()
    made.SOPClassUID = STORAGE.get(modality, STORAGE["CR"])
    made.SOPInstanceUID = generate_uid()
    made.StudyInstanceUID = made.SeriesInstanceUID = "1.2.3"
    made.PatientID = "someone"
    made.Modality = modality
    made.Rows, made.Columns = pixels.shape[-2:]
    if pixels.ndim == 3:
        made.NumberOfFrames = len(pixels)
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit = allocated, bits, bits - 1
    made.PixelRepresentation = int(pixels.dtype.kind == "i")
    data = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    made.add_new("PixelData", "OW" if allocated == 16 else "OB", data + b"\0" * (len(data) % 2))
    for name, value in tags.items():
        if value is None:
            delattr(made, name)
        else:
            setattr(made, name, value)
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = syntax
    return made


def saved(made) -> bytes:
    """Returns a data set as the bytes of a file."""
    buffer = io.BytesIO()
    made.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def encoded(pixels, **options) -> bytes:
    """Returns the bytes of a file with these pixels; options as of `dataset`."""
    return saved(dataset(pixels, **options))


def table(numbers, first=0, bits=16, packed=False) -> Dataset:
    """Makes the item of a lookup table sequence."""
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(numbers), first, bits])
    numbers = np.asarray(numbers)
    item.add_new("LUTData", "OW", numbers.astype(np.uint8 if packed else "<u2").tobytes())
    return item
