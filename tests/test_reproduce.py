"""One command: notebooks executed, one folder with figures, tables, a page and their provenance; found again, killed and resumed, checked.

The rooms here are short ones with the names of the real ones: they call the library as the real ones do, without the
examples along the way. The real ones go through the same command where CI is set, since that takes minutes."""
import csv, json, os, re, shutil, signal, subprocess, sys, time
from pathlib import Path

import pytest

from mammogan.augmentation import PUBLISHED_F1
from mammogan.core import read_json, write_json
from mammogan.report import CAPTIONS, output_hashes, TABLE_CAPTIONS

PARAMETERS = "source = 'phantom'\ndata = ''\npreset = 'demo'\nseed = 0\nruns = ''\nsize = 500\nfolds = 1\nseeds = 1\nout = ''\n"
START = "from mammogan.core import RunStore\nfrom mammogan.sources import open_archive, open_patches\nps, store = open_patches(source, data, preset, seed), RunStore(runs)\n"
ROOMS = {"01_dataset": "from mammogan.dataset import account\nprint(account(ps))",
         "02_dcgan": "from mammogan.dcgan import simulate_lesions\nprint(simulate_lesions(store, ps, preset, seed).name)",
         "03_evaluation": "print(len(ps))",
         "04_augmentation": "from mammogan.augmentation import study\nstudy(store, ps, preset, [size])",
         "05_figures": "from mammogan.figures import all_figures\nprint(len(all_figures(store, open_archive(source, data, preset, seed), ps, preset, size, seed, folds, [seed], out)))"}


def room(folder, name, code):
    cells = [dict(cell_type="code", id=f"c{i}", metadata=dict(tags=tags), source=source, outputs=[], execution_count=None) for i, (source, tags) in enumerate([(PARAMETERS, ["parameters"]), (START+code, [])])]
    write_json(folder/f"{name}.ipynb", dict(cells=cells, metadata=dict(kernelspec=dict(name="python3", display_name="python3", language="python")), nbformat=4, nbformat_minor=5))


def start(folder, *options, nbs=None, **environment):
    "Begin the command in a folder of its own, with an empty store there"
    options = ["--preset", "smoke", "--workers", "1", "--runs", folder/"runs", "--out", folder/"paper", "--nbs", nbs or folder/"nbs", *options]
    code = "from mammogan.reproduce import mammogan_reproduce; mammogan_reproduce()"
    return subprocess.Popen([sys.executable, "-c", code, *map(str, options)], cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, env={**os.environ, **environment})


def command(folder, *options, **more):
    running = start(folder, *options, **more)
    out, err = running.communicate()
    assert running.returncode == 0, err[-3000:]
    return json.loads(out.splitlines()[-1])


def executed(folder): return {p.parent.parent.name + "/" + p.name: p.stat().st_mtime_ns for p in (folder/"runs"/"notebook").glob("*/*.ipynb")}


@pytest.fixture(scope="module")
def folder(phantoms, tmp_path_factory):
    "A reproduction that was killed in its second half and called again"
    folder = tmp_path_factory.mktemp("reproduce")
    for name, code in ROOMS.items(): room(folder/"nbs", name, code)
    running = start(folder)
    while len(list((folder/"runs"/"notebook").glob("*/metrics.json"))) < 3 and running.poll() is None: time.sleep(.05)
    os.killpg(running.pid, signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL and not (folder/"paper"/"report.html").exists()
    before = {p: p.stat().st_mtime_ns for p in (folder/"runs"/"notebook").glob("*/metrics.json")}
    command(folder)
    assert len(before) >= 3 and before == {p: p.stat().st_mtime_ns for p in before}
    return folder


def test_the_folder_holds_figures_tables_page_and_provenance(folder):
    paper = folder/"paper"
    assert {p.name for p in paper.glob("figure-*")} == {f"figure-{n}.{kind}" for n in range(1, 7) for kind in ("svg", "png", "pdf", "json")}
    assert {p.name for p in paper.glob("table-*")} == {f"table-{name}.csv" for name in TABLE_CAPTIONS}
    assert {p.stem for p in (paper/"notebooks").iterdir()} == set(ROOMS)
    about = read_json(paper/"provenance.json")
    assert {"commit", "packages", "hardware", "python", "time"} <= set(about) and set(about["seconds"]) == set(ROOMS)
    assert about["parameters"]["seed"] == 0 and about["parameters"]["size"] == 8
    assert about["outputs"] == output_hashes(paper) and len(about["outputs"]) == 24+len(TABLE_CAPTIONS)+1


def test_the_page_is_whole_and_shows_each_figure_with_its_words_and_each_table(folder, phantoms):
    page = (folder/"paper"/"report.html").read_text()
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)|url\(|@import""", page)
    assert re.findall(r'<img src="data:image/png;base64,[^"]{100,}" alt="([^"]*)"', page) and all(f'id="{name}"' in page for name in CAPTIONS)
    assert all(f'id="table-{name}"' in page for name in TABLE_CAPTIONS) and "These mammograms are simulated." in page
    assert read_json(folder/"paper"/"provenance.json")["data"]["fingerprint"] == phantoms.info["fingerprint"]


def test_the_tables_are_the_runs_of_the_store(folder):
    with open(folder/"paper"/"table-runs.csv") as f: rows = {r["mode"]: float(r["f1"]) for r in csv.DictReader(f)}
    stored = {read_json(p.parent/"config.json")["mode"]: read_json(p)["f1"] for p in (folder/"runs"/"mode").glob("*/metrics.json")}
    assert {m: stored[m] for m in rows} == rows and set(rows) == set(PUBLISHED_F1["mode"])


def test_again_executes_nothing(folder):
    before, hashes = executed(folder), output_hashes(folder/"paper")
    command(folder)
    assert executed(folder) == before and output_hashes(folder/"paper") == hashes


def test_a_changed_notebook_is_executed_again_and_no_other(folder):
    before = executed(folder)
    room(folder/"nbs", "03_evaluation", "print('changed')")
    command(folder)
    new = set(executed(folder)) - set(before)
    assert {n.split("/")[1] for n in new} == {"03_evaluation.ipynb"} and before.items() <= executed(folder).items()


def test_a_check_from_nothing_finds_every_output_the_same(folder):
    done = command(folder, "--check")
    assert done["differ"] == [] and done["compared"] == len(output_hashes(folder/"paper"))
    assert not (folder/"paper-again"/"work").exists() and output_hashes(folder/"paper-again") == output_hashes(folder/"paper")


def test_a_check_from_the_store_names_an_output_that_was_changed(folder):
    store = folder/"runs"/"mode"
    config, = [p.parent for p in store.glob("*/config.json") if read_json(p)["mode"] == "Aug GAN"]
    metrics = read_json(config/"metrics.json")
    try:
        write_json(config/"metrics.json", dict(metrics, f1=metrics["f1"]/2))
        room(folder/"nbs", "05_figures", ROOMS["05_figures"]+"\n")
        shutil.copytree(folder/"paper", folder/"before")
        command(folder)                                      # the store has changed, so the tables do
        from mammogan.report import compare_outputs
        differ = compare_outputs(folder/"before", folder/"paper").query("result != 'same'").output.tolist()
        assert {"table-runs.csv", "table-scores.csv", "figure-4.svg", "report.html"} <= set(differ) and "figure-1.svg" not in differ
    finally: write_json(config/"metrics.json", metrics)


@pytest.mark.skipif(not os.environ.get("CI"), reason="takes minutes: set CI=1 to run it")
def test_the_real_notebooks_go_through_the_command(phantoms, tmp_path):
    from conftest import REPO
    done = command(tmp_path, "--notebooks", "01_ 02_ 03_ 04_ 05_", nbs=REPO/"nbs")
    assert len(done["figures"]) == 24 and set(done["seconds"]) == set(ROOMS)
