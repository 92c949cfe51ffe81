"""Decoding: pixels as TensorFlow makes them, crops as the device renders them, and every odd file of data sets."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from distill_lib import crops, views
from distill_lib.datasets import decode

GOLDEN = Path(__file__).parents[1] / "golden" / "tensorflow"
ROUNDING = 0.51  # grey levels: float32 interpolation, then to the nearest
SUBSAMPLINGS = {"4:4:4": 0, "4:2:2": 1, "4:2:0": 2}


def picture(height: int, width: int, seed: int = 0, channels: int = 3) -> np.ndarray:
    """Coloured blobs under a little noise, so that JPEG has something to keep."""
    numbers = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    waves = numbers.uniform(0.02, 0.2, (channels, 2))
    smooth = [np.sin(rows * up + columns * along) for up, along in waves]
    noise = numbers.normal(0, 6, (height, width, channels))
    return (128 + 90 * np.stack(smooth, -1) + noise).clip(0, 255).astype(np.uint8)


def encoded(pixels: np.ndarray | Image.Image, kind: str = "JPEG", **options) -> bytes:
    """The bytes of a file."""
    file = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels.squeeze())
    image.save(file, kind, **({"quality": 90} | options if kind == "JPEG" else options))
    return file.getvalue()


def by_pillow(data: bytes, mode: str = "RGB") -> np.ndarray:
    """What Pillow makes of it."""
    return np.asarray(Image.open(io.BytesIO(data)).convert(mode))


def plainly(data: bytes) -> np.ndarray:
    """A JPEG as it is stored, decoded whole with TensorFlow's default DCT; Pillow has the accurate one alone."""
    return simplejpeg.decode_jpeg(data, fastdct=True)


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    """What TensorFlow makes of a photograph."""
    with np.load(GOLDEN / "resize.npz") as file:
        return {name: file[name] for name in file.files}


def test_jpegs_are_decoded_as_by_tensorflow(golden: dict) -> None:
    """With TensorFlow's default, the fast integer DCT: equal to the last bit."""
    data = golden["jpeg"].tobytes()
    np.testing.assert_array_equal(decode.decode(data), golden["whole"])
    assert decode.sides(data) == golden["whole"].shape[:2]


def test_evaluation_equals_resize_small_by_area_and_central_crop(golden: dict) -> None:
    """Shrunk and enlarged; on average far less than one grey level from TensorFlow."""
    cases = [name for name in golden if name.startswith("evaluation/")]
    assert len(cases) == 4
    for name in cases:
        small, size = map(int, name.split("/")[1:])
        found = decode.evaluation(golden["jpeg"].tobytes(), small, size)
        difference = np.abs(found.astype(int) - golden[name])
        assert difference.mean() < 0.02 and difference.max() <= 1, (name, difference.mean(), difference.max())


def test_crops_equal_decode_and_crop_and_bilinear_resize(golden: dict) -> None:
    """The paper's pipeline, for crops of whole pixels, larger and smaller than what they are shown with."""
    cases = [name for name in golden if name.startswith("crop/")]
    assert len(cases) == 4
    height, width = golden["whole"].shape[:2]
    for name in cases:
        top, left, high, wide, size = map(int, name.split("/")[1:])
        box = (top / height, left / width, high / height, wide / width)
        (found,) = decode.crops(golden["jpeg"].tobytes(), [decode.Look(box, False, size)])
        difference = np.abs(found.astype(int) - golden[name])
        # TensorFlow's decoder knows nothing beyond the crop, so its upsampled colour differs in the outermost pixels.
        assert difference.mean() < 0.1 and (difference <= 1).mean() > 0.97, (name, difference.mean())


@pytest.mark.parametrize("shape", [(375, 500), (500, 333)])
def test_inception_crops_are_distributed_as_tensorflow_draws_them(shape: tuple[int, int]) -> None:
    """99 quantiles of area, aspect and place; TensorFlow rounds to pixels and tries longer, hence the tolerances."""
    with np.load(GOLDEN / "boxes.npz") as file:
        golden = {name.rpartition("/")[2]: file[name] for name in file.files if name.startswith(f"{shape[0]}/")}
        quantiles = file["quantiles"]
    count, ratio = 100_000, shape[1] / shape[0]
    view = views.sample(jax.random.key(0), count, image_aspect=ratio, aspect=(0.75, 1.33))
    top, left, height, width = np.asarray(view.box, np.float64).T
    found = {"area": height * width, "aspect": width / height * ratio, "top": top, "left": left}
    assert found.keys() == golden.keys()
    for name, values in found.items():
        np.testing.assert_allclose(np.quantile(values, quantiles), golden[name], atol=0.012, err_msg=name)


@st.composite
def looks(draw: st.DrawFn) -> decode.Look:
    """A box anywhere in the image, small or large, shown at any size, mirrored or not."""
    height, width = draw(st.floats(0.1, 1)), draw(st.floats(0.1, 1))
    top, left = draw(st.floats(0, 1)) * (1 - height), draw(st.floats(0, 1)) * (1 - width)
    return decode.Look(
        np.array([top, left, height, width], np.float32), draw(st.booleans()), draw(st.sampled_from([5, 24, 56]))
    )


def rendered(pixels: np.ndarray, look: decode.Look) -> np.ndarray:
    """What the device shows, in grey levels."""
    one = views.View(jnp.asarray(look.box)[None], jnp.array([look.flip]))
    return (np.asarray(views.render(pixels[None], one, look.size))[0] + 1) * 127.5


@pytest.mark.slow
@given(looks(), st.sampled_from([1, 3]), st.sampled_from(["JPEG", "PNG", "array"]))
@settings(max_examples=40)
def test_crops_are_what_the_device_renders(look: decode.Look, channels: int, kind: str) -> None:
    """Device-resident and streamed data show the same picture, to within the rounding to uint8."""
    pixels = picture(45, 61, channels=channels)
    image = pixels if kind == "array" else encoded(pixels, kind)
    (found,) = decode.crops(image, [look], channels)
    assert found.shape == (look.size, look.size, channels) and found.dtype == np.uint8 and found.flags.c_contiguous
    expected = rendered(decode.decode(image, channels), look)
    assert np.abs(found - expected).max() <= ROUNDING


@given(st.integers(0, 3), st.sampled_from([*SUBSAMPLINGS]), st.floats(0.05, 1), st.sampled_from([1, 3]), st.booleans())
@settings(max_examples=60)
def test_rows_below_a_crop_can_be_left_out(
    seed: int, subsampling: str, bottom: float, channels: int, restarts: bool
) -> None:
    """A crop of a file that is decoded in part equals that of the whole, to the last bit."""
    pixels = picture(75 + seed, 66, seed)
    options = {"restart_marker_rows": 1} if restarts else {}
    data = encoded(pixels, subsampling=SUBSAMPLINGS[subsampling], **options)
    upper, whole = decode.Look((0, 0, bottom, 1), False, 24), decode.Look((0, 0, 1, 1), False, 24)
    (part,), (same, _) = decode.crops(data, [upper], channels), decode.crops(data, [upper, whole], channels)
    np.testing.assert_array_equal(part, same)


@pytest.mark.parametrize("options", [{"progressive": True}, {"progressive": True, "subsampling": 0}])
def test_progressive_files_are_decoded_whole(options: dict) -> None:
    """Their rows are spread over several scans."""
    data = encoded(picture(70, 50), **options)
    np.testing.assert_array_equal(decode.decode(data), plainly(data))
    assert np.abs(plainly(data).astype(int) - by_pillow(data)).mean() < 2
    look = decode.Look((0.1, 0.1, 0.4, 0.5), False, 20)
    assert np.abs(decode.crops(data, [look])[0] - rendered(plainly(data), look)).max() <= ROUNDING


def test_several_crops_of_one_decoding_are_those_of_each_alone() -> None:
    """Teacher's and student's, one lower in the picture than the other, and one crop at two sizes."""
    data = encoded(picture(80, 90))
    wanted = [decode.Look((0, 0.1, 0.3, 0.5), True, 16), decode.Look((0.5, 0.2, 0.5, 0.4), False, 24)]
    for look, found in zip(wanted, decode.crops(data, wanted), strict=True):
        np.testing.assert_array_equal(found, decode.crops(data, [look])[0])
    small, large = decode.crops(data, [wanted[0], wanted[0]._replace(size=24)])
    np.testing.assert_array_equal(small, decode.crops(data, wanted[:1])[0])
    assert large.shape == (24, 24, 3)


def exif(orientation: int, order: str = "<") -> bytes:
    """An Exif block that says nothing but how the camera was held."""
    entry = struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0)
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    return b"Exif\0\0" + head + struct.pack(order + "H", 1) + entry + bytes(4)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", ["<", ">"])
def test_pictures_are_turned_upright(orientation: int, order: str) -> None:
    """All eight ways, in both byte orders, as Pillow turns them; size, whole image and crops agree."""
    from PIL import ImageOps

    data = encoded(picture(40, 60), exif=exif(orientation, order))
    stored = Image.fromarray(plainly(data))
    stored.getexif()[0x0112] = orientation
    upright = np.asarray(ImageOps.exif_transpose(stored))
    assert decode.sides(data) == upright.shape[:2] == ((40, 60) if orientation < 5 else (60, 40))
    np.testing.assert_array_equal(decode.decode(data), upright)
    look = decode.Look((0.2, 0.1, 0.5, 0.8), False, 20)
    assert np.abs(decode.crops(data, [look])[0] - rendered(upright, look)).max() <= ROUNDING


def test_other_formats_are_turned_upright_too() -> None:
    """PNG files of telephones."""
    data = encoded(picture(40, 60), "PNG", exif=exif(6))
    assert decode.sides(data) == decode.decode(data).shape[:2] == (60, 40)
    np.testing.assert_array_equal(decode.decode(data), np.rot90(picture(40, 60), -1))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("junk", [exif(0), exif(77), b"Exif\0\0II", b"Exif\0\0XX" + bytes(20), exif(6)[:20]])
def test_nonsense_in_exif_is_no_orientation(junk: bytes) -> None:
    """A damaged or empty block costs nothing but the orientation."""
    data = encoded(picture(40, 60), exif=junk)
    assert decode.sides(data) == decode.decode(data).shape[:2] == (40, 60)


DEEP = (np.arange(48 * 32).reshape(48, 32) * 42).astype(np.uint16)
ODD = {
    "cmyk": encoded(Image.fromarray(picture(48, 32)).convert("CMYK")),
    "grey": encoded(picture(48, 32, channels=1)),
    "16 bit": encoded(DEEP, "PNG"),
    "palette": encoded(Image.fromarray(picture(48, 32)).quantize(16), "PNG"),
    "transparent palette": encoded(Image.fromarray(picture(48, 32)).quantize(16), "PNG", transparency=bytes(range(16))),
    "transparent": encoded(np.dstack([picture(48, 32), DEEP % 256]).astype(np.uint8), "PNG"),
    "one bit": encoded(Image.fromarray(DEEP % 256 > 99), "PNG"),
    "gif": encoded(Image.fromarray(picture(48, 32)).quantize(16), "GIF"),
    "webp": encoded(picture(48, 32), "WEBP"),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("channels", [1, 3])
def test_odd_files_give_plain_pixels(name: str, channels: int) -> None:
    """Of the size that the header says, whole, as a crop, and for evaluation, and they resemble the original."""
    data = ODD[name]
    assert decode.sides(data) == (48, 32)
    found = decode.decode(data, channels)
    assert found.shape == (48, 32, channels) and found.dtype == np.uint8
    look = decode.Look((0.1, 0.2, 0.7, 0.6), True, 12)
    assert np.abs(decode.crops(data, [look], channels)[0] - rendered(found, look)).max() <= ROUNDING
    assert decode.evaluation(data, 24, 20, channels).shape == (20, 20, channels)
    if name == "16 bit":
        np.testing.assert_array_equal(found, np.repeat((DEEP >> 8)[:, :, None], channels, axis=2))
    elif name not in ("grey", "one bit"):
        original = picture(48, 32) if channels == 3 else by_pillow(encoded(picture(48, 32), "PNG"), "L")[:, :, None]
        assert np.abs(found.astype(int) - original).mean() < 30


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_an_image_of_one_pixel_has_crops_and_an_evaluation(kind: str) -> None:
    """Any box of it is that pixel."""
    data = encoded(Image.new("RGB", (1, 1), (90, 90, 90)), kind)
    assert decode.sides(data) == (1, 1)
    assert (decode.crops(data, [decode.Look((0.3, 0.2, 0.5, 0.4), False, 8)])[0] == 90).all()
    assert (decode.evaluation(data, 8, 6) == 90).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_an_image_of_20000_pixels_width_is_an_image(kind: str) -> None:
    """A panorama."""
    pixels = np.repeat(np.linspace(0, 255, 20_000).astype(np.uint8)[None, :, None], 3, axis=2).repeat(8, axis=0)
    data = encoded(pixels, kind)
    assert decode.sides(data) == (8, 20_000)
    look = decode.Look((0, 0.5, 1, 0.25), False, 16)
    (found,) = decode.crops(data, [look])
    np.testing.assert_allclose(found[8, :, 0], np.linspace(0.5, 0.75, 17)[:-1] * 255 + 2, atol=3)
    assert decode.evaluation(data, 8, 8).shape == (8, 8, 3)


def test_arrays_pass_as_they_are() -> None:
    """Sets of arrays, and those whose files were decoded by others; grey for colour and colour for grey."""
    grey, colour = picture(9, 7, channels=1), picture(9, 7)
    assert decode.sides(colour) == (9, 7)
    np.testing.assert_array_equal(decode.decode(colour), colour)
    np.testing.assert_array_equal(decode.decode(grey[:, :, 0], 1), grey)
    np.testing.assert_array_equal(decode.decode(grey, 3), np.repeat(grey, 3, axis=2))
    assert np.abs(decode.decode(colour, 1)[:, :, 0].astype(int) - by_pillow(encoded(colour, "PNG"), "L")).max() <= 1


JPEG = encoded(picture(60, 80))
FRAME, SCAN = JPEG.index(b"\xff\xc0"), JPEG.index(b"\xff\xda")
PNG = encoded(picture(60, 80), "PNG")
BROKEN = {
    "nothing": b"",
    "text": b"<html>404 Not Found</html>",
    "no size": JPEG[:20],
    "header alone": JPEG[:SCAN],
    "half a JPEG": JPEG[: len(JPEG) // 2],
    "half a PNG": PNG[: len(PNG) // 2],
    "half a CMYK": ODD["cmyk"][: len(ODD["cmyk"]) // 2],
    "a damaged header": JPEG[:4] + b"\0\0\0" + JPEG[7:],
    "height 0": JPEG[: FRAME + 5] + b"\0\0" + JPEG[FRAME + 7 :],
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_told(name: str) -> None:
    """Whatever is asked of them, and whether or not the crop lies in the part that is there."""
    for ask in (
        decode.decode,
        lambda data: decode.crops(data, [decode.Look((0, 0, 0.1, 0.1), False, 8)]),
        lambda data: decode.evaluation(data, 8, 8),
    ):
        with pytest.raises(decode.ImageError) as caught:
            ask(BROKEN[name])
        assert str(caught.value)


def test_harmless_damage_is_tolerated() -> None:
    """Bytes after the end or before it, and a missing end mark, as data sets have them; TensorFlow takes them too."""
    for data in (JPEG + b"\0" * 7, JPEG[:-2] + b"xx\xff\xd9", JPEG[:-2], JPEG[:2] + b"\xff" + JPEG[2:]):
        np.testing.assert_array_equal(decode.decode(data), plainly(JPEG))
        look = decode.Look((0.5, 0.5, 0.5, 0.5), False, 12)
        np.testing.assert_array_equal(decode.crops(data, [look])[0], decode.crops(JPEG, [look])[0])


def test_boxes_of_views_fit_every_image() -> None:
    """From drawing to pixels, for images of one pixel and of many."""
    for height, width in ((1, 1), (2, 3), (50, 7)):
        view = jax.device_get(views.sample(jax.random.key(0), 8, image_aspect=width / height))
        pixels = picture(height, width)
        for box, flip in zip(view.box, view.flip, strict=True):
            (found,) = decode.crops(pixels, [decode.Look(box, bool(flip), 6)])
            assert pixels.min() <= found.min() and found.max() <= pixels.max()
    assert set(crops.CROPS) >= {"whole", "inception"}
