"""The command mammogan_train: what it writes, and that it continues after it was killed."""
import json, signal, subprocess, sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from textwrap import dedent

import pandas as pd
import pytest

from mammogan import train_generator
from mammogan.core import read_json
from mammogan.patches import save_patches
from mammogan.commands import mammogan_generate, mammogan_train

# The command in a process that kills itself in the third epoch of the training, and not while steps are timed
KILLED = """
    import os, signal, sys
    from mammogan import dcgan
    from mammogan.commands import mammogan_train
    dcgan.Checkpoint.every = 0
    def die(self):
        in_a_run = "gan" in self.path.parts
        if in_a_run and self.epoch == 2 and self.iter == 1: os.kill(os.getpid(), signal.SIGKILL)
    dcgan.Checkpoint.before_batch = die
    mammogan_train(**eval(sys.argv[1]))
"""
FILES = ("generator.safetensors", "generator.json", "log.csv", "samples.npy")


@pytest.fixture(scope="module", autouse=True)
def quick():
    "Steps are timed for a moment, and few fakes are measured"
    with pytest.MonkeyPatch.context() as m:
        m.setattr(train_generator.seconds_a_step, "__defaults__", (None, .05))
        m.setattr(train_generator.measure_generator, "__defaults__", (40, 2, 10, 0))
        yield


@pytest.fixture(scope="module")
def folder(phantoms, tmp_path_factory):
    "A set of patches on disk whose lesions have areas, too"
    place = tmp_path_factory.mktemp("lesions")/"set"
    rows = phantoms.rows
    phantoms.rows = rows.assign(area=(rows.x2-rows.x1+1.)*(rows.y2-rows.y1+1.))
    save_patches(phantoms, place)
    phantoms.rows = rows
    return place


def given(folder, runs, **more):
    "Options of the command at smoke size"
    return dict(data=str(folder), preset="smoke", conditions="kinds size", runs=str(runs), **more)


def run(capsys, **options):
    "The JSON and the messages of the command"
    mammogan_train(**options)
    messages = capsys.readouterr()
    return json.loads(messages.out.splitlines()[-1]), messages.err


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    "The store and the gift of a command that was not interrupted, and its messages"
    place = tmp_path_factory.mktemp("trained")
    card = dict(half=True, data_name="CBIS-DDSM", data_licence="cc-by-3.0")
    options = given(folder, place/"runs", steps=20, out=str(place/"gift"), **card)
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err: mammogan_train(**options)
    return options, json.loads(out.getvalue().splitlines()[-1]), err.getvalue()


def test_the_command_reports_what_it_did(trained):
    options, account, messages = trained
    assert account["generator"] == options["out"] and Path(account["run"]).is_dir() and account["minutes"] > 0
    assert account["against"] == "held-out lesions" and account["held_out"] > 0 < account["lesions"]
    assert account["steps"] >= 20
    assert {d["measure"] for d in account["distances"]} >= {"Fréchet distance, texture", "checkerboard index"}
    assert all(d["floor"] for d in account["distances"]) and account["copy_test"] == "no sign of copying"
    assert {"size:small", "size:medium", "size:large"} <= set(account["conditions"])
    assert account["limits"]["size"]["column"] == "area"
    for words in ("Learning from", "Held out:", "classes: ", "size (area) is small up to", "Copies: no sign of"):
        assert words in messages


def test_the_folder_has_all_that_the_training_knows(trained, tmp_path):
    options, account, _ = trained
    out, run = Path(options["out"]), Path(account["run"])
    assert read_json(run/"generator.json")["limits"] == read_json(out/"config.json")["limits"] == account["limits"]
    assert (out/"generator.safetensors").stat().st_size < .6*(run/"generator.safetensors").stat().st_size
    assert "held-out lesions" in pd.read_csv(out/"numbers.csv").against.tolist()
    assert (run/"samples.npy").is_file() and (run/"log.csv").is_file()
    card = (out/"README.md").read_text(encoding="utf-8")
    for words in ("The recipe is `best`", "Licence of the data: cc-by-3.0", "| size | small", "size (area) is small"):
        assert words in card
    asked = [c.rpartition(":")[2] for c in account["conditions"] if c.startswith("size:")][:1]
    mammogan_generate(generator=str(out), n=3, kind=asked, out=str(tmp_path))
    assert len(list(tmp_path.glob("*.png"))) == 3


def test_the_same_command_finds_its_training_and_its_folder(trained, capsys, monkeypatch):
    options, account, _ = trained
    monkeypatch.setattr(train_generator, "give_away", None)
    again, _ = run(capsys, **options)
    assert again == account


def test_killed_and_given_again_it_ends_with_the_same_bytes_without_timing_again(folder, tmp_path, capsys, monkeypatch):
    options = given(folder, tmp_path/"cut", minutes=.06)
    done = subprocess.run([sys.executable, "-c", dedent(KILLED), repr(options)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    left, = (tmp_path/"cut"/"gan").iterdir()
    assert (left/"checkpoint.safetensors").exists() and not (left/"generator.safetensors").exists()
    monkeypatch.setattr(train_generator, "seconds_a_step", None)          # the pace is found
    cut, messages = run(capsys, **options)
    assert Path(cut["run"]) == left and "0.06 min of training are" in messages
    steps = read_json(left/"config.json")["config"]["steps"]
    whole, _ = run(capsys, **given(folder, tmp_path/"whole", steps=steps))
    assert Path(whole["run"]).name == left.name
    for file in FILES: assert (left/file).read_bytes() == (Path(whole["run"])/file).read_bytes(), file


def test_with_all_lesions_the_distances_are_called_too_small(folder, tmp_path, capsys):
    options = dict(data=str(folder), recipe="paper", preset="smoke", kind="mass", steps=4, all=True)
    account, messages = run(capsys, **options, runs=str(tmp_path/"runs"), out=str(tmp_path/"gift"))
    assert account["against"] == "training lesions" and account["held_out"] == 0 and account["conditions"] == []
    assert "Nothing is held out." in messages and "so they are too small" in messages
    card = (tmp_path/"gift"/"README.md").read_text(encoding="utf-8")
    assert "| training lesions |" in card and "it learned from: too small" in card


@pytest.mark.parametrize("options, sentence", [
    (dict(recipe="good"), "recipe='good' is not known. Choose one of: paper, best"),
    (dict(preset="best"), "preset='best' is not known"),
    (dict(minutes=1., steps=3), "give one of them"),
    (dict(minutes=-1.), "minutes=-1.0 cannot be used"),
    (dict(conditions="margins"), "conditions='margins' cannot be used: there is no such column of labels. Choose"),
    (dict(kind="cyst"), "positives='cyst' is not known"),
    (dict(data="nowhere"), "data='nowhere': there is no such folder"),
    (dict(data=""), "data is empty"),
])
def test_an_error_is_a_sentence(options, sentence, folder, tmp_path):
    with pytest.raises(SystemExit) as e: mammogan_train(**dict(given(folder, tmp_path), **options))
    assert sentence in str(e.value) and not (tmp_path/"gan").exists()


def test_a_folder_that_is_there_is_refused_before_the_training(folder, tmp_path):
    (tmp_path/"out").mkdir()
    with pytest.raises(SystemExit, match="is there already and holds no generator"):
        mammogan_train(**given(folder, tmp_path/"runs", out=str(tmp_path/"out")))
    assert not (tmp_path/"runs").exists()


def test_cbis_masses_have_conditions(real_data):
    from mammogan.folders import read_patches
    from mammogan.conditions import condition_classes
    if not (real_data/"cbis-masses").is_dir(): pytest.skip("MAMMOGAN_DATA has no cbis-masses")
    made = condition_classes(read_patches(real_data/"cbis-masses"), "status margins size")
    assert {"status:benign", "margins:ill_defined", "margins:spiculated", "size:large"} <= set(made.names)
    assert made.limits["size"]["column"] == "mask_px_fullres" and made.kinds.shape == (844, len(made.names))
    assert made.kinds[:, [n.startswith("margins:") for n in made.names]].sum(1).max() == 3
