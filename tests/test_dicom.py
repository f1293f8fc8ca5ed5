"""DICOM as it comes: every way of packing gives the same pixels, and whatever is done to a file, reading it ends with pixels or with a sentence."""
import io

import imagecodecs
import numpy as np
import pydicom
import pytest
import tifffile
from conftest import mutated
from hypothesis import example, given, Phase, settings, strategies as st
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.pixels import pixel_array

from mammogan import pixels
from mammogan.core import seeded_rng
from mammogan.pixels import compress_dicom, open_picture, read_dicom, SYNTAXES, write_dicom

TISSUE = (2000+600*np.sin(np.arange(48)/9)[:, None]+np.arange(40)*20+seeded_rng(0, "tissue").integers(0, 90, (48, 40))).astype(np.uint16)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    "The same small mammogram in every packing"
    folder = tmp_path_factory.mktemp("dicom")
    plain = write_dicom(folder/"plain.dcm", TISSUE, WindowCenter=2400, WindowWidth=1200, RescaleSlope=1, RescaleIntercept=0)
    made = {s: compress_dicom(plain, folder/f"{s}.dcm", s) for s in SYNTAXES}
    return dict(made, plain=plain, **{"jpeg-extended": extended(plain, folder/"jpeg-extended.dcm")})


def extended(plain, out):
    "The same, packed with loss in 12 bits"
    ds = pydicom.dcmread(plain)
    stream = imagecodecs.jpeg8_encode(TISSUE, level=95, bitspersample=12)
    ds.file_meta.TransferSyntaxUID, ds.PixelData = "1.2.840.10008.1.2.4.51", encapsulate([stream])
    ds["PixelData"].is_undefined_length = True
    ds.save_as(out)
    return out


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_packed_pixels_are_the_loose_ones(syntax, files):
    picture = open_picture(files[syntax])
    assert (picture.pixels == TISSUE).all() and picture.window == (1800, 2999)
    assert files[syntax].read_bytes() != files["plain"].read_bytes()


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_gdcm_agrees(syntax, files):
    "A second opinion on what we wrote; deflated and RLE files are unpacked by pydicom itself"
    plugin = {} if syntax in ("deflated", "rle") else dict(decoding_plugin="gdcm")
    assert (pixel_array(pydicom.dcmread(files[syntax]), **plugin) == TISSUE).all()


def test_big_endian(tmp_path):
    ds = pydicom.dcmread(write_dicom(tmp_path/"a.dcm", TISSUE))
    ds.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRBigEndian
    ds.PixelData = TISSUE.astype(">u2").tobytes()
    pydicom.dcmwrite(tmp_path/"b.dcm", ds, implicit_vr=False, little_endian=False)
    assert (read_dicom(tmp_path/"b.dcm") == TISSUE).all()


def test_a_damaged_file_is_told_once(files, caplog, capfd):
    "By its sentence: no library logs or prints beside it"
    for seed, syntax in enumerate([*SYNTAXES]*20):
        file = files["plain"].with_name("damaged.dcm")
        file.write_bytes(mutated(files[syntax].read_bytes(), seed))
        try: open_picture(file)
        except ValueError: pass
    assert not caplog.records and capfd.readouterr() == ("", "")


def test_a_stream_that_announces_too_much_is_refused_before_it_is_decoded(files, tmp_path):
    "One changed byte of a JPEG 2000 stream made its decoder take gigabytes"
    data = bytearray(files["jpeg-2000"].read_bytes())
    width = data.find(b"\xff\x4f\xff\x51")+8
    assert data[width:width+4] == (40).to_bytes(4, "big")
    data[width] = 1
    (tmp_path/"big.dcm").write_bytes(data)
    with pytest.raises(ValueError, match="does not announce the 48 rows and 40 columns"): read_dicom(tmp_path/"big.dcm")


def test_a_missing_decoder_is_named(files, monkeypatch):
    monkeypatch.setattr(pixels, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"jpeg-lossless.dcm is packed as JPEG Lossless.*pip install 'mammogan\[dicom\]'"): read_dicom(files["jpeg-lossless"])


# The deadline tells a hang, not speed: CharLS, the JPEG-LS decoder, counts to 2**31 where a stream ends inside a run of zeros, as in the example
@settings(max_examples=2000, deadline=60_000, derandomize=True, database=None, phases=[Phase.explicit, Phase.generate])
@example(which="jpeg-ls", seed=216, voi=None)
@given(which=st.sampled_from(["plain", *SYNTAXES]), seed=st.integers(0, 2**32), voi=st.sampled_from([None, None, 0, 1]))
def test_a_mutated_file_gives_pixels_or_a_sentence(which, seed, voi, files):
    file = files["plain"].with_name("mutated.dcm")
    file.write_bytes(mutated(files[which].read_bytes(), seed))
    try: picture = open_picture(file, voi)
    except ValueError as e: assert str(file) in str(e) and len(str(e)) > len(str(file))+15
    else: assert picture.pixels.ndim == 2 and picture.pixels.dtype.kind == "u" and picture.pixels.size


@settings(max_examples=300, deadline=60_000, derandomize=True, database=None, phases=[Phase.explicit, Phase.generate])
@given(seed=st.integers(0, 2**32))
def test_a_mutated_file_of_lossy_jpeg_gives_pixels_or_a_sentence(seed, files):
    file = files["plain"].with_name("mutated-lossy.dcm")
    file.write_bytes(mutated(files["jpeg-extended"].read_bytes(), seed))
    try: picture = open_picture(file)
    except ValueError as e: assert str(file) in str(e)
    else: assert picture.pixels.ndim == 2


@pytest.fixture(scope="module")
def pictures():
    "The same mammogram as a picture, as Pillow reads it and as it does not"
    out, deep = {}, np.dstack([TISSUE]*3)
    for name, img in {"a.png": TISSUE, "a.tif": TISSUE, "a.pgm": TISSUE.astype(np.uint8)}.items():
        Image.fromarray(img).save(made := io.BytesIO(), {"a.png": "PNG", "a.tif": "TIFF", "a.pgm": "PPM"}[name])
        out[name] = made.getvalue()
    tiffs = {"white.tif": dict(data=65535-TISSUE, photometric="miniswhite"), "rgb.tif": dict(data=deep, photometric="rgb", compression="deflate")}
    for name, how in tiffs.items(): tifffile.imwrite(made := io.BytesIO(), **how); out[name] = made.getvalue()
    out["less.pgm"] = b"P5 40 48 4095\n"+TISSUE.astype(">u2").tobytes()
    return dict(out, **{"rgb.png": imagecodecs.png_encode(deep), "deep.jpg": imagecodecs.ljpeg_encode(TISSUE, bitspersample=16)})


def test_the_pictures_are_read(pictures, tmp_path):
    for name, data in pictures.items():
        (tmp_path/name).write_bytes(data)
        values = TISSUE.astype(np.uint8) if name == "a.pgm" else TISSUE
        assert (open_picture(tmp_path/name).pixels == values).all(), name


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=2000, deadline=60_000, derandomize=True, database=None, phases=[Phase.explicit, Phase.generate])
@given(which=st.sampled_from("a.png a.pgm a.tif white.tif rgb.tif rgb.png less.pgm deep.jpg".split()), seed=st.integers(0, 2**32))
def test_a_mutated_picture_gives_pixels_or_a_sentence(which, seed, files, pictures):
    bad = files["plain"].with_name(f"bad-{which}")
    bad.write_bytes(mutated(pictures[which], seed))
    try: picture = open_picture(bad)
    except ValueError as e: assert str(bad) in str(e)
    else: assert picture.pixels.ndim == 2
