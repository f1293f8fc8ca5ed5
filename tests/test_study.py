"""The grid of a study: parallel processes, failures, interruptions, and identities of runs."""
import _thread, json, os, signal, subprocess, sys, threading, time
from dataclasses import replace
from pathlib import Path
from textwrap import dedent

import joblib
import numpy as np
import pytest

from conftest import REPO
from mammogan.experiment import experiments
from mammogan.study_results import read_grid, study_title
from mammogan.augmentation import study, study_config
from mammogan.core import ParameterError, read_json, seeded_rng, RunStore
from mammogan.patches import patch_set
from mammogan.experiment import Experiment, PAPER_MODES
from mammogan.presets import STUDIES
from mammogan.jobs import grid_status, run_experiments

TASK = """
    import os, sys
    from pathlib import Path
    from mammogan import core, experiment
    from mammogan.augmentation import study
    from mammogan.core import RunStore
    from mammogan.sources import open_patches
    make_run = core._make_run
    def noted(store, run, make):
        with open(Path(sys.argv[1])/"made.txt", "a") as f: f.write(f"{run.stage}/{run.id} {os.getpid()}\\n")
        return make_run(store, run, make)
    core._make_run = noted
"""
GRID = 'study(RunStore(sys.argv[1]), open_patches(preset="smoke"), "smoke", [4, 6], 1, [0], ["ORG", "GAN"])'


def script(*parts, args, **kwargs): return subprocess.Popen([sys.executable, "-c", "\n".join(map(dedent, parts)), *map(str, args)], stderr=subprocess.PIPE, text=True, **kwargs)
def made_in(store): return [l.split() for l in (Path(store)/"made.txt").read_text().splitlines()]
def smoke_experiments(ps): return experiments(ps.of_kind(ps.info["positives"]), [4, 6], 1, [0], STUDIES["smoke"])
def contents(store): return {str(p.relative_to(store)): p.read_bytes() for p in Path(store).rglob("*") if p.name in ("metrics.json", "classifier.safetensors", "generator.safetensors", "scores.parquet")}


@pytest.fixture(scope="module")
def alone(phantoms, tmp_path_factory):
    "The grid of two experiments and two modes, done by one process, and its store"
    store = RunStore(tmp_path_factory.mktemp("alone"))
    return study(store, phantoms, "smoke", [4, 6], 1, [0], ["ORG", "GAN"]), store


def planted(n=360, patients=59):
    labels = (np.arange(n) % 6 == 0).astype(int)
    pixels = seeded_rng(0, "pretend").integers(0, 256, (n, 128, 128)).astype(np.uint8)
    ps = patch_set(pixels, label=labels, mass=labels == 1, patient=[f"p{i % patients}" for i in range(n)], image=[f"i{i}" for i in range(n)])
    ps.info = dict(archive="pretend", fingerprint="pretend", positives="mass")
    return ps


@pytest.mark.filterwarnings("ignore:The groups parameter")
@pytest.mark.parametrize("preset", STUDIES)
def test_another_classifier_or_threshold_is_another_run_of_the_same_gan(preset):
    s = STUDIES[preset]
    s = replace(s, gan=replace(s.gan, precision="float32"), classifier=replace(s.classifier, precision="float32"), valid=.15, imbalance=4)
    e = Experiment(planted(), 20, 1, 3, s)
    other = replace(e, config=replace(s, classifier=replace(s.classifier, network="resnet18")))
    ruled = replace(e, config=replace(s, classifier=replace(s.classifier, threshold_rule="validation")))
    assert len({x.run("ORG").id for x in (e, other, ruled)}) == 3 and other.gan.id == e.gan.id


@pytest.mark.filterwarnings("ignore:The groups parameter")
@pytest.mark.parametrize("preset", STUDIES)
def test_another_recipe_makes_other_fakes_and_leaves_the_rest(preset):
    recipes = [study_config(preset, gan, valid=.15, imbalance=4) for gan in ("", "paper", "best")]
    made = [Experiment(planted(), 20, 1, 3, c) for c in recipes]
    usual, paper, best = ([e.gan.id, *[e.run(m).id for m in ("ORG", "Aug ORG", "GAN", "Aug GAN")]] for e in made)
    assert usual == paper and [a == b for a, b in zip(usual, best)] == [False, True, True, False, False]


def test_empty_settings_leave_the_presets_and_others_change_them():
    assert study_config("smoke", split="", network="") == study_config("smoke", "paper") == STUDIES["smoke"]
    assert study_config("smoke", network="resnet18").classifier.network == "resnet18"
    assert study_config("demo", "best").gan.wavelets
    with pytest.raises(ParameterError, match="preset='demoo' is not known"): study_config("demoo")


def test_an_unknown_recipe_is_refused_before_any_work(phantoms, tmp_path):
    with pytest.raises(ParameterError, match="gan='worst' is not known. Choose one of: paper, best."):
        study(RunStore(tmp_path), phantoms, "smoke", [4], gan="worst")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["grid-demo", "grid-demo-controls"])
def test_committed_grids_are_of_the_papers_recipe(name):
    facts = read_grid(REPO/"nbs"/"results", name)[1]
    assert study_title("phantom", "demo", facts["config"]["gan"]) == "phantom (demo); GAN: the paper's recipe"


def test_two_processes_on_one_store_do_each_run_once_and_both_work(phantoms, alone, tmp_path):
    both = [script(TASK, GRID, args=[tmp_path]) for _ in range(2)]
    assert [p.wait() for p in both] == [0, 0], [p.stderr.read()[-2000:] for p in both]
    made = made_in(tmp_path)
    assert len({run for run, _ in made}) == len(made) == 6               # two GANs, four classifiers
    assert len({pid for _, pid in made}) == 2                            # neither only waited for the other
    assert contents(tmp_path) == contents(alone[1].path)


def test_interrupted_three_times_nothing_done_is_done_again(phantoms, alone, tmp_path):
    for until in (1, 3, 5):
        p = script(TASK, GRID, args=[tmp_path])
        while p.poll() is None and len(list(tmp_path.rglob("metrics.json"))) < until: time.sleep(.01)
        p.send_signal(signal.SIGKILL); p.wait()
        finished = {f"{f.parent.parent.name}/{f.parent.name}" for f in tmp_path.rglob("metrics.json")}
        before = len(made_in(tmp_path))
        last = script(TASK, GRID, args=[tmp_path]) if until == 5 else None
        if last: assert last.wait() == 0, last.stderr.read()[-2000:]
        if last: assert not finished & {run for run, _ in made_in(tmp_path)[before:]}
    runs = [run for run, _ in made_in(tmp_path)]
    assert len(set(runs)) == 6 and len(runs) <= 6+3                      # at most the one that each interruption hit was begun again
    assert contents(tmp_path) == contents(alone[1].path)


def kill_worker_of(folder, times, killed):
    "Kill the process that is making a run, several times"
    while len(killed) < times:
        for mark in folder.glob(".worker-*"):
            pid = int(mark.name.split("-")[1])
            if pid in killed: continue
            os.kill(pid, signal.SIGKILL); killed.append(pid)
        time.sleep(.002)


def test_a_worker_that_is_killed_costs_its_run_and_no_other(phantoms, alone, tmp_path):
    lethal, store, killed = smoke_experiments(phantoms)[0], RunStore(tmp_path), []
    threading.Thread(target=kill_worker_of, args=(store.folder(lethal.gan), 2, killed), daemon=True).start()
    table = study(store, phantoms, "smoke", [4, 6], 1, [0], ["ORG", "GAN"], workers=2, keep_failed=True)
    assert len(killed) == 2 and os.getpid() not in killed
    bad, good = table[table.reason != ""], (table.reason == "").values
    assert bad[["size", "fold", "mode"]].values.tolist() == [[lethal.size, lethal.fold, "GAN"]] and "its process was killed, twice" in bad.reason.iloc[0]
    assert table[good].f1.tolist() == alone[0][good].f1.tolist()
    assert study(store, phantoms, "smoke", [4, 6], 1, [0], ["ORG", "GAN"]).to_csv() == alone[0].to_csv()
    assert not list(store.path.rglob("failed.json"))


def interrupt_when_at_work(store):
    "What a notebook's stop button does, as soon as a worker has begun a run"
    while not (marks := list(store.rglob(".worker-*"))): time.sleep(.005)
    _thread.interrupt_main()
    return {int(m.name.split("-")[1]) for m in marks}


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupt_of_this_process_ends_the_work_of_all(phantoms, alone, tmp_path, workers):
    usual, pids = signal.signal(signal.SIGINT, signal.default_int_handler), []
    ask = lambda: study(RunStore(tmp_path), phantoms, "smoke", [4, 6], 1, [0], ["ORG", "GAN"], workers=workers)
    threading.Thread(target=lambda: pids.extend(interrupt_when_at_work(tmp_path)), daemon=True).start()
    try:
        with pytest.raises(KeyboardInterrupt): ask()
    finally: signal.signal(signal.SIGINT, usual)
    there = contents(tmp_path); time.sleep(2)
    assert pids and contents(tmp_path) == there and len(there) < len(contents(alone[1].path))   # nobody goes on
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids if pid != os.getpid())
    assert ask().to_csv() == alone[0].to_csv() and contents(tmp_path) == contents(alone[1].path)


def test_a_dask_cluster_does_the_same_study(phantoms, alone, tmp_path):
    distributed = pytest.importorskip("distributed")
    store = RunStore(tmp_path/"store")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, local_directory=tmp_path/"dask") as cluster, distributed.Client(cluster) as client:
        with joblib.parallel_config(backend="dask"): table = study(store, phantoms, "smoke", [4, 6], 1, [0], ["ORG", "GAN"], workers=2)
        done = client.run_on_scheduler(lambda dask_scheduler: {str(t[0]) for t in dask_scheduler.transition_log if t[2] == "memory"})
    assert sum("_work" in name for name in done) == 6, done
    assert contents(store.path) == contents(alone[1].path) and table.to_csv() == alone[0].to_csv()


def command(*options, home=None):
    env = dict(os.environ, **({"MAMMOGAN_HOME": str(home)} if home else {}))
    file = Path(sys.executable).with_name("mammogan_study")
    if not file.exists(): pytest.skip("mammogan_study is not installed next to this Python: pip install -e . writes it")
    return subprocess.run([file, "--preset", "smoke", "--sizes", "4 6", *map(str, options)], capture_output=True, text=True, env=env)


def test_status_starts_nothing(phantoms, alone, tmp_path):
    store = alone[1].path
    before = {p: p.stat().st_mtime_ns for p in store.rglob("*")}
    done = command("--runs", store, "--status")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert {k: said[k] for k in ("done", "running", "failed", "left")} == dict(done=6, running=0, failed=0, left=4) and 0 <= said["minutes_left"] < 5
    assert "k = 4" in done.stderr and "4 left; about" in done.stderr
    assert {p: p.stat().st_mtime_ns for p in store.rglob("*")} == before
    nowhere = command("--runs", store, "--status", home=tmp_path/"empty")
    assert nowhere.returncode != 0 and "have not been prepared" in nowhere.stderr and not (tmp_path/"empty").exists()


def test_the_command_knows_both_recipes(phantoms, alone):
    done = command("--runs", alone[1].path, "--status", "--gan", "best")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert {k: said[k] for k in ("done", "failed", "left")} == dict(done=2, failed=0, left=8)       # ORG needs no GAN
    refused = command("--runs", alone[1].path, "--gan", "worst")
    assert refused.returncode != 0 and "gan='worst' is not known. Choose one of: paper, best." in refused.stderr


def test_the_command_writes_the_table_of_its_grid(phantoms, alone, tmp_path):
    done = command("--runs", alone[1].path, "--out", tmp_path/"results")
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1])["failed"] == 0
    facts = read_json(tmp_path/"results"/"grid-smoke.json")
    assert (facts["runs_there"], facts["runs_asked"], facts["gans"]) == (8, 8, 2)
    assert len((tmp_path/"results"/"grid-smoke.csv").read_text().splitlines()) == 9
