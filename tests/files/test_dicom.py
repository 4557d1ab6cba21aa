import hashlib
import json
import os
import time
import warnings
import zlib
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import get_decoder
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
)

from medkeras.files import child, decode, dicom, dicom_pixels, dicom_tags, grey
from medkeras.files.foreign import Unreadable
from tests.files import dicoms

KEY = "ab" * 32
RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)


def film(pixels, **options):
    """Returns facts and grey values of a synthetic film."""
    asked = {name: options.pop(name) for name in ("voi", "bits_out") if name in options}
    if "bits_out" in asked:
        asked["bits"] = asked.pop("bits_out")
    facts, (found,) = dicom.task(dicoms.encoded(pixels, **options), **asked)
    return facts, found


def outcome(data, **options):
    """Returns "film", "slices", "directory", "other", or the reason of a refusal."""
    try:
        return dicom.task(data, key=KEY, **options)[0]["kind"]
    except Unreadable as fault:
        assert fault.reason and fault.remedy
        return fault.reason


# Real files


def manifest(shared):
    folder = shared / "data" / "dicom"
    rows = pd.read_csv(folder / "manifest.csv", dtype=str, keep_default_na=False)
    return [(row, (folder / row.path).read_bytes()) for row in rows.itertuples()]


def stored(data):
    """Returns the stored numbers of any grey file, whatever its modality."""
    # pydicom warns of what is malformed, which `task` keeps quiet.
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        dataset = dicom.parsed(data)
        if isinstance(dataset, dict):
            raise Unreadable(dataset["reason"], dataset["remedy"])
        return dicom_pixels.stored(dataset, [])


def test_every_real_file_is_as_listed_or_refused_with_a_reason(shared):
    seen = Counter()
    for row, data in manifest(shared):
        try:
            pixels = stored(data)
        except Unreadable as fault:
            assert fault.reason and fault.remedy
            seen["refused"] += 1
            # What can be decoded at all is: only colour, odd depths and 12-bit JPEG are left.
            beyond = ("colour", "bits a pixel", "BitsStored", "JPEG Extended", "preamble")
            assert not row.pixel_sha1 or any(word in fault.reason for word in beyond), row.path
            continue
        shape = pixels.shape if pixels.shape[0] > 1 else pixels.shape[1:]
        assert "x".join(map(str, shape)) == row.shape, row.path
        assert hashlib.sha1(pixels.tobytes()).hexdigest() == row.pixel_sha1, row.path
        seen["same"] += 1
    assert seen["same"] > 70


def test_every_real_film_and_volume_is_imported(shared):
    for row, data in manifest(shared):
        if row.modality in ("CR", "DX", "MR") and row.pixel_sha1:
            assert outcome(data, allow_burned_in=True) in ("film", "slices"), row.path


def test_one_picture_in_several_codings_is_rendered_alike(shared):
    folder = shared / "data" / "dicom"
    groups = ("mr/MR2_UNCR.dcm mr/MR2_J2KR.dcm", "mr/emri_small*.dcm", "mr/MR_small*.dcm")
    for group in groups:
        paths = sorted(path for name in group.split() for path in folder.glob(name))
        found = [dicom.task(path.read_bytes()) for path in paths]
        assert len(found) > 1
        for facts, (values,) in found[1:]:
            np.testing.assert_array_equal(values, found[0][1][0])
            assert facts["windows"] == found[0][0]["windows"]


def test_the_photometric_tag_alone_turns_a_picture_round(shared):
    folder = shared / "data" / "dicom" / "xray"
    paths = (folder / "Fake_MONOHR1.dcm", next(folder.glob("1.2.276*")))
    first, second = (
        dicom.task(path.read_bytes(), allow_burned_in=True, voi="none")[1][0] for path in paths
    )
    np.testing.assert_array_equal(first, 255 - second)


def test_real_slope_and_padding_are_applied(shared):
    dataset = dicom.parsed((shared / "data" / "dicom" / "other" / "CT_small.dcm").read_bytes())
    stored = dicom_pixels.stored(dataset, [])
    values, limits = dicom_pixels.measured(dataset, stored, [None])
    assert values[stored == 128].tolist() and set(values[stored == 128]) == {-896}
    assert limits == [-32768 - 1024, 32767 - 1024]
    assert dataset.PixelPaddingValue == -2000
    assert dicom_pixels.padded(dataset, stored, []).sum() == (stored == -2000).sum()


# B1


@pytest.mark.parametrize(
    "data",
    [b"\x89PNG\r\n\x1a\n" + bytes(300), b"just a text\n" * 40, b"PK\3\4" + bytes(300), b"x"],
)
@pytest.mark.parametrize("suffix", ["", ".txt", ".17"])
def test_what_is_not_dicom_is_listed_never_forced(data, suffix):
    facts, arrays = dicom.task(data, key=KEY, suffix=suffix)
    assert facts["kind"] == "other" and "not a DICOM" in facts["reason"] and not arrays


@pytest.mark.parametrize("suffix", [".dcm", ".DCM", ".dicom", ".Ima"])
def test_what_is_called_dicom_and_is_not_is_refused(suffix):
    for data in (b"just a text\n" * 40, b"\x89PNG\r\n\x1a\n" + bytes(300)):
        assert "not a DICOM file" in outcome(data, suffix=suffix)
    assert outcome(dicoms.encoded(RAMP), suffix=suffix) == "film"


@pytest.mark.parametrize("data", [b"<!DOCTYPE html><html>log in</html>" * 20, bytes(9000), b""])
def test_what_was_lost_on_the_way_is_refused_where_a_picture_may_have_been(data):
    for suffix in (".dcm", "", ".30117"):
        reason = outcome(data, suffix=suffix)
        assert any(word in reason for word in ("web page", "zeros", "empty"))
    # A disc's page of help, or its empty table.
    assert outcome(data, suffix=".html") == "other"


@pytest.mark.parametrize(("begin", "kind"), [(b"PK\3\4", "zip"), (b"\x1f\x8b", "gzip")])
def test_an_archive_is_to_be_unpacked(begin, kind):
    facts, _ = dicom.task(begin + bytes(300), suffix=".gz")
    assert kind in facts["reason"] and "unpack" in facts["remedy"]
    with pytest.raises(Unreadable) as fault:
        dicom.task(begin + bytes(300), suffix=".dcm")
    assert kind in fault.value.reason and "unpack" in fault.value.remedy


@pytest.mark.parametrize("data", [b"", b"version https://git-lfs.github.com/spec/v1\n"])
def test_what_should_be_there_and_is_not_is_refused(data):
    assert "empty" in outcome(data) or "LFS" in outcome(data)


def test_a_bare_data_set_is_refused(shared):
    whole = dicoms.encoded(RAMP)
    assert "preamble" in outcome(whole[132:])
    folder = shared / "data" / "dicom"
    assert "preamble" in outcome((folder / "xray" / "CR-MONO1-10-chest").read_bytes())


# B2 to B4


@pytest.mark.parametrize("bits", [8, 16])
def test_both_photometric_interpretations_of_one_picture_are_equal(bits):
    window = {"WindowCenter": 2048, "WindowWidth": 4096, "bits": 12}
    facts, plain = film(RAMP, bits_out=bits, **window)
    turned = film(4095 - RAMP, bits_out=bits, PhotometricInterpretation="MONOCHROME1", **window)
    assert not facts["inverted"] and turned[0]["inverted"]
    np.testing.assert_array_equal(plain, turned[1])
    assert plain.dtype == f"uint{bits}" and plain.min() == 0 and plain.max() == 2**bits - 1


def test_the_slope_comes_before_the_window():
    rescaled = {"RescaleSlope": 2, "RescaleIntercept": -1000, "bits": 12}
    _, found = film(RAMP, WindowCenter=1000, WindowWidth=2000, **rescaled)
    _, expected = film(RAMP, WindowCenter=1000.25, WindowWidth=1000.5, bits=12)
    assert np.abs(found.astype(int) - expected).max() <= 1
    facts, _ = film(RAMP, voi="none", **rescaled)
    assert facts["limits"] == [-1000, 7190]


@pytest.mark.parametrize(("bits", "first"), [(8, 0), (12, 0), (16, 100), (16, -5)])
def test_a_modality_table_is_looked_up(bits, first):
    numbers = np.arange(1000) % 2**bits
    dataset = dicoms.dataset(RAMP, bits=12, PixelRepresentation=int(first < 0))
    dataset.ModalityLUTSequence = [dicoms.table(numbers, first, bits)]
    values, limits = dicom_pixels.measured(dataset, RAMP[None], [None])
    expected = numbers[np.clip(RAMP.astype(int) - first, 0, 999)]
    np.testing.assert_array_equal(values[0], expected)
    assert limits == [0, 2**bits - 1]


def test_a_voi_table_of_8_bits_does_not_wrap():
    numbers = np.arange(4096) // 16
    for packed in (False, True):
        sequence = [dicoms.table(numbers, bits=8, packed=packed)]
        facts, found = film(RAMP, bits=12, VOILUTSequence=sequence)
        assert facts["voi"] == "lut"
        np.testing.assert_array_equal(found, RAMP // 16)


@pytest.mark.parametrize("wrong", [dicoms.table([5, 300], bits=8), dicoms.table([1], bits=17)])
def test_a_table_that_contradicts_itself_is_refused(wrong):
    assert "lookup table" in outcome(dicoms.encoded(RAMP, VOILUTSequence=[wrong]))


@pytest.mark.parametrize("function", grey.FUNCTIONS)
def test_windows_follow_the_standard(function):
    center, width = 1000.0, 500.0
    numbers = RAMP.astype(float)
    if function == "LINEAR":
        level = (numbers - (center - 0.5)) / (width - 1) + 0.5
    elif function == "LINEAR_EXACT":
        level = (numbers - center) / width + 0.5
    else:
        level = 1 / (1 + np.exp(-4 * (numbers - center) / width))
    facts, found = film(
        RAMP, bits=12, WindowCenter=center, WindowWidth=width, VOILUTFunction=function
    )
    expected = np.clip(level, 0, 1) * 255
    assert facts["voi"] == function.lower()
    assert np.abs(found - expected).max() <= 0.51


def test_the_first_window_counts():
    several = {"WindowCenter": [1000, 3000], "WindowWidth": [500, 100], "bits": 12}
    first = film(RAMP, **several)
    assert first[0]["window"] == ["LINEAR", 1000, 500]
    np.testing.assert_array_equal(
        first[1], film(RAMP, WindowCenter=1000, WindowWidth=500, bits=12)[1]
    )


def test_without_a_window_percentiles_are_used_and_recorded():
    facts, found = film(RAMP, bits=12)
    assert facts["voi"] == "percentile" and any("percentiles" in note for note in facts["notes"])
    # Half a percent at each end.
    assert (found == 0).mean() == pytest.approx(0.006, abs=0.002)
    assert (found == 255).mean() == pytest.approx(0.006, abs=0.002)


@pytest.mark.parametrize("window", [(90_000, 100), (1000, 1), (1000, -5), (1000, 0)])
def test_a_window_that_shows_nothing_is_not_used(window):
    facts, found = film(RAMP, bits=12, WindowCenter=window[0], WindowWidth=window[1])
    assert facts["voi"] == "percentile" and len(facts["notes"]) == 1
    assert len(np.unique(found)) > 200


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("window", [(40, 400), (5, 4), (2048, 200)])
def test_a_window_for_something_else_is_not_used(window, bits):
    facts, found = film(RAMP, bits=12, bits_out=bits, WindowCenter=window[0], WindowWidth=window[1])
    assert facts["voi"] == "percentile" and "its window shows nothing" in facts["notes"][0]
    assert ((found > 0) & (found < 2**bits - 1)).mean() > 0.9


@pytest.mark.parametrize("border", [0, 4095])
def test_a_large_saturated_border_does_not_count(border):
    pixels = np.pad(RAMP, 200, constant_values=border)
    assert RAMP.size / pixels.size < 0.05
    facts, _ = film(pixels, bits=12, WindowCenter=2048, WindowWidth=2000)
    assert facts["voi"] == "linear" and not facts["notes"]


def test_two_numbers_at_two_ends_are_a_picture():
    grey_values = np.array([[0, 255]], np.uint8)
    assert not grey.shows_nothing(np.array([[3.0, 7.0]]), grey_values)
    assert grey.shows_nothing(np.array([[np.nan, np.nan]]), grey_values)


def test_no_window_shows_the_range_of_the_bits():
    facts, found = film(RAMP // 2, bits=12, voi="none", WindowCenter=10, WindowWidth=5)
    assert facts["voi"] == "none"
    assert found.max() == round(2047 / 4095 * 255)
    signed = film((RAMP // 2).astype(np.int16), bits=12, voi="none")[1]
    assert signed.min() == 128


@pytest.mark.parametrize("voi", grey.POLICIES)
def test_a_constant_picture_survives(voi):
    _, found = film(np.full((8, 8), 77, np.uint16), voi=voi)
    assert found.min() == found.max()


# B5


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_counts_in_no_statistic(photometric):
    inner = RAMP + 5
    framed = np.pad(inner, 20, constant_values=60_000)
    facts, plain = film(inner, PhotometricInterpretation=photometric)
    padded, found = film(
        framed,
        PhotometricInterpretation=photometric,
        PixelPaddingValue=59_990,
        PixelPaddingRangeLimit=60_010,
    )
    assert padded["window"] == facts["window"]
    np.testing.assert_array_equal(found[20:-20, 20:-20], plain)
    assert found[:20].max() == 0 and found[:, :20].max() == 0


def test_padding_is_compared_with_its_sign_in_every_coding():
    pixels = np.full((8, 8), 100, np.int16)
    pixels[:, :4] = -2000
    pixels[0, 7] = 300
    for syntax in (ImplicitVRLittleEndian, ExplicitVRBigEndian):
        dataset = dicoms.dataset(pixels, PixelPaddingValue=-2000, syntax=syntax)
        if syntax == ExplicitVRBigEndian:
            dataset.PixelData = pixels.astype(">i2").tobytes()
        found = dicom.task(dicoms.saved(dataset))[1][0]
        assert not found[:, :4].any() and found[0, 7] == 255


@pytest.mark.parametrize("name", ["Shutter", "Collimator"])
def test_what_lies_outside_a_shutter_is_padding(name):
    edges = {"LeftVerticalEdge": 11, "RightVerticalEdge": 50}
    edges |= {"UpperHorizontalEdge": 6, "LowerHorizontalEdge": 60}
    tags = {f"{name}{edge}": place for edge, place in edges.items()}
    facts, found = film(RAMP + 500, **{f"{name}Shape": "RECTANGULAR"}, **tags)
    assert not found[:5].any() and not found[60:].any()
    assert not found[:, :10].any() and not found[:, 50:].any()
    inside = film((RAMP + 500)[5:60, 10:50])
    assert facts["window"] == inside[0]["window"]
    np.testing.assert_array_equal(found[5:60, 10:50], inside[1])


def test_a_shutter_in_other_units_is_left_alone():
    tags = {"CollimatorShape": "RECTANGULAR", "CollimatorLeftVerticalEdge": -184}
    facts, found = film(RAMP, CollimatorRightVerticalEdge=184, **tags)
    assert any("collimator" in note for note in facts["notes"])
    np.testing.assert_array_equal(found, film(RAMP)[1])


# B6


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 16), st.booleans())
def test_numbers_keep_their_value_and_sign(data, bits, signed):
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    numbers = data.draw(st.lists(st.integers(low, high), min_size=6, max_size=6))
    pixels = np.array(numbers).reshape(2, 3).astype(np.int16 if signed else np.uint16)
    found = dicom_pixels.stored(dicoms.dataset(pixels, bits=bits), [])
    np.testing.assert_array_equal(found[0], pixels)
    # The sign may also be left out of the bits above.
    bare = (pixels.view(np.uint16) & (2**bits - 1)).view(pixels.dtype)
    found = dicom_pixels.stored(dicoms.dataset(bare, bits=bits), [])
    np.testing.assert_array_equal(found[0], pixels)


def test_an_old_overlay_is_removed_and_other_high_bits_are_refused():
    drawn = RAMP | (RAMP % 3 == 0).astype(np.uint16) << 14
    dataset = dicoms.dataset(drawn, bits=12)
    assert "more than the 12 bits" in outcome(dicoms.saved(dataset))
    dataset.add_new((0x6000, 0x0100), "US", 16)
    dataset.add_new((0x6000, 0x0102), "US", 14)
    notes = []
    np.testing.assert_array_equal(dicom_pixels.stored(dataset, notes)[0], RAMP)
    assert notes == ["overlay in the high bits removed"]


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        ("BitsStored", 17),
        ("BitsStored", 0),
        ("HighBit", 15),
        ("HighBit", None),
        ("BitsAllocated", 32),
        ("PixelRepresentation", 2),
        ("PixelRepresentation", None),
        ("Rows", 0),
        ("Columns", None),
        ("NumberOfFrames", 0),
        ("NumberOfFrames", 4000),
        ("SamplesPerPixel", 3),
        ("RescaleSlope", 0),
        ("PhotometricInterpretation", "RGB"),
        ("PhotometricInterpretation", "PALETTE COLOR"),
    ],
)
def test_contradictions_are_refused(tag, value):
    tags = {"RescaleIntercept": 0} if tag == "RescaleSlope" else {}
    data = dicoms.encoded(RAMP, bits=12, modality="MR", **{tag: value}, **tags)
    assert outcome(data) not in ("film", "slices")


def test_sizes_of_another_width_are_refused():
    dataset = dicoms.dataset(RAMP)
    dataset["Rows"].VR = "UL"
    assert "16-bit" in outcome(dicoms.saved(dataset))


# B7


GDCM_ALONE = (JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEGLSNearLossless)


def test_a_missing_decoder_is_named_with_what_to_install(shared, monkeypatch):
    for uid in GDCM_ALONE:
        monkeypatch.delitem(get_decoder(uid)._available, "gdcm", raising=False)
    hidden = 0
    for row, data in manifest(shared):
        if row.modality not in ("CR", "DX", "MR") or row.decode_pydicom_pillow_numpy == "ok":
            continue
        if not row.pixel_sha1 or "JPEG2K" in row.path:  # Pillow knows it, but not this file
            continue
        with pytest.raises(Unreadable) as fault:
            dicom.task(data)
        syntax = UID(row.transfer_syntax)
        assert syntax in fault.value.reason and syntax.name in fault.value.reason
        assert fault.value.remedy == "pip install python-gdcm"
        hidden += 1
    assert hidden == 3


@pytest.mark.parametrize("syntax", [f"1.2.840.10008.1.2.4.{n}" for n in (92, 102, 201)])
def test_a_syntax_that_nobody_decodes_is_named(syntax):
    dataset = dicoms.dataset(RAMP, syntax=syntax)
    dataset.PixelData = encapsulate([b"\xff\x0a" * 10])
    dataset["PixelData"].VR = "OB"
    assert syntax in outcome(dicoms.saved(dataset))


def test_a_made_up_syntax_is_not_repeated():
    data = dicoms.encoded(RAMP).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.99999.7.7.7\0")
    assert "99999" not in outcome(data)


# B8


def test_every_cut_is_refused():
    data = dicoms.encoded(RAMP)
    for end in np.linspace(133, len(data) - 1, 40).astype(int):
        assert outcome(data[:end]) not in ("film", "slices")


def test_a_cut_frame_is_refused(shared):
    folder = shared / "data" / "dicom"
    for name in ("xray/Fake_MONOHR1.dcm", "mr/MR_small_jpeg_ls_lossless.dcm", "mr/GH064.dcm",
                 "mr/MR_small_RLE.dcm", "xray/CR-ModalitySequenceLUT.dcm"):  # fmt: skip
        dataset = dcmread(folder / name)
        (frame,) = generate_frames(dataset.PixelData, number_of_frames=1)
        for share in (0.1, 0.5, 0.95):
            dataset.PixelData = encapsulate([frame[: int(share * len(frame)) // 2 * 2]])
            found = outcome(dicoms.saved(dataset), allow_burned_in=True)
            assert "pixels" in found, (name, found)


def test_too_many_pixels_are_a_contradiction():
    dataset = dicoms.dataset(RAMP)
    dataset.PixelData += bytes(100)  # sloppy
    assert outcome(dicoms.saved(dataset)) == "film"
    dataset.PixelData += bytes(8192)  # a second frame that nobody mentions
    assert "header says" in outcome(dicoms.saved(dataset))


# B9


@pytest.mark.parametrize("modality", ["CT", "US", "SEG", "SR", "RTSTRUCT", "ECG", "NM", "XA"])
def test_other_modalities_are_named_and_listed(modality):
    facts, arrays = dicom.task(dicoms.encoded(RAMP, modality=modality), key=KEY)
    assert facts["kind"] == "other" and f"modality {modality}," in facts["reason"] and not arrays


def test_an_unknown_modality_is_not_repeated():
    made_up = dicoms.dataset(RAMP, modality="JOHN DOE")
    assert outcome(dicoms.saved(made_up)) == "film"  # the SOP class says CR
    made_up.SOPClassUID = "1.2.3.4"
    assert outcome(dicoms.saved(made_up)) == "has pixels, but no known modality"


def test_a_film_of_several_frames_is_refused():
    assert "3 frames" in outcome(dicoms.encoded(np.zeros((3, 8, 8), np.uint8)))


# Sizes: nothing is allocated for what a file merely claims.


@pytest.mark.parametrize("shape", [(65535, 65535), (6500, 6500)])
def test_claimed_sizes_are_refused_before_decoding(shape):
    data = dicoms.encoded(RAMP, Rows=shape[0], Columns=shape[1])
    assert "at most" in outcome(data)


def test_a_frame_of_another_size_than_the_header_says_reaches_no_decoder(shared):
    path = shared / "data" / "dicom" / "mr" / "GH064.dcm"
    dataset = dcmread(path)
    (frame,) = generate_frames(dataset.PixelData, number_of_frames=1)
    huge = frame[:8] + (60_000).to_bytes(4, "big") * 2 + frame[16:]
    dataset.PixelData = encapsulate([huge])
    assert "60000 x 60000" in outcome(dicoms.saved(dataset))


def test_boxes_without_length_do_not_hang():
    dataset = dicoms.dataset(RAMP, syntax=JPEG2000Lossless)
    box = b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0\0\0\0ftyp" + b"\xff\xd9"
    dataset.PixelData = encapsulate([box + b"\0" * (len(box) % 2)])
    dataset["PixelData"].VR = "OB"
    began = time.monotonic()
    assert "unknown size" in outcome(dicoms.saved(dataset))
    assert time.monotonic() - began < 2


def test_more_frames_than_the_header_says_are_refused():
    dataset = dicoms.dataset(RAMP, syntax=JPEGLSLossless)
    dataset.PixelData = encapsulate([b"\xff\xd8\xff\xd9"] * 3)
    dataset["PixelData"].VR = "OB"
    dataset.NumberOfFrames = 2
    assert "pixels" in outcome(dicoms.saved(dataset)) or "frames" in outcome(dicoms.saved(dataset))


def test_a_deflated_file_is_read_and_a_bomb_is_not(monkeypatch):
    dataset = dicoms.dataset(RAMP, syntax=DeflatedExplicitVRLittleEndian)
    data = dicoms.saved(dataset)
    np.testing.assert_array_equal(dicom.task(data)[1][0], dicom.task(dicoms.encoded(RAMP))[1][0])
    monkeypatch.setattr(dicom, "MAX_BYTES", 2**20)
    start = 144 + int.from_bytes(data[140:144], "little")
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    bomb = packer.compress(bytes(2**24)) + packer.flush()
    assert "inflates" in outcome(data[:start] + bomb)


# I1 and I2: what is kept


def described(**tags):
    return dicom_tags.described(dicoms.dataset(RAMP, **tags))


@pytest.mark.parametrize(
    ("tags", "age"),
    [
        ({"PatientAge": "045Y"}, 45),
        ({"PatientAge": "030M"}, 2),
        ({"PatientAge": "010D"}, 0),
        ({"PatientAge": "089Y"}, 89),
        ({"PatientAge": "097Y"}, 90),
        ({"PatientAge": "62"}, None),
        ({"PatientAge": "999Y"}, None),
        ({"PatientBirthDate": "19600301", "StudyDate": "20200229"}, 59),
        ({"PatientBirthDate": "19600301", "StudyDate": "20200301"}, 60),
        ({"PatientBirthDate": "19000101", "StudyDate": "20200301"}, 90),
        ({"PatientBirthDate": "19601345", "StudyDate": "20200301"}, None),
        ({"PatientBirthDate": "20300101", "StudyDate": "20200301"}, None),
        ({}, None),
    ],
)
def test_age_is_in_years_and_never_singles_out_the_oldest(tags, age):
    assert described(**tags)["age"] == age


def test_only_closed_values_are_kept():
    kept = described(
        BodyPartExamined="Lower leg", Laterality="R", ViewPosition="AP", PatientSex="F", KVP=70
    )
    assert [kept[name] for name in ("body_part", "side", "view", "sex", "kvp")] == [
        "LOWERLEG", "R", "AP", "F", 70,
    ]  # fmt: skip
    dropped = described(
        BodyPartExamined="MR SMITH", ViewPosition="SMITH", PatientSex="SMITH", KVP=123456789,
        InstanceNumber=123456789, MagneticFieldStrength=42424242,
    )  # fmt: skip
    for name in ("body_part", "view", "sex"):
        assert dropped[name] == ""
    for name in ("kvp", "instance", "magnetic_field_strength"):
        assert dropped[name] is None


@pytest.mark.parametrize(
    ("text", "part", "view", "side"),
    [
        ("KNEE AP", "KNEE", "AP", ""),
        ("BILATERAL KNEE", "KNEE", "", "B"),
        ("Knee both", "KNEE", "", "B"),
        ("BOTH KNEES", "KNEE", "", "B"),
        ("RT KNEE LAT", "KNEE", "LAT", "R"),
        ("left-knee", "KNEE", "", "L"),
        ("L SPINE", "LSPINE", "", ""),
        ("Lower leg", "LOWERLEG", "", ""),
        ("FEMUR/KNEE", "", "", ""),
        ("KNEELAND", "", "", ""),
    ],
)
def test_body_parts_are_found_by_word(text, part, view, side):
    kept = described(BodyPartExamined=text)
    assert (kept["body_part"], kept["view"], kept["side"]) == (part, view, side)


def coded(value):
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SCT", "SMITH"
    return [item]


@pytest.mark.parametrize(
    ("region", "view", "kept"),
    [
        ("72696002", "399348003", ["KNEE", "AP"]),
        ("T-D9200", "R-40888", ["KNEE", "PA"]),
        ("SMITH", "4711", ["", ""]),
    ],
)
def test_coded_regions_and_views_are_read(region, view, kept):
    codes = {"AnatomicRegionSequence": coded(region), "ViewCodeSequence": coded(view)}
    found = described(**codes)
    assert [found["body_part"], found["view"]] == kept
    found = described(**codes, BodyPartExamined="HAND", ViewPosition="LL")
    assert [found["body_part"], found["view"]] == ["HAND", "LL"]


@pytest.mark.parametrize(
    ("image", "series", "part", "side"),
    [
        ("R", "L", "KNEE", ""),
        ("", "L", "RIGHT KNEE", ""),
        ("R", "R", "BOTH KNEES", "R"),
        ("B", "", "KNEE", "B"),
        ("U", "L", "KNEE", "L"),
    ],
)
def test_sides_that_contradict_each_other_are_none(image, series, part, side):
    tags = {"ImageLaterality": image, "Laterality": series, "BodyPartExamined": part}
    facts, _ = dicom.task(dicoms.encoded(RAMP, WindowCenter=2048, WindowWidth=4096, **tags))
    assert facts["tags"]["side"] == side
    assert bool(facts["notes"]) == (side == "")


@pytest.mark.parametrize(
    ("said", "intent"),
    [
        ("FOR PRESENTATION", "presentation"),
        ("FOR PROCESSING", "processing"),
        ("FOR SMITH", ""),
        (None, ""),
    ],
)
def test_what_a_film_is_meant_for_is_kept(said, intent):
    tags = {"PresentationIntentType": said} if said else {}
    facts, _ = dicom.task(dicoms.encoded(RAMP, WindowCenter=2048, WindowWidth=4096, **tags))
    assert facts["tags"]["intent"] == intent
    assert any("processing" in note for note in facts["notes"]) == (intent == "processing")


def test_ids_depend_on_the_key_and_hold_nothing_of_the_file():
    data = dicoms.encoded(RAMP, PatientID="4711", PatientName="DOE^JANE")
    first, again, other = (dicom.task(data, key=key)[0] for key in (KEY, KEY, "cd" * 32))
    assert first["ids"] == again["ids"] and not set(first["ids"].values()) & set(
        other["ids"].values()
    )
    text = json.dumps(first)
    for word in ("4711", "DOE", "JANE", "1.2.3"):
        assert word not in text


def test_without_a_patient_each_study_is_one_of_its_own():
    def patient(**tags):
        return dicom_tags.identity(dicoms.dataset(RAMP, **tags), b"k")["patient"]

    assert patient(PatientID="") == patient(PatientID="") != patient()
    assert patient(PatientID="") != patient(PatientID="", StudyInstanceUID="1.2.4")


@pytest.mark.parametrize(("tag", "kind"), [("PatientID", "patient"), ("StudyInstanceUID", "study")])
def test_an_id_of_several_values_is_one_id(tag, kind):
    def found(*several):
        return dicom_tags.identity(dicoms.dataset(RAMP, **{tag: list(several)}), b"k")[kind]

    assert found("1.2", "3") == found("1.2", "3")
    assert len({found("1.2", "3"), found("1.2", "4"), found("1.2"), found()}) == 4


def test_a_patient_with_two_values_is_the_same_in_every_study():
    patients = {
        dicom_tags.identity(
            dicoms.dataset(RAMP, PatientID=["A", "B"], StudyInstanceUID=study), b"k"
        )["patient"]
        for study in ("1.2", "1.3")
    }
    assert len(patients) == 1


def test_names_that_are_not_utf_8_have_a_hash():
    names = [os.fsdecode(b"J\xf6rg"), os.fsdecode(b"J\xfcrg"), "J\u00f6rg"]
    assert len({dicom_tags.keyed(b"k", "file", name) for name in names}) == 3


@pytest.mark.parametrize(
    "tags",
    [
        {"BurnedInAnnotation": "YES"},
        {"SOPClassUID": dicom_tags.SECONDARY_CAPTURE},
        {"ConversionType": "WSD"},
        {"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]},
    ],
)
def test_pictures_likely_to_show_text_are_refused_unless_allowed(tags):
    data = dicoms.encoded(RAMP, **tags)
    assert "may show text" in outcome(data)
    assert outcome(data, allow_burned_in=True) == "film"


def test_burned_in_text_is_never_called_absent_without_being_told():
    assert described()["burned_in"] == "not checked"
    assert described(BurnedInAnnotation="NO")["burned_in"] == "no"
    assert described(BurnedInAnnotation="PERHAPS")["burned_in"] == "not checked"


def test_a_parser_s_message_is_not_passed_on(monkeypatch):
    def read(*_):
        raise ValueError("invalid value for PN: 'DOE^JANE'")

    monkeypatch.setattr(dicom, "_read", read)
    assert outcome(b"x") == "is a damaged DICOM file (ValueError while reading it)"


# B11


def mutated(rng, data):
    """Returns the bytes with a few of them changed, cut out, doubled or cut off."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 6)):
        if len(data) < 200:
            break
        # The header is short beside the pixels, and decides more.
        last = len(data) if rng.random() < 0.4 else min(len(data), 2500)
        at = int(rng.integers(128, last))
        how = rng.integers(5)
        if how == 0:
            data[at] ^= 1 << rng.integers(8)
        elif how == 1:
            data[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF])
        elif how == 2:
            size = int(rng.integers(1, 9))
            data[at : at + size] = rng.bytes(size)
        elif how == 3:
            del data[at : at + int(rng.integers(1, 64))]
        else:
            data[at:at] = data[at : at + int(rng.integers(1, 64))]
    return bytes(data[: rng.integers(200, len(data) + 1)] if rng.random() < 0.1 else data)


def survives(shared, seconds, seed):
    """Decodes mutated real files for some seconds; returns the number of outcomes."""
    rows = [(row, data) for row, data in manifest(shared) if len(data) < 700_000]
    # Mostly those whose pixels are looked at.
    likely = [data for row, data in rows if row.modality in ("CR", "DX", "MR")]
    seen, rng = Counter(), np.random.default_rng(seed)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        files = likely if rng.random() < 0.8 else [data for _, data in rows]
        data = mutated(rng, files[rng.integers(len(files))])
        try:
            facts, arrays = child.run("dicom", data, key=KEY, allow_burned_in=True)
        except Unreadable as fault:
            assert fault.reason and fault.remedy
            seen["crash" if "crash" in fault.reason else "refused"] += 1
            seen["hang"] += "took longer" in fault.reason
            continue
        assert facts["kind"] in ("film", "slices", "directory", "other")
        assert len(arrays) == (facts["kind"] in ("film", "slices"))
        for array in arrays:
            assert array.size and array.nbytes <= decode.MAX_BYTES
        seen[facts["kind"]] += 1
    return seen


@pytest.mark.timeout(60)
def test_mutated_files_give_arrays_or_refusals(shared):
    seen = survives(shared, 3, seed=1)
    assert seen["refused"] > 5 and seen["slices"] + seen["film"] > 5


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_mutated_files_give_arrays_or_refusals_for_long(shared):
    resource = pytest.importorskip("resource")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seen = survives(shared, 20, seed=2)
    assert seen["refused"] > 200 and seen["slices"] + seen["film"] > 200
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000


@pytest.mark.parametrize(
    "shown, sign, noted",
    [("MONOCHROME2", 1, True), ("MONOCHROME2", -1, False), ("MONOCHROME1", -1, True)],
)
def test_a_film_with_dark_bones_is_noted(shown, sign, noted):
    made = dicoms.dataset(
        np.arange(256, dtype=np.uint16).reshape(16, 16), PixelIntensityRelationshipSign=sign
    )
    made.PhotometricInterpretation = shown
    facts, _ = dicom.task(dicoms.saved(made))
    assert any("bones are dark" in note for note in facts["notes"]) == noted
