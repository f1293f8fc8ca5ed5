"""The open collections, each as a small tree with the habits of the real one, and with damage: nothing stops, and nothing is dropped silently."""
import plistlib, shutil

import numpy as np
import pandas as pd
import pytest

from mammogan.public_archives import mask_facts, read_cbis, read_inbreast, read_vindr
from mammogan.core import ParameterError
from mammogan.dataset import prepare
from mammogan.pixels import write_dicom
from mammogan.sources import open_patches

HEAD = ["patient_id", "breast_density", "left or right breast", "image view", "abnormality id", "abnormality type", "mass shape", "pathology",
        "image file path", "cropped image file path", "ROI mask file path"]


def film(seed=0, shape=(300, 200)):
    "A noisy bright half disc on a dark background"
    y, x = np.mgrid[:shape[0], :shape[1]]
    inside = np.hypot((y-shape[0]/2)/shape[0], x/shape[1]/1.6) < .48
    return (inside*(1500+np.random.default_rng(seed).normal(0, 200, shape))+30).clip(0, 4095).astype(np.uint16)


def mask(box=(20, 100, 49, 149), shape=(300, 200)):
    m = np.zeros(shape, np.uint16); m[box[1]:box[3]+1, box[0]:box[2]+1] = 255
    return m


def series(root, name, uid, *pictures, file="{:06}.dcm"):
    for i, p in enumerate(pictures): write_dicom(root/name/"1.2.9"/uid/file.format(i), p, SeriesInstanceUID=uid)


def case(patient="P_00001", number=1, image="1.2.1", crop="1.2.2/000000.dcm", roi="1.2.2/000001.dcm\n", side="LEFT", view="CC", density=2, kind="mass", shape="OVAL", pathology="MALIGNANT"):
    "A row of a description table"
    return [patient, density, side, view, number, kind, shape, pathology, f"a/1.2.9/{image}/000000.dcm", f"b/1.2.9/{crop}", f"b/1.2.9/{roi}"]


def describe(root, rows, name="mass_case_description_train_set.csv", head=HEAD):
    root.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows, columns=head).to_csv(root/name, index=False)


@pytest.fixture
def cbis(tmp_path):
    "One film with one mass"
    root = tmp_path/"cbis"
    series(root, "Mass-Training_P_00001_LEFT_CC", "1.2.1", film())
    series(root, "Mass-Training_P_00001_LEFT_CC_1", "1.2.2", film()[100:150, 20:50], mask())
    describe(root, [case()])
    return root


def boxes(archive): return archive.lesions[["x1", "y1", "x2", "y2"]].values.tolist()


def test_cbis_a_lesions_box_is_that_of_its_mask(cbis):
    archive = read_cbis(cbis)
    assert boxes(archive) == [[20, 100, 49, 149]] and len(archive.rejected) == 0
    assert archive.images.loc["P_00001_LEFT_CC"].tolist()[:4] == ["P_00001", "", "L", "CC"]
    assert archive.lesions.status.tolist() == ["malignant"] and archive.lesions.index.tolist() == ["P_00001_LEFT_CC/mass-1"]


def test_cbis_crop_and_mask_may_swap_their_names(cbis):
    describe(cbis, [case(crop="1.2.2/000001.dcm", roi="1.2.2/000000.dcm\n")])
    assert boxes(read_cbis(cbis)) == [[20, 100, 49, 149]]


def test_cbis_crop_and_mask_may_have_a_series_each_under_either_name(cbis):
    shutil.rmtree(cbis/"Mass-Training_P_00001_LEFT_CC_1")
    series(cbis, "m", "1.2.2", mask()); series(cbis, "c", "1.2.3", film()[100:150, 20:50])
    for crop, roi in (("1.2.2", "1.2.3"), ("1.2.3", "1.2.2")):
        describe(cbis, [case(crop=f"{crop}/000000.dcm", roi=f"{roi}/000000.dcm\n")])
        assert boxes(read_cbis(cbis)) == [[20, 100, 49, 149]]


def test_cbis_is_found_as_idc_index_lays_it_out(cbis, tmp_path):
    for i, f in enumerate(sorted(cbis.rglob("*.dcm"))):
        to = tmp_path/"idc"/"cbis_ddsm"/"subject.dcm"/"1.2.9"/f"MG_{f.parent.name}"/f"3f0a{i}.dcm"
        to.parent.mkdir(parents=True, exist_ok=True); shutil.copy(f, to)
    describe(tmp_path/"idc"/"csv", [case()])
    assert boxes(read_cbis(tmp_path/"idc")) == [[20, 100, 49, 149]]


def test_cbis_is_found_as_tcias_retriever_lays_it_out_and_in_one_folder(cbis, tmp_path):
    for i, f in enumerate(sorted(cbis.rglob("*.dcm"))):
        for to in (tmp_path/"tcia"/f"S{i}"/"07-20-2016-DDSM"/f"1.000000-full mammogram images-{i}"/"1-1.dcm", tmp_path/"flat"/f"{i}.dcm"):
            to.parent.mkdir(parents=True, exist_ok=True); shutil.copy(f, to)
    for place in ("tcia", "flat"):
        describe(tmp_path/place, [case()])
        assert boxes(read_cbis(tmp_path/place)) == [[20, 100, 49, 149]]


def test_cbis_a_film_in_two_tables_is_one_image_with_the_lesions_of_both(cbis):
    series(cbis, "Calc-Test_P_00001_LEFT_CC", "1.2.5", film())
    series(cbis, "Calc-Test_P_00001_LEFT_CC_1", "1.2.6", mask((90, 90, 99, 99)))
    describe(cbis, [case(image="1.2.5", crop="1.2.6/000000.dcm", roi="1.2.6/000000.dcm", kind="calcification", pathology="BENIGN_WITHOUT_CALLBACK", density=0)], "calc_case_description_test_set.csv")
    archive = read_cbis(cbis)
    assert archive.images.index.tolist() == ["P_00001_LEFT_CC"] and sorted(boxes(archive)) == [[20, 100, 49, 149], [90, 90, 99, 99]]
    assert archive.images.density.tolist() == ["2"] and archive.images.split.tolist() == ["train"]
    assert set(archive.rejected.what) == {"copy", "split"} and sorted(archive.lesions.status) == ["benign", "malignant"]
    shutil.rmtree(cbis/"Calc-Test_P_00001_LEFT_CC")                     # either copy will do
    assert sorted(boxes(read_cbis(cbis))) == [[20, 100, 49, 149], [90, 90, 99, 99]]


def test_cbis_several_lesions_on_a_film_and_a_woman_with_two_films(cbis):
    series(cbis, "m2", "1.2.7", mask((60, 50, 79, 69))); series(cbis, "f2", "1.2.8", film(1))
    describe(cbis, [case(), case(number=2, crop="1.2.7/0.dcm", roi="1.2.7/1.dcm"), case(image="1.2.8", side="RIGHT", crop="1.2.7/0.dcm", roi="1.2.7/1.dcm")])
    archive = read_cbis(cbis)
    assert archive.lesions.image.value_counts().to_dict() == {"P_00001_LEFT_CC": 2, "P_00001_RIGHT_CC": 1}
    assert archive.images.patient.unique().tolist() == ["P_00001"] and archive.images.laterality.tolist() == ["L", "R"]


def test_cbis_a_mask_of_the_same_proportions_is_rescaled_and_one_of_others_is_given_up(cbis):
    series(cbis, "Mass-Training_P_00001_LEFT_CC_1", "1.2.2", mask((10, 50, 19, 69), (150, 100)), film()[:9, :9])
    archive = read_cbis(cbis)
    assert boxes(archive) == [[20, 100, 39, 139]] and "rescaled" in archive.rejected.reason.item()
    series(cbis, "Mass-Training_P_00001_LEFT_CC_1", "1.2.2", mask((10, 50, 19, 69), (150, 110)), film()[:9, :9])
    archive = read_cbis(cbis)
    assert archive.lesions.x1.isna().all() and "does not fit its mammogram of 300x200" in archive.rejected.reason.item()


DAMAGE = dict(gone=(lambda f: f.unlink(), "no file of its mask's series is there|none of its files has the two values"), cut=(lambda f: f.write_bytes(f.read_bytes()[:900]), "its pixels cannot be decoded"),
              empty=(lambda f: f.write_bytes(b""), "cannot be read as DICOM"), text=(lambda f: f.write_text("no DICOM"), "cannot be read as DICOM"),
              blank=(lambda f: write_dicom(f, mask((5, 5, 4, 4))), "its mask marks nothing"), grey=(lambda f: write_dicom(f, film()), "none of its files has the two values of a mask"))


@pytest.mark.parametrize("damage", DAMAGE)
def test_cbis_a_mask_that_cannot_be_used_is_a_row_and_no_normal_tissue_is_cut_next_to_it(damage, cbis):
    spoil, sentence = DAMAGE[damage]
    spoil(cbis/"Mass-Training_P_00001_LEFT_CC_1"/"1.2.9"/"1.2.2"/"000001.dcm")
    series(cbis, "other", "1.2.7", film(3)); series(cbis, "other_1", "1.2.8", mask())
    describe(cbis, [case(), case(patient="P_00002", image="1.2.7", crop="1.2.8/000000.dcm", roi="1.2.8/000000.dcm")])
    ps = prepare(read_cbis(cbis), cbis.parent/"patches")
    row, = ps.rejected[ps.rejected.what == "mask"].itertuples()
    assert pd.Series([row.reason]).str.contains(sentence).all() and row.id == "P_00001_LEFT_CC/mass-1"
    assert ps.positives.rows.image.tolist() == ["P_00002_LEFT_CC"] and set(ps.normals.rows.image) == {"P_00002_LEFT_CC"}
    a = ps.info["account"]
    assert (a["lesions"], a["lesions_used"], a["lesions_rejected"], a["images_used"]) == (2, 1, 1, 1)


ROWS = dict(patient=case(patient=""), nobody=case(patient="Smith"), side=case(side=""), view=case(view="XCCL"))


@pytest.mark.parametrize("row", ROWS)
def test_cbis_a_row_that_names_no_film_is_refused_with_its_number(row, cbis):
    describe(cbis, [case(), ROWS[row]])
    archive = read_cbis(cbis)
    assert len(archive.lesions) == 1 and archive.rejected.reason.tolist()[0].startswith("it names no film")
    assert archive.rejected.id.tolist()[0] == "mass_case_description_train_set.csv, row 2"


def test_cbis_cells_of_nonsense_are_kept_as_unknown(cbis):
    describe(cbis, [case(number="one", density="NaN", pathology="?"), [None]*len(HEAD)])
    archive = read_cbis(cbis)
    assert archive.lesions.status.tolist() == [""] and boxes(archive) == [[20, 100, 49, 149]] and len(archive.images) == 1


def test_cbis_paths_that_are_empty_or_lead_nowhere_are_rows(cbis):
    row = case(patient="P_00002"); row[8] = ""
    empty = case(number=3); empty[9] = empty[10] = ""
    describe(cbis, [case(), row, empty, case(patient="P_00003", image="1.2.77")])
    archive = read_cbis(cbis)
    assert archive.rejected.what.value_counts().to_dict() == {"image": 2, "lesion": 2, "mask": 1}
    assert archive.lesions.loc["P_00001_LEFT_CC/mass-3", ["x1", "x2"]].isna().all()


def test_cbis_a_table_that_cannot_be_used_is_a_row_and_all_of_them_a_sentence(cbis):
    describe(cbis, [case()[:-1]], "mass_case_description_test_set.csv", HEAD[:-1])
    (cbis/"calc_case_description_test_set.csv").write_bytes(b"")
    archive = read_cbis(cbis)
    assert boxes(archive) == [[20, 100, 49, 149]] and archive.rejected.what.tolist() == ["table", "table"]
    (cbis/"mass_case_description_train_set.csv").unlink()
    with pytest.raises(ParameterError, match="not CBIS-DDSM, or not all of it.*has no column roi mask file path"): read_cbis(cbis)


def test_cbis_a_file_that_no_table_names_is_a_row(cbis):
    series(cbis, "Mass-Training_P_00009_LEFT_CC", "1.2.55", film())
    assert read_cbis(cbis).rejected.what.tolist() == ["file"]


def test_cbis_masks_are_looked_at_once_with_any_number_of_workers(cbis, monkeypatch):
    from mammogan import public_archives
    first, asked = read_cbis(cbis, workers=2), []
    def counted(path): asked.append(path.name); return mask_facts(path)
    counted.__name__ = "mask_facts"
    monkeypatch.setattr(public_archives, "mask_facts", counted)
    assert boxes(read_cbis(cbis)) == boxes(first) and asked == []
    write_dicom(cbis/"Mass-Training_P_00001_LEFT_CC_1"/"1.2.9"/"1.2.2"/"000001.dcm", mask((1, 2, 3, 4)))
    assert boxes(read_cbis(cbis)) == [[1, 2, 3, 4]] and asked == ["000001.dcm"]


def test_cbis_the_command_gives_its_workers_to_the_reader_and_the_bytes_do_not_depend_on_them(cbis, tmp_path):
    one, two = (open_patches("cbis-ddsm", cbis, workers=n, out=tmp_path/f"{n}") for n in (1, 2))
    assert one.info["fingerprint"] == two.info["fingerprint"] and len(one.positives) == 1


# INbreast

INBREAST = "Patient ID;Patient age;Laterality;View;Acquisition date;File Name;ACR;Bi-Rads;Mass ;Micros;Distortion;Asymmetry\n"


def outlines(path, *rois):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(plistlib.dumps(dict(Images=[dict(ROIs=[dict(Name=n, Point_px=[f"({x}, {y})" for x, y in p]) for n, p in rois])])))


@pytest.fixture
def inbreast(tmp_path):
    root = tmp_path/"INbreast"
    for i, (n, what) in enumerate({"20": "aa_MG_R_CC", "21": "aa_MG_R_ML", "22": "bb_MG_L_FB"}.items()): write_dicom(root/"AllDICOMs"/f"{n}_{what}_ANON.dcm", film(i))
    outlines(root/"AllXML"/"21.xml", ("Mass", [(20.4, 100), (49, 149.0)]), ("Espiculated Region", [(10, 90), (60, 160)]))
    (root/"INbreast.csv").write_text(INBREAST + "removed;;R;CC;;20;2;1;;;;\nremoved;;R;MLO;;21;2;4a;X;;;\nremoved;;L;FB;;22.0;3;2;;;;\n;;;;;;;;;;;\n")
    return root


def test_inbreast_as_it_is(inbreast):
    archive = read_inbreast(inbreast)
    assert archive.images[["patient", "laterality", "view", "density"]].values.tolist() == [["aa", "R", "CC", "2"], ["aa", "R", "MLO", "2"], ["bb", "L", "FB", "3"]]
    assert boxes(archive) == [[20.4, 100, 49, 149], [10, 90, 60, 160]] and len(archive.rejected) == 0
    assert archive.lesions[["mass", "status"]].values.tolist() == [[True, "malignant"], [False, "malignant"]]


def test_inbreast_one_folder_up_and_as_a_spreadsheet(inbreast):
    pd.read_csv(inbreast/"INbreast.csv", sep=";").to_excel(inbreast/"INbreast.xlsx", index=False)
    (inbreast/"INbreast.csv").unlink()
    assert boxes(read_inbreast(inbreast.parent)) == [[20.4, 100, 49, 149], [10, 90, 60, 160]]


@pytest.mark.parametrize("name, kind", [("Calcification", "calcification"), ("Calcifications", "calcification"), ("Cluster", "calcification"), ("Assymetry", "asymmetry"), ("Distortion", "distortion"), ("Unnamed", None), ("", None)])
def test_inbreast_names_of_outlines(name, kind, inbreast):
    outlines(inbreast/"AllXML"/"21.xml", (name, [(5, 6)]))
    archive = read_inbreast(inbreast)
    assert boxes(archive) == [[5, 6, 5, 6]] and [k for k in ("mass", "calcification", "asymmetry", "distortion") if archive.lesions[k].item()] == [kind]*bool(kind)


def test_inbreast_an_outline_outside_or_without_points_gives_no_patch_and_no_normal_tissue(inbreast):
    outlines(inbreast/"AllXML"/"20.xml", ("Mass", [])); outlines(inbreast/"AllXML"/"21.xml", ("Mass", [(900, 900), (950, 950)]))
    ps = prepare(read_inbreast(inbreast), inbreast.parent/"patches")
    assert ps.rejected[ps.rejected.what == "lesion"].reason.tolist() == ["the annotation gives no complete box", "box (900,900)-(950,950) lies outside the image of 200x300 pixels"]
    assert set(ps.rows.image) == {"22"} and len(ps.positives) == 0


@pytest.mark.parametrize("xml", [b"", b"<plist><dict>", b"not XML", plistlib.dumps({}), plistlib.dumps(dict(Images=[{}])), plistlib.dumps([1])])
def test_inbreast_outlines_that_cannot_be_read_are_a_lesion_without_a_place(xml, inbreast):
    (inbreast/"AllXML"/"21.xml").write_bytes(xml)
    archive = read_inbreast(inbreast)
    assert archive.lesions[["x1", "y1", "x2", "y2"]].isna().all().all() and archive.rejected.reason.item().startswith("its outlines cannot be read")


def test_inbreast_a_finding_without_outlines_and_files_and_rows_that_do_not_match(inbreast):
    (inbreast/"AllXML"/"21.xml").unlink()
    write_dicom(inbreast/"AllDICOMs"/"30_cc_MG_R_CC_ANON.dcm", film())
    with open(inbreast/"INbreast.csv", "a") as f: f.write("removed;;R;CC;;99;2;1;;;;\nTotal;;;;;;;;116;;;\na;b;c;d;e;f;g;h;i;j;k;l;m\n")
    archive = read_inbreast(inbreast)
    assert sorted(archive.rejected.what) == ["file", "image", "outlines", "row", "row"] and len(archive.lesions) == 1


def test_inbreast_without_its_columns_is_a_sentence(inbreast):
    (inbreast/"INbreast.csv").write_text("File;ACR\n20;1\n")
    with pytest.raises(ParameterError, match="INbreast.csv has no column file name. It has: file, acr"): read_inbreast(inbreast)


# VinDr-Mammo

FINDINGS = "study_id,series_id,image_id,laterality,view_position,height,width,breast_birads,breast_density,finding_categories,finding_birads,xmin,ymin,xmax,ymax,split\n"


def finding(image="a", categories="['Mass']", birads="BI-RADS 4", box="20,100,50,150", study="s1"): return f'{study},x,{image},L,CC,300,200,BI-RADS 4,DENSITY C,"{categories}",{birads},{box},training\n'


@pytest.fixture
def vindr(tmp_path):
    root = tmp_path/"vindr"
    for i, n in enumerate("abc"): write_dicom(root/"images"/"s1"/f"{n}.dicom", film(i))
    (root/"finding_annotations.csv").write_text(FINDINGS + finding() + finding("b", "['No Finding']", "", ",,,") + finding("c", "['No Finding']", "", ",,,"))
    (root/"breast-level_annotations.csv").write_text("study_id,series_id,image_id,laterality,view_position,height,width,breast_birads,breast_density,split\n" + "".join(f"s1,x,{n},L,CC,300,200,BI-RADS 4,DENSITY C,test\n" for n in "abc"))
    return root


def test_vindr_as_it_is(vindr):
    archive = read_vindr(vindr)
    assert boxes(archive) == [[20, 100, 49, 149]] and len(archive.rejected) == 0
    assert archive.images[["patient", "view", "density", "split"]].drop_duplicates().values.tolist() == [["s1", "CC", "C", "test"]]
    ps = prepare(archive, vindr.parent/"patches")
    assert len(ps.positives) == 1 and not ps.positives.rows.clipped.any() and set(ps.normals.rows.image) == set("abc")


KINDS = {"['Mass', 'Suspicious Calcification']": [1, 1, 0, 0], "['Focal Asymmetry']": [0, 0, 1, 0], "['Global Asymmetry']": [0, 0, 1, 0], "['Asymmetry']": [0, 0, 1, 0],
         "['Architectural Distortion']": [0, 0, 0, 1], "['Skin Thickening']": [0]*4, "['Nipple Retraction', 'Mass']": [1, 0, 0, 0]}


@pytest.mark.parametrize("categories", KINDS)
def test_vindr_categories_are_kinds_and_others_are_kept_without_one(categories, vindr):
    (vindr/"finding_annotations.csv").write_text(FINDINGS + finding(categories=categories))
    archive = read_vindr(vindr)
    assert archive.lesions[["mass", "calcification", "asymmetry", "distortion"]].astype(int).values.tolist() == [KINDS[categories]] and len(archive.rejected) == 0


def test_vindr_a_box_that_leaves_the_image_is_clipped_and_marked(vindr):
    (vindr/"finding_annotations.csv").write_text(FINDINGS + finding(box="-6.25,280.5,50,310.75"))
    ps = prepare(read_vindr(vindr), vindr.parent/"patches")
    assert ps.positives.rows[["x1", "y1", "x2", "y2", "clipped"]].values.tolist() == [[0, 280, 49, 299, True]]


@pytest.mark.parametrize("box", [",,,", "20,100,,150", "20,100,fifty,150", "nan,100,50,150", "20,100,inf,150"])
def test_vindr_a_box_that_is_not_complete_is_a_row_and_no_normal_tissue_is_cut_next_to_it(box, vindr):
    (vindr/"finding_annotations.csv").write_text(FINDINGS + finding(box=box) + finding("b"))
    ps = prepare(read_vindr(vindr), vindr.parent/"patches")
    assert ps.rejected.reason.str.startswith("its box is not complete").sum() == 1 and set(ps.normals.rows.image) == {"b", "c"}


@pytest.mark.parametrize("categories", ["Mass", "['Mass'", "[[]]*10**9", "__import__('os').getcwd()", "", "[]"])
def test_vindr_categories_that_are_no_list_are_never_run_and_lose_only_their_kind(categories, vindr):
    (vindr/"finding_annotations.csv").write_text(FINDINGS + finding(categories=categories))
    archive = read_vindr(vindr)
    assert boxes(archive) == [[20, 100, 49, 149]] and "its categories are no list of words" in archive.rejected.reason.item()


def test_vindr_rows_and_files_that_do_not_match_and_a_missing_table(vindr):
    write_dicom(vindr/"images"/"s2"/"z.dicom", film())
    (vindr/"breast-level_annotations.csv").unlink()
    (vindr/"finding_annotations.csv").write_text(FINDINGS + finding() + finding("gone") + finding(image="") + "a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q,r\n")
    archive = read_vindr(vindr)
    assert archive.images.index.tolist() == ["a"] and archive.images["split"].tolist() == ["train"]
    assert archive.rejected.what.value_counts().to_dict() == {"lesion": 3, "file": 3, "image": 1, "table": 1}


def test_vindr_without_its_columns_is_a_sentence(vindr):
    (vindr/"finding_annotations.csv").write_text("image_id,xmin\na,1\n")
    with pytest.raises(ParameterError, match="finding_annotations.csv has no column study id, finding categories, ymin, xmax, ymax"): read_vindr(vindr)


# What holds for all

SHELL = {"cbis-ddsm": "cbis", "inbreast": "inbreast", "vindr-mammo": "vindr"}


@pytest.mark.parametrize("source", SHELL)
def test_without_any_picture_it_is_a_sentence(source, request):
    root = request.getfixturevalue(SHELL[source])
    for p in [*root.rglob("*.dcm"), *root.rglob("*.dicom")]: p.unlink()
    with pytest.raises(ValueError, match=f"holds no images of {source} that can be used: there is nothing to prepare.*not there|no file of it is there"): open_patches(source, root)


@pytest.mark.parametrize("source", SHELL)
def test_a_picture_that_cannot_be_read_stops_nothing_and_the_account_adds_up(source, request, tmp_path):
    root = request.getfixturevalue(SHELL[source])
    first = next(p for p in sorted([*root.rglob("*.dcm"), *root.rglob("*.dicom")]) if not p.parent.name.endswith("1.2.2"))
    first.write_bytes(first.read_bytes()[:9000])
    if source == "cbis-ddsm":
        series(root, "o", "1.2.7", film(3)); series(root, "o_1", "1.2.8", mask())
        describe(root, [case(), case(patient="P_00002", image="1.2.7", crop="1.2.8/000000.dcm", roi="1.2.8/000000.dcm")])
    ps = open_patches(source, root, out=tmp_path/"out")
    a = ps.info["account"]
    assert a["images_rejected"] == 1 and a["images"] == a["images_used"]+a["images_rejected"] and a["lesions"] == a["lesions_used"]+a["lesions_rejected"]
    assert ps.rejected[ps.rejected.what == "image"].reason.str.contains("cannot be").all()


# The real tables, where they are

def test_the_real_tables_of_cbis_ddsm_are_read_to_the_last_row(real_data):
    from mammogan.public_archives import cbis_rows, Tables
    if not (real_data/"cbis-csv").is_dir(): pytest.skip("MAMMOGAN_DATA has no cbis-csv")
    tables = Tables("cbis-ddsm", real_data/"cbis-csv")
    t = pd.DataFrame(cbis_rows(tables))
    assert tables.rejected == [] and t.groupby(["split", "mass"]).size().to_dict() == {("test", False): 326, ("train", True): 1318}
    assert t.id.is_unique and t.status.value_counts().to_dict() == {"benign": 577+104+130+67, "malignant": 637+129}
    assert t.mammogram.str.match(r"1\.3\.6[\d.]+$").all() and t.drawn.map(lambda s: all("\n" not in o for o in s)).all()
    assert sorted(t.drawn.map(len).value_counts().to_dict().items()) == [(1, 1552), (2, 92)]


def test_with_its_real_tables_and_no_pictures_every_row_is_accounted_for(real_data, tmp_path):
    if not (real_data/"cbis-csv").is_dir(): pytest.skip("MAMMOGAN_DATA has no cbis-csv")
    archive = read_cbis(real_data/"cbis-csv")
    assert len(archive.images) == 0 and archive.rejected.what.value_counts().to_dict() == {"lesion": 1644, "image": 1500}
