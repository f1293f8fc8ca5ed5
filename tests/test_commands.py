"""The commands: progress and messages on standard error, one JSON object as the last line of standard output, sentences for errors."""
import configparser, json, subprocess, sys
from pathlib import Path

import pytest

from conftest import REPO

SETTINGS = configparser.ConfigParser(delimiters=["="])
SETTINGS.read(REPO/"settings.ini", encoding="utf-8")
COMMANDS = [line.split("=")[0] for line in SETTINGS["DEFAULT"].get("console_scripts", "").split()]


def command(name, *args):
    "Run an installed command of the package"
    file = Path(sys.executable).with_name(name)
    if not file.exists(): pytest.skip(f"{name} is not installed with this Python: pip install -e . writes it")
    return subprocess.run([file, *map(str, args)], capture_output=True, text=True)


def test_prepare_ends_with_its_account(phantoms):
    done = command("mammogan_prepare", "--preset", "smoke")
    account = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == 0 and account["fingerprint"] == phantoms.info["fingerprint"]
    assert account["images"] == account["images_used"] + account["images_rejected"]


@pytest.fixture
def films(tmp_path):
    "A folder of two made films of 400 by 300 pixels with a table of boxes, and a picture of a lesion"
    import numpy as np
    from PIL import Image
    grey = lambda shape: Image.fromarray(np.random.default_rng(0).integers(90, 160, shape).astype(np.uint8))
    for name in ("a", "b"):
        (tmp_path/"films").mkdir(exist_ok=True)
        whole = Image.new("L", (300, 400)); whole.paste(grey((360, 240)), (0, 20)); whole.save(tmp_path/"films"/f"{name}.png")
    (tmp_path/"films"/"boxes.csv").write_text("file,patient,x1,y1,x2,y2,kind\na.png,1,40,60,99,119,mass\nb.png,2,,,,,\nc.png,3,1,1,50,50,mass\n", encoding="utf-8")
    (tmp_path/"lesions").mkdir(); grey((128, 128)).save(tmp_path/"lesions"/"Mass_P_00001_LEFT.png")
    return tmp_path


def test_prepare_says_of_any_source_what_it_used_and_left_out(films):
    "An archive without a funnel of criteria, pictures without a folder of their own, and a set that is there already"
    first = command("mammogan_prepare", "--source", "folder", "--data", films/"films", "--out", films/"set", "--workers", 1)
    account = json.loads(first.stdout.splitlines()[-1])
    assert (account["images"], account["images_used"], account["lesions_used"]) == (3, 2, 1) and account["normals"] > 0, first.stderr
    assert "in the archive" in first.stderr and "c.png" in first.stderr and str(films/"set"/"rejected.parquet") in first.stderr
    again = command("mammogan_prepare", "--source", "patches", "--data", films/"set")
    assert json.loads(again.stdout.splitlines()[-1])["fingerprint"] == account["fingerprint"], again.stderr
    pictures = command("mammogan_prepare", "--source", "patches", "--data", films/"lesions")
    assert json.loads(pictures.stdout.splitlines()[-1])["lesions_used"] == 1 and "Nothing was left out." in pictures.stderr
    late = command("mammogan_prepare", "--source", "patches", "--data", films/"set", "--max_side", 100)
    assert late.returncode != 0 and "max_side=100 cannot be chosen with source='patches'" in late.stderr and "Traceback" not in late.stderr


@pytest.mark.parametrize("args, sentence", [(("mammogan_prepare", "--source", "omi"), "source='omi' is not known. Choose one of: phantom"),
                                            (("mammogan_prepare", "--source", "mini-mias", "--data", "nowhere"), "data='nowhere': there is no such folder"),
                                            (("mammogan_reproduce", "--preset", "fast"), "preset='fast' is not known. Choose one of: paper, demo, smoke")])
def test_an_error_is_a_sentence_and_an_exit_status(args, sentence):
    done = command(*args)
    assert done.returncode != 0 and sentence in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_help_says_what_the_command_does_and_gives_an_example(name):
    done = command(name, "--help")
    assert done.returncode == 0 and f"Example: {name}" in " ".join(done.stdout.split())


def test_benchmarks_are_measured_again_and_put_on_one_page(phantoms, tmp_path, capsys):
    import pandas as pd
    from mammogan.all_benchmarks import mammogan_benchmarks
    mammogan_benchmarks(preset="smoke", out=str(tmp_path/"measured"), notebooks="07c")
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    found = pd.read_csv(tmp_path/"measured"/"benchmarks.csv")
    assert said["claims"] == len(found) == 3 and said["stopped"] == {} and found.measured.str.startswith("Measured on ").all()
    assert "### [Benchmarks of the study]" in (tmp_path/"measured"/"benchmarks.md").read_text(encoding="utf-8")
    assert json.loads((tmp_path/"measured"/"07c_study_benchmarks.ipynb").read_text(encoding="utf-8"))["metadata"]["papermill"]["parameters"]["preset"] == "smoke"
    with pytest.raises(SystemExit, match="those that measure begin with 07"): mammogan_benchmarks(notebooks="04")
