"""Folds of sets drawn at random: no patient crosses, every patch is tested once, and lesions are shared out evenly."""
import numpy as np
import pytest
from hypothesis import assume, given, Phase, settings, strategies as st

from mammogan.core import ParameterError, seeded_rng
from mammogan.dataset import fit_normalisation, make_folds
from mammogan.patches import patch_set

pytestmark = [pytest.mark.filterwarnings(f"ignore:The {w}") for w in ("least populated class", "groups parameter is ignored")]    # scikit-learn's


def drawn_set(seed):
    "A set of 3 to 60 patients with 1 to 13 patches each, a few or many of them lesions"
    rng = seeded_rng(seed, "set")
    most, share = rng.integers(2, 14), rng.uniform(.02, .6)
    patients = [f"p{p}" for p in range(rng.integers(3, 61)) for _ in range(rng.integers(1, most))]
    patients = list(rng.permutation(patients))
    return patch_set(np.zeros((len(patients), 1, 1), np.uint8), label=(rng.random(len(patients)) < share).astype(int), patient=patients, image=[f"{p}-{rng.integers(3)}" for p in patients])


def folds_of(ps, folds, split, seed):
    "Folds, or no trial where there are too few patients or lesions, which must be said in a sentence"
    try: return make_folds(ps, folds, split, seed=seed)
    except ValueError as e:
        assert "cannot be cut into" in str(e)
        assume(False)


def largest(ps, label):
    "The most patches of a class that one patient has"
    return max(ps.rows[ps.rows.label == label].groupby("patient").size(), default=0)


def test_a_split_that_is_not_known_is_refused():
    with pytest.raises(ParameterError, match="split='image' is not known"): make_folds(drawn_set(0), split="image")


trials = settings(max_examples=60, deadline=None, derandomize=True, database=None, phases=[Phase.generate])
drawn = dict(seed=st.integers(0, 2**32), folds=st.integers(2, 5), draw=st.integers(0, 2**32))


@pytest.mark.parametrize("split", ["patient", "patch"])
@trials
@given(**drawn)
def test_every_patch_is_tested_once_and_stands_in_one_part_of_a_fold(split, seed, folds, draw):
    ps = drawn_set(draw)
    made = folds_of(ps, folds, split, seed)
    assert len(made) == folds and (np.sort(np.concatenate([f.test for f in made])) == np.arange(len(ps))).all()
    for f in made:
        assert (np.sort(np.concatenate([f.train, f.valid, f.test])) == np.arange(len(ps))).all()
        assert len(f.train) and len(f.valid) and len(f.test)


@trials
@given(**drawn)
def test_no_patient_crosses(seed, folds, draw):
    ps = drawn_set(draw)
    for f in folds_of(ps, folds, "patient", seed):
        train, valid, test = (set(ps[rows].patients) for rows in (f.train, f.valid, f.test))
        assert not train & valid and not train & test and not valid & test
        assert not set(ps[f.train].rows.image) & set(ps[np.r_[f.valid, f.test]].rows.image)


@pytest.mark.parametrize("split", ["patient", "patch"])
@trials
@given(**drawn)
def test_each_class_is_shared_out_evenly(split, seed, folds, draw):
    "To a patch where patches are divided; to one and a half times the largest patient where patients are"
    ps = drawn_set(draw)
    for f in folds_of(ps, folds, split, seed):
        for label in (0, 1):
            fair = (ps.rows.label == label).sum()/folds
            assert abs((ps.rows.label[f.test] == label).sum()-fair) <= (1 if split == "patch" else 1.5*largest(ps, label))


@trials
@given(**drawn)
def test_landmarks_do_not_change_with_the_images_of_other_patients(seed, folds, draw):
    ps, rng = drawn_set(draw), seeded_rng(draw, "landmarks")
    marks = [c for c in ps.images if c[0] == "p" and c[1:].isdigit()]
    ps.images[marks] = np.sort(rng.integers(1, 4096, (len(ps.images), len(marks))), axis=1).astype(float)
    for f in folds_of(ps, folds, "patient", seed):
        learned = fit_normalisation("landmarks", ps[f.train])
        others = ps.images.index.difference(ps[f.train].rows.image)
        kept, ps.images.loc[others, marks] = ps.images.loc[others, marks].copy(), 7.
        assert fit_normalisation("landmarks", ps[f.train]) == learned
        ps.images.loc[others, marks] = kept
