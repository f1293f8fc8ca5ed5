"""The main command: papermill runs the study with parameters, keeps what it computed, and refuses what cannot work."""
import json, re, subprocess, sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from conftest import REPO
from mammogan.experiment import chosen_modes
from mammogan.augmentation import study
from mammogan.experiment import PAPER_MODES
from mammogan.core import check_parameters, ParameterError, read_json, RunStore
from mammogan.sources import open_patches

NOTEBOOK = REPO/"nbs"/"04_augmentation.ipynb"


def papermill(folder, out, *parameters):
    "`papermill 04_augmentation.ipynb out -p ...` in a folder of its own"
    options = [o for p in parameters for o in ("-p", *p)]
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", str(NOTEBOOK), out, "-k", "python3", *options]
    for _ in range(3):                                                              # kernels that start together may choose the same port
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if "Kernel died before replying" not in done.stderr: break
    return done


def printed(notebook):
    "All text that the cells of a notebook put out"
    found = [o for c in json.loads(notebook.read_text())["cells"] for o in c.get("outputs", [])]
    return "\n".join("".join(o.get("text", [])) or "".join(o.get("data", {}).get("text/plain", [])) for o in found)


def finished(store): return {p.parent: p.stat().st_mtime_ns for p in store.path.rglob("metrics.json")}


@pytest.fixture(scope="module")
def store(tmp_path_factory): return RunStore(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def first(phantoms, store, tmp_path_factory):
    "A study of 8 lesions: its folder, and what it left in the store"
    folder = tmp_path_factory.mktemp("first")
    done = papermill(folder, "out.ipynb", ("preset", "smoke"), ("size", "8"), ("runs", store.path))
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, finished(store)


@pytest.fixture(scope="module")
def second(first, store):
    "The same study with 4 lesions and one worker, after the first"
    done = papermill(first[0], "out-{size}.ipynb", ("preset", "smoke"), ("size", "4"), ("workers", "1"), ("runs", store.path))
    assert done.returncode == 0, done.stderr[-3000:]
    return first[0]/"out-4.ipynb", finished(store)


def row_of(size, mode): return re.compile(rf"\b{size}\s+{mode}\s+[01]\.\d+")
def runs_of(store, size): return {c["mode"]: read_json(p/"metrics.json") for p in finished(store) if (c := read_json(p/"config.json")).get("size") == size}


@pytest.mark.parametrize("mode", PAPER_MODES)
def test_the_output_has_f1_and_auc_of_each_mode(mode, first, store):
    metrics = runs_of(store, 8)[mode]
    text = printed(first[0]/"out.ipynb")
    assert row_of(8, mode).search(text) and "f1" in text and "auc" in text
    assert 0 <= metrics["f1_low"] <= metrics["f1"] <= metrics["f1_high"] <= 1 and 0 <= metrics["auc"] <= 1


def test_figures_3_and_4_are_on_disk_with_what_made_them(first, store):
    folder = store.path/"figures"/"phantom-smoke"
    for n in (3, 4):
        assert all((folder/f"figure-{n}.{kind}").stat().st_size > 1000 for kind in ("svg", "png", "pdf"))
        facts = (folder/f"figure-{n}.json").read_text()
        assert '"phantom"' in facts and '"smoke"' in facts and '"seed": 0' in facts and '"commit"' in facts


def test_nothing_is_left_in_the_working_directory_but_the_output(first, second):
    assert sorted(p.name for p in first[0].iterdir()) == ["out-4.ipynb", "out.ipynb"]


def test_the_same_study_again_trains_nothing(first, second, phantoms, store):
    table = study(store, phantoms, "smoke", [8])
    assert finished(store) == second[1]
    assert table.f1.tolist() == [runs_of(store, 8)[m]["f1"] for m in PAPER_MODES]


def test_a_second_size_adds_its_runs_and_a_column_and_redoes_nothing(first, second):
    assert {p: t for p, t in second[1].items() if p in first[1]} == first[1]
    assert len(second[1]) == 2*len(first[1]) == 10                                 # a GAN and four classifiers a size
    text = printed(second[0])
    assert all(row_of(k, m).search(text) for k in (4, 8) for m in PAPER_MODES)


REFUSED = {"a parameter that does not exist": ([("sise", "250")], "This notebook has no parameter sise. It has: source, data, preset"),
           "a size of 0": ([("size", "0")], "size=0 cannot be used: it must be a whole number of at least 1"),
           "an unknown recipe": ([("gan", "worst")], "gan='worst' is not known. Choose one of: paper, best"),
           "an empty folder": ([("source", "omidb"), ("data", "empty")], "data='empty': the folder is empty")}


@pytest.fixture(scope="module")
def refusals(second, tmp_path_factory, store):
    "What papermill says to each of the bad parameters, two at a time"
    folder = tmp_path_factory.mktemp("refused")
    (folder/"empty").mkdir()
    def run(item): return papermill(folder, f"{item[0]}.ipynb", ("preset", "smoke"), ("runs", store.path), *item[1][0])
    with ThreadPoolExecutor(2) as two: return dict(zip(REFUSED, two.map(run, REFUSED.items())))


@pytest.mark.parametrize("what", REFUSED)
def test_it_is_refused_with_a_sentence(what, refusals):
    assert refusals[what].returncode != 0
    assert REFUSED[what][1] in re.sub(r"\x1b\[[\d;]*m", "", refusals[what].stderr)


def test_a_refusal_costs_nothing_that_was_there(refusals, second, store): assert finished(store) == second[1]


IMPOSSIBLE = {"an unknown preset": (lambda ps, store: check_parameters(dict(preset="fast", seed=0), "preset seed"), "preset='fast' is not known. Choose one of: paper, demo, smoke"),
              "an unknown source": (lambda ps, store: open_patches("omi"), "source='omi' is not known. Choose one of: phantom, omidb"),
              "an unknown mode": (lambda ps, store: chosen_modes("ORG, AUG"), "modes='AUG' is not known. Choose one of: all, ORG"),
              "more lesions than there are": (lambda ps, store: study(store, ps, "smoke", [100_000]), "size=100000 is more lesions than there are: phantom has"),
              "too many folds": (lambda ps, store: study(store, ps, "smoke", [8], folds=4), "folds=4 cannot be used: it must be a whole number from 1 to 3")}


@pytest.mark.parametrize("what", IMPOSSIBLE)
def test_what_the_notebook_calls_refuses_it_before_any_work(what, phantoms, second, store):
    call, sentence = IMPOSSIBLE[what]
    with pytest.raises(ParameterError, match=re.escape(sentence)): call(phantoms, store)
    assert finished(store) == second[1]
