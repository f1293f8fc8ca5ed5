"""Work that is stopped: whatever ends a process, its workers end within seconds; a command that SIGTERM or Ctrl-C stops says so."""
import os, signal, subprocess, sys, time
from pathlib import Path

import psutil
import pytest

from mammogan.core import write_json

STATUS = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: -signal.SIGHUP, signal.SIGKILL: -signal.SIGKILL}    # of a command
ENDLESS = """
import os
from pathlib import Path
from mammogan.core import pmap
def endless(folder, until=0):
    (Path(folder)/f"{os.getpid()}.at-work").touch()
    while not until or len(list(Path(folder).glob("*.at-work"))) < until: pass
"""
COMMAND = ENDLESS + """
import sys
from functools import partial
from mammogan.commands import command
@command
def never(): pmap(partial(endless, sys.argv[1]), [0, 0, 3], workers=3)      # two at work, and one that waits when all three are there
never()
"""


def by(*signals): return pytest.mark.parametrize("stop", signals, ids=[s.name for s in signals])


def is_alive(process):
    try: return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess: return False


def default_signals():
    "A signal reaches the command even where whoever runs the tests ignores it, as a job in the background does"
    for s in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM): signal.signal(s, signal.SIG_DFL)


def begin(command, folder, pattern, n=1):
    "Start a command in a folder; the process and all its descendants, once `n` files of a pattern are there"
    pipes = dict(stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    running = subprocess.Popen([str(c) for c in command], cwd=folder, start_new_session=True,
                               preexec_fn=default_signals, **pipes)
    while running.poll() is None and len(list(folder.rglob(pattern))) < n: time.sleep(.05)
    assert running.poll() is None, running.stderr.read()[-3000:]
    others = psutil.Process(running.pid).children(recursive=True)
    assert {p.pid for p in others} >= {int(p.stem) for p in folder.rglob("*.at-work")}, "workers are not its descendants"
    return running, others


def ended(running, others, stop, to_all=False):
    "Send a signal to one process alone or to its group; its exit status and what it said, once nobody is left"
    if to_all: os.killpg(running.pid, stop)
    else: running.send_signal(stop)
    try: running.wait(120)
    except subprocess.TimeoutExpired: others.append(psutil.Process(running.pid))
    limit = time.monotonic() + 5*max(1, os.getloadavg()[0]/os.cpu_count())     # more where the machine is busy
    while any(map(is_alive, others)) and time.monotonic() < limit: time.sleep(.05)
    left = [p for p in others if is_alive(p)]
    said = [" ".join(p.cmdline()) for p in left]
    for p in left: p.kill()
    assert not said
    return running.returncode, running.stderr.read()


def installed(name):
    file = Path(sys.executable).with_name(name)
    if not file.exists(): pytest.skip(f"{name} is not installed beside this Python: pip install -e . writes it")
    return file


def check_sentence(stop, name, status, said):
    "What a command leaves behind: its exit status and, where the signal can be caught, one sentence"
    assert status == STATUS[stop], said[-3000:]
    if status < 0: return
    assert said.rstrip().endswith(f"{name}: stopped; the same command goes on from here") and "Traceback" not in said, said[-3000:]


@by(*STATUS)
def test_workers_end_with_their_parent_whatever_ends_it(stop, tmp_path):
    running, others = begin([sys.executable, "-c", COMMAND, tmp_path], tmp_path, "*.at-work", 3)
    check_sentence(stop, "never", *ended(running, others, stop))


@by(signal.SIGTERM, signal.SIGINT)
def test_a_signal_to_all_of_them_as_a_terminal_and_systemd_send_it(stop, tmp_path):
    running, others = begin([sys.executable, "-c", COMMAND, tmp_path], tmp_path, "*.at-work", 3)
    check_sentence(stop, "never", *ended(running, others, stop, to_all=True))


@by(signal.SIGTERM, signal.SIGKILL)
def test_a_function_that_runs_in_a_process_of_its_own(stop, tmp_path):
    (tmp_path/"never.py").write_text(ENDLESS)
    call = 'from mammogan.benchmarking import run_apart; from never import endless; run_apart(endless, "It", folder=".")'
    ended(*begin([sys.executable, "-c", call], tmp_path, "*.at-work"), stop)


@by(signal.SIGTERM, signal.SIGKILL)
def test_a_study(stop, phantoms, tmp_path):
    options = ["--preset", "smoke", "--sizes", "4 6", "--folds", "2", "--workers", "2", "--runs", tmp_path]
    running, others = begin([installed("mammogan_study"), *options], tmp_path, ".worker-*", 2)
    check_sentence(stop, "mammogan_study", *ended(running, others, stop))
    assert not list(tmp_path.rglob("failed.json")) and len(list(tmp_path.rglob("metrics.json"))) < 20


@by(signal.SIGTERM, signal.SIGKILL)
def test_a_preparation(stop, phantoms, tmp_path):
    options = ["--preset", "smoke", "--size", "512", "--workers", "2", "--out", tmp_path/"set"]
    running, others = begin([installed("mammogan_prepare"), *options], tmp_path, ".set.*.part/*.json")
    check_sentence(stop, "mammogan_prepare", *ended(running, others, stop))
    assert not (tmp_path/"set").exists() and list(tmp_path.glob(".set.*.part/*.json"))


def notebook(path, code):
    "A notebook with a cell of parameters and one of code"
    sources = ["folder = 'none'\nsource = 'phantom'", code]
    cells = [dict(cell_type="code", id=f"c{i}", metadata=dict(tags=["parameters"]*(i == 0)), source=source, outputs=[],
                  execution_count=None) for i, source in enumerate(sources)]
    kernel = dict(name="python3", display_name="python3", language="python")
    write_json(path, dict(cells=cells, metadata=dict(kernelspec=kernel), nbformat=4, nbformat_minor=5))


@by(signal.SIGTERM, signal.SIGINT, signal.SIGKILL)
def test_a_papermill(stop, tmp_path):
    notebook(tmp_path/"in.ipynb", ENDLESS+"pmap(endless, [folder]*2, workers=2)")
    command = [sys.executable, "-m", "papermill", tmp_path/"in.ipynb", tmp_path/"out.ipynb", "-k", "python3", "-p", "folder", tmp_path]
    ended(*begin(command, tmp_path, "*.at-work", 2), stop)


@by(signal.SIGTERM, signal.SIGINT, signal.SIGKILL)
def test_a_reproduction(stop, phantoms, tmp_path):
    from mammogan.notebooks import NEEDED
    for name in NEEDED: notebook(tmp_path/"nbs"/f"{name}.ipynb", ENDLESS+f"pmap(endless, [{str(tmp_path)!r}]*2, workers=2)")
    options = ["--preset", "smoke", "--runs", tmp_path/"runs", "--nbs", tmp_path/"nbs"]
    running, others = begin([installed("mammogan_reproduce"), *options], tmp_path, "*.at-work", 2)
    check_sentence(stop, "mammogan_reproduce", *ended(running, others, stop))
