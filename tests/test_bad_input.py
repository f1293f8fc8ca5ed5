"""A delivery of OMI-DB that is damaged in every way we could think of: nothing stops, and nothing is dropped in silence."""
import json, shutil

import pytest

from mammogan.core import ParameterError
from mammogan.sources import open_patches


def clients(tree): return sorted((tree/"data").iterdir())
def pictures(tree, client): return sorted((tree/"images"/client.name).rglob("*.dcm"))
def imagedb(client): return client/f"imagedb_{client.name}.json"


def marks(tree):
    "The imagedb file and the contents of the first client whose first image has a mark, and that mark"
    for client in clients(tree)[8:]:
        db = json.loads(imagedb(client).read_text())
        for study in db["STUDIES"].values():
            for series in study.values():
                for image in (series.values() if isinstance(series, dict) else ()):
                    for mark in (image or {}).values(): yield imagedb(client), db, mark


def change_mark(tree, number, **values):
    "Rewrite one radiologist's mark"
    file, db, mark = list(marks(tree))[number]
    mark.update(values)
    file.write_text(json.dumps(db))


@pytest.fixture(scope="module")
def damaged(phantom_tree, tmp_path_factory):
    "The smoke phantoms, each client damaged in another way; what was done, and a file or name that its report must give"
    tree = tmp_path_factory.mktemp("delivery")/"omidb"
    shutil.copytree(phantom_tree, tree)
    who = clients(tree)
    cut, text, gone, empty = (pictures(tree, c)[0] for c in who[:4])
    cut.write_bytes(cut.read_bytes()[:20_000])
    text.write_text("this is not DICOM")
    gone.unlink()
    empty.write_bytes(b"")
    imagedb(who[4]).write_text(imagedb(who[4]).read_text()[:90])
    imagedb(who[5]).unlink()
    (who[6]/f"nbss_{who[6].name}.json").unlink()
    (who[7]/f"nbss_{who[7].name}.json").write_text('{"7": ')
    header = next(who[7].rglob("*/*.json")); header.write_text("{")
    change_mark(tree, 0, X1="90000", X2="90100")
    change_mark(tree, 1, Y2="")
    return tree, dict(cut=cut.name, text=text.name, gone=gone.name, empty=empty.name, malformed=imagedb(who[4]).name, missing=imagedb(who[5]).name,
                      no_record=f"nbss_{who[6].name}.json", bad_record=f"nbss_{who[7].name}.json", header=header.name)


@pytest.fixture(scope="module")
def prepared(damaged): return open_patches("omidb", damaged[0], "smoke")


SENTENCES = dict(cut="its pixels cannot be decoded", text="cannot be read as DICOM", gone="the file is not there", empty="cannot be read as DICOM",
                 malformed="cannot be read as JSON", missing="is missing", no_record="is missing", bad_record="cannot be read as JSON", header="cannot be read as JSON")


@pytest.mark.parametrize("damage", SENTENCES)
def test_the_damage_is_a_row_that_names_the_file_and_says_what_is_wrong(damage, damaged, prepared):
    rows = prepared.rejected[(prepared.rejected.file + " " + prepared.rejected.reason).str.contains(damaged[1][damage], regex=False)]
    assert rows.reason.str.contains(SENTENCES[damage], regex=False).any()


@pytest.mark.parametrize("sentence", ["lies outside the image", "gives no complete box"])
def test_a_box_that_cannot_be_cut_is_a_row_that_names_its_image(sentence, prepared):
    row, = prepared.rejected[prepared.rejected.reason.str.contains(sentence)].itertuples()
    assert row.what == "lesion" and row.file.endswith(".dcm") and row.file.split("/")[-1][:-4] in row.id


def test_the_account_adds_up_and_the_rest_is_used(prepared, phantoms):
    a, whole = prepared.info["account"], phantoms.info["account"]
    assert a["images"] == a["images_used"] + a["images_rejected"]
    assert a["lesions"] == a["lesions_used"] + a["lesions_rejected"]
    assert a["patients"] == whole["patients"] - 2                                   # the two without an imagedb
    assert whole["images_used"] - a["images_used"] == 2*2 + 4 + 1                   # theirs, four pictures, one header
    assert set(prepared.rejected.what) == {"image", "lesion", "client", "record", "header", "normals", "file"}


def test_no_normal_tissue_is_cut_where_a_lesions_place_is_not_known(prepared):
    lost = prepared.rejected[prepared.rejected.what == "normals"].id
    assert len(lost) and not prepared.normals.rows.image.isin(lost).any()


def test_a_client_without_a_screening_record_keeps_its_lesions(damaged, prepared, phantoms):
    without = damaged[1]["no_record"][5:-5]
    mine, before = (ps.positives.rows[ps.positives.rows.patient == without] for ps in (prepared, phantoms))
    assert len(mine) == len(before) and (mine.status == "").all()


def test_no_patients_name_or_birth_date_is_in_any_table(prepared):
    for table in (prepared.rows, prepared.images, prepared.rejected):
        assert not [c for c in table.columns if "name" in c.lower() or "birth" in c.lower()]


def test_a_delivery_without_any_readable_picture_is_a_sentence(phantom_tree, tmp_path):
    shutil.copytree(phantom_tree/"data", tmp_path/"omidb"/"data")
    with pytest.raises(ValueError, match=r"omidb holds no images of omidb that can be used: there is nothing to prepare\..* the file is not there"):
        open_patches("omidb", tmp_path/"omidb", "smoke")


@pytest.mark.parametrize("source", ["omidb", "cbis-ddsm", "inbreast", "vindr-mammo", "mini-mias", "patches"])
def test_an_empty_folder_is_a_sentence_that_names_it(source, tmp_path):
    with pytest.raises(ParameterError, match=f"data='{tmp_path}': the folder is empty"): open_patches(source, tmp_path)


@pytest.mark.parametrize("source", ["omidb", "cbis-ddsm", "inbreast", "vindr-mammo", "mini-mias", "patches"])
def test_a_folder_of_something_else_is_a_sentence(source, tmp_path):
    (tmp_path/"notes.txt").write_text("holiday")
    with pytest.raises(ParameterError, match=f"data='{tmp_path}'"): open_patches(source, tmp_path)
