"""The notebooks as pages: each can be processed for the site, is clean and small; README.md is index.ipynb."""
import json, re, shutil, subprocess, sys

import pytest

from conftest import NOTEBOOKS, REPO

each_notebook = pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: p.stem)


def cells(notebook): return json.loads(notebook.read_text(encoding="utf-8"))["cells"]
def outputs(notebook): return [o for c in cells(notebook) for o in c.get("outputs", [])]
def text_of(output): return "".join(output.get("text", [])) or "".join(output.get("data", {}).get("text/plain", []))


def test_every_notebook_is_processed_for_the_site(tmp_path):
    "The function behind nbdev_proc_nbs, which needs no Quarto, in a copy of the sources"
    pytest.importorskip("nbdev", reason="nbdev, which processes notebooks for the site, comes with the extra [dev]")
    for name in ("nbs", "mammogan"): shutil.copytree(REPO/name, tmp_path/name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
    for name in ("settings.ini", "_quarto.yml"): shutil.copy(REPO/name, tmp_path)
    done = subprocess.run([sys.executable, "-W", "default", "-c", "from nbdev.serve import proc_nbs; proc_nbs(n_workers=0)"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-1000:]
    shared = done.stderr.partition("imports and other code")[2]
    assert not shared, f"an import shares its cell with other code, and the build of the site would run both: {shared[:600]}"
    pages = {p.stem: cells(p) for p in (tmp_path/"_proc").glob("*.ipynb")}
    assert set(pages) == {p.stem for p in NOTEBOOKS} and all(pages.values())
    assert not [o for page in pages.values() for c in page for o in c.get("outputs", []) if o["output_type"] == "error"]
    assert (tmp_path/"_proc"/"_quarto.yml").read_text() == (REPO/"nbs"/"_quarto.yml").read_text()


@each_notebook
def test_it_is_committed_without_errors_and_under_a_megabyte(notebook):
    assert not [o for o in outputs(notebook) if o["output_type"] == "error"]
    assert notebook.stat().st_size < 1_000_000


@each_notebook
def test_its_outputs_hold_no_path_of_the_machine_that_ran_it(notebook):
    assert not re.findall(r"(?<![\w:/.<])/[a-z]+/[\w.-]+/[\w./-]+", "\n".join(map(text_of, outputs(notebook))))


@each_notebook
def test_it_has_a_title_and_a_sentence(notebook):
    assert re.match(r"# \S.*\n+> \S", "".join(cells(notebook)[0]["source"]))


UNFINISHED = r"\b(TODO|FIXME|XXX|TBD|TK|[Ll]orem ipsum|[Pp]laceholder)\b|@@"


@each_notebook
def test_no_word_of_it_is_unfinished(notebook):
    prose = "\n".join("".join(c["source"]) for c in cells(notebook) if c["cell_type"] == "markdown")
    assert not re.search(UNFINISHED, prose)


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md"])
def test_no_word_of_a_page_is_unfinished(name):
    assert not re.search(UNFINISHED, (REPO/name).read_text(encoding="utf-8"))


FENCE = re.compile(r"^``` ?\w*\n(.*?)^```$", re.M | re.S)


def index_blocks():
    "What README.md must hold: the prose of index.ipynb with its text outputs, and its blocks of code"
    prose, code = "", []
    for i, c in enumerate(cells(REPO/"nbs"/"index.ipynb")):
        source = "".join(c["source"])
        if i == 0: source = re.sub(r"^> .*$", "", source, count=1, flags=re.M)       # the page's description, which README.md does without
        if c["cell_type"] == "markdown": code += FENCE.findall(source); prose += "\n" + FENCE.sub("", source); continue
        if source.startswith("#|"): continue
        code.append(source.strip()+"\n")
        prose += "\n" + "\n".join(map(text_of, c["outputs"]))
    return prose, code


def words(text): return re.findall(r"\w+|\$|&&|=", re.sub(r"<!--.*?-->|[*_`\\|]|-{3,}", " ", text))


def test_readme_is_the_front_page():
    readme, (prose, code) = (REPO/"README.md").read_text(encoding="utf-8"), index_blocks()
    assert FENCE.findall(readme) == code
    assert words(FENCE.sub("", readme)) == words(prose)


def test_readme_has_the_two_commands():
    lines = (REPO/"README.md").read_text(encoding="utf-8").splitlines()
    assert "pip install -e . && papermill nbs/04_augmentation.ipynb out.ipynb -p size 500" in lines
    assert "pip install -e '.[dev]' && nbdev_test && pytest" in lines


def test_the_front_page_has_no_picture_and_no_relative_link():
    page = "\n".join("".join(c["source"]) for c in cells(REPO/"nbs"/"index.ipynb"))
    assert "![" not in page and "<img" not in page
    assert [a for a in re.findall(r"\]\(([^)]*)\)", page) if not a.startswith("https://")] == []
    assert all("image/png" not in o.get("data", {}) for o in outputs(REPO/"nbs"/"index.ipynb"))


def test_the_rooms_on_the_map_are_the_rooms_there_are():
    page = "\n".join("".join(c["source"]) for c in cells(REPO/"nbs"/"index.ipynb"))
    there = {p.stem for p in NOTEBOOKS} - {"index"}
    assert set(re.findall(r"mammogan\.github\.io/mammogan/(\d\w*)\.html", page)) == there
