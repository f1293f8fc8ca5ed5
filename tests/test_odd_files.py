"""Files as people report them: whatever is odd about a file, its lesion patches are those of the same film saved plainly, or a sentence names it."""
import itertools, plistlib

import imagecodecs
import numpy as np
import pandas as pd
import pydicom
import pytest
import tifffile
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from mammogan import pixels
from mammogan.archives import read_folder, read_omidb, READERS
from mammogan.collections import read_inbreast, read_minimias
from mammogan.core import ParameterError, rng
from mammogan.cutting import cut, PrepareConfig
from mammogan.dataset import left_out, prepare
from mammogan.pixels import open_picture, read_dicom, write_dicom

BOX = (10, 52, 29, 75)      # of the one mass, both ends inclusive


def film(bits=12, seed=0):
    "A half ellipse of tissue with a bright mass before air, which is 0; at most three quarters of what `bits` can hold"
    y, x = np.mgrid[:128, :96]
    r = ((y-64)/60)**2+(x/80)**2
    mass = 1200*np.clip(1-((y-64)/12)**2-((x-20)/10)**2, 0, None)
    img = np.clip(900+500*(1-r)+rng(seed, "film").normal(0, 60, r.shape)+mass, 1, 3000)
    img[r > 1] = 0
    return (img*2.**(bits-12)).astype(np.uint16)


def patch(path):
    "The lesion's patch as it is read from a file"
    return cut(open_picture(path).pixels, BOX, 32).astype(int)


PLAIN = {bits: cut(film(bits), BOX, 32).astype(int) for bits in (8, 10, 12, 14, 16)}


# Writers

def words(values, bits): return (values.astype(np.int64) & (1 << bits)-1).astype(np.uint16)


STREAMS = dict(j2k=("1.2.840.10008.1.2.4.90", lambda w, bits: imagecodecs.jpeg2k_encode(w, level=0, codecformat="j2k", bitspersample=bits)),
               jls=("1.2.840.10008.1.2.4.80", lambda w, bits: imagecodecs.jpegls_encode(w)),
               lossless=("1.2.840.10008.1.2.4.70", lambda w, bits: imagecodecs.ljpeg_encode(w, bitspersample=bits)))
LOOSE = dict(explicit=ExplicitVRLittleEndian, implicit=ImplicitVRLittleEndian, big=ExplicitVRBigEndian, deflated=DeflatedExplicitVRLittleEndian)


def save(path, values, encoding="explicit", bits=12, stream_bits=None, raw=(), **tags):
    "A film in DICOM: values as they are to be read, before any rule about their polarity; `raw` has tags with a type of their own"
    signed = bool(tags.get("PixelRepresentation"))
    stored = dict(BitsStored=bits, HighBit=bits-1, BitsAllocated=16, **tags)
    ds = pydicom.dcmread(write_dicom(path, values.astype(np.int16) if signed else values.astype(np.uint16), **stored))
    for keyword, vr, value in raw: ds.add_new(keyword, vr, value)
    if encoding == "rle":
        ds.BitsStored, ds.HighBit = 16, 15                      # of 8 bits and fewer, pydicom packs one byte
        ds.compress("1.2.840.10008.1.2.5", generate_instance_uid=False)
        ds.BitsStored, ds.HighBit = bits, bits-1
    elif encoding in STREAMS:
        uid, encode = STREAMS[encoding]
        many = stream_bits or bits
        pack(ds, uid, encode(words(values, many), many))
    else:
        ds.file_meta.TransferSyntaxUID = LOOSE[encoding]
        if encoding == "big": ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
    little, implicit = encoding != "big", encoding == "implicit"
    pydicom.dcmwrite(path, ds, implicit_vr=implicit, little_endian=little, force_encoding=not implicit and not little)
    return path


def pack(ds, uid, stream):
    ds.file_meta.TransferSyntaxUID, ds.PixelData = uid, encapsulate([stream])
    ds["PixelData"].is_undefined_length = True


# One film in every form

FORMS = [*LOOSE, "rle", *STREAMS]
PADDINGS = ["none", "own", "other"]


def padded(values, air, padding, bits, signed):
    "A film whose air is padding, and the tag that says so, of the type that its pixels have, or of the other one"
    if padding == "none": return values, []
    value = -(1 << bits-1) if signed else (1 << bits)-1
    said = value if padding == "own" else value+65536 if signed else value-65536*(value > 32767)
    return np.where(air, value, values), [("PixelPaddingValue", "SS" if said < 0 or signed and said < 32768 else "US", said)]


@pytest.mark.parametrize("encoding", FORMS)
def test_a_film_is_the_same_in_every_encoding_depth_sign_polarity_and_padding(encoding, tmp_path):
    choices = itertools.product(PLAIN, (False, True), ("MONOCHROME2", "MONOCHROME1"), PADDINGS)
    for bits, signed, polarity, padding in choices:
        f = film(bits).astype(int)
        values = (1 << bits)-1-f if polarity == "MONOCHROME1" else f
        values, raw = padded(values-(1 << bits-1 if signed else 0), f == 0, padding, bits, signed)
        save(tmp_path/"a.dcm", values, encoding, bits, raw=raw, PixelRepresentation=int(signed), PhotometricInterpretation=polarity)
        got = open_picture(tmp_path/"a.dcm")
        assert np.abs(cut(got.pixels, BOX, 32)-PLAIN[bits]).max() == 0, (bits, signed, polarity, padding)
        assert (got.pixels[f == 0] == 0).all() and not got.notes, (bits, signed, polarity, padding)


@pytest.mark.parametrize("encoding", FORMS)
@pytest.mark.parametrize("bits", [8, 10, 12, 14])
def test_what_is_above_the_stored_bits_is_cut_off_by_every_decoder_and_too_few_bits_are_refused(encoding, bits, tmp_path):
    f, marker = film(bits), np.zeros((128, 96), np.uint16)
    marker[4:12, 84:94] = 1
    rubbish = (np.indices(f.shape).sum(0)//3 % (1 << 16-bits)).astype(np.uint16)
    for above in (marker << 15, marker << bits, rubbish << bits):
        save(tmp_path/"a.dcm", f | above, encoding, bits, stream_bits=16)
        got = open_picture(tmp_path/"a.dcm")
        assert (got.pixels == f).all() and got.notes == (f"what is above its {bits} stored bits, such as an overlay, was cut off",)
    for fewer in {bits-1, bits-2, 8}-{bits}:
        save(tmp_path/"a.dcm", f, encoding, fewer, stream_bits=16)
        with pytest.raises(ValueError, match=rf"a.dcm: its values do not fit the {fewer} bits that it says are stored"): read_dicom(tmp_path/"a.dcm")


@pytest.mark.parametrize("encoding", ["explicit", "rle"])
def test_bits_that_stand_higher_are_read(encoding, tmp_path):
    for signed in (0, 1):
        values = (film().astype(int)-2048*signed)*16+3
        ds = pydicom.dcmread(save(tmp_path/"a.dcm", values, bits=16, PixelRepresentation=signed))
        ds.BitsStored, ds.HighBit = 12, 15
        if encoding == "rle": ds.compress("1.2.840.10008.1.2.5", generate_instance_uid=False)
        ds.save_as(tmp_path/"a.dcm")
        assert (patch(tmp_path/"a.dcm") == PLAIN[12]).all()


def deep(path, a): path.write_bytes(imagecodecs.png_encode(a))
def tiff(path, a, **how): tifffile.imwrite(path, a, **how)
def pgm(path, a, most): path.write_bytes(b"P5\n# a remark\n96 128\n%d\n" % most+a.astype(">u2").tobytes())


PICTURES = {"grey.png": deep, "rgb.png": lambda p, f: deep(p, np.dstack([f]*3)), "rgba.png": lambda p, f: deep(p, np.dstack([f, f, f, f*0+65535])),
            "alpha.png": lambda p, f: deep(p, np.dstack([f, f*0+65535])), "grey.tif": lambda p, f: tiff(p, f), "white.tif": lambda p, f: tiff(p, 65535-f, photometric="miniswhite"),
            "white12.tif": lambda p, f: tiff(p, 4095-f, photometric="miniswhite"), "big.tif": lambda p, f: tiff(p, f, byteorder=">", bigtiff=True),
            "white-big.tif": lambda p, f: tiff(p, 65535-f, photometric="miniswhite", byteorder=">", compression="deflate"),
            "rgb.tif": lambda p, f: tiff(p, np.dstack([f]*3), photometric="rgb"), "lzw.TIFF": lambda p, f: tiff(p, np.dstack([f]*3), photometric="rgb", compression="lzw"),
            "planes.tif": lambda p, f: tiff(p, np.stack([f]*3), photometric="rgb", planarconfig="separate"),
            "alpha.tif": lambda p, f: tiff(p, np.dstack([f, f*0+65535]), photometric="minisblack", planarconfig="contig", extrasamples=["unassalpha"]),
            "most.pgm": lambda p, f: pgm(p, f, 65535), "less.pgm": lambda p, f: pgm(p, f, 4095), "deep.jpg": lambda p, f: p.write_bytes(imagecodecs.ljpeg_encode(f, bitspersample=16))}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_of_16_bits_keeps_its_levels_and_its_polarity(name, tmp_path):
    PICTURES[name](tmp_path/name, film())
    assert (open_picture(tmp_path/name).pixels == film()).all()


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.pgm", "white.tif"])
def test_a_picture_of_8_bits_is_read(name, tmp_path):
    f = film(8).astype(np.uint8)
    tiff(tmp_path/name, 255-f, photometric="miniswhite") if name == "white.tif" else Image.fromarray(f).save(tmp_path/name)
    assert (open_picture(tmp_path/name).pixels == f).all()


@pytest.mark.parametrize("name", ["rgb.png", "alpha.png", "lzw.TIFF", "deep.jpg"])
def test_without_the_library_that_keeps_its_levels_a_picture_is_refused_and_the_extra_named(name, tmp_path, monkeypatch):
    PICTURES[name](tmp_path/name, film())
    monkeypatch.setattr(pixels, "find_spec", lambda name: None)
    monkeypatch.setattr(tifffile.TiffPage, "asarray", lambda self: (_ for _ in ()).throw(ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")))
    with pytest.raises(ValueError, match=rf"{name} cannot be read as a picture .*pip install 'mammogan\[dicom\]'"): open_picture(tmp_path/name)


# Codecs

def packed(path, uid, stream, bits=12):
    ds = pydicom.dcmread(write_dicom(path, film(bits), BitsStored=bits, HighBit=bits-1))
    pack(ds, uid, stream)
    ds.save_as(path)
    return path


def lossy(bits, **how): return imagecodecs.jpeg8_encode(film(bits).astype(np.uint8) if bits == 8 else film(bits), level=98, bitspersample=bits, **how)
def progressive(path): Image.fromarray(film(8).astype(np.uint8)).save(path, "JPEG", quality=98, progressive=True); return path.read_bytes()
def filled(stream): return stream[:2]+b"\xff\xff\xff"+stream[2:]


def test_lossy_jpeg_of_any_kind_is_read_within_some_grey_levels(tmp_path):
    dot = "1.2.840.10008.1.2.4."
    streams = [("51", lossy(12), 12), ("51", filled(lossy(12)), 12), ("50", lossy(8), 8), ("51", lossy(8), 8), ("50", filled(lossy(8)), 8), ("55", progressive(tmp_path/"p"), 8), ("50", progressive(tmp_path/"p"), 8)]
    for syntax, stream, bits in streams:
        assert np.abs(patch(packed(tmp_path/"a.dcm", dot+syntax, stream, bits))-PLAIN[bits]).max() < 8, (syntax, bits)
    for uid, encode in STREAMS.values():
        if encode is not STREAMS["j2k"][1]: assert (patch(packed(tmp_path/"a.dcm", uid, filled(encode(film(), 12)))) == PLAIN[12]).all()


def test_the_true_reason_reaches_the_user(tmp_path, monkeypatch):
    arithmetic = lossy(8).replace(b"\xff\xc0", b"\xff\xc9", 1)
    with pytest.raises(ValueError, match="a.dcm: its pixels cannot be decoded .its frame is of kind 9 of JPEG"): patch(packed(tmp_path/"a.dcm", "1.2.840.10008.1.2.4.51", arithmetic, 8))
    broken = STREAMS["j2k"][1](film(), 12)[:200]
    with pytest.raises(ValueError, match="a.dcm: its pixels cannot be decoded .*pylibjpeg: .*[a-z]{3}") as e: patch(packed(tmp_path/"a.dcm", STREAMS["j2k"][0], broken))
    assert ".." not in str(e.value) and "\n" not in str(e.value)
    monkeypatch.setattr(pixels, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"a.dcm is packed as JPEG Extended.*pip install 'mammogan\[dicom\]'"): patch(packed(tmp_path/"a.dcm", "1.2.840.10008.1.2.4.51", lossy(12)))
    assert np.abs(patch(packed(tmp_path/"a.dcm", "1.2.840.10008.1.2.4.51", lossy(8), 8))-PLAIN[8]).max() < 8


# Attributes and polarity

def changed(path, old, new):
    assert len(old) == len(new) and old in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(old, new))
    return path


UNNEEDED = dict(ImagerPixelSpacing=["0.0711", "0.0711"], WindowCenter="2047.5", WindowWidth="4095.5", StudyDate="20150101", XRayTubeCurrent="100 ", RescaleIntercept="0.25", NumberOfFrames="1   ",
                Exposure="1234", PatientAge="050Y", BodyPartThickness="55.5", EstimatedRadiographicMagnificationFactor="1.125")


@pytest.mark.parametrize("keyword", UNNEEDED)
@pytest.mark.parametrize("rubbish", [b",", b"\\", b"?", b"\0"])
def test_an_attribute_that_is_not_needed_never_costs_the_film(keyword, rubbish, tmp_path):
    file = write_dicom(tmp_path/"a.dcm", film(), **{keyword: UNNEEDED[keyword]})
    text = pydicom.dcmread(file).get_item(keyword).value
    text = text if isinstance(text, bytes) else str(text).encode()
    odd = text.replace(b".", b",") if rubbish == b"," else text[:-1]+rubbish
    assert (patch(changed(file, text, odd)) == PLAIN[12]).all()
    told = pixels.read_header(file)
    if keyword == "ImagerPixelSpacing" and rubbish in (b",", b"?"): assert told["pixel_mm"] is None and "ImagerPixelSpacing" in told["notes"][0]


def test_what_is_needed_and_unreadable_is_named(tmp_path):
    for keyword, value in dict(RescaleSlope="1.5 ", PhotometricInterpretation="MONOCHROME2 ").items():
        file = write_dicom(tmp_path/"a.dcm", film(), **{keyword: value.strip()})
        with pytest.raises(ValueError, match=f"a.dcm.*its {keyword} is"): read_dicom(changed(file, value.encode(), value.replace(".", ",").replace("2 ", "\\x").encode()))
    for odd, said in ((dict(BitsStored=17), "says that 17 of 16 bits are stored"), (dict(PixelRepresentation=2), "PixelRepresentation"), (dict(BitsStored=None), "says that None of 16 bits")):
        with pytest.raises(ValueError, match=f"a.dcm.*{said}"): read_dicom(write_dicom(tmp_path/"a.dcm", film(), **odd))


RAW = dict(PresentationIntentType="FOR PROCESSING")
POLARITY = [("M2", dict(RAW, PixelIntensityRelationshipSign=1), True, 0), ("M2", dict(RAW, PixelIntensityRelationshipSign=-1), False, 0), ("M1", dict(RAW, PixelIntensityRelationshipSign=1), True, 0),
            ("M1", dict(RAW, PixelIntensityRelationshipSign=-1), False, 1), ("M2", dict(PixelIntensityRelationshipSign=1), False, 0), ("M2", dict(PresentationLUTShape="INVERSE"), True, 1),
            ("M1", dict(PresentationLUTShape="INVERSE"), True, 0), ("M1", dict(PresentationLUTShape="IDENTITY"), False, 1), ("M2", dict(PresentationLUTShape="IDENTITY"), False, 0),
            ("M1", dict(RescaleSlope=-1, RescaleIntercept=4095), False, 0), ("M2", dict(RAW, PixelIntensityRelationshipSign=1, RescaleSlope=-1, RescaleIntercept=4095), True, 0)]


@pytest.mark.parametrize("shown, tags, dark, notes", POLARITY)
def test_bright_is_dense_and_contradictions_are_told(shown, tags, dark, notes, tmp_path):
    stored = 4095-film().astype(int) if dark else film()
    got = open_picture(save(tmp_path/"a.dcm", stored, PhotometricInterpretation=shown.replace("M", "MONOCHROME"), **tags))
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


def noisy(path, f): write_dicom(path, np.where(f == 0, rng(1, "air").integers(5, 60, f.shape), f).astype(np.uint16))
def air_is_padding(path, f): save(path, np.where(f == 0, 65535, f), bits=16, raw=[("PixelPaddingValue", "SS", -1)])


KINDS = dict(padding=(".dcm", air_is_padding), overlay=(".dcm", lambda p, f: save(p, f | (np.indices(f.shape).sum(0) < 9).astype(np.uint16) << 15, "j2k", stream_bits=16)),
             commas=(".dcm", lambda p, f: changed(write_dicom(p, f, ImagerPixelSpacing=["0.0711", "0.0711"]), b"0.0711", b"0,0711")),
             white=(".tif", PICTURES["white.tif"]), colour=(".png", PICTURES["rgb.png"]), capitals=(".DCM", write_dicom), air=(".dcm", noisy),
             raw=(".dcm", lambda p, f: write_dicom(p, (4095-f.astype(int)).astype(np.uint16), **RAW, PixelIntensityRelationshipSign=1)))
SAID = dict(overlay="note", commas="header", air="doubt")


@pytest.mark.parametrize("kind", KINDS)
def test_its_patches_are_those_of_the_film_saved_plainly_and_what_is_odd_is_told(kind, tmp_path):
    suffix, write = KINDS[kind]
    ps = prepare(read_folder(folder(tmp_path/kind, write, suffix)), tmp_path/"set", CONFIG)
    assert (ps.positives.pixels == [cut(film(seed=i), BOX, 32) for i in range(3)]).all()
    assert ps.rejected.what.tolist() == [SAID[kind]]*3 if kind in SAID else ps.rejected.empty
    if kind == "air": assert left_out(ps).reset_index()[["what", "count"]].values.tolist() == [["doubt", 3]] and ps.rejected.reason.str.contains("--mask otsu").all()
    else: assert ps.normals.pixels.min() > 200                              # none of them shows air


def test_an_image_that_makes_no_sense_is_a_counted_line(tmp_path):
    label = lambda p, f: write_dicom(p, np.where(np.indices(f.shape).sum(0) < 20, 65535, f).astype(np.uint16), BitsStored=16, HighBit=15)
    ps = prepare(read_folder(folder(tmp_path/"a", label)), tmp_path/"set", CONFIG)
    lines = left_out(ps).reset_index()
    assert sorted(lines["what"]) == ["doubt", "normals"] and set(lines["count"]) == {3} and (lines.reason.str.contains("stretch")).all()


# Points, boxes, masks

def test_boxes_as_fractions_with_commas_or_twice_are_told(tmp_path):
    more = "m0.dcm,w0,10,52,29,75,calcification\nm1.dcm,w1,.2,.3,.5,.6,mass\nm2.dcm,w2,\"10,5\",52,29,75,mass\n"
    ps = prepare(read_folder(folder(tmp_path/"a", write_dicom, more=more)), tmp_path/"set", CONFIG)
    assert ps.rejected[ps.rejected.what == "lesion"].reason.tolist() == ["its box is that of m0.dcm/2: the two are one lesion, of the kinds of both",
        "box (0.2,0.3)-(0.5,0.6) is given as shares of the image's sides, and boxes are in pixels", "the annotation gives no complete box: x1 is '10,5'"]
    assert ps.positives.rows[["mass", "calcification"]].values.tolist() == [[True, True], [True, False], [True, False]]
    assert set(ps.normals.rows.image) == {"m0.dcm"}                          # elsewhere there is a lesion whose place is not known


def inbreast(root, points, suffix=".dcm", sep=";"):
    write_dicom(root/"AllDICOMs"/f"20_aa_MG_L_CC_ANON{suffix}", film())
    (root/"AllXML").mkdir()
    (root/"AllXML"/"20.xml").write_bytes(plistlib.dumps(dict(Images=[dict(ROIs=[dict(Name="Mass", Point_px=points)])])))
    (root/"INbreast.csv").write_text(sep.join(["File Name", "ACR", "Bi-Rads"])+"\n"+sep.join(["20", "2", "4a"])+"\n")
    return root


CORNERS = ["(20, 44)", "(51, 83)"]


@pytest.mark.parametrize("points, box", [(CORNERS, [20, 44, 51, 83]), (["(20,00; 44,00)", "(51,40; 83,00)"], [20, 44, 51.4, 83]), (["(20,00, 44,00)", *CORNERS], "'(20,00, 44,00)'"),
                                         (["(20 44)", *CORNERS], "'(20 44)'"), (["(20, 44, 3)", *CORNERS], "'(20, 44, 3)'"), (["(x, y)", *CORNERS], "'(x, y)'")])
def test_a_point_is_two_numbers_or_is_refused_with_its_text(points, box, tmp_path):
    archive = read_inbreast(inbreast(tmp_path/"a", points))
    got = archive.lesions[["x1", "y1", "x2", "y2"]].values.tolist()[0]
    assert got == box if isinstance(box, list) else np.isnan(got).all() and f"one of its points is {box}, not two numbers" in archive.rejected.reason.item()


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
    assert len(archive.images) == 2 and len(archive.lesions) == 1 and archive.rejected.empty and archive.read("mdb001").shape == (128, 96)


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
@pytest.mark.parametrize("sep, head, encoding", [(";", "", "utf-8"), ("\t", "", "utf-16"), (";", "sep=;\n", "utf-8-sig"), (",", "sep=,\n", "utf-8"), (",", "", "utf-8-sig")])
def test_every_table_is_read_with_any_separator(name, sep, head, encoding, tmp_path):
    from test_fuzz import TREES
    TREES[name](tmp_path/name)
    before = READERS[name](tmp_path/name)
    for p in tmp_path.rglob("*.csv"):
        text = pd.read_csv(p, sep=";" if p.name == "INbreast.csv" else ",", dtype=str, keep_default_na=False).to_csv(index=False, sep=sep)
        p.write_text(head+text, encoding=encoding)
    after = READERS[name](tmp_path/name)
    pd.testing.assert_frame_equal(after.lesions, before.lesions)
    pd.testing.assert_frame_equal(after.images, before.images)
    assert after.rejected.values.tolist() == before.rejected.values.tolist()


def test_a_file_that_is_there_under_another_name_is_suggested(tmp_path):
    from test_fuzz import TREES
    for name, ending in {"omidb": ".dicom", "omidb-xls": ".dicom", "inbreast": ".png", "vindr-mammo": ".gz", "mini-mias": ".png", "folder": ".dicom"}.items():
        TREES[name](tmp_path/name)
        file = sorted((tmp_path/name).joinpath(f) for f in READERS[name](tmp_path/name).images.file)[0]
        file.rename(file.with_suffix(ending))
        reasons = READERS[name](tmp_path/name).rejected.reason
        assert reasons.str.contains(f"but the file is not there; .*{file.stem}{ending} is", regex=True).sum() == 1, name


# Small print

def test_sentences_have_one_full_stop_and_the_right_number(tmp_path):
    root = folder(tmp_path/"a", lambda p, f: p.write_bytes(b"no film"))
    with pytest.raises(ValueError) as e: prepare(read_folder(root), tmp_path/"set", CONFIG)
    assert ".." not in str(e.value).replace(str(tmp_path), "") and "3 times, first for m0.dcm: " in str(e.value)
    for f in ("m1.dcm", "m2.dcm"): (root/f).unlink()
    with pytest.raises(ValueError, match="No patch could be cut from the one image in .* 1 time, first for m0.dcm: "): prepare(read_folder(root), tmp_path/"set", CONFIG)
