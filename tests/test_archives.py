"""OMI-DB read twice: our reader and the public package `omidb` on one tree; the same mammograms in JSON, in spreadsheets and in a table of boxes."""
import json, os, shutil

import numpy as np
import pandas as pd
import pytest

from mammogan.archives import (
    funnel, PAPER_SELECTION, read_omidb, read_omidb_xls, select, simulated_delivery)
from mammogan.folders import read_folder
from mammogan.core import ParameterError
from mammogan.cutting import BOX
from mammogan.patches import KINDS
from mammogan.dataset import prepare
from mammogan.commands import describe_prepared
from mammogan.sources import open_patches

FLAGS = dict(mass=["mass"], calcification=["suspicious_calcifications", "calcifications"], asymmetry=["focal_asymmetry"], distortion=["architectural_distortion"])


def their_marks(tree):
    "Every mark that the package `omidb` keeps: client, image, box, kinds"
    omidb, logger = pytest.importorskip("omidb", reason="the second opinion comes with the extra [dev]"), pytest.importorskip("loguru").logger
    logger.disable("omidb")
    images = [(client, image) for client in omidb.DB(tree/"data", tree/"images") for e in client.episodes for s in e.studies for series in s.series for image in series.images]
    return sorted((client.id, image.id, *(getattr(m.boundingBox, k) for k in BOX), *(any(getattr(m, f) for f in FLAGS[k]) for k in KINDS)) for client, image in images for m in image.marks)


def our_marks(archive, lesions=None):
    "The same of an Archive"
    lesions = archive.lesions if lesions is None else lesions
    patients = archive.images.patient[lesions.image]
    return sorted((p, l.image, *(int(getattr(l, k)) for k in BOX), *(bool(getattr(l, k)) for k in KINDS)) for p, l in zip(patients, lesions.itertuples()))


def change(file, how):
    "Rewrite a JSON file"
    found = json.loads(file.read_text())
    how(found)
    file.write_text(json.dumps(found))


def first_mark(db):
    return next(m for study in db["STUDIES"].values() for series in study.values() if isinstance(series, dict) for marks in series.values() for m in (marks or {}).values())


def test_ours_and_theirs_agree_on_every_mark(phantom_tree):
    ours = our_marks(read_omidb(phantom_tree))
    assert ours == their_marks(phantom_tree) and len(ours) > 50


@pytest.fixture(scope="module")
def damaged(phantom_tree, tmp_path_factory):
    "The smoke phantoms with what `omidb` drops without a word, each in a client of its own; their names"
    tree = tmp_path_factory.mktemp("damaged")/"omidb"
    shutil.copytree(phantom_tree/"data", tree/"data")
    (tree/"images").symlink_to(phantom_tree/"images")
    whole = read_omidb(phantom_tree)
    marked = sorted(set(whole.images.patient[whole.lesions.image]))
    who = {k: tree/"data"/name for k, name in zip("blank no_record no_episode no_imagedb zero capitals".split(), marked)}
    file = {k: {kind: p/f"{kind}_{p.name}.json" for kind in ("imagedb", "nbss")} for k, p in who.items()}
    change(file["blank"]["imagedb"], lambda db: first_mark(db).update(X1=""))
    file["no_record"]["nbss"].unlink()
    change(file["no_episode"]["nbss"], dict.clear)
    change(file["no_episode"]["nbss"], lambda record: record.update({"1": {"EpisodeType": "F"}}))
    file["no_imagedb"]["imagedb"].unlink()
    change(file["zero"]["imagedb"], lambda db: first_mark(db).update(FocalAsymmetry="0"))
    for kind, path in file["capitals"].items(): path.rename(path.with_name(path.name.replace(kind, kind.upper())))
    return tree, {k: p.name for k, p in who.items()}


def marks_of(marks, client): return [m for m in marks if m[0] == client]


def test_what_they_drop_in_silence_is_a_row_of_ours(damaged, phantom_tree):
    (tree, who), whole = damaged, our_marks(read_omidb(phantom_tree))
    ours, theirs = read_omidb(tree), their_marks(tree)
    complete = our_marks(ours, ours.lesions[ours.lesions[BOX].notna().all(axis=1)])
    mine = {k: ours.lesions[ours.images.patient[ours.lesions.image].values == c] for k, c in who.items()}
    said = {k: ours.rejected[ours.rejected.file.str.contains(c+r"\b") | (ours.rejected.id == c)] for k, c in who.items()}
    assert len(marks_of(theirs, who["blank"])) == len(mine["blank"])-1 and mine["blank"].x1.isna().sum() == 1
    for dropped in ("no_record", "no_episode"):
        assert not marks_of(theirs, who[dropped]) and marks_of(complete, who[dropped]) == marks_of(whole, who[dropped])
        assert said[dropped].what.tolist() == ["record"] and (mine[dropped].status == "").all()
    assert not marks_of(theirs, who["no_imagedb"]) and set(said["no_imagedb"].what) == {"client", "file"}
    assert marks_of(theirs, who["capitals"]) == marks_of(complete, who["capitals"]) == marks_of(whole, who["capitals"])
    assert marks_of(complete, who["zero"]) == marks_of(whole, who["zero"]) != marks_of(theirs, who["zero"])          # "0" is no asymmetry; omidb says it is
    others = lambda marks: [m for m in marks if m[0] not in who.values()]
    assert others(theirs) == others(complete) == others(whole)


def test_both_corners_of_a_box_belong_to_it_and_rows_count_from_the_top(tmp_path):
    from mammogan.pixels import write_dicom
    img = np.arange(200*300, dtype=np.uint16).reshape(200, 300)
    client = tmp_path/"data"/"demd1"; client.mkdir(parents=True)
    marks = {"m": dict(X1="40", X2="167", Y1="5", Y2="132", Mass="1", LinkedNBSSLesionNumber="UNLINKED")}
    (client/"imagedb_demd1.json").write_text(json.dumps(dict(STUDIES={"9": {"EpisodeID": "1", "8": {"1.2": marks}}})))
    write_dicom(tmp_path/"images"/"demd1"/"9"/"1.2.dcm", img, BitsStored=16, HighBit=15)
    ps = prepare(read_omidb(tmp_path), tmp_path/"set").positives
    np.testing.assert_array_equal(ps.pixels[0], img[5:133, 40:168])


def test_a_lesion_that_stands_twice_in_a_file_is_not_lost_in_silence(tmp_path):
    client, image = tmp_path/"data"/"demd1", tmp_path/"images"/"demd1"/"9"/"1.2.dcm"
    for f in (client/"imagedb_demd1.json", image): f.parent.mkdir(parents=True)
    mark = json.dumps(dict(X1="40", X2="167", Y1="5", Y2="132", Mass="1"))
    (client/"imagedb_demd1.json").write_text(f'{{"STUDIES": {{"9": {{"EpisodeID": "1", "8": {{"1.2": {{"m": {mark}, "m": {mark}}}}}}}}}}}')
    image.write_bytes(b"any")
    got = read_omidb(tmp_path)
    assert got.images.empty and set(got.rejected.what) == {"client", "file"}
    assert "one object has the key 'm' twice" in got.rejected.reason[got.rejected.what == "client"].item()


DICOM_WORDS = dict(BatchID=None, ClientID="patient", StudyIUID="study", ImageSOPIUID="id", ImageLaterality="laterality", ViewPosition="view", Manufacturer="manufacturer",
                   ManufacturersModelName="model", PresentationIntentType="intent", XRayTubeCurrent="tube_current", EstimatedRadiographicMagnificationFactor="magnification")


def as_spreadsheets(archive, folder, absent=()):
    "Write an Archive as OMI-DB's spreadsheets, in two batches; `absent` columns are not written"
    images = archive.images.reset_index()
    images["batch"] = 1+images.patient.astype(str).str[-1].isin(list("13579"))
    for i in images.itertuples():
        place = folder/str(i.batch)/i.patient/i.study/f"{i.id}.dcm"; place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(archive.root/i.file)
    lesions = archive.lesions.reset_index().merge(images[["id", "patient", "study", "batch"]], left_on="image", right_on="id", suffixes=("", "_i"))
    for batch in (1, 2):
        of = images[images.batch == batch], lesions[lesions.batch == batch]
        sheet0 = pd.DataFrame({w: of[0][c or "batch"] for w, c in DICOM_WORDS.items() if w not in absent})
        sheet1 = pd.DataFrame(dict(BatchID=batch, ClientID=of[1].patient, StudyIUID=of[1].study, ImageSOPIUID=of[1].image, LesionID=range(len(of[1])), Status=of[1].status.str.title(),
                                   **{k.upper(): of[1][k] for k in BOX}, Mass=of[1].mass.map({True: 1, False: None}), SuspiciousCalcifications=of[1].calcification.astype(int)))
        (folder/"METADATA"/str(batch)).mkdir(parents=True)
        with pd.ExcelWriter(folder/"METADATA"/str(batch)/f"batch_{batch}_IMAGE.xlsx") as book: sheet0.to_excel(book, sheet_name="images", index=False); sheet1.to_excel(book, sheet_name="lesions", index=False)
    return folder


@pytest.mark.parametrize("absent", [(), ("ViewPosition", "XRayTubeCurrent", "Manufacturer")], ids=["all columns", "some in the headers only"])
def test_the_spreadsheets_say_what_the_json_says(absent, phantom_tree, tmp_path):
    json_delivery = read_omidb(phantom_tree)
    sheets = read_omidb_xls(as_spreadsheets(json_delivery, tmp_path/"xls", absent), workers=2)
    assert sheets.rejected.empty and our_marks(sheets) == our_marks(json_delivery)
    columns = ["patient", "study", "laterality", "view", "manufacturer", "model", "intent", "tube_current", "magnification"]
    same = lambda a: a.images.sort_index()[columns].astype({"tube_current": float, "magnification": float})
    pd.testing.assert_frame_equal(same(sheets), same(json_delivery), check_dtype=False)
    assert sorted(sheets.lesions.status) == sorted(json_delivery.lesions.status)
    assert len(select(sheets, PAPER_SELECTION).images) == len(select(json_delivery, PAPER_SELECTION).images)


def test_the_spreadsheets_give_the_same_patches(phantom_tree, phantoms, tmp_path):
    as_spreadsheets(read_omidb(phantom_tree), tmp_path/"xls")
    ps = open_patches("omidb-xls", tmp_path/"xls", "smoke")
    order = lambda s: s.positives[s.positives.rows.sort_values(["image", *BOX]).index.values].pixels
    np.testing.assert_array_equal(order(ps), order(phantoms))
    assert ps.info["funnel"][0] == dict(step="rows in the tables", images=48, lesions=84, patients=None)


def test_an_old_spreadsheet_with_blank_and_wrong_cells(tmp_path):
    xlwt = pytest.importorskip("xlwt", reason="xlwt, which writes .xls, comes with the extra [dev]")
    book = xlwt.Workbook()
    images, lesions = (book.add_sheet(n) for n in ("images", "lesions"))
    for r, row in enumerate([["BatchID", "ClientID", "StudyIUID", "ImageSOPIUID"], [7, 4711, "9.1", "1.2"], ["", "", "", ""], [7, 4711, "9.1", "1.3"]]):
        for c, v in enumerate(row): images.write(r, c, v)
    for r, row in enumerate([["ImageSOPIUID", "LesionID", "X1", "X2", "Y1", "Y2", "Mass"], ["1.2", 1, "10", 20, 5, 9.0, 1]]):
        for c, v in enumerate(row): lesions.write(r, c, v)
    lesions.write(2, 0, "1.2"); lesions.write(2, 1, 2); lesions.row(2).set_cell_error(2, 0x2A)
    for c, v in ((3, 20), (4, 5), (5, 9)): lesions.write(2, c, v)
    (tmp_path/"METADATA"/"7").mkdir(parents=True); book.save(str(tmp_path/"METADATA"/"7"/"batch_7_IMAGE.xls"))
    (tmp_path/"7"/"4711"/"9.1").mkdir(parents=True); (tmp_path/"7"/"4711"/"9.1"/"1.2.dcm").touch()
    found = read_omidb_xls(tmp_path)
    assert found.images.file.tolist() == ["7/4711/9.1/1.2.dcm"] and found.lesions.loc["1.2/1", BOX].tolist() == [10, 5, 20, 9] and found.lesions.loc["1.2/2", BOX].isna().tolist() == [True, False, False, False]
    assert found.rejected[["what", "id"]].values.tolist() == [["image", "1.3"], ["header", "1.2"]]        # the empty row is none; the empty file has no header


@pytest.mark.parametrize("separator, path_separator, end", [(",", "/", "\n"), (";", "\\", "\r\n")])
def test_a_table_of_boxes_says_what_the_json_says(separator, path_separator, end, phantom_tree, tmp_path):
    archive, own = read_omidb(phantom_tree), tmp_path/"own"
    shutil.copytree(phantom_tree/"images", own/"images")
    blank = archive.images[~archive.images.index.isin(archive.lesions.image)]
    lines = [[archive.images.file[l.image], *(int(getattr(l, k)) for k in BOX), *(int(getattr(l, k)) for k in KINDS), l.status] for l in archive.lesions.itertuples()]
    lines += [[f, *[""]*9] for f in blank.file]
    text = end.join(separator.join(map(str, line)) for line in [["file", *BOX, *KINDS, "status"], *lines]).replace("images/", "images"+path_separator)
    (own/"boxes.csv").write_bytes(("\ufeff"+text).encode())
    found = read_folder(own)
    assert found.rejected.empty and len(found.images) == 48 and set(found.images.patient) == set(archive.images.patient)     # PatientID of the headers
    without_id = lambda marks: sorted((m[0], *m[2:]) for m in marks)
    assert without_id(our_marks(found)) == without_id(our_marks(archive))
    assert found.images["view"].value_counts().to_dict() == archive.images["view"].value_counts().to_dict()


@pytest.mark.parametrize("source", ["omidb-xls", "folder"])
def test_a_folder_of_something_else_is_a_sentence(source, tmp_path):
    with pytest.raises(ParameterError, match=f"data='{tmp_path}': the folder is empty"): open_patches(source, tmp_path)
    (tmp_path/"notes.txt").write_text("holiday")
    with pytest.raises(ParameterError, match=f"data='{tmp_path}'"): open_patches(source, tmp_path)


def test_the_funnel_ends_with_what_the_selection_keeps(tmp_path):
    whole = read_omidb(simulated_delivery(tmp_path/"many", clients=20))
    os.remove(whole.root/whole.images.file.iloc[0]); (whole.root/"images"/"demd1"/"stray.dcm").touch()
    archive = read_omidb(whole.root)
    steps, chosen = funnel(archive, PAPER_SELECTION).set_index("step"), select(archive, PAPER_SELECTION)
    assert steps.images.iloc[:3].tolist() == [440, 439, 439] and steps.images["files without a row"] == 1
    assert steps.iloc[-2].tolist() == [len(chosen.images), len(chosen.lesions), chosen.images.patient.nunique()]
    assert steps.images.iloc[2:-1].is_monotonic_decreasing and 50 < len(chosen.images) < 200
    left_out = chosen.rejected.what.value_counts()
    assert left_out["image"] == 440-len(chosen.images) and left_out["file"] == 1
    assert left_out["lesion"] + len(chosen.lesions) == len(whole.lesions)


def test_the_command_tells_what_each_criterion_left(phantoms, phantom_tree):
    said = describe_prepared(phantoms)
    for step in ("rows in the tables", "rows with a file", "model is Lorad Selenia", "view is CC or MLO", "files without a row"): assert step in said
    assert [s["step"] for s in phantoms.info["funnel"]] == funnel(read_omidb(phantom_tree), PAPER_SELECTION).step.tolist()
