"""Ready-made patches with a table of labels and outlines: what is kept, and what each mismatch is called."""
import pickle

import numpy as np
import pytest
from PIL import Image

from mammogan.folders import read_patches, resized
from mammogan.core import ParameterError
from mammogan.patches import account, describe_labels, load_patches, save_patches
from mammogan.commands import describe_prepared
from mammogan.sources import open_patches

HEAD = "id,patient,side,view,pathology,shape"
ROWS = ["m0,p1,LEFT,CC,BENIGN,OVAL", "m1,p1,LEFT,mlo,MALIGNANT,IRREGULAR", "m2,p2,RIGHT,CC,BENIGN_WITHOUT_CALLBACK,NaN"]


def picture(path, value=90, shape=(128, 128)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(shape, value, np.uint8) if np.isscalar(value) else value).save(path)


def outline(share=2, side=128):
    "A mask whose left part is inside the lesion"
    mask = np.zeros((side, side), np.uint8)
    mask[:, :side//share] = 255
    return mask


@pytest.fixture
def folder(tmp_path):
    "Three pictures with a row each; the second has an outline"
    def made(rows=ROWS, head=HEAD, table="lesions.csv", separator=","):
        for i in range(3): picture(tmp_path/f"m{i}.png", 60*i)
        picture(tmp_path/"m1_mask.png", outline())
        (tmp_path/table).write_text("\n".join([head, *rows]).replace(",", separator)+"\n", encoding="utf-8")
        return tmp_path
    return made


def lost(ps): return ps.rejected[["what", "id", "file", "reason"]].values.tolist()


def test_a_row_gives_its_patch_its_labels(folder):
    ps = read_patches(folder())
    assert ps.rows.lesion.tolist() == ["m0", "m1", "m2"] and ps.rows.image.tolist() == ["m0.png", "m1.png", "m2.png"]
    assert ps.rows.patient.tolist() == ["p1", "p1", "p2"] and ps.rows.status.tolist() == ["benign", "malignant", "benign"]
    assert ps.rows.laterality.tolist() == ["L", "L", "R"] and ps.rows["view"].tolist() == ["CC", "MLO", "CC"]
    assert ps.rows["shape"].tolist() == ["oval", "irregular", ""] and ps.rows.pathology[2] == "benign_without_callback"
    assert ps.rows.mass.all() and ps.rejected.empty and ps.info["positives"] == "mass"
    assert ps.info["account"] == dict(images=3, images_used=3, images_rejected=0, lesions=3, lesions_used=3, lesions_rejected=0, normals=0, patients=2)


def test_the_set_says_what_labels_it_has(folder):
    ps = open_patches("patches", folder())
    assert repr(ps).endswith("from 2 patients: 2 benign, 1 malignant; 1 with an outline; lesions.csv adds side, pathology, shape")
    assert describe_labels(ps[:1]).startswith("1 benign; 0 with an outline") and describe_labels(ps) in describe_prepared(ps)
    assert account(ps).values.tolist() == [[3, 3, 0], [3, 3, 0]]


@pytest.mark.parametrize("separator", [";", "\t"])
def test_the_table_may_have_another_separator_and_capital_letters(folder, separator):
    ps = read_patches(folder(head="\ufeff"+HEAD.replace("id", "ID").replace("patient", "Patient"), separator=separator, table="T.CSV"))
    assert len(ps) == 3 and ps.info["table"] == dict(file="T.CSV", columns=["side", "pathology", "shape"])


def test_numbers_stay_numbers_where_all_of_a_column_are(folder):
    ps = read_patches(folder(head="id,patient,whole,part,code,gaps", rows=["m0,p1,3,1.5,007,1", "m1,p1,40,2,012,", "m2,p2,5,-3,113,2"]))
    assert ps.rows.whole.tolist() == [3, 40, 5] and ps.rows.part.tolist() == [1.5, 2., -3.]
    assert ps.rows.code.tolist() == ["007", "012", "113"] and ps.rows.gaps.tolist() == ["1", "", "2"]


def test_a_table_may_name_files_in_subfolders(tmp_path):
    for name in ("a/x.png", "b/x.png", "c/y.png"): picture(tmp_path/name)
    (tmp_path/"t.csv").write_text("file,patient\na/x.png,p1\nb\\x.png,p2\ny,p3\n")
    ps = read_patches(tmp_path)
    assert ps.rows.image.tolist() == ["a/x.png", "b/x.png", "c/y.png"] and ps.rows.patient.tolist() == ["p1", "p2", "p3"]


def test_kinds_come_from_the_table_where_it_has_them(folder):
    ps = read_patches(folder(head="id,patient,kind,mass", rows=["m0,p1,calcification,0", "m1,p1,,yes", "m2,p2,cyst,no"]))
    assert ps.rows.mass.tolist() == [False, True, False] and ps.rows.calcification.tolist() == [True, False, False]
    assert ps.info["positives"] == "mass" and lost(ps)[0][:2] == ["kind", "m2"] and "cyst is none of mass" in lost(ps)[0][3]
    assert read_patches(folder(head="id,patient,mass", rows=["m0,p1,0", "m1,p1,0", "m2,p2,0"])).info["positives"] == "any"


@pytest.mark.parametrize("rows, what, id, reason", [
    ([*ROWS, "m3,p2,LEFT,CC,BENIGN,OVAL"], "image", "m3", "row 5 of lesions.csv names it, but the file is not there"),
    (ROWS[:2], "file", "m2", "on disk, but no row of lesions.csv names it"),
    ([*ROWS[:2], "m2,,LEFT,CC,BENIGN,OVAL"], "image", "m2", "row 4 of lesions.csv names no patient, and folds are divided by patients"),
    ([*ROWS[:2], "m2,NaN,LEFT,CC,BENIGN,OVAL"], "image", "m2", "row 4 of lesions.csv names no patient, and folds are divided by patients"),
    ([*ROWS, ROWS[0]], "image", "m0", "row 2 of lesions.csv is repeated"),
    ([*ROWS, ",p2,LEFT,CC,BENIGN,OVAL"], "row", "row 5", "it names no picture"),
    ([*ROWS, "m0,p1,LEFT,CC,BENIGN,OVAL,a,b"], "row", "row 5", "it has more cells than the first line has names: put quotation marks around texts that hold the separator"),
    ([*ROWS[:2], "m2,p2,RIGHT,CC,NORMAL,"], "image", "m2", "row 4 of lesions.csv calls it normal, and a folder of patches holds lesions"),
    ([*ROWS[:2], "m2,p2,RIGHT,CC,cyst,"], "status", "m2", "cyst is neither benign nor malignant; the lesion is kept without a status"),
    ([*ROWS[:2], "m2,p2,both,CC,BENIGN,"], "laterality", "m2", "both is neither left nor right; the lesion is kept without a laterality"),
])
def test_each_mismatch_is_a_row_with_its_reason(folder, rows, what, id, reason):
    ps = read_patches(folder(rows))
    assert [r[:2]+r[3:] for r in lost(ps)] == [[what, id, reason]]
    a, gone = ps.info["account"], int(what == "image")
    assert a["images"] == len(ps)+gone and a["images_rejected"] == gone and a["images_used"] == len(ps)


def test_rows_of_one_id_that_differ_are_all_left_out(folder):
    ps = read_patches(folder([*ROWS, ROWS[0].replace("BENIGN", "MALIGNANT")]))
    assert ps.rows.lesion.tolist() == ["m1", "m2"]
    assert lost(ps) == [["image", "m0", "m0.png", "rows 2, 5 of lesions.csv give one id and differ"]]*2


def test_a_name_that_may_mean_two_pictures_is_not_guessed(folder):
    there = folder()
    picture(there/"a"/"n.png"); picture(there/"b"/"n.png")
    with open(there/"lesions.csv", "a") as f: f.write("n,p3,LEFT,CC,BENIGN,OVAL\n")
    assert lost(read_patches(there)) == [["image", "n", "n", "row 5 of lesions.csv may mean 2 pictures: a/n.png, b/n.png"]]


@pytest.mark.parametrize("column", ["label", "image", "x1", "size", "lesion"])
def test_a_column_whose_name_is_taken_changes_nothing_and_is_reported(folder, column):
    plain, ps = read_patches(folder()), read_patches(folder(head=HEAD.replace("shape", column)))
    assert [r[:2] for r in lost(ps)] == [["column", column]] and ps.info["account"] == plain.info["account"]
    assert ps.rows.equals(plain.rows.drop(columns="shape"))


@pytest.mark.parametrize("mask, reason", [
    (outline(side=64), "it has 64x64 pixels, its picture 128x128"), (np.zeros((128, 128), np.uint8), "it is empty: no pixel is inside the lesion"), (b"not a picture", "cannot be read")])
def test_a_bad_mask_costs_the_outline_and_not_the_patch(folder, mask, reason):
    there = folder()
    (there/"m2_mask.png").write_bytes(mask) if isinstance(mask, bytes) else picture(there/"m2_mask.png", mask)
    ps = read_patches(there)
    (what, id, file, why), = lost(ps)
    assert (what, id, file) == ("mask", "m2_mask", "m2_mask.png") and reason in why and why.endswith("; the patch is kept without an outline")
    assert len(ps) == 3 and [int(o.max()) for o in ps.outlines] == [0, 255, 0]


def test_a_mask_without_a_picture_and_a_second_mask_are_reported(folder):
    there = folder()
    picture(there/"m7_mask.png", outline()); picture(there/"m1_mask.tif", outline())
    assert [r[1:] for r in lost(read_patches(there))] == [["m1_mask", "m1_mask.tif", "its picture has an outline already, m1_mask.png"],
                                                          ["m7_mask", "m7_mask.png", "an outline, but there is no picture m7 next to it"]]


def test_tables_that_cannot_be_used_are_errors(folder, tmp_path):
    there = folder()
    with pytest.raises(ParameterError, match="since lesions.csv names the patients"): read_patches(there, "(?P<patient>m)")
    (there/"notes.csv").write_text("a,b\n1,2\n")
    assert read_patches(there).info["table"]["file"] == "lesions.csv"                      # a table of other things is no table of patches
    (there/"again.csv").write_text("patient,file\np1,m1.png\n")
    with pytest.raises(ParameterError, match="again.csv, lesions.csv each have a column patient"): read_patches(there)
    for name in ("again.csv", "lesions.csv"): (there/name).write_text("patient,file\n")
    (there/"lesions.csv").unlink()
    with pytest.raises(ParameterError, match="again.csv has no rows"): read_patches(there)
    (there/"again.csv").write_bytes("id,patient\nm1,p\xe4\n".encode("latin-1"))
    with pytest.raises(ParameterError, match="is not text in UTF-8"): read_patches(there)
    (there/"again.csv").write_text("id,patient\nz,p1\n")
    with pytest.raises(ValueError, match="None of the 3 pictures.*row 2 of again.csv names it, but the file is not there"): read_patches(there)


def test_pictures_are_shrunk_by_averaging(tmp_path):
    value = np.random.default_rng(0).integers(0, 256, (256, 256), dtype=np.uint8)
    value[:2, :2] = [[10, 20], [30, 41]]
    picture(tmp_path/"P_00001.png", value); picture(tmp_path/"P_00002.png", value[:64, :64])
    large, small = read_patches(tmp_path).pixels
    mean = value.reshape(128, 2, 128, 2).mean((1, 3))
    assert large[0, 0] == 25 and np.abs(large-mean).max() <= .5
    assert (small == np.asarray(Image.fromarray(value[:64, :64]).resize((128, 128), Image.Resampling.BILINEAR))).all()
    assert (resized(value[:, :64])[:, ::64] == resized(value[:, :64], 128)[:, ::64]).all() and resized(value[:, :64]).shape == (128, 128)


def test_an_outline_is_the_share_of_each_pixel_inside(tmp_path):
    picture(tmp_path/"P_1.png", 90, (256, 256))
    mask = np.zeros((256, 256), np.uint8)
    mask[:2, 0], mask[:2, 2:4], mask[0, 4] = 1, 1, 1                # half a pixel, a whole one, a quarter; 1 is as good as 255
    picture(tmp_path/"P_1_mask.png", mask)
    assert read_patches(tmp_path).outlines[0, 0, :4].tolist() == [128, 255, 64, 0]


def test_a_folder_without_a_table_has_outlines_too_and_sets_without_have_none(tmp_path):
    for i in range(2): picture(tmp_path/f"P_0000{i}_is_benign_1.png", 50*i)
    plain = read_patches(tmp_path)
    assert plain.outlines is None and plain.all_outlines is None and "table" not in plain.info
    picture(tmp_path/"P_00001_is_benign_1_mask.png", outline())
    ps = read_patches(tmp_path)
    assert len(ps) == 2 and ps.rows.equals(plain.rows) and ps.outlines.any((1, 2)).tolist() == [False, True]
    assert ps.info["fingerprint"] != plain.info["fingerprint"] and repr(ps).endswith("from 2 patients: 1 with an outline")


def test_a_reader_study_shows_no_outlines(folder):
    from mammogan.reader_study import study_pictures
    assert list(study_pictures("real", folder()).names) == ["m0.png", "m1.png", "m2.png"]


def test_the_fingerprint_of_plain_patches_is_that_of_earlier_versions(tmp_path):
    for i in range(3): picture(tmp_path/f"x__P_0000{i//2}_mass{i}_is_benign_1.png", np.arange(128*128, dtype=np.uint32).reshape(128, 128).astype(np.uint8)//(i+1))
    assert read_patches(tmp_path).info["fingerprint"] == "f2c1c63610215aee"


def test_outlines_and_labels_stay_with_their_patch(folder, tmp_path):
    ps = read_patches(folder())
    assert ps[[2, 1]].outlines.any((1, 2)).tolist() == [False, True] and ps[[2, 1]].rows["shape"].tolist() == ["", "irregular"]
    assert (ps[1:].positives.of_kind("mass").of_status("malignant").outlines[0] == outline()).all()
    assert len(ps.normals.outlines) == 0


def test_a_set_with_outlines_is_saved_and_found_again(folder, tmp_path):
    ps = read_patches(folder(rows=[*ROWS, "m9,p9,LEFT,CC,BENIGN,OVAL"]))
    place = tmp_path/"set"
    save_patches(ps, place)
    there = load_patches(place)
    assert isinstance(there.all_outlines, np.memmap) and (there.outlines == ps.outlines).all() and (there.pixels == ps.pixels).all()
    assert there.rows.to_dict("list") == ps.rows.to_dict("list") and there.info == ps.info and lost(there) == lost(ps)
    assert (there.positives.normalised() == ps.positives.normalised()).all() and repr(open_patches("patches", place)) == repr(ps)
    sent = pickle.dumps(there[1:])
    assert len(sent) < there.all_outlines.nbytes and (pickle.loads(sent).outlines == ps.outlines[1:]).all()


def test_a_set_without_outlines_is_saved_without_them(tmp_path):
    picture(tmp_path/"in"/"P_1.png")
    assert save_patches(read_patches(tmp_path/"in"), tmp_path/"set").outlines is None and not (tmp_path/"set"/"outlines.npy").exists()


def test_the_order_of_rows_does_not_matter(folder):
    ps = read_patches(folder())
    again = read_patches(folder(ROWS[::-1]))
    assert again.info == ps.info and again.rows.equals(ps.rows)
