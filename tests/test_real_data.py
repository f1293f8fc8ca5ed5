"""Real mammograms, where MAMMOGAN_DATA names a folder that has some."""
import ast, json, re
from pathlib import Path
from types import SimpleNamespace

import pytest

from mammogan.folders import PATIENT_PATTERN
from mammogan.core import ParameterError
from mammogan.dataset import make_folds
from mammogan.presets import STUDIES
from mammogan.experiment import study_sets
from mammogan.sources import open_patches


@pytest.fixture(scope="module")
def films(real_data):
    if not (real_data/"mini-mias").is_dir(): pytest.skip("MAMMOGAN_DATA has no mini-mias")
    return open_patches("mini-mias", real_data/"mini-mias", workers=2)


@pytest.fixture(scope="module")
def masses(real_data):
    if not (real_data/"cbis-mass-patches").is_dir(): pytest.skip("MAMMOGAN_DATA has no cbis-mass-patches")
    return open_patches("patches", real_data/"cbis-mass-patches"/"train")


def test_the_films_give_all_their_located_lesions_and_the_account_adds_up(films):
    a = films.info["account"]
    assert len(films.positives) == a["lesions_used"] == 59
    assert a["images"] == a["images_used"] + a["images_rejected"]
    assert a["lesions"] == a["lesions_used"] + a["lesions_rejected"]
    assert films.rejected.reason.str.len().min() > 10


def test_no_patient_is_on_two_sides_of_a_fold(films):
    for fold in make_folds(films):
        train, valid, test = (set(films[rows].patients) for rows in (fold.train, fold.valid, fold.test))
        assert not (train & valid or train & test or valid & test)


def test_a_study_of_24_lesions_fits_the_films_and_one_of_500_is_a_sentence(films):
    config = STUDIES["demo"]
    assert len(study_sets(films, 24, config=config).negatives) == 240
    with pytest.raises(ParameterError, match="size=500 is more lesions than there are: mini-mias has 59"): study_sets(films, 500, config=config)


def test_every_ready_made_patch_has_its_patient(masses, real_data):
    names = [p.name for p in (real_data/"cbis-mass-patches"/"train").iterdir()]
    assert len(masses) == len(names) == 1104 and masses.pixels.shape == (1104, 128, 128)
    assert set(masses.patients) == {re.search(PATIENT_PATTERN, n)["patient"] for n in names}
    assert set(masses.rows.status) == {"benign", "malignant"} and masses.rejected.empty


def test_patches_without_normal_tissue_cannot_make_a_study(masses):
    with pytest.raises(ParameterError, match="no normal tissue"): study_sets(masses, 100)


def test_the_outlined_masses_have_their_labels(real_data):
    if not (real_data/"cbis-masses").is_dir(): pytest.skip("MAMMOGAN_DATA has no cbis-masses")
    ps = open_patches("patches", real_data/"cbis-masses")
    assert len(ps) == 844 and len(ps.patients) == 535 and ps.rejected.empty
    assert ps.rows.status.value_counts().to_dict() == ps.rows.pathology.value_counts().to_dict() == dict(benign=443, malignant=401)
    assert set(ps.rows.laterality) == {"L", "R"} and set(ps.rows["view"]) == {"CC", "MLO"} and ps.rows.birads.dtype.kind == "i"
    assert ps.rows["shape"].value_counts()["irregular"] == 264 and (ps.rows.margins == "").sum() == 12
    assert ps.pixels.shape == ps.outlines.shape == (844, 128, 128) and (ps.outlines.max((1, 2)) == 255).all()


def test_labels_tape_and_edges_are_not_tissue(real_data):
    "Otsu's mask of a film is one piece of a breast's size, and what shines outside it is left out; the paper's mask takes nearly all of the picture"
    from scipy import ndimage
    from mammogan.dataset import read_mammogram
    from mammogan.presets import PrepareConfig
    from mammogan.sources import open_archive
    if not (real_data/"mini-mias").is_dir(): pytest.skip("MAMMOGAN_DATA has no mini-mias")
    archive = open_archive("mini-mias", real_data/"mini-mias")
    for i in archive.images.index[::4]:
        picture, mask = read_mammogram(archive, i, PrepareConfig())
        breast, bright = mask.on_grid(), picture.pixels[::mask.step, ::mask.step] > 230
        pieces, n = ndimage.label(bright)
        assert ndimage.label(breast)[1] == 1 and .1 < breast.mean() < .75, i
        for k in range(1, n+1):                                  # a label, tape or an edge: bright, and not in the breast by more than a touch
            piece = pieces == k
            if piece.sum() > 400 and (piece & ~ndimage.binary_dilation(breast, iterations=3)).sum() > .5*piece.sum(): assert not (piece & breast).sum() > .05*piece.sum(), i


def definitions(notebook):
    "The functions, classes and constants that a notebook defines; nothing else in it is run"
    names = {"__name__": notebook}
    for cell in json.loads((Path(__file__).parents[1]/"nbs"/f"{notebook}.ipynb").read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] != "code": continue
        body = ast.parse("".join(cell["source"])).body
        kept = [o for o in body if isinstance(o, (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef))
                or isinstance(o, ast.Assign) and getattr(o.targets[0], "id", "").isupper()]
        exec(compile(ast.Module(kept, []), notebook, "exec"), names)
    return SimpleNamespace(**names)


def test_the_spectrum_of_phantoms_is_that_of_films(real_data, phantom_tree):
    "The exponent of the power spectrum, on squares of equal physical size, measured anew on every fourth film: within 0.3"
    from mammogan.sources import open_archive
    page = definitions("01g_realism")
    def mean(archive, every):
        squares = page.all_squares(archive, page.without_lesions(archive)[::every])
        return page.exponent_summary(page.exponents(squares))["mean"]
    films, ours = mean(open_archive("mini-mias", real_data/"mini-mias"), 4), mean(open_archive(preset="smoke"), 1)
    assert abs(films-page.FILMS["exponent"]["mean"]) < .1
    assert abs(ours-films) <= .3
