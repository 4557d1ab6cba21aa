"""Writes a made-up film as a DICOM file, as a digital X-ray unit would.

Every name and number is made up and says so; there is no date, no place and no person.
"""

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

COMPUTED_RADIOGRAPHY = "1.2.840.10008.5.1.4.1.1.1"
DIGITAL_XRAY = "1.2.840.10008.5.1.4.1.1.1.1"
BITS = 12


def save(path, rng, picture, subject: str, pixel: float) -> None:
    """Writes a film of both knees.

    Uncompressed, 12 of 16 bits, one of modality CR and DX and one of MONOCHROME1 and
    MONOCHROME2, by chance. With MONOCHROME1 the stored numbers are turned round, so both show
    the same picture. The window tells the whole range.

    Args:
        path: file to write.
        rng: NumPy generator of modality, photometric interpretation and identifiers.
        picture: float (height, width), 0 (black) .. 1.
        subject: made-up patient number.
        pixel: millimetres from one pixel to the next.
    """
    top = 2**BITS - 1
    stored = np.round(picture * top).astype("<u2")
    digital, inverted = rng.random(2) < 0.5
    if inverted:
        stored = top - stored
    seeds = [subject, str(rng.integers(2**62))]

    film = Dataset()
    film.SOPClassUID = DIGITAL_XRAY if digital else COMPUTED_RADIOGRAPHY
    film.SOPInstanceUID = generate_uid(entropy_srcs=[*seeds, "film"])
    film.StudyInstanceUID = generate_uid(entropy_srcs=[*seeds, "study"])
    film.SeriesInstanceUID = generate_uid(entropy_srcs=[*seeds, "series"])
    film.Modality = "DX" if digital else "CR"
    film.PatientName = f"PHANTOM^{subject}"
    film.PatientID = subject
    film.PatientBirthDate = film.PatientSex = ""
    film.StudyDate = film.StudyTime = film.AccessionNumber = film.StudyID = ""
    film.ReferringPhysicianName = ""
    film.Manufacturer = "medkeras phantom"
    film.SeriesNumber, film.InstanceNumber = 1, 1
    film.BodyPartExamined = "KNEE"
    film.ViewPosition = "AP"
    # From left to right in the picture the columns run to the patient's left, the rows to
    # the feet.
    film.PatientOrientation = ["L", "F"]
    film.Laterality = film.ImageLaterality = "B"
    film.ImageType = ["ORIGINAL", "PRIMARY"]
    film.PixelSpacing = film.ImagerPixelSpacing = [round(pixel, 6)] * 2
    film.BurnedInAnnotation = "NO"
    if digital:
        film.PresentationIntentType = "FOR PRESENTATION"
        film.PixelIntensityRelationship = "LOG"
        film.PixelIntensityRelationshipSign = 1 if inverted else -1
    film.PresentationLUTShape = "INVERSE" if inverted else "IDENTITY"
    film.LossyImageCompression = "00"

    film.SamplesPerPixel = 1
    film.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    film.Rows, film.Columns = stored.shape
    film.BitsAllocated, film.BitsStored, film.HighBit = 16, BITS, BITS - 1
    film.PixelRepresentation = 0
    film.RescaleIntercept, film.RescaleSlope, film.RescaleType = 0, 1, "US"
    film.WindowCenter, film.WindowWidth = (top + 1) / 2, top + 1
    film.PixelData = stored.tobytes()

    film.file_meta = FileMetaDataset()
    film.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    film.save_as(path, enforce_file_format=True)
