"""Odd files: their lesion patches are those of the same film saved plainly, or a sentence names the file."""
import io, itertools, plistlib, re
from pathlib import Path

import imagecodecs
import numpy as np
import pandas as pd
import pydicom
import pytest
import tifffile
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom import uid

from mammogan import pixels
from mammogan.folders import read_folder
from mammogan.archives import read_omidb, READERS
from mammogan.public_archives import read_inbreast, read_minimias
from mammogan.core import seeded_rng
from mammogan.cutting import cut
from mammogan.presets import PrepareConfig
from mammogan.dataset import (
    image_patches, lesion_patches, normal_sizes, preparation, prepare, typical_image)
from mammogan.patches import left_out
from mammogan.patches import Archive
from mammogan.pixels import open_picture, read_dicom, write_dicom

BOX = (10, 52, 29, 75)      # of the one mass, both ends inclusive


def film(bits=12, seed=0):
    "A half ellipse of tissue with a bright mass before air, which is 0; at most three quarters of what `bits` can hold"
    y, x = np.mgrid[:128, :96]
    r = ((y-64)/60)**2+(x/80)**2
    mass = 1200*np.clip(1-((y-64)/12)**2-((x-20)/10)**2, 0, None)
    img = np.clip(900+500*(1-r)+seeded_rng(seed, "film").normal(0, 60, r.shape)+mass, 1, 3000)
    img[r > 1] = 0
    return (img*2.**(bits-12)).astype(np.uint16)


def patch(path):
    "The lesion's patch as it is read from a file"
    return cut(open_picture(path).pixels, BOX, 32).astype(int)


PLAIN = {bits: cut(film(bits), BOX, 32).astype(int) for bits in (8, 10, 12, 14, 16)}


# Writers

def words(values, bits): return (values.astype(np.int64) & (1 << bits)-1).astype(np.uint16)


def j2k(w, bits): return imagecodecs.jpeg2k_encode(w, level=0, codecformat="j2k", bitspersample=bits)
def jls(w, bits): return imagecodecs.jpegls_encode(w)
def lossless(w, bits): return imagecodecs.ljpeg_encode(w, bitspersample=bits)


STREAMS = dict(j2k=(uid.JPEG2000Lossless, j2k), jls=(uid.JPEGLSLossless, jls), lossless=(uid.JPEGLosslessSV1, lossless))
LOOSE = dict(explicit=uid.ExplicitVRLittleEndian, implicit=uid.ImplicitVRLittleEndian, big=uid.ExplicitVRBigEndian,
             deflated=uid.DeflatedExplicitVRLittleEndian)


def save(path, values, encoding="explicit", bits=12, stream_bits=None, raw=(), **tags):
    "A film in DICOM, of values as they are to be stored; `raw` has tags with a type of their own"
    signed = bool(tags.get("PixelRepresentation"))
    stored = dict(BitsStored=bits, HighBit=bits-1, BitsAllocated=16, **tags)
    ds = pydicom.dcmread(write_dicom(path, values.astype(np.int16) if signed else values.astype(np.uint16), **stored))
    for keyword, vr, value in raw: ds.add_new(keyword, vr, value)
    if encoding == "rle":
        ds.BitsStored, ds.HighBit = 16, 15                      # of 8 bits and fewer, pydicom packs one byte
        ds.compress(uid.RLELossless, generate_instance_uid=False)
        ds.BitsStored, ds.HighBit = bits, bits-1
    elif encoding in STREAMS:
        syntax, encode = STREAMS[encoding]
        many = stream_bits or bits
        pack(ds, syntax, encode(words(values, many), many))
    else:
        ds.file_meta.TransferSyntaxUID = LOOSE[encoding]
        if encoding == "big": ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
    little, implicit = encoding != "big", encoding == "implicit"
    pydicom.dcmwrite(path, ds, implicit_vr=implicit, little_endian=little, force_encoding=not implicit and not little)
    return path


def pack(ds, syntax, stream):
    ds.file_meta.TransferSyntaxUID, ds.PixelData = syntax, encapsulate([stream])
    ds["PixelData"].is_undefined_length = True


# One film in every form

FORMS = [*LOOSE, "rle", *STREAMS]
PADDINGS = ["none", "own", "other"]


def padded(values, air, padding, bits, signed):
    "A film whose air is padding, and the tag that says so, of the type that its pixels have, or of the other one"
    if padding == "none": return values, []
    value = -(1 << bits-1) if signed else (1 << bits)-1
    said = value if padding == "own" else value+65536 if signed else value-65536*(value > 32767)
    vr = "SS" if said < 0 or signed and said < 32768 else "US"
    return np.where(air, value, values), [("PixelPaddingValue", vr, said)]


@pytest.mark.parametrize("encoding", FORMS)
def test_a_film_is_the_same_in_every_encoding_depth_sign_polarity_and_padding(encoding, tmp_path):
    choices = itertools.product(PLAIN, (False, True), ("MONOCHROME2", "MONOCHROME1"), PADDINGS)
    for bits, signed, polarity, padding in choices:
        f = film(bits).astype(int)
        values = (1 << bits)-1-f if polarity == "MONOCHROME1" else f
        values, raw = padded(values-(1 << bits-1 if signed else 0), f == 0, padding, bits, signed)
        tags = dict(PixelRepresentation=int(signed), PhotometricInterpretation=polarity)
        save(tmp_path/"a.dcm", values, encoding, bits, raw=raw, **tags)
        got = open_picture(tmp_path/"a.dcm")
        assert np.abs(cut(got.pixels, BOX, 32)-PLAIN[bits]).max() == 0, (bits, signed, polarity, padding)
        assert (got.pixels[f == 0] == 0).all() and not got.notes, (bits, signed, polarity, padding)


@pytest.mark.parametrize("encoding", FORMS)
@pytest.mark.parametrize("bits", [8, 10, 12, 14])
def test_what_is_above_the_stored_bits_is_cut_off_and_too_few_bits_are_refused(encoding, bits, tmp_path):
    f, marker = film(bits), np.zeros((128, 96), np.uint16)
    marker[4:12, 84:94] = 1
    rubbish = (np.indices(f.shape).sum(0)//3 % (1 << 16-bits)).astype(np.uint16)
    for above in (marker << 15, marker << bits, rubbish << bits):
        save(tmp_path/"a.dcm", f | above, encoding, bits, stream_bits=16)
        got = open_picture(tmp_path/"a.dcm")
        assert (got.pixels == f).all()
        assert got.notes == (f"what is above its {bits} stored bits, such as an overlay, was cut off",)
    for fewer in {bits-1, bits-2, 8}-{bits}:
        save(tmp_path/"a.dcm", f, encoding, fewer, stream_bits=16)
        refused = rf"a.dcm: its values do not fit the {fewer} bits that it says are stored"
        with pytest.raises(ValueError, match=refused): read_dicom(tmp_path/"a.dcm")


@pytest.mark.parametrize("encoding", ["explicit", "rle"])
def test_bits_that_stand_higher_are_read(encoding, tmp_path):
    for signed in (0, 1):
        values = (film().astype(int)-2048*signed)*16+3
        ds = pydicom.dcmread(save(tmp_path/"a.dcm", values, bits=16, PixelRepresentation=signed))
        ds.BitsStored, ds.HighBit = 12, 15
        if encoding == "rle": ds.compress(uid.RLELossless, generate_instance_uid=False)
        ds.save_as(tmp_path/"a.dcm")
        assert (patch(tmp_path/"a.dcm") == PLAIN[12]).all()


def deep(path, a): path.write_bytes(imagecodecs.png_encode(a))
def tiff(path, a, **how): tifffile.imwrite(path, a, **how)
def pgm(path, a, most): path.write_bytes(b"P5\n# a remark\n96 128\n%d\n" % most+a.astype(">u2").tobytes())


ALPHA = dict(photometric="minisblack", planarconfig="contig", extrasamples=["unassalpha"])
WHITE = dict(photometric="miniswhite")


def opaque(*channels): return np.dstack([*channels, channels[0]*0+65535])


PICTURES = {"grey.png": lambda p, f: deep(p, f),
            "rgb.png": lambda p, f: deep(p, np.dstack([f]*3)),
            "rgba.png": lambda p, f: deep(p, opaque(f, f, f)),
            "alpha.png": lambda p, f: deep(p, opaque(f)),
            "grey.tif": lambda p, f: tiff(p, f),
            "big.tif": lambda p, f: tiff(p, f, byteorder=">", bigtiff=True),
            "white.tif": lambda p, f: tiff(p, 65535-f, **WHITE),
            "white12.tif": lambda p, f: tiff(p, 4095-f, **WHITE),
            "white-big.tif": lambda p, f: tiff(p, 65535-f, byteorder=">", compression="deflate", **WHITE),
            "rgb.tif": lambda p, f: tiff(p, np.dstack([f]*3), photometric="rgb"),
            "lzw.TIFF": lambda p, f: tiff(p, np.dstack([f]*3), photometric="rgb", compression="lzw"),
            "planes.tif": lambda p, f: tiff(p, np.stack([f]*3), photometric="rgb", planarconfig="separate"),
            "alpha.tif": lambda p, f: tiff(p, opaque(f), **ALPHA),
            "most.pgm": lambda p, f: pgm(p, f, 65535),
            "less.pgm": lambda p, f: pgm(p, f, 4095),
            "deep.jpg": lambda p, f: p.write_bytes(lossless(f, 16))}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_of_16_bits_keeps_its_levels_and_its_polarity(name, tmp_path):
    PICTURES[name](tmp_path/name, film())
    assert (open_picture(tmp_path/name).pixels == film()).all()


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.pgm", "white.tif"])
def test_a_picture_of_8_bits_is_read(name, tmp_path):
    f = film(8).astype(np.uint8)
    if name == "white.tif": tiff(tmp_path/name, 255-f, **WHITE)
    else: Image.fromarray(f).save(tmp_path/name)
    assert (open_picture(tmp_path/name).pixels == f).all()


@pytest.mark.parametrize("name", ["rgb.png", "alpha.png", "lzw.TIFF", "deep.jpg"])
def test_without_imagecodecs_a_picture_that_would_be_cut_is_refused_and_the_extra_named(name, tmp_path, monkeypatch):
    def without(page): raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")
    PICTURES[name](tmp_path/name, film())
    monkeypatch.setattr(pixels, "find_spec", lambda name: None)
    monkeypatch.setattr(tifffile.TiffPage, "asarray", without)
    refused = rf"{name} cannot be read as a picture .*pip install 'mammogan\[dicom\]'"
    with pytest.raises(ValueError, match=refused): open_picture(tmp_path/name)


# Codecs

JPEG = "1.2.840.10008.1.2.4."


def packed(path, syntax, stream, bits=12):
    ds = pydicom.dcmread(write_dicom(path, film(bits), BitsStored=bits, HighBit=bits-1))
    pack(ds, syntax, stream)
    ds.save_as(path)
    return path


def narrow(bits): return film(bits).astype(np.uint8 if bits == 8 else np.uint16)
def lossy(bits): return imagecodecs.jpeg8_encode(narrow(bits), level=98, bitspersample=bits)
def filled(stream): return stream[:2]+b"\xff\xff\xff"+stream[2:]


def progressive():
    Image.fromarray(narrow(8)).save(made := io.BytesIO(), "JPEG", quality=98, progressive=True)
    return made.getvalue()


@pytest.mark.parametrize("syntax, stream, bits", [("51", lossy(12), 12), ("51", filled(lossy(12)), 12), ("50", lossy(8), 8), ("51", lossy(8), 8),
                                                  ("50", filled(lossy(8)), 8), ("55", progressive(), 8), ("50", progressive(), 8)], ids=range(7))
def test_lossy_jpeg_of_any_kind_is_read_within_some_grey_levels(syntax, stream, bits, tmp_path):
    assert np.abs(patch(packed(tmp_path/"a.dcm", JPEG+syntax, stream, bits))-PLAIN[bits]).max() < 8


@pytest.mark.parametrize("name", ["jls", "lossless"])
def test_bytes_that_fill_up_before_a_marker_are_passed_over(name, tmp_path):
    syntax, encode = STREAMS[name]
    assert (patch(packed(tmp_path/"a.dcm", syntax, filled(encode(film(), 12)))) == PLAIN[12]).all()


def test_the_true_reason_reaches_the_user(tmp_path, monkeypatch):
    def reason(*file):
        with pytest.raises(ValueError) as e: read_dicom(packed(tmp_path/"a.dcm", *file))
        return str(e.value)
    arithmetic = lossy(8).replace(b"\xff\xc0", b"\xff\xc9", 1)
    assert "a.dcm: its pixels cannot be decoded (its frame is of kind 9 of JPEG" in reason(JPEG+"51", arithmetic, 8)
    broken = reason(JPEG+"90", j2k(film(), 12)[:200])
    assert re.search("a.dcm: its pixels cannot be decoded .*pylibjpeg: .*[a-z]{3}", broken) and ".." not in broken and "\n" not in broken
    monkeypatch.setattr(pixels, "find_spec", lambda name: None)
    assert re.search(r"a.dcm is packed as JPEG Extended.*pip install 'mammogan\[dicom\]'", reason(JPEG+"51", lossy(12)))
    assert np.abs(patch(packed(tmp_path/"a.dcm", JPEG+"51", lossy(8), 8))-PLAIN[8]).max() < 8      # Pillow knows these


# Attributes and polarity

def changed(path, old, new):
    assert len(old) == len(new) and old in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(old, new))
    return path


UNNEEDED = dict(ImagerPixelSpacing=["0.0711", "0.0711"], WindowCenter="2047.5", WindowWidth="4095.5", StudyDate="20150101",
                XRayTubeCurrent="100 ", RescaleIntercept="0.25", NumberOfFrames="1   ", Exposure="1234", PatientAge="050Y",
                BodyPartThickness="55.5", EstimatedRadiographicMagnificationFactor="1.125")


@pytest.mark.parametrize("keyword", UNNEEDED)
@pytest.mark.parametrize("rubbish", [b",", b"\\", b"?", b"\0"])
def test_an_attribute_that_is_not_needed_never_costs_the_film(keyword, rubbish, tmp_path):
    file = write_dicom(tmp_path/"a.dcm", film(), **{keyword: UNNEEDED[keyword]})
    text = pydicom.dcmread(file).get_item(keyword).value
    text = text if isinstance(text, bytes) else str(text).encode()
    odd = text.replace(b".", b",") if rubbish == b"," else text[:-1]+rubbish
    assert (patch(changed(file, text, odd)) == PLAIN[12]).all()
    told = pixels.read_header(file)
    if keyword != "ImagerPixelSpacing" or rubbish not in (b",", b"?"): return
    assert told["pixel_mm"] is None and "ImagerPixelSpacing" in told["notes"][0]


NEEDED = [("RescaleSlope", b"1.5 ", b"1,5 "), ("PhotometricInterpretation", b"MONOCHROME2 ", b"MONOCHROME\\x")]


@pytest.mark.parametrize("keyword, good, bad", NEEDED)
def test_what_is_needed_and_unreadable_is_named(keyword, good, bad, tmp_path):
    file = write_dicom(tmp_path/"a.dcm", film(), **{keyword: good.decode().strip()})
    with pytest.raises(ValueError, match=f"a.dcm.*its {keyword} is"): read_dicom(changed(file, good, bad))


@pytest.mark.parametrize("tags, said", [(dict(BitsStored=17), "says that 17 of 16 bits are stored"), (dict(PixelRepresentation=2), "PixelRepresentation"),
                                        (dict(BitsStored=None), "says that None of 16 bits"), (dict(Rows=None), "0 rows")])
def test_what_is_needed_and_impossible_is_named(tags, said, tmp_path):
    with pytest.raises(ValueError, match=f"a.dcm.*{said}"): read_dicom(write_dicom(tmp_path/"a.dcm", film(), **tags))


RAW = dict(PresentationIntentType="FOR PROCESSING")
TURNED = dict(RescaleSlope=-1, RescaleIntercept=4095)
def sign(n): return dict(PixelIntensityRelationshipSign=n)
def lut(shape): return dict(PresentationLUTShape=shape)


# What a header says, whether dense is dark in the file, and how many contradictions it holds
POLARITY = [("M2", dict(RAW, **sign(1)), True, 0), ("M2", dict(RAW, **sign(-1)), False, 0), ("M1", dict(RAW, **sign(1)), True, 0),
            ("M1", dict(RAW, **sign(-1)), False, 1), ("M2", sign(1), False, 0), ("M2", lut("INVERSE"), True, 1),
            ("M1", lut("INVERSE"), True, 0), ("M1", lut("IDENTITY"), False, 1), ("M2", lut("IDENTITY"), False, 0),
            ("M1", TURNED, False, 0), ("M2", dict(RAW, **sign(1), **TURNED), True, 0)]


@pytest.mark.parametrize("shown, tags, dark, notes", POLARITY)
def test_bright_is_dense_and_contradictions_are_told(shown, tags, dark, notes, tmp_path):
    stored = 4095-film().astype(int) if dark else film()
    tags = dict(tags, PhotometricInterpretation=shown.replace("M", "MONOCHROME"))
    got = open_picture(save(tmp_path/"a.dcm", stored, **tags))
    assert (got.pixels == film()).all() and len(got.notes) == notes and all("contradict" in n for n in got.notes)


# A whole preparation

CONFIG = PrepareConfig(size=32, normals_per_image=3, draws=40, rounds=2)


def folder(root, write, suffix=".dcm", box=BOX, more=""):
    "Three films of three women with a table of boxes; `write(path, film)` writes one"
    root.mkdir(parents=True)
    for i in range(3): write(root/f"m{i}{suffix}", film(seed=i))
    rows = [f"m{i}{suffix},w{i},{','.join(map(str, box))},mass\n" for i in range(3)]
    (root/"boxes.csv").write_text("file,patient,x1,y1,x2,y2,kind\n"+"".join(rows)+more)
    return root


def noisy(p, f): write_dicom(p, np.where(f == 0, seeded_rng(1, "air").integers(5, 60, f.shape), f).astype(np.uint16))
def padding(p, f): save(p, np.where(f == 0, 65535, f), bits=16, raw=[("PixelPaddingValue", "SS", -1)])
def overlaid(p, f): save(p, f | (np.indices(f.shape).sum(0) < 9).astype(np.uint16) << 15, "j2k", stream_bits=16)
def commas(p, f): changed(write_dicom(p, f, ImagerPixelSpacing=["0.0711", "0.0711"]), b"0.0711", b"0,0711")
def raw_film(p, f): write_dicom(p, (4095-f.astype(int)).astype(np.uint16), **RAW, **sign(1))


KINDS = dict(padding=(".dcm", padding), overlay=(".dcm", overlaid), commas=(".dcm", commas), white=(".tif", PICTURES["white.tif"]),
             colour=(".png", PICTURES["rgb.png"]), capitals=(".DCM", write_dicom), air=(".dcm", noisy), raw=(".dcm", raw_film))
SAID = dict(overlay="note", commas="header", air="doubt")


@pytest.mark.parametrize("kind", KINDS)
def test_its_patches_are_those_of_the_film_saved_plainly_and_what_is_odd_is_told(kind, tmp_path):
    suffix, write = KINDS[kind]
    ps = prepare(read_folder(folder(tmp_path/kind, write, suffix)), tmp_path/"set", CONFIG)
    assert (ps.positives.pixels == [cut(film(seed=i), BOX, 32) for i in range(3)]).all()
    assert ps.rejected.what.tolist() == [SAID[kind]]*3 if kind in SAID else ps.rejected.empty
    if kind != "air": assert ps.normals.pixels.min() > 200                              # none of them shows air
    else: assert left_out(ps)["count"].tolist() == [3] and ps.rejected.reason.str.contains("--mask otsu").all()


def test_an_image_that_makes_no_sense_is_a_counted_line(tmp_path):
    def label(p, f): save(p, np.where(np.indices(f.shape).sum(0) < 20, 65535, f), bits=16)
    ps = prepare(read_folder(folder(tmp_path/"a", label)), tmp_path/"set", CONFIG)
    lines = left_out(ps).reset_index()
    assert sorted(lines["what"]) == ["doubt", "normals"] and set(lines["count"]) == {3}
    assert lines.reason.str.contains("stretch").all()


# One mammogram

def one_film(img=None, boxes=(BOX,)):
    "An archive of one film, with a mass in each box"
    def read(path):
        if isinstance(img, Exception): raise img
        return film() if img is None else img
    images = pd.DataFrame([dict(patient="w0", view="CC", file="m0")], index=["m0"])
    lesions = pd.DataFrame([dict(image="m0", **dict(zip(("x1", "y1", "x2", "y2"), b)), mass=True) for b in boxes], index=range(len(boxes)))
    return Archive("odd", Path("."), images, lesions, read)


def rejected(archive, sizes=((20, 20),)): return image_patches(archive, "m0", np.array(sizes), CONFIG, 0)["rejected"]


FILMS = [(OSError("the file ends early"), "the file ends early"), (film()*0, "the mask is empty: no pixel is above the background"),
         (np.stack([film()]*3), "m0 has the shape (3, 128, 96), a mammogram has rows and columns"), (film()*100., "its values do not lie between 0 and 65535"),
         (film()/4095, "its values are fractions between 0 and 1, and whole numbers up to 65535 are needed"), (film()*0+7, "all its pixels have the value 7")]


@pytest.mark.parametrize("img, reason", FILMS)
def test_a_film_that_cannot_be_used_is_a_row_with_its_reason(img, reason):
    assert rejected(one_film(img)) == [("image", "m0", "m0", reason), ("lesion", 0, "m0", "its image was left out")]


def test_where_a_lesion_is_not_known_no_normal_tissue_is_cut():
    assert [r[:2] for r in rejected(one_film(boxes=((np.nan,)*4,)))] == [("lesion", 0), ("normals", "m0"), ("image", "m0")]
    none = "no normal tissue was found: no box fits into the breast: it is small, or the mask misses it"
    assert rejected(one_film(), ((120, 90),)) == [("normals", "m0", "m0", none)]


def test_sizes_of_normal_boxes_are_those_of_usable_lesions():
    sizes = dict(one=(one_film(), {}, [[24, 20]]), margin=(one_film(), dict(margin=.1), [[28, 24]]), native=(one_film(), dict(normals="native"), [[128, 128]]),
                 none=(one_film(boxes=()), {}, [[128, 128]]), odd=(one_film(boxes=(("left", 1, 2, 3), (1e300, 5, 1e300, 9), (0, 0, 9, 9))), {}, [[10, 10]]))
    for name, (archive, config, found) in sizes.items(): assert normal_sizes(archive, PrepareConfig(**config)).tolist() == found, name


def test_a_box_that_leaves_the_film_is_clipped_and_marked():
    _, rows, left, places, lost = lesion_patches(one_film(boxes=(BOX, (-5, 50, 20, 60), (5, 5, 900, 20))), "m0", film(), PrepareConfig())
    assert [r["clipped"] for r in rows] == [False, True] and len(places) == 3 and not lost
    assert left == [("lesion", 2, "m0", "box (5,5)-(900,20) is larger than 750 pixels")]


def test_figure_1_shows_what_is_prepared():
    shown = preparation(one_film(), typical_image(one_film()), CONFIG)
    assert shown["lesions"] == [BOX] and len(shown["accepted"]) == len(shown["patches"]["normal"]) == 3
    with pytest.raises(ValueError, match="odd has no lesion"): typical_image(one_film(boxes=()))


# Points, boxes, masks

def test_boxes_as_fractions_with_commas_or_twice_are_told(tmp_path):
    more = "m0.dcm,w0,10,52,29,75,calcification\nm1.dcm,w1,.2,.3,.5,.6,mass\nm2.dcm,w2,\"10,5\",52,29,75,mass\n"
    said = ["its box is that of m0.dcm/2: the two are one lesion, of the kinds of both",
            "box (0.2,0.3)-(0.5,0.6) is given as shares of the image's sides, and boxes are in pixels",
            "the annotation gives no complete box: x1 is '10,5'"]
    ps = prepare(read_folder(folder(tmp_path/"a", write_dicom, more=more)), tmp_path/"set", CONFIG)
    assert ps.rejected[ps.rejected.what == "lesion"].reason.tolist() == said
    assert ps.positives.rows[["mass", "calcification"]].values.tolist() == [[True, True], [True, False], [True, False]]
    assert set(ps.normals.rows.image) == {"m0.dcm"}              # elsewhere there is a lesion whose place is not known


def inbreast(root, points, suffix=".dcm", sep=";"):
    write_dicom(root/"AllDICOMs"/f"20_aa_MG_L_CC_ANON{suffix}", film())
    (root/"AllXML").mkdir()
    (root/"AllXML"/"20.xml").write_bytes(plistlib.dumps(dict(Images=[dict(ROIs=[dict(Name="Mass", Point_px=points)])])))
    (root/"INbreast.csv").write_text(sep.join(["File Name", "ACR", "Bi-Rads"])+"\n"+sep.join(["20", "2", "4a"])+"\n")
    return root


CORNERS = ["(20, 44)", "(51, 83)"]


@pytest.mark.parametrize("points, box", [(CORNERS, [20, 44, 51, 83]), (["(20,00; 44,00)", "(51,40; 83,00)"], [20, 44, 51.4, 83])])
def test_points_are_read(points, box, tmp_path):
    assert read_inbreast(inbreast(tmp_path/"a", points)).lesions[["x1", "y1", "x2", "y2"]].values.tolist() == [box]


@pytest.mark.parametrize("odd", ["(20,00, 44,00)", "(20 44)", "(20, 44, 3)", "(x, y)", "(20, )", ""])
def test_a_point_that_is_not_two_numbers_is_refused_with_its_text(odd, tmp_path):
    archive = read_inbreast(inbreast(tmp_path/"a", [odd, *CORNERS]))
    assert archive.lesions[["x1", "y1", "x2", "y2"]].isna().all(axis=None)
    assert archive.rejected.reason.item() == f"one of its points is {odd!r}, not two numbers"


# Names of files, and tables

@pytest.mark.parametrize("suffix", [".DCM", ".Dcm"])
@pytest.mark.parametrize("sep", [";", ",", "\t"])
def test_inbreast_in_any_case_with_any_separator(suffix, sep, tmp_path):
    archive = read_inbreast(inbreast(tmp_path/"a", CORNERS, suffix, sep))
    assert archive.lesions[["x1", "y1", "x2", "y2"]].values.tolist() == [[20, 44, 51, 83]] and archive.rejected.empty


@pytest.mark.parametrize("where", [".", "MIAS"])
@pytest.mark.parametrize("suffix, info", [(".pgm", "Info.txt"), (".PGM", "INFO.TXT")])
def test_minimias_in_any_case_and_one_folder_down(where, suffix, info, tmp_path):
    root = tmp_path/where; root.mkdir(exist_ok=True)
    for n in (1, 2): Image.fromarray(film(8).astype(np.uint8)).save(root/f"mdb00{n}{suffix}", "PPM")
    (root/info).write_text("\ufeffmdb001 G CIRC B 36 1000 10\nmdb002;G;NORM\n", encoding="utf-8")
    archive = read_minimias(tmp_path)
    assert len(archive.images) == 2 and len(archive.lesions) == 1 and archive.rejected.empty
    assert archive.read("mdb001").shape == (128, 96)


def renamed(root, ending):
    for p in [p for p in root.rglob("*") if p.is_file()]: p.rename(p.with_name(p.name[:-len(p.suffix)]+ending(p.suffix)))


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("case", [str.upper, str.title])
def test_every_archive_is_read_with_endings_in_any_case(name, case, tmp_path):
    from test_fuzz import TREES
    TREES[name](tmp_path/name)
    before = READERS[name](tmp_path/name)
    renamed(tmp_path/name, case)
    after = READERS[name](tmp_path/name)
    assert len(after.images) == len(before.images) and len(after.lesions) == len(before.lesions) and after.rejected.empty
    assert all((after.root/f).is_file() for f in after.images.file)


@pytest.mark.parametrize("name", ["folder", "cbis-ddsm", "inbreast", "vindr-mammo"])
@pytest.mark.parametrize("sep, head, encoding", [(";", "", "utf-8"), ("\t", "", "utf-16"), (";", "sep=;\n", "utf-8-sig"),
                                                 (",", "sep=,\n", "utf-8"), (",", "", "utf-8-sig")])
def test_every_table_is_read_with_any_separator(name, sep, head, encoding, tmp_path):
    from test_fuzz import TREES
    TREES[name](tmp_path/name)
    before = READERS[name](tmp_path/name)
    for p in tmp_path.rglob("*.csv"):
        t = pd.read_csv(p, sep=";" if p.name == "INbreast.csv" else ",", dtype=str, keep_default_na=False)
        p.write_text(head+t.to_csv(index=False, sep=sep), encoding=encoding)
    after = READERS[name](tmp_path/name)
    pd.testing.assert_frame_equal(after.lesions, before.lesions)
    pd.testing.assert_frame_equal(after.images, before.images)
    assert after.rejected.values.tolist() == before.rejected.values.tolist()


@pytest.mark.parametrize("name, ending", [("omidb", ".dicom"), ("omidb-xls", ".dicom"), ("inbreast", ".png"), ("vindr-mammo", ".gz"),
                                          ("mini-mias", ".png"), ("folder", ".dicom")])
def test_a_file_that_is_there_under_another_name_is_suggested(name, ending, tmp_path):
    from test_fuzz import TREES
    TREES[name](tmp_path/name)
    file = tmp_path/name/min(READERS[name](tmp_path/name).images.file)
    file.rename(file.with_suffix(ending))
    reasons = READERS[name](tmp_path/name).rejected.reason
    assert reasons.str.contains(f"but the file is not there; .*{file.stem}{ending} is", regex=True).sum() == 1


# Small print

def test_sentences_have_one_full_stop_and_the_right_number(tmp_path):
    root = folder(tmp_path/"a", lambda p, f: p.write_bytes(b"no film"))
    with pytest.raises(ValueError) as e: prepare(read_folder(root), tmp_path/"set", CONFIG)
    assert ".." not in str(e.value).replace(str(tmp_path), "") and "3 times, first for m0.dcm: " in str(e.value)
    for f in ("m1.dcm", "m2.dcm"): (root/f).unlink()
    one = "No patch could be cut from the one image in .* 1 time, first for m0.dcm: "
    with pytest.raises(ValueError, match=one): prepare(read_folder(root), tmp_path/"set", CONFIG)
