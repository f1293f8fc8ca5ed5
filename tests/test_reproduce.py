"""One command: notebooks executed, one folder with figures, tables, a page and their provenance; killed and called again, found again, checked.

The chapters here are short ones with the names of the real ones, and call the library as those do. The real ones go through the
same command where MAMMOGAN_LONG_TESTS is set, since that takes minutes."""
import contextlib, csv, io, json, os, re, signal, subprocess, sys, time
from pathlib import Path

import pytest

from conftest import REPO
from mammogan.diagrams import PUBLISHED_F1
from mammogan.core import read_json, write_json
from mammogan.report import CAPTIONS, output_hashes, TABLE_CAPTIONS
from mammogan.commands import mammogan_reproduce

PARAMETERS = "source = 'phantom'\ndata = ''\npreset = 'demo'\nseed = 0\nruns = ''\nsize = 500\nfolds = 1\nseeds = 1\nout = ''\n"
START = "from mammogan.core import RunStore\nfrom mammogan.sources import open_archive, open_patches\nps, store = open_patches(source, data, preset, seed), RunStore(runs)\n"
CHAPTERS = {"01_dataset": "print(source, preset, seed)",
         "02_dcgan": "print(preset)",
         "03_evaluation": START+"from mammogan.evaluation import figure_6_points\nfrom mammogan.experiment import Experiment\nfrom mammogan.presets import STUDIES\n"
                                "figure_6_points(store, Experiment(ps.of_kind('mass'), size, 0, seed, STUDIES[preset]), preset)",
         "04_augmentation": START+"from mammogan.augmentation import study\nfrom mammogan.dcgan import simulate_lesions\nsimulate_lesions(store, ps, preset, seed)\nstudy(store, ps, preset, [size], workers=1)",
         "05_figures": START+"from mammogan.figures import all_figures, Paper, save_figures\npaper = Paper(store, ps, preset, size, seed, folds, (seed,))\n"
                              "print(len(save_figures(paper, all_figures(paper, open_archive(source, data, preset, seed)), out)))"}
FILES = {f"{name}.{kind}" for name in CAPTIONS for kind in ("svg", "png", "pdf", "json")} | {f"table-{name}.csv" for name in TABLE_CAPTIONS} | {"report.html"}


def chapter(folder, name, code):
    cells = [dict(cell_type="code", id=f"c{i}", metadata=dict(tags=tags), source=source, outputs=[], execution_count=None) for i, (source, tags) in enumerate([(PARAMETERS, ["parameters"]), (code, [])])]
    write_json(folder/f"{name}.ipynb", dict(cells=cells, metadata=dict(kernelspec=dict(name="python3", display_name="python3", language="python")), nbformat=4, nbformat_minor=5))


def places_of(folder, nbs=None): return dict(preset="smoke", workers=1, runs=str(folder/"runs"), out=str(folder/"paper"), nbs=str(nbs or folder/"nbs"))


def start(folder):
    "Begin the command in a process of its own"
    file = Path(sys.executable).with_name("mammogan_reproduce")
    if not file.exists(): pytest.skip("mammogan_reproduce is not installed with this Python: pip install -e . writes it")
    options = [w for name, value in places_of(folder).items() for w in (f"--{name}", str(value))]
    return subprocess.Popen([file, *options], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


def call(folder, nbs=None, **options):
    "The command in this process: its line of JSON, and the sentence with which it ended"
    sentence = ""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()):
        try: mammogan_reproduce(**places_of(folder, nbs), **options)
        except SystemExit as e: sentence = str(e)
    return json.loads(out.getvalue().splitlines()[-1]) if out.getvalue() else {}, sentence


def finished(folder): return {p: p.stat().st_mtime_ns for p in (folder/"runs"/"notebook").glob("*/metrics.json")}


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as m: yield m


@pytest.fixture(scope="module")
def folder(phantoms, monkeypatch_module, tmp_path_factory):
    "A reproduction that was killed after three of five notebooks and called again"
    for name, value in dict(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="passive").items(): monkeypatch_module.setenv(name, value)           # of the t-SNE map: two busy threads that wait for one another are slow on a busy machine
    folder = tmp_path_factory.mktemp("reproduce")
    for name, code in CHAPTERS.items(): chapter(folder/"nbs", name, code)
    running = start(folder)
    while len(finished(folder)) < 3 and running.poll() is None: time.sleep(.05)
    os.killpg(running.pid, signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL, "it ended, or failed, before it could be killed"
    before = finished(folder)
    assert len(before) in (3, 4) and not (folder/"paper"/"report.html").exists()
    done, sentence = call(folder)
    assert not sentence, sentence
    assert set(done["seconds"]) == set(CHAPTERS) and before.items() <= finished(folder).items() and len(finished(folder)) == 5
    return folder


def test_the_folder_holds_figures_tables_page_and_provenance(folder):
    paper = folder/"paper"
    assert {p.name for p in paper.iterdir()} == FILES | {"notebooks", "provenance.json"}
    assert {p.stem for p in (paper/"notebooks").iterdir()} == set(CHAPTERS)
    for p in paper.iterdir():
        if p.suffix in {".svg", ".png", ".pdf"}: assert p.stat().st_size > 3000 and p.read_bytes()[:5] in (b"<?xml", b"\x89PNG\r", b"%PDF-")
    about = read_json(paper/"provenance.json")
    assert {"commit", "packages", "hardware", "python", "time"} <= set(about) and set(about["seconds"]) == set(CHAPTERS)
    assert about["parameters"]["seed"] == 0 and about["parameters"]["size"] == 8
    assert about["outputs"] == output_hashes(paper) and set(about["outputs"]) == FILES


def test_the_page_is_whole_and_shows_each_figure_with_its_words_and_each_table(folder, phantoms):
    page = (folder/"paper"/"report.html").read_text()
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)|url\(|@import""", page)
    pictures = re.findall(r'<figure id="([^"]*)"><img src="data:image/png;base64,[^"]{1000,}" alt="([^"]{40,})"', page)
    assert [name for name, alternative in pictures] == list(CAPTIONS)
    assert all(f'id="table-{name}"' in page for name in TABLE_CAPTIONS) and "These mammograms are simulated." in page and "published_f1" in page
    assert read_json(folder/"paper"/"provenance.json")["data"]["fingerprint"] == phantoms.info["fingerprint"]


def test_the_tables_are_the_runs_of_the_store(folder):
    with open(folder/"paper"/"table-runs.csv") as f: rows = {r["mode"]: float(r["f1"]) for r in csv.DictReader(f)}
    runs = {p: read_json(p.parent/"config.json") for p in (folder/"runs"/"mode").glob("*/metrics.json")}
    stored = {c["mode"]: read_json(p)["f1"] for p, c in runs.items() if c["classifier"]["threshold_rule"] == "fixed"}    # the others are of "fakes only"
    assert {m: stored[m] for m in rows} == rows and set(rows) == set(PUBLISHED_F1["mode"])


def test_again_executes_nothing(folder):
    before, hashes = finished(folder), output_hashes(folder/"paper")
    assert not call(folder)[1] and finished(folder) == before and output_hashes(folder/"paper") == hashes


def test_a_changed_notebook_is_executed_again_and_no_other(folder):
    before = finished(folder)
    chapter(folder/"nbs", "03_evaluation", CHAPTERS["03_evaluation"]+"\nprint('changed')")
    assert not call(folder)[1]
    new = set(finished(folder)) - set(before)
    assert [read_json(p.parent/"config.json")["notebook"] for p in new] == ["03_evaluation"] and before.items() <= finished(folder).items()


def test_a_check_from_nothing_finds_every_table_and_figure_the_same(folder):
    done, sentence = call(folder, check=True)
    assert sentence == "" and done["differ"] == [] and done["compared"] == len(FILES)
    assert not (folder/"paper-again"/"work").exists() and output_hashes(folder/"paper-again") == output_hashes(folder/"paper")
    assert read_json(folder/"paper"/"check.json") == dict(kind="from nothing", outputs=dict.fromkeys(sorted(FILES), "same"))


def test_a_check_names_the_one_output_that_was_changed(folder):
    drawn, = (folder/"runs"/"notebook").glob("*/figure-4.svg")
    kept = drawn.read_bytes()
    last = kept.rindex(b'rect x="') + len(b'rect x="')
    drawn.write_bytes(kept[:last]+b"1"+kept[last:])             # something has moved
    try: done, sentence = call(folder, check_stored=True)
    finally: drawn.write_bytes(kept)
    assert done["differ"] == ["figure-4.svg"] and sentence.endswith(f"1 of {len(FILES)} outputs differ: figure-4.svg")


@pytest.mark.skipif(not os.environ.get("MAMMOGAN_LONG_TESTS"), reason="takes minutes: set MAMMOGAN_LONG_TESTS=1 to run it")
def test_the_real_notebooks_go_through_the_command(phantoms, tmp_path):
    done, sentence = call(tmp_path, REPO/"nbs")
    assert not sentence and set(done["seconds"]) == set(CHAPTERS) and FILES <= {p.name for p in (tmp_path/"paper").iterdir()}
