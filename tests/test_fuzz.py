"""Annotation files of every archive, damaged by chance: reading and preparing end with sums that come out and a reason a row, or with a sentence that names the file."""
import copy, csv, io, json, plistlib, random, shutil

import numpy as np
import pandas as pd
import pytest
from conftest import mutated
from hypothesis import given, HealthCheck, Phase, settings, strategies as st
from PIL import Image

from mammogan import public_archives                                                    # registers the open collections' readers
from mammogan.archives import READERS
from mammogan.core import seeded_rng
from mammogan.presets import PrepareConfig
from mammogan.dataset import prepare
from mammogan.pixels import write_dicom

CONFIG = PrepareConfig(size=16, normals_per_image=2, draws=10, rounds=1, min_levels=5)


def film(number):
    "A small mammogram with texture"
    y, x = np.mgrid[:96, :64]
    return np.where(x**2+(y-48)**2 < 44**2, 800+seeded_rng(number, "film").integers(0, 900, (96, 64)), 0).astype(np.uint16)


def jsons(path, found): path.parent.mkdir(parents=True, exist_ok=True); path.write_text(json.dumps(found)); return path
def table(path, rows, sep=","): path.parent.mkdir(parents=True, exist_ok=True); pd.DataFrame(rows).to_csv(path, index=False, sep=sep); return path


# A small valid tree for each reader: what holds its annotations, and its mammograms

def omidb(root):
    notes, films = [], []
    for c, client in enumerate(("demd1", "demd2")):
        studies = {}
        for n in range(2):
            study, image = f"1.{c}.{n}", f"1.{c}.{n}.9"
            mark = dict(MarkID="1", LinkedNBSSLesionNumber="1", X1="5", X2="20", Y1="40", Y2="55", Mass="1", WithCalcification="WithCalcification", Conspicuity="Subtle")
            studies[study] = {"StudyDate": "19901101", "EpisodeID": "7", f"{study}.1": {image: {"m1": mark, "m2": dict(mark, MarkID="2", X1="10", X2="30")} if n else None}}
            header = {"00080070": dict(vr="LO", Value=["HOLOGIC, Inc."]), "00200062": dict(vr="CS", Value=["L"]), "00185101": dict(vr="CS", Value=["CC"]), "00181164": dict(vr="DS", Value=[.07, .07])}
            notes.append(jsons(root/"data"/client/study/f"{image}.json", header))
            films.append(write_dicom(root/"images"/client/study/f"{image}.dcm", film(n)))
        notes.append(jsons(root/"data"/client/f"imagedb_{client}.json", dict(Site="a", STUDIES=studies)))
        record = {"7": dict(EpisodeType="F", SCREENING=dict(L=dict(Opinion="RM"), left_opinion="Malignant", right_opinion="Normal"), BIOPSYWIDE=dict(L={"1": dict(Opinion="B5")}))}
        notes.append(jsons(root/"data"/client/f"nbss_{client}.json", record))
    return notes, films


def omidb_xls(root):
    import xlwt
    book, film_rows = xlwt.Workbook(), [("b1", f"demd{n}", f"1.{n}", f"1.{n}.9") for n in range(3)]
    images, lesions = book.add_sheet("images"), book.add_sheet("lesions")
    about = ("HOLOGIC, Inc.", "Lorad Selenia", "FOR PRESENTATION", 100, 1.0, "CC", "L")
    head = ["BatchID", "ClientID", "StudyIUID", "ImageSOPIUID", "Manufacturer", "ManufacturersModelName", "PresentationIntentType", "XRayTubeCurrent", "EstimatedRadiographicMagnificationFactor", "ViewPosition", "ImageLaterality"]
    for r, row in enumerate([head, *(f+about for f in film_rows)]):
        for c, v in enumerate(row): images.write(r, c, v)
    head = ["BatchID", "ClientID", "StudyIUID", "ImageSOPIUID", "LesionID", "Status", "X1", "X2", "Y1", "Y2", "Mass", "WithCalcification"]
    for r, row in enumerate([head, *(f+(k, "M", 5.+k, 20.+k, 40., 55., 1, "") for f in film_rows for k in range(2))]):
        for c, v in enumerate(row): lesions.write(r, c, v)
    (root/"METADATA"/"b1").mkdir(parents=True)
    book.save(root/"METADATA"/"b1"/"batch_1_IMAGE.xls")
    return [root/"METADATA"/"b1"/"batch_1_IMAGE.xls"], [write_dicom(root.joinpath(*f[:3])/f"{f[3]}.dcm", film(n)) for n, f in enumerate(film_rows)]


def folder(root):
    rows = [dict(file=f"a/{n}.dcm", patient=f"p{n}", x1=5, y1=40, x2=20+k, y2=55, kind="mass", status="benign", laterality="L", view="CC", pixel_mm=.1) for n in range(3) for k in range(2)]
    return [table(root/"boxes.csv", rows)], [write_dicom(root/f"a/{n}.dcm", film(n)) for n in range(3)]


def cbis(root):
    m, rows, films = np.zeros((96, 64), np.uint16), [], []
    m[40:56, 5:21] = 255
    for n in range(3):
        films.append(write_dicom(root/f"M_{n}"/"1.9"/f"1.1.{n}"/"000000.dcm", film(n), SeriesInstanceUID=f"1.1.{n}"))
        for i, p in enumerate((film(n)[40:56, 5:21], m)): write_dicom(root/f"M_{n}_1"/"1.9"/f"1.2.{n}"/f"00000{i}.dcm", p, SeriesInstanceUID=f"1.2.{n}")
        rows.append({"patient_id": f"P_0000{n}", "breast_density": 2, "left or right breast": "LEFT", "image view": "CC", "abnormality id": 1, "abnormality type": "mass", "mass shape": "OVAL", "pathology": "MALIGNANT",
                     "image file path": f"a/1.9/1.1.{n}/000000.dcm", "cropped image file path": f"b/1.9/1.2.{n}/000000.dcm", "ROI mask file path": f"b/1.9/1.2.{n}/000001.dcm\n"})
    return [table(root/"mass_case_description_train_set.csv", rows)], films


def inbreast(root):
    rows, films, notes = [], [], []
    (root/"AllXML").mkdir(parents=True)
    for n in (20586908, 20586934):
        films.append(write_dicom(root/"AllDICOMs"/f"{n}_6c613a14b80a8591_MG_R_CC_ANON.dcm", film(n)))
        rois = [dict(Name=name, NumberOfPoints=4, Point_px=[f"({x}.5, {y}.25)" for x, y in ((5, 40), (20, 40), (20, 55), (5, 55))]) for name in ("Mass", "Calcification")]
        notes.append(root/"AllXML"/f"{n}.xml"); notes[-1].write_bytes(plistlib.dumps(dict(Images=[dict(ImageIndex=0, NumberOfROIs=2, ROIs=rois)])))
        rows.append({"Patient ID": "removed", "Laterality": "R", "View": "CC", "File Name": n, "ACR": 2, "Bi-Rads": "4a", "Mass": "X", "Micros": ""})
    return [table(root/"INbreast.csv", rows, ";"), *notes], films


def vindr(root):
    about = [dict(study_id=f"s{n//2}", series_id="r", image_id=f"i{n}", laterality="L", view_position="CC", breast_birads="BI-RADS 4", breast_density="DENSITY C", split="training") for n in range(3)]
    findings = [dict(a, finding_categories="['Mass', 'Suspicious Calcification']", finding_birads="BI-RADS 4", xmin=5.5+k, ymin=40.2, xmax=21.1, ymax=56.7) for a in about[:2] for k in range(2)]
    findings.append(dict(about[2], finding_categories="['No Finding']", finding_birads=""))
    films = [write_dicom(root/"images"/f"s{n//2}"/f"i{n}.dicom", film(n)) for n in range(3)]
    return [table(root/"finding_annotations.csv", findings), table(root/"breast-level_annotations.csv", about)], films


def minimias(root):
    root.mkdir(parents=True)
    for n in range(1, 4): Image.fromarray((film(n)//8).astype(np.uint8)).save(root/f"mdb00{n}.pgm")
    (root/"Info.txt").write_text("MIAS\n\nmdb001 G CIRC B 12 975 8\nmdb001 G CALC M 15 970 6\nmdb002 F NORM\nmdb003 D MISC B *NOTE 3*\n")
    return [root/"Info.txt"], sorted(root.glob("*.pgm"))


TREES = {"omidb": omidb, "omidb-xls": omidb_xls, "folder": folder, "cbis-ddsm": cbis, "inbreast": inbreast, "vindr-mammo": vindr, "mini-mias": minimias}


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    "Each tree: its folder, its annotation files with their contents, and its mammograms relative to the folder"
    made = {}
    for name, write in TREES.items():
        root = tmp_path_factory.mktemp("fuzz")/name
        notes, films = write(root)
        made[name] = root, {p: p.read_bytes() for p in notes}, [p.relative_to(root).as_posix() for p in films]
    return made


# Accidents

ODD = [None, [], {}, [[]], [None, 5], {"a": {}}, "", " ", "left", "NaN", "-1", "1e400", "0x1F", "７", "\ud800", "../..", "a/b", "a\0b", "x"*300, True, 0, -5, 2**31, 10**400, 1e308, float("inf"), float("nan"), "é,;\"\t'"]


def nodes(found, path=()):
    "Every place in nested dicts and lists"
    for k, v in found.items() if isinstance(found, dict) else enumerate(found) if isinstance(found, list) else (): yield found, k; yield from nodes(v)


def changed_object(found, rng):
    "Nested dicts and lists after one to three changes: dropped, replaced, doubled, renamed, moved"
    for _ in range(rng.randint(1, 3)):
        if not (places := list(nodes(found))): break
        inside, key = rng.choice(places)
        what = rng.choice(["drop", "odd", "odd", "odd", "double", "rename", "list", "move"])
        if what == "drop": del inside[key]
        elif what == "odd": inside[key] = copy.deepcopy(rng.choice(ODD))
        elif what == "list": inside[key] = [inside[key]]
        elif what == "move": inside[key] = copy.deepcopy(rng.choice(places)[0])
        elif isinstance(inside, list): inside.insert(0, inside[key])
        elif what == "double": inside[f"{key}0"] = inside[key]
        else: inside[str(rng.choice(ODD))] = inside.pop(key)
    return found


def changed_rows(rows, rng):
    "A table's rows, the first with names, after one to three changes"
    for _ in range(rng.randint(1, 3)):
        r = rng.randrange(len(rows)); row = rows[r]; c = rng.randrange(max(1, len(row)))
        what = rng.choice(["odd", "odd", "odd", "odd", "row twice", "row gone", "cell gone", "cell more", "column gone", "rows swapped"])
        if what == "odd" and row: row[c] = rng.choice(ODD)
        elif what == "row twice": rows.insert(r, list(row))
        elif what == "row gone" and len(rows) > 1: del rows[r]
        elif what == "cell gone": del row[c:c+1]
        elif what == "cell more": row.insert(c, rng.choice(ODD))
        elif what == "column gone":
            for other in rows: del other[c:c+1]
        else: other = rng.randrange(len(rows)); rows[r], rows[other] = rows[other], rows[r]
    return rows


def plain(o):
    "What a property list can hold"
    if isinstance(o, dict): return {str(k).encode("ascii", "replace").decode().replace("\0", ""): plain(v) for k, v in o.items()}
    if isinstance(o, list): return [plain(v) for v in o]
    if isinstance(o, int) and not isinstance(o, bool): return max(-2**63, min(o, 2**63))
    return "".join(c for c in o if c.isprintable()) if isinstance(o, str) else "" if o is None else o


def written(rows, sep):
    text = io.StringIO()
    csv.writer(text, delimiter=sep).writerows(rows)
    return text.getvalue().encode("utf-8", "surrogatepass")


def changed_book(data, rng):
    import xlrd, xlwt
    old, new = xlrd.open_workbook(file_contents=data), xlwt.Workbook()
    sheets = [changed_rows([s.row_values(r) for r in range(s.nrows)], rng) for s in old.sheets()]
    for i, rows in enumerate(sheets[:rng.choice([1, 2, 2, 2, 2, 2])]):
        sheet = new.add_sheet(f"s{i}")
        for r, row in enumerate(rows):
            for c, v in enumerate(row): sheet.write(r, c, v if isinstance(v, (bool, int, float)) and abs(v) < 1e300 else "".join(o for o in str(v) if o.isprintable()))
    new.save(out := io.BytesIO())
    return out.getvalue()


def damaged(path, data, seed):
    "The bytes of an annotation file after an accident: to what it says, to its bytes, or to its encoding"
    rng = random.Random(seed)
    how = rng.choices(["meaning", "bytes", "latin", "twice", "empty"], [12, 4, 1, 1, 1])[0]
    if how == "bytes": return mutated(data, seed) if len(data) > 50 else data[:10]
    if how == "latin": at = rng.randrange(len(data)); return data[:at]+b"\xe9\xff"+data[at:]
    if how == "twice": return data+data
    if how == "empty": return rng.choice([b"", b"\0"*200, b"{}", b"[]", b"null", b"\xff\xfe", b"a,b\n1,2\n"])
    if path.suffix == ".json": return json.dumps(changed_object(json.loads(data), rng)).encode()
    if path.suffix == ".xml": return plistlib.dumps(plain(changed_object(plistlib.loads(data), rng)))
    if path.suffix == ".xls": return changed_book(data, rng)
    sep = {".txt": " "}.get(path.suffix, ";" if path.name == "INbreast.csv" else ",")
    rows = changed_rows(list(csv.reader(io.StringIO(data.decode()), delimiter=sep)), rng)
    return written(rows, sep) if sep != " " else "\n".join(" ".join(map(str, r)) for r in rows).encode("utf-8", "surrogatepass")


# What must hold

def check_archive(archive, films):
    "A reason a row, and every mammogram on disk is used or named by a row"
    out = archive.rejected
    assert out.reason.map(lambda r: isinstance(r, str) and bool(r.strip())).all() and out.what.astype(bool).all()
    told = set(archive.images.file) | set(out.file.astype(str)) | set(out.id.astype(str))
    assert not [f for f in films if f not in told]


def check_set(ps, archive):
    "The sums come out, counted from the tables and not from the account"
    a, out = ps.info["account"], ps.rejected
    assert a["images"] == len(archive.images)+(archive.rejected.what == "image").sum() == ps.rows.image.nunique()+(out.what == "image").sum()
    assert a["lesions"] == len(archive.lesions)+(archive.rejected.what == "lesion").sum() == len(ps.positives)+(out.what == "lesion").sum()
    assert (out.reason.str.strip() != "").all() and len(ps.all_pixels) == len(ps)


def test_the_undamaged_trees_are_used_whole(trees, tmp_path):
    "So that the trials below begin with something"
    assert set(TREES) == set(READERS)
    for name, (root, notes, films) in trees.items():
        archive = READERS[name](root)
        assert len(archive.images) == len(films) and len(archive.lesions) > 1, name
        check_archive(archive, films)
        ps = prepare(archive, tmp_path/name, CONFIG)
        check_set(ps, archive)
        assert len(ps.positives) > 1 and len(ps.normals) > 1, name


@pytest.mark.parametrize("name", TREES)
@settings(max_examples=160, deadline=60_000, derandomize=True, database=None, phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck))
@given(which=st.integers(0, 99), seed=st.integers(0, 2**32))
def test_damaged_annotations_end_in_sums_or_in_a_sentence(name, which, seed, trees, tmp_path_factory):
    root, notes, films = trees[name]
    path = list(notes)[which % len(notes)]
    path.write_bytes(damaged(path, notes[path], seed))
    out = root.parent/f"set-{name}"
    try:
        archive = READERS[name](root)
        check_archive(archive, films)
        if seed % 4 == 0: check_set(prepare(archive, out, CONFIG), archive)
    except ValueError as e:
        assert str(root) in str(e) or path.name in str(e)
        assert len(str(e).replace(str(root), "").replace(path.name, "").split()) > 3           # words beside the name
    finally:
        path.write_bytes(notes[path])
        for p in root.parent.glob(f"*set-{name}*"): shutil.rmtree(p) if p.is_dir() else p.unlink()
