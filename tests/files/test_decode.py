import hashlib
import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from medkeras.files import child, decode

GREY = np.random.default_rng(0).integers(0, 256, (40, 30), dtype=np.uint8)
SMOOTH = np.add.outer(np.arange(64), np.arange(48)).astype(np.uint8) * 2


def encoded(image, format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def png_chunk(kind, content):
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "RGB"])
def test_modes_keep_their_grey_values(mode):
    expected = GREY if mode != "1" else np.where(GREY > 127, 255, 0).astype(np.uint8)
    picture = decode.decode(encoded(Image.fromarray(expected).convert(mode, dither=0)))
    pixels = picture.pixels if mode != "RGB" else picture.pixels[..., 0]
    np.testing.assert_array_equal(pixels, expected)
    assert picture.pixels.dtype == np.uint8
    assert bool(picture.notes) == (mode not in ("L", "RGB"))


def test_colour_palette_stays_colour():
    image = Image.fromarray(np.stack([GREY // 64 * 64, GREY // 128 * 128, GREY * 0], -1))
    picture = decode.decode(encoded(image.convert("P", palette=Image.Palette.ADAPTIVE)))
    assert picture.pixels.shape == (40, 30, 3)


def test_cmyk_becomes_rgb_with_a_note():
    image = Image.fromarray(SMOOTH).convert("RGB").convert("CMYK")
    picture = decode.decode(encoded(image, "JPEG", quality=95), ".jpg")
    assert any("CMYK" in note for note in picture.notes)
    pixels = picture.pixels.reshape(64, 48, -1).mean(-1)
    assert np.abs(pixels - SMOOTH).mean() < 12


def test_sixteen_bits_are_kept():
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    picture = decode.decode(encoded(Image.fromarray(ramp)), ".png")
    assert picture.pixels.dtype == np.uint16
    np.testing.assert_array_equal(picture.pixels, ramp)
    assert picture.notes


def test_twelve_bits_in_sixteen_are_kept_and_noted():
    ramp = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    picture = decode.decode(encoded(Image.fromarray(ramp)))
    np.testing.assert_array_equal(picture.pixels, ramp)
    assert any("only 12 bits" in note for note in picture.notes)


def test_transparency_is_refused():
    alpha = Image.fromarray(GREY).convert("RGBA")
    alpha.putpixel((3, 4), (0, 0, 0, 254))
    key = Image.fromarray(GREY)
    for data in (encoded(alpha), encoded(key, transparency=int(GREY[0, 0]))):
        with pytest.raises(decode.Unreadable, match="transparent"):
            decode.decode(data)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    exif = Image.Exif()
    exif[274] = orientation
    # What a viewer that knows EXIF shows, by the definition of each value.
    shown = {
        1: GREY,
        2: GREY[:, ::-1],
        3: GREY[::-1, ::-1],
        4: GREY[::-1],
        5: GREY.T,
        6: np.rot90(GREY, -1),
        7: GREY[::-1, ::-1].T,
        8: np.rot90(GREY),
    }[orientation]
    picture = decode.decode(encoded(Image.fromarray(GREY), exif=exif))
    np.testing.assert_array_equal(picture.pixels, shown)
    assert bool(picture.notes) == (orientation > 1)


def test_cut_files_are_refused_or_whole():
    files = [
        encoded(Image.fromarray(GREY)),
        encoded(Image.fromarray(SMOOTH)),
        encoded(Image.fromarray(SMOOTH), "JPEG"),
        encoded(Image.fromarray(SMOOTH).convert("RGB"), "JPEG", progressive=True),
        encoded(Image.fromarray(GREY), "JPEG", quality=95),
    ]
    refused = 0
    for data in files:
        whole = decode.decode(data).pixels
        cuts = {*range(0, len(data), max(1, len(data) // 40)), *range(len(data) - 20, len(data))}
        for cut in cuts:
            try:
                pixels = decode.decode(data[:cut]).pixels
            except decode.Unreadable as fault:
                refused += 1
                assert fault.reason and fault.remedy
            else:
                np.testing.assert_array_equal(pixels, whole)
    assert refused > 200


def test_twenty_cuts_through_a_child_are_refused_or_whole(tmp_path):
    files = {
        ".png": [Image.fromarray(GREY), Image.fromarray(GREY.astype(np.uint16) * 257)],
        ".jpg": [Image.fromarray(SMOOTH), Image.fromarray(SMOOTH).convert("RGB")],
    }
    for suffix, images in files.items():
        for image in images:
            data = encoded(image, decode.SUFFIXES[suffix])
            path = tmp_path / f"cut{suffix}"
            path.write_bytes(data)
            whole = decode.picture(path).pixels
            for cut in np.linspace(0, len(data) - 1, 20, dtype=int):
                path.write_bytes(data[:cut])
                try:
                    pixels = decode.picture(path).pixels
                except decode.Unreadable as fault:
                    assert fault.reason and fault.remedy
                else:
                    assert cut > len(data) * 0.9
                    np.testing.assert_array_equal(pixels, whole)


def test_bit_rot_that_still_decodes_changes_the_fingerprint(tmp_path):
    # Nothing else tells: libjpeg's warnings do not come through Pillow.
    rng = np.random.default_rng(3)
    data = encoded(Image.fromarray(rng.integers(0, 256, (300, 300), dtype=np.uint8)), "JPEG")
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    before, silent = decode.fingerprint(path), 0
    for _ in range(20):
        rotten = bytearray(data)
        middle = len(rotten) // 2 + rng.permutation(2000)[:200]
        rotten[middle[0]] ^= 255
        for at in middle[1:]:
            rotten[at] = rng.integers(256)
        path.write_bytes(rotten)
        try:
            silent += decode.picture(path).pixels.shape == (300, 300)
        except decode.Unreadable as fault:
            assert fault.reason and fault.remedy
        assert decode.fingerprint(path) != before
    assert silent


def test_damaged_bytes_give_a_picture_or_a_refusal():
    rng = np.random.default_rng(1)
    exif = Image.Exif()
    exif[274] = 6
    files = [
        encoded(Image.fromarray(GREY).convert("P"), transparency=0),
        encoded(Image.fromarray(SMOOTH), "JPEG"),
        encoded(Image.fromarray(GREY), exif=exif),
    ]
    outcomes = set()
    for number in range(900):
        data = bytearray(files[number % 3])
        for _ in range(rng.integers(1, 5)):
            data[rng.integers(len(data))] = rng.integers(256)
        try:
            outcomes.add(decode.decode(bytes(data)).pixels.ndim > 0)
        except decode.Unreadable:
            outcomes.add(False)
    assert outcomes == {True, False}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "LFS"),
        (b"\n<!DOCTYPE html><html><body>404</body></html>", "web page"),
        (b"GIF89a\x01\x00\x01\x00", "GIF"),
        (b"\0" * 128 + b"DICM" + b"\0" * 20, "DICOM"),
        (b"just text", "neither JPEG nor PNG"),
        (encoded(Image.fromarray(GREY), "BMP"), "BMP"),
        (encoded(Image.fromarray(GREY), "TIFF"), "TIFF"),
        (encoded(Image.fromarray(GREY), "PNG"), "is a PNG, though"),
    ],
)
def test_refusals_say_what_was_found(tmp_path, content, reason):
    path = tmp_path / "x.jpg"
    path.write_bytes(content)
    with pytest.raises(decode.Unreadable, match=reason) as caught:
        decode.picture(path)
    assert caught.value.remedy


def test_git_lfs_remedy():
    with pytest.raises(decode.Unreadable) as caught:
        decode.decode(b"version https://git-lfs.github.com/spec/v1\n")
    assert "git lfs pull" in caught.value.remedy


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ""])
def test_suffixes_that_agree(suffix):
    assert decode.decode(encoded(Image.fromarray(GREY), "JPEG"), suffix).pixels.shape == (40, 30)


def test_a_bomb_is_refused_before_it_is_decoded():
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", b"x")
    jpeg = bytearray(encoded(Image.fromarray(GREY), "JPEG"))
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = struct.pack(">HH", 60000, 60000)
    just_over = header[:0] + struct.pack(">IIBBBBB", 10001, 4000, 8, 0, 0, 0, 0)
    small = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", just_over) + png_chunk(b"IDAT", b"x")
    for data in (png, bytes(jpeg), small):
        with pytest.raises(decode.Unreadable, match="pixels"):
            decode.decode(data)


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="no /proc to read sizes from")
def test_a_bomb_of_a_few_hundred_bytes_allocates_nothing(tmp_path, monkeypatch):
    jpeg = bytearray(encoded(Image.fromarray(GREY[:8, :8]), "JPEG", optimize=True))
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = struct.pack(">HH", 60000, 60000)
    assert len(jpeg) < 500
    (tmp_path / "peak.py").write_text(
        "def task(data):\n"
        "    with open('/proc/self/status') as file:\n"
        "        (line,) = [line for line in file if line.startswith('VmHWM')]\n"
        "    return {'kib': int(line.split()[1])}, []\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with child.Pool({**child.TASKS, "peak": "peak"}, children=1) as pool:
        pool.run("picture", encoded(Image.fromarray(GREY)))
        before = pool.run("peak", b"")[0]["kib"]
        with pytest.raises(decode.Unreadable, match="60000 x 60000 pixels"):
            pool.run("picture", bytes(jpeg), suffix=".jpg")
        after = pool.run("peak", b"")[0]["kib"]
        pool.run("picture", encoded(Image.fromarray(np.zeros((8000, 5000), np.uint8))))
        largest = pool.run("peak", b"")[0]["kib"]
    assert after - before < 50 * 1024 < largest - before


def test_the_largest_picture_fits_the_memory_of_a_child():
    flat = Image.fromarray(np.full((8000, 5000), 777, np.uint16))
    facts, (pixels,) = child.run("picture", encoded(flat, compress_level=1), suffix=".png")
    assert (facts["height"], facts["width"], facts["deep"]) == (8000, 5000, True)
    assert pixels.min() == pixels.max() == 777


def test_a_child_gives_what_decoding_here_gives():
    colour = np.stack([GREY, GREY[::-1], GREY[:, ::-1]], -1)
    for pixels in (GREY, colour, GREY.astype(np.uint16) * 250):
        data = encoded(Image.fromarray(pixels))
        here = decode.decode(data, ".png")
        facts, (there,) = child.run("picture", data, suffix=".png")
        np.testing.assert_array_equal(there, here.pixels)
        assert there.dtype == here.pixels.dtype and facts["notes"] == list(here.notes)


def test_animated_is_refused():
    frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    data = encoded(frames[0], save_all=True, append_images=frames[1:])
    with pytest.raises(decode.Unreadable, match="2 frames"):
        decode.decode(data)


def test_sixteen_bit_colour_is_refused_rather_than_cut_to_eight():
    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    rows = zlib.compress(b"\0" + bytes(range(12)))
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        [png_chunk(b"IHDR", header), png_chunk(b"IDAT", rows), png_chunk(b"IEND", b"")]
    )
    with pytest.raises(decode.Unreadable, match="16-bit colour"):
        decode.decode(data)


def test_what_is_no_file_is_refused(tmp_path):
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    for name in ("absent.png", "dangling.png", "loop.png", "pipe.png", "folder.png"):
        with pytest.raises(decode.Unreadable) as caught:
            decode.picture(tmp_path / name)
        assert caught.value.remedy


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_refused(tmp_path):
    path = tmp_path / "secret.png"
    path.write_bytes(encoded(Image.fromarray(GREY)))
    path.chmod(0)
    with pytest.raises(decode.Unreadable, match="[Pp]ermission"):
        decode.picture(path)


def test_a_linked_picture_is_read(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(Image.fromarray(GREY)))
    (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
    np.testing.assert_array_equal(decode.picture(tmp_path / "b.png").pixels, GREY)


def test_a_mention_of_html_makes_no_web_page_of_a_jpeg():
    data = encoded(Image.fromarray(GREY), "JPEG", comment=b"<html>")
    assert decode.decode(data).pixels.shape == (40, 30)


def test_fingerprint_is_the_hash_of_the_bytes(tmp_path):
    (tmp_path / "a.png").write_bytes(b"abc" * 100000)
    assert decode.fingerprint(tmp_path / "a.png") == hashlib.sha256(b"abc" * 100000).hexdigest()


def test_real_pictures_decode_as_published(shared):
    rgba = sorted((shared / "data" / "nih_cxr14").rglob("*.png"))
    pictures = [decode.picture(path) for path in rgba]
    assert sum(bool(picture.notes) for picture in pictures) == 1
    assert all(picture.pixels.shape == (1024, 1024) for picture in pictures)
