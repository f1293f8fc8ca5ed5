"""The notebooks as pages: each is processed for the site, clean and small; README.md is made from index.ipynb."""
import ast, importlib, inspect, json, pkgutil, re, shutil, subprocess, sys

import pytest

import mammogan
from conftest import NOTEBOOKS, REPO

SITE = "https://mammogan.github.io/mammogan/"
BLOB = "https://github.com/mammogan/mammogan/blob/main/"
RAW = "https://raw.githubusercontent.com/mammogan/mammogan/main/nbs/"
FENCE = re.compile(r"^``` *\{?\.?\w*\}?\n(.*?)^```$", re.M | re.S)
CROSS = r"(?<![\w\\])@((?:fig|tbl|sec|eq)-[\w-]+)"
UNFINISHED = r"\b(TODO|FIXME|XXX|TBD|TK|[Ll]orem ipsum|[Pp]laceholder)\b|@@"
QMD = sorted((REPO/"nbs").glob("*.qmd"))
TEXTS = [*QMD, *(REPO/n for n in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff"))]

each_notebook = pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: p.stem)


def cells(notebook): return json.loads(notebook.read_text(encoding="utf-8"))["cells"]
def outputs(page): return [o for c in page for o in c.get("outputs", [])]
def source(cell): return "".join(cell["source"])
def sources(page, kind): return [source(c) for c in page if c["cell_type"] == kind]
def data(output, kind): return "".join(output.get("data", {}).get(kind, []))
def printed(output): return "".join(output.get("text", [])) or data(output, "text/plain")


def written(page):
    "What a reader reads: prose, and outputs that are Markdown"
    made = [data(o, "text/markdown") for o in outputs(page)]
    return sources(page, "markdown") + [text for text in made if text]


def prose(page): return re.sub(r"`[^`\n]*`", "", FENCE.sub("", "\n\n".join(written(page))))


# The pages of the site

@pytest.fixture(scope="module")
def processed(tmp_path_factory):
    "The pages before Quarto renders them: what `nbdev_proc_nbs` makes, in a copy of the sources"
    pytest.importorskip("nbdev", reason="nbdev comes with the extra [dev]")
    folder = tmp_path_factory.mktemp("site")
    ignore = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
    for name in ("nbs", "mammogan"): shutil.copytree(REPO/name, folder/name, ignore=ignore)
    for name in ("settings.ini", "_quarto.yml"): shutil.copy(REPO/name, folder)
    code = "from nbdev.serve import proc_nbs; proc_nbs(n_workers=0)"
    command = [sys.executable, "-W", "default", "-c", code]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-1000:]
    shared = done.stderr.partition("imports and other code")[2]
    assert not shared, f"an import shares its cell with code that the site would run: {shared[:600]}"
    return folder/"_proc"


@pytest.fixture(scope="module")
def pages(processed):
    "The cells of each page: notebooks, guides, README.md and CONTRIBUTING.md"
    texts = [*processed.glob("*.qmd"), REPO/"README.md", REPO/"CONTRIBUTING.md"]
    of_text = lambda p: [dict(cell_type="markdown", source=p.read_text(encoding="utf-8"))]
    return {p.name: cells(p) for p in processed.glob("*.ipynb")} | {p.name: of_text(p) for p in texts}


def test_every_page_is_processed_and_in_the_sidebar(processed, pages):
    there = {p.name for p in [*NOTEBOOKS, *QMD]}
    assert {n for n in pages if not n.endswith(".md")} == there and all(pages.values())
    sidebar = (REPO/"_quarto.yml").read_text(encoding="utf-8")
    assert set(re.findall(r"^ +- (\w+\.(?:ipynb|qmd))$", sidebar, re.M)) == there


def labels(page):
    "What a cross-reference on this page may name"
    named = re.findall(r"^#\| label: *([\w-]+)", "\n".join(sources(page, "code")), re.M)
    return {*named, *re.findall(r"\{#([\w-]+)", "\n".join(written(page)))}


def anchors(page):
    "What a link may name after #: headings as pandoc spells them, labels, and names"
    text = FENCE.sub("", "\n\n".join(written(page)))
    headings = re.findall(r"^#+ +(.*?)(?: *\{.*\})?$", text, re.M)
    spelled = {re.sub(r"\s+", "-", re.sub(r"[^\w\s.-]", "", h).strip()).lower() for h in headings}
    names = re.findall(r"[\w.]+", " ".join(headings))
    return labels(page) | {h.lstrip("0123456789-.") for h in spelled} | set(names)


def address(name, page):
    "Where a page is on the site: nbdev names a notebook's page without its number"
    found = re.search(r"^output-file: (\S+)", "\n".join(sources(page, "raw")), re.M)
    return found[1] if found else name.replace(".qmd", ".html")


def broken_links(pages):
    by_address, broken = {address(n, p): n for n, p in pages.items()}, []
    for name, page in pages.items():
        links = re.findall(r"(?<!!)\[[^\]]*\]\(([^)\s]+)[^)]*\)", prose(page))
        links += [a for t in written(page) for a in re.findall(r'href="([^"]*)"', FENCE.sub("", t))]
        for link in links:
            file = link.removeprefix(BLOB).partition("#")[0]
            if link.startswith(BLOB) and not (REPO/file).exists(): broken.append((name, link))
            if not link.startswith(SITE) and re.match(r"[a-z]+:", link): continue
            there, _, anchor = link.removeprefix(SITE).partition("#")
            if link.startswith(SITE): there = by_address.get(there or "index.html", there)
            lost = there not in pages if there else False
            if lost or anchor and anchor not in anchors(pages[there or name]): broken.append((name, link))
    return broken


def broken_references(pages):
    return [(n, r) for n, p in pages.items() for r in re.findall(CROSS, prose(p)) if r not in labels(p)]


def unknown_citations(pages):
    bibliography = (REPO/"nbs"/"references.bib").read_text(encoding="utf-8")
    keys = set(re.findall(r"^@\w+\{([^,]+),", bibliography, re.M))
    cited = lambda page: re.findall(r"(?<![\w\\])@([A-Za-z]\w+)", re.sub(CROSS, "", prose(page)))
    return [(n, k) for n, p in pages.items() if not n.endswith(".md") for k in cited(p) if k not in keys]


def bare_pictures(pages):
    "Pictures without a caption or without alternative text"
    bare, tag = [], r'<img(?![^>]*alt="[^"]{20,}")[^>]*>'
    for name, page in pages.items():
        bare += [(name, f) for f in re.findall(r"!\[[^\]]{0,20}\]\([^)]*\)|"+tag, prose(page))]
        bare += [(name, f) for o in outputs(page) for f in re.findall(tag, data(o, "text/html"))]
        for c in page:
            drawn = any({"image/png", "image/svg+xml"} & set(o.get("data", {})) for o in c.get("outputs", []))
            said = [re.search(rf"^#\| fig-{w}: *\S.{{20,}}", source(c), re.M | re.S) for w in ("cap", "alt")]
            if drawn and not all(said): bare.append((name, source(c)[:80]))
    return bare


def errors(pages): return [(n, o["ename"]) for n, p in pages.items() for o in outputs(p) if o["output_type"] == "error"]


@pytest.mark.parametrize("check", [errors, broken_links, broken_references, unknown_citations, bare_pictures])
def test_no_page_has(check, pages): assert check(pages) == []


def text(s): return dict(cell_type="markdown", source=s)


def drawn(code=""):
    picture = dict(output_type="display_data", data={"image/png": "iVBOR"})
    return dict(cell_type="code", source=code+"plt.plot([1])", outputs=[picture])


@pytest.mark.parametrize("check, cell", [
    (errors, dict(cell_type="code", source="", outputs=[dict(output_type="error", ename="ValueError")])),
    (broken_links, text("See [a chapter](99_nowhere.ipynb).")),
    (broken_links, text(f"See [a chapter]({SITE}nowhere.html).")),
    (broken_links, text("See [a step](01_dataset.ipynb#a-step-that-is-not-there).")),
    (broken_links, text(f"See [a file]({BLOB}tests/test_nothing.py).")),
    (broken_references, text("As @fig-nowhere shows.")),
    (unknown_citations, text("As was shown [@nobody1999].")),
    (bare_pictures, drawn()),
    (bare_pictures, drawn("#| fig-cap: A line, as it was drawn by this.\n")),
    (bare_pictures, text("![](a.png)"))])
def test_a_planted_fault_is_found(check, cell):
    raw = dict(cell_type="raw", source="output-file: dataset.html")
    sound = {"01_dataset.ipynb": [raw, text("## A step\n\nWords, and [a link](#a-step).")]}
    assert check(sound) == [] and len(check({**sound, "02_other.ipynb": [cell]})) == 1


# The notebooks as files

def assigned(tree):
    "Names that a cell gives values to, outside functions and comprehensions"
    apart = ast.FunctionDef, ast.ClassDef, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp
    if isinstance(tree, apart): return set()
    if isinstance(tree, ast.Name): return {tree.id} if isinstance(tree.ctx, ast.Store) else set()
    return {name for child in ast.iter_child_nodes(tree) for name in assigned(child)}


@each_notebook
def test_a_parameter_keeps_the_value_that_the_reader_gave(notebook):
    code = [c for c in cells(notebook) if c["cell_type"] == "code"]
    names = [assigned(ast.parse(re.sub(r"^(%|!(?!\[)).*$", "", source(c), flags=re.M))) for c in code]
    for i in (i for i, c in enumerate(code) if "parameters" in c["metadata"].get("tags", [])):
        taken = {c["id"]: given & names[i] for c, given in zip(code[i+1:], names[i+1:]) if given & names[i]}
        assert not taken, f"cells that overwrite a parameter: {taken}"


@each_notebook
def test_it_has_a_title_and_a_sentence_and_no_unfinished_word(notebook):
    "nbdev makes front matter of the first cell, so it has nothing else"
    words = sources(cells(notebook), "markdown")
    assert re.fullmatch(r"# \S.*\n+> \S.*\n*", words[0]) and not re.search(UNFINISHED, "\n".join(words))


@each_notebook
def test_its_outputs_are_small_without_errors_and_without_paths_of_a_machine(notebook):
    made = outputs(cells(notebook))
    assert all(o["output_type"] != "error" and len(json.dumps(o)) < 1_000_000 for o in made)
    assert notebook.stat().st_size < 2_000_000
    assert not re.findall(r"(?<![\w:/.<])/[a-z]+/[\w.-]+/[\w./-]+", "\n".join(map(printed, made)))


@pytest.mark.parametrize("page", TEXTS, ids=lambda p: p.name)
def test_no_word_of_a_page_is_unfinished(page):
    assert not re.search(UNFINISHED, page.read_text(encoding="utf-8"))


# The library's documentation

def functions(module):
    "Public functions of a module, and public methods of its classes"
    for name in module.__all__:
        o = getattr(module, name)
        if inspect.isclass(o) and o.__module__ == module.__name__: yield from map(inspect.unwrap, filter(inspect.isfunction, vars(o).values()))
        elif inspect.isroutine(o): yield inspect.unwrap(o)


def undocumented(function):
    "Parameters of a function without a docment of their own"
    from fastcore.docments import docments
    plain = [p.name for p in inspect.signature(function).parameters.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    told = docments(function, full=True)
    return [f"{function.__qualname__}({n})" for n in plain if n not in ("self", "cls") and not told[n].docment]


@pytest.mark.parametrize("name", [m.name for m in pkgutil.iter_modules(mammogan.__path__) if m.name[0] != "_"])
def test_every_public_name_and_parameter_is_explained(name):
    module = importlib.import_module(f"mammogan.{name}")
    found = [f for f in functions(module) if not f.__name__.startswith("_")]
    assert [p for f in found for p in undocumented(f)] == []
    assert [n for n in module.__all__ if callable(o := getattr(module, n)) and not (o.__doc__ or "").strip()] == []


def test_a_parameter_without_explanation_is_found():
    def f(
        x,  # a number
        y
    ): "Twice it"
    assert undocumented(f) == ["test_a_parameter_without_explanation_is_found.<locals>.f(y)"]


# The front page

def readme():
    "README.md as index.ipynb has it: its prose, its code, and what the code shows"
    parts = []
    for c in cells(REPO/"nbs"/"index.ipynb"):
        s = re.sub(r"^#\|.*\n", "", source(c), flags=re.M).strip()
        if c["cell_type"] == "markdown":
            s = re.sub(r'^::: \{\.content-visible when-format="html"\}.*?^:::$', "", s, flags=re.M | re.S)
            parts.append(re.sub(r"^:::.*\n?", "", s, flags=re.M).strip())
            continue
        if "echo: false" not in source(c) and "hide" not in source(c): parts.append(f"```python\n{s}\n```")
        for o in (o for o in c["outputs"] if o["output_type"] == "execute_result"):
            made = data(o, "text/markdown")
            parts.append(made.strip() if made else "    " + printed(o).strip().replace("\n", "\n    "))
    return "\n\n".join(filter(None, parts)) + "\n"


def test_readme_is_the_front_page():
    "`python tests/test_docs.py` writes it"
    assert (REPO/"README.md").read_text(encoding="utf-8") == readme()


def test_readme_has_the_two_commands_and_works_away_from_the_site():
    lines = readme().splitlines()
    assert "pip install -e . && papermill nbs/04_augmentation.ipynb out.ipynb -p size 500" in lines
    assert "pip install -e '.[dev]' && nbdev_test && pytest -n 2 --dist loadfile" in lines
    places = re.findall(r"\[[^\]]*\]\(([^)]*)\)", readme())
    assert [p for p in places if not p.startswith("https://")] == []
    assert f"{RAW}front.png" in places and (REPO/"nbs"/"front.png").stat().st_size < 300_000


def test_the_front_page_lists_every_chapter():
    listed = re.findall(r"^\| \[\d+[a-z]? [^|]*mammogan\.github\.io/mammogan/(\w+)\.html", readme(), re.M)
    assert set(listed) == {re.sub(r"^\d+[a-z]?_", "", p.stem) for p in NOTEBOOKS} - {"index"}


def test_the_picture_of_the_front_page_shows_the_committed_figures():
    import numpy as np
    from PIL import Image
    from mammogan.report import front_picture
    figures, picture = REPO/"nbs"/"05_figures.ipynb", REPO/"nbs"/"front.png"
    there, made = (np.asarray(p.convert("RGB"), float) for p in (Image.open(picture), front_picture(figures)))
    again = "front_picture('nbs/05_figures.ipynb', 'nbs/front.png') makes it again"
    assert there.shape == made.shape, again
    assert np.abs(there-made).max() < 20 and np.abs(there-made).mean() < 1, again    # the palette errs by 4 and .5


if __name__ == "__main__": (REPO/"README.md").write_text(readme(), encoding="utf-8")
