"""Modes that are kept, and crops and scales against the arithmetic of EDM's tool written out on arrays."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import encoded, picture, png
from PIL import Image

from restart_sampling.base.errors import InputError
from restart_sampling.images.decode import decode, pixels
from restart_sampling.images.transforms import Transform, check_size

sides = st.integers(1, 70)


def lanczos(array, size):
    return np.asarray(Image.fromarray(array).resize(size, Image.Resampling.LANCZOS))


@settings(deadline=None, max_examples=50)
@given(sides, sides, st.sampled_from([1, 8, 32]), st.sampled_from(["L", "RGB"]))
def test_without_a_crop_all_is_scaled(width, height, side, mode):
    image = picture(0, (width, height), mode)
    made = Transform(size=(side, side))(image)
    assert made.mode == mode
    assert np.array_equal(made, np.asarray(image) if image.size == made.size else lanczos(np.asarray(image), made.size))
    assert Transform()(image) is image


@settings(deadline=None, max_examples=50)
@given(sides, sides, st.sampled_from([1, 8, 32]))
def test_center_crop(width, height, side):
    array = np.asarray(picture(0, (width, height)))
    crop = min(array.shape[:2])
    top, left = (array.shape[0] - crop) // 2, (array.shape[1] - crop) // 2
    expected = lanczos(array[top : top + crop, left : left + crop], (side, side))
    assert np.array_equal(Transform("center-crop", (side, side))(Image.fromarray(array)), expected)


@settings(deadline=None, max_examples=100)
@given(sides, sides, st.integers(1, 16), st.sampled_from([8, 16]))
def test_center_crop_wide(w, h, height, width):
    height = min(height, width)
    array = np.asarray(picture(0, (w, h)))
    made = Transform("center-crop-wide", (width, height))(Image.fromarray(array))
    rows = int(np.round(width * h / w))
    if w < width or rows < height:
        assert made is None
        return
    canvas = np.zeros((width, width, 3), np.uint8)
    canvas[(width - height) // 2 : (width + height) // 2] = lanczos(
        array[(h - rows) // 2 : (h + rows) // 2], (width, height)
    )
    assert np.array_equal(made, canvas)


@pytest.mark.parametrize("crop", ["center-crop", "center-crop-wide"])
def test_crops_make_grey_rgb(crop):
    made = np.asarray(Transform(crop, (8, 8))(picture(0, (20, 20), "L")))
    assert made.shape == (8, 8, 3)
    assert (made == made[..., :1]).all()


def test_transparency_is_laid_on_white():
    image = picture(0, mode="RGBA")
    red, alpha = np.asarray(image)[..., 0].astype(float), np.asarray(image)[..., 3] / 255
    made = Transform()(image)
    assert made.mode == "RGB"
    assert np.abs(np.asarray(made)[..., 0] - (red * alpha + 255 * (1 - alpha))).max() <= 1


@pytest.mark.parametrize(
    ("crop", "size", "message"),
    [
        ("center-crop", None, "--transform center-crop needs a --resolution"),
        ("center-crop-wide", (8, 16), "needs a width no less"),
        (None, (8, 16), "8x16, and they have to be squares"),
        ("center-crop", (16, 8), "16x8, and they have to be squares"),
        ("center-crop", (24, 24), "power of two"),
    ],
)
def test_settings_that_do_not_fit(crop, size, message):
    with pytest.raises(InputError, match=message):
        Transform(crop, size)


@given(st.integers(1, 5000))
def test_powers_of_two(side):
    if side in {2**n for n in range(14)}:
        check_size(side, side, "x")
    else:
        with pytest.raises(InputError, match="power of two"):
            check_size(side, side, "x")


# --- modes of files ---


def grey_16():
    return np.random.default_rng(0).integers(0, 2**16, (8, 8)).astype(np.uint16)


def test_of_16_bits_the_upper_8_are_kept():
    made = decode(encoded(Image.fromarray(grey_16())), "x")
    assert made.mode == "L"
    assert np.array_equal(made, grey_16() >> 8)


def test_palettes_become_rgb():
    image = picture(0).quantize(16)
    made = decode(encoded(image), "x")
    assert made.mode == "RGB"
    assert np.array_equal(made, image.convert("RGB"))


def test_a_black_and_white_picture_is_grey():
    made = decode(encoded(picture(0, mode="L").convert("1")), "x")
    assert (made.mode, set(np.unique(made))) == ("L", {0, 255})


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB"])
def test_transparency_of_any_kind_is_seen(mode):
    if mode == "P":
        content = encoded(picture(0).quantize(4), transparency=1)
    elif mode == "RGB":
        content = encoded(picture(0), transparency=(1, 2, 3))
    else:
        content = encoded(picture(0, mode="RGBA").convert(mode))
    assert decode(content, "x").mode == "RGBA"


def test_cmyk_becomes_rgb():
    assert decode(encoded(picture(0).convert("CMYK"), "jpeg"), "x").mode == "RGB"


@pytest.mark.parametrize("mode", ["F", "I"])
def test_32_bits_are_refused(mode):
    with pytest.raises(InputError, match="x has 32-bit pixels"):
        decode(encoded(Image.fromarray(grey_16()).convert("I").convert(mode), "tiff"), "x")


def test_formats_that_start_programs_are_not_opened():
    with pytest.raises(InputError, match="damaged or no image"):
        decode(encoded(picture(0), "eps"), "x")


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_pixels_of_an_array_are_that_array(mode):
    array = pixels(decode(png(3, (5, 4), mode), "x"))
    assert array.shape == ({"L": 1, "RGB": 3}[mode], 4, 5)
    assert np.array_equal(pixels(decode(array, "x")), array)
