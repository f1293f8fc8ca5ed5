"""The notebooks as pages: each can be processed for the site, is clean and small; README.md is index.ipynb."""
import ast, json, re, shutil, subprocess, sys
from pathlib import Path

import pytest

from conftest import NOTEBOOKS, REPO

each_notebook = pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: p.stem)


def cells(notebook): return json.loads(notebook.read_text(encoding="utf-8"))["cells"]
def outputs(notebook): return [o for c in cells(notebook) for o in c.get("outputs", [])]
def text_of(output): return "".join(output.get("text", [])) or "".join(output.get("data", {}).get("text/plain", []))


@pytest.fixture(scope="module")
def processed(tmp_path_factory):
    "The pages of the site before Quarto draws them: what nbdev_proc_nbs makes, by the function behind it that needs no Quarto, in a copy of the sources"
    pytest.importorskip("nbdev", reason="nbdev, which processes notebooks for the site, comes with the extra [dev]")
    folder = tmp_path_factory.mktemp("site")
    for name in ("nbs", "mammogan"): shutil.copytree(REPO/name, folder/name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
    for name in ("settings.ini", "_quarto.yml"): shutil.copy(REPO/name, folder)
    done = subprocess.run([sys.executable, "-W", "default", "-c", "from nbdev.serve import proc_nbs; proc_nbs(n_workers=0)"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-1000:]
    shared = done.stderr.partition("imports and other code")[2]
    assert not shared, f"an import shares its cell with other code, and the build of the site would run both: {shared[:600]}"
    return folder/"_proc"


@pytest.fixture(scope="module")
def pages(processed):
    "The cells of each page: notebooks, guides, README.md and CONTRIBUTING.md"
    words = [*processed.glob("*.qmd"), REPO/"README.md", REPO/"CONTRIBUTING.md"]
    return {p.name: cells(p) for p in sorted(processed.glob("*.ipynb"))} | {p.name: [dict(cell_type="markdown", source=p.read_text(encoding="utf-8"))] for p in sorted(words)}


def test_every_notebook_is_processed_for_the_site(processed, pages):
    assert {Path(n).stem for n in pages if n.endswith(".ipynb")} == {p.stem for p in NOTEBOOKS} and all(pages.values())
    assert {n for n in pages if n.endswith(".qmd")} == {p.name for p in (REPO/"nbs").glob("*.qmd")}
    assert (processed/"_quarto.yml").read_text() == (REPO/"nbs"/"_quarto.yml").read_text()


def assigned(tree):
    "Names that the code of a cell gives values to, outside functions and comprehensions"
    apart = ast.FunctionDef, ast.ClassDef, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp
    if isinstance(tree, apart): return set()
    if isinstance(tree, ast.Name): return {tree.id} if isinstance(tree.ctx, ast.Store) else set()
    return {name for child in ast.iter_child_nodes(tree) for name in assigned(child)}


@each_notebook
def test_a_parameter_keeps_the_value_that_the_reader_gave(notebook):
    code = [c for c in cells(notebook) if c["cell_type"] == "code"]
    names = [assigned(ast.parse("".join(l for l in c["source"] if l[:1] not in ("%", "!")))) for c in code]
    at = [i for i, c in enumerate(code) if "parameters" in c["metadata"].get("tags", [])]
    for i in at:
        taken = {c["id"]: given & names[i] for c, given in zip(code[i+1:], names[i+1:]) if given & names[i]}
        assert not taken, f"cells that overwrite a parameter: {taken}"


def test_the_sidebar_leads_to_every_page():
    listed = re.findall(r"^ +- (\w+\.(?:ipynb|qmd))$", (REPO/"_quarto.yml").read_text(encoding="utf-8"), re.M)
    assert sorted(listed) == sorted(p.name for p in [*NOTEBOOKS, *(REPO/"nbs").glob("*.qmd")])


SITE, BLOB = "https://mammogan.github.io/mammogan/", "https://github.com/mammogan/mammogan/blob/main/"
FENCE = re.compile(r"^``` *\{?\.?\w*\}?\n(.*?)^```$", re.M | re.S)


def sources(page, *kinds): return ["".join(c["source"]) for c in page if c["cell_type"] in kinds]
def shown(page): return [o for c in page for o in c.get("outputs", [])]
def prose(page): return re.sub(r"`[^`\n]*`", "", FENCE.sub("", "\n\n".join(written(page))))
def written(page): return sources(page, "markdown") + ["".join(o["data"]["text/markdown"]) for o in shown(page) if "text/markdown" in o.get("data", {})]


def labels(page):
    "What a cross-reference on this page may name"
    return set(re.findall(r"^#\| label: *([\w-]+)", "\n".join(sources(page, "code")), re.M)) | set(re.findall(r"\{#([\w-]+)", "\n".join(written(page))))


def anchors(page):
    "What a link may name after #: headings as pandoc spells them, and labels"
    headings = re.findall(r"^#+ +(.*?)(?: *\{.*\})?$", FENCE.sub("", "\n\n".join(written(page))), re.M)
    return labels(page) | {re.sub(r"\s+", "-", re.sub(r"[^\w\s.-]", "", h).strip()).lower().lstrip("0123456789-.") for h in headings} | set(re.findall(r"[\w.]+", " ".join(headings)))


def addresses(pages):
    "Where each page is on the site: nbdev names a notebook's page without its number"
    named = {n: re.search(r"^output-file: (\S+)", "\n".join(sources(page, "raw")), re.M) for n, page in pages.items() if n.endswith(".ipynb")}
    return {n: found[1] for n, found in named.items() if found} | {n: n.replace(".qmd", ".html") for n in pages if n.endswith(".qmd")}


def links(page): return re.findall(r"(?<!!)\[[^\]]*\]\(([^)\s]+)[^)]*\)", prose(page)) + [a for text in written(page) for a in re.findall(r'href="([^"]*)"', FENCE.sub("", text))]


def broken_links(pages):
    by_address, broken = {a: n for n, a in addresses(pages).items()}, []
    for name, page in pages.items():
        for link in links(page):
            if link.startswith(BLOB) and not (REPO/link.removeprefix(BLOB).partition("#")[0]).exists(): broken.append((name, link))
            if not link.startswith(SITE) and re.match(r"[a-z]+:", link): continue
            there, _, anchor = link.removeprefix(SITE).partition("#")
            there = by_address.get(there or ("index.html" if link.startswith(SITE) else ""), there)
            if there not in pages and there: broken.append((name, link))
            elif anchor and anchor not in anchors(pages[there or name]): broken.append((name, link))
    return broken


CROSS = r"(?<![\w\\])@((?:fig|tbl|sec|eq)-[\w-]+)"


def broken_references(pages): return [(name, r) for name, page in pages.items() for r in re.findall(CROSS, prose(page)) if r not in labels(page)]


def unknown_citations(pages, bibliography):
    keys = set(re.findall(r"^@\w+\{([^,]+),", bibliography, re.M))
    return [(name, k) for name, page in pages.items() if not name.endswith(".md") for k in re.findall(r"(?<![\w\\])@([A-Za-z]\w+)", re.sub(CROSS, "", prose(page))) if k not in keys]


def bare_pictures(pages):
    "Pictures without a caption or without alternative text"
    bare = [(name, found) for name, page in pages.items() for found in re.findall(r"!\[[^\]]{0,20}\]\([^)]*\)|<img(?![^>]*alt=\"[^\"]{20,}\")[^>]*>", prose(page))]
    for name, page in pages.items():
        for c in page:
            pictures = [o for o in c.get("outputs", []) if {"image/png", "image/svg+xml"} & set(o.get("data", {}))]
            source = "".join(c["source"])
            if pictures and not all(re.search(rf"^#\| fig-{what}: *\S.{{20,}}", source, re.M | re.S) for what in ("cap", "alt")): bare.append((name, source[:80]))
            if pictures and re.search(r"^#\| fig-alt: *\[", source, re.M) and len(pictures) < len(c["outputs"]): bare.append((name, "what is printed beside pictures takes one of their texts: " + source[:80]))
            bare += [(name, found) for o in c.get("outputs", []) for found in re.findall(r'<img(?![^>]*alt="[^"]{20,}")[^>]*>', "".join(o.get("data", {}).get("text/html", [])))]
    return bare


def errors(pages): return [(name, o["ename"]) for name, page in pages.items() for o in shown(page) if o["output_type"] == "error"]


def test_no_page_shows_an_error(pages): assert errors(pages) == []
def test_no_internal_link_is_broken(pages): assert broken_links(pages) == []
def test_every_cross_reference_has_its_label_on_the_page(pages): assert broken_references(pages) == []
def test_every_citation_is_in_the_bibliography(pages): assert unknown_citations(pages, (REPO/"nbs"/"references.bib").read_text(encoding="utf-8")) == []
def test_every_figure_has_a_caption_and_alternative_text(pages): assert bare_pictures(pages) == []


@pytest.mark.parametrize("check, cell", [
    (errors, dict(cell_type="code", source="", outputs=[dict(output_type="error", ename="ValueError")])),
    (broken_links, dict(cell_type="markdown", source="See [a room](99_nowhere.ipynb).")),
    (broken_links, dict(cell_type="markdown", source=f"See [a room]({SITE}01_dataset.html).")),
    (broken_links, dict(cell_type="markdown", source="See [a step](01_dataset.ipynb#a-step-that-is-not-there).")),
    (broken_links, dict(cell_type="markdown", source=f"See [a file]({BLOB}tests/test_nothing.py).")),
    (broken_references, dict(cell_type="markdown", source="As @fig-nowhere shows.")),
    (lambda pages: unknown_citations(pages, "@misc{known2020, year = {2020}}"), dict(cell_type="markdown", source="As was shown [@known2020; @nobody1999].")),
    (bare_pictures, dict(cell_type="code", source="plt.plot([1])", outputs=[dict(output_type="display_data", data={"image/png": "iVBOR"})])),
    (bare_pictures, dict(cell_type="code", source="#| fig-cap: A line, as it was drawn by this.\nplt.plot([1])", outputs=[dict(output_type="display_data", data={"image/png": "iVBOR"})])),
    (bare_pictures, dict(cell_type="markdown", source="![](a.png)")),
], ids=lambda x: x["source"][:40] if isinstance(x, dict) else "")
def test_each_of_these_checks_finds_a_planted_fault(check, cell):
    sound = {"01_dataset.ipynb": [dict(cell_type="raw", source="output-file: dataset.html"), dict(cell_type="markdown", source="## A step\n\nWords, and [a link](#a-step).")]}
    assert check(sound) == [] and len(check({**sound, "02_other.ipynb": [dict(cell_type="raw", source="output-file: other.html"), cell]})) == 1


@each_notebook
def test_it_is_committed_without_errors_and_its_outputs_are_under_a_megabyte(notebook):
    assert not [o for o in outputs(notebook) if o["output_type"] == "error"]
    assert all(len(json.dumps(o)) < 1_000_000 for o in outputs(notebook))
    assert notebook.stat().st_size < 2_000_000


@each_notebook
def test_its_outputs_hold_no_path_of_the_machine_that_ran_it(notebook):
    assert not re.findall(r"(?<![\w:/.<])/[a-z]+/[\w.-]+/[\w./-]+", "\n".join(map(text_of, outputs(notebook))))


@each_notebook
def test_it_has_a_title_and_a_sentence(notebook):
    "They stand alone in the first cell: nbdev makes front matter of them, and what else stood in that cell would be missing on the site"
    assert re.fullmatch(r"# \S.*\n+> \S.*\n*", "".join(cells(notebook)[0]["source"]))


UNFINISHED = r"\b(TODO|FIXME|XXX|TBD|TK|[Ll]orem ipsum|[Pp]laceholder)\b|@@"


@each_notebook
def test_no_word_of_it_is_unfinished(notebook):
    prose = "\n".join("".join(c["source"]) for c in cells(notebook) if c["cell_type"] == "markdown")
    assert not re.search(UNFINISHED, prose)


@pytest.mark.parametrize("page", [*(REPO/n for n in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff")), *sorted((REPO/"nbs").glob("*.qmd"))], ids=lambda p: p.name)
def test_no_word_of_a_page_is_unfinished(page):
    assert not re.search(UNFINISHED, page.read_text(encoding="utf-8"))


COMMON = {"seed", "workers", "draws"}     # explained where they first appear, and the same everywhere


def undocumented(text):
    "Public names of a module without a sentence, and parameters whose meaning stands neither beside them, nor in that sentence, nor beside the same name elsewhere in the module"
    tree, lines, missing = ast.parse(text), text.splitlines(), []
    def parameters(f): return [a for a in (*f.args.posonlyargs, *f.args.args, *f.args.kwonlyargs, f.args.vararg, f.args.kwarg) if a and a.arg not in ("self", "cls")]
    def beside(a): return "#" in lines[a.end_lineno-1]
    told = COMMON | {a.arg for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for a in parameters(f) if beside(a)}
    public, = [ast.literal_eval(n.value) for n in tree.body if isinstance(n, ast.Assign) and getattr(n.targets[0], "id", "") == "__all__"]
    for n in tree.body:
        if getattr(n, "name", "") not in public: continue
        sentence = ast.get_docstring(n) or missing.append(n.name) or ""
        if isinstance(n, ast.FunctionDef): missing += [f"{n.name}({a.arg})" for a in parameters(n) if not beside(a) and a.arg not in told and not re.search(rf"\b{a.arg}\b", sentence)]
    return missing


@pytest.mark.parametrize("module", sorted((REPO/"mammogan").glob("[!_]*.py")), ids=lambda p: p.stem)
def test_every_public_name_and_parameter_is_explained(module): assert undocumented(module.read_text(encoding="utf-8")) == []


def test_a_name_without_explanation_is_found():
    assert undocumented("__all__ = ['f', 'g']\ndef f(\n    x, # a number\n    y\n): pass\ndef g(x): 'Twice it'\n") == ["f", "f(y)"]



def index_blocks():
    "What README.md must hold: the prose of index.ipynb with its text outputs, and its blocks of code"
    prose, code = "", []
    for i, c in enumerate(cells(REPO/"nbs"/"index.ipynb")):
        source = "".join(c["source"])
        if i == 0: source = re.sub(r"^> .*$", "", source, count=1, flags=re.M)       # the page's description, which README.md does without
        source = re.sub(r"^:::.*$", "", re.sub(r'^::: \{\.content-visible when-format="html"\}.*?^:::$', "", source, flags=re.M | re.S), flags=re.M)
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
    assert "pip install -e '.[dev]' && nbdev_test && pytest -n 2 --dist loadfile" in lines


def test_the_front_page_reads_the_same_away_from_the_site():
    "README.md has the picture by its address; on the site it lies beside the page"
    page = "\n".join("".join(c["source"]) for c in cells(REPO/"nbs"/"index.ipynb"))
    pictures, = re.findall(r"^!\[[^\]]*\]\((https:[^)]*)\)$", (REPO/"README.md").read_text(encoding="utf-8"), re.M)
    address, beside = pictures, "front.png"
    assert re.findall(r"!\[[^\]]*\]\(([^)]*)\)", page) == [beside, address] and address.endswith(f"/main/nbs/{beside}")
    assert (REPO/"nbs"/beside).stat().st_size < 300_000
    assert [a for a in re.findall(r"(?<!!)\[[^\]]*\]\(([^)]*)\)", page) if not a.startswith("https://")] == []
    assert all("image/png" not in o.get("data", {}) for o in outputs(REPO/"nbs"/"index.ipynb"))


def test_the_rooms_on_the_map_are_the_rooms_there_are():
    page = "\n".join("".join(c["source"]) for c in cells(REPO/"nbs"/"index.ipynb"))
    there = {re.sub(r"^\d+[a-z]?_", "", p.stem) for p in NOTEBOOKS} - {"index"}       # as nbdev names their pages
    assert set(re.findall(r"^\| \[\d+[a-z]? [^|]*mammogan\.github\.io/mammogan/(\w+)\.html", page, re.M)) == there


def study_shown():
    "What room 04 shows of its study in its committed outputs: the scores, the differences to ORG, the published means, and what was tested on"
    from mammogan.all_benchmarks import measuring_outputs, shown_table
    shown = measuring_outputs(REPO/"nbs"/"04_augmentation.ipynb")
    tables = [t for t in (shown_table("".join(o["data"]["text/html"])) for o in shown if "text/html" in o.get("data", {})) if "mode" in t]
    scores, differences, published = (next(t for t in tables if column in t) for column in ("f1_low", "difference", "published"))
    return scores.set_index("mode"), differences.set_index("mode"), published.set_index("mode"), "\n".join(map(text_of, shown))


def answer(page):
    "The numbers of the front page's answer: F1 of ORG, its interval, each mode's difference with its interval, the published means, and the counts"
    said = page.partition("**The answer")[2].partition("\n:::")[0]
    f1 = re.search(r"With (\d+) real masses of (\w+) \(preset `(\w+)`, one fold, one seed\) a classifier has an F1 of ([\d.]+) \(95 % interval ([\d.]+) to ([\d.]+)\) on (\d+) lesions and ([\d,]+) normal patches of (\d+) patients", said).groups()
    rows = re.findall(r"^\| [^|]*\(([\w ]+)\) \| ([+-][\d.]+) \| ([+-][\d.]+) to ([+-][\d.]+) \|$", said, re.M)
    published = re.search(r"The poster, on OPTIMAM, has ([\d.]+) for ORG and ([\d.]+) for Aug GAN", said).groups()
    return f1, {mode: tuple(map(float, values)) for mode, *values in rows}, published, said


def test_the_answer_of_the_front_page_is_what_the_study_shows():
    import pandas as pd
    scores, differences, published, printed = study_shown()
    (size, data, preset, f1, low, high, lesions, normals, patients), rows, (org, aug_gan), said = answer("\n".join(written(cells(REPO/"nbs"/"index.ipynb"))))
    assert [size, f1, low, high] == scores.loc["ORG", ["size", "f1", "f1_low", "f1_high"]].tolist()
    assert rows == {mode: tuple(map(float, r[["difference", "low", "high"]])) for mode, r in differences.iterrows()} and len(rows) == 3
    assert [org, aug_gan] == published.published[["ORG", "Aug GAN"]].tolist()
    assert f"{data.removesuffix('s')} ({preset}), seed 0; intervals: one fold: 95 % bootstrap over {patients} patients; {lesions} lesions and {normals.replace(',', '')} normal patches tested" in printed
    for name in ("bf16", "epyc"):
        table = pd.read_csv(REPO/"nbs"/"results"/f"study-demo-{name}-differences.csv").set_index("mode")
        other, rest = table.loc["Aug GAN"], table.drop("Aug GAN")
        assert "the intervals of the other two modes hold 0 on both" in said and ((rest.low <= 0) & (rest.high >= 0)).all()
        assert f"[{other.difference:+.3f}]" in said and f"study-demo-{name}-differences.csv) ({other.low:+.3f} to {other.high:+.3f})" in said
    from mammogan.augmentation import comparisons, read_grid
    grid = comparisons(None, (), read_grid(REPO/"nbs"/"results")[0])
    most = grid.loc[grid.difference.abs().idxmax()]
    assert f"none of its {len(grid)} differences from ORG is significant, and the largest is {most.difference:+.3f} ({most.low:+.3f} to {most.high:+.3f}, {most['mode']} with {most['size']} masses)" in said and (grid.p_holm > .05).all()
    assert ("do not help" in said) == all(low <= 0 for _, low, _ in rows.values()), "the words of the answer no longer fit its numbers"
    assert ("Both together do harm here" in said) == (rows["Aug GAN"][2] < 0)


def test_the_picture_of_the_front_page_shows_the_committed_figures():
    import numpy as np
    from PIL import Image
    from mammogan.report import front_picture
    there, made = (np.asarray(p.convert("RGB"), float) for p in (Image.open(REPO/"nbs"/"front.png"), front_picture(REPO/"nbs"/"05_figures.ipynb")))
    again = 'python -c "from mammogan.report import front_picture; front_picture(\'nbs/05_figures.ipynb\', \'nbs/front.png\')" makes it again'
    assert there.shape == made.shape, again
    assert np.abs(there-made).max() < 20 and np.abs(there-made).mean() < 1, again       # the palette's own error is at most 4 and .5


def test_the_page_of_benchmarks_shows_what_the_notebooks_show():
    from mammogan.all_benchmarks import describe_benchmarks
    from mammogan.reproduce import numbered_notebooks
    there = [text for text in written(cells(REPO/"nbs"/"07d_all_benchmarks.ipynb")) if "claims were measured" in text]
    assert there == [describe_benchmarks(numbered_notebooks(REPO/"nbs", "07"))], "a notebook of benchmarks was executed after 07d_all_benchmarks.ipynb: execute that one too"
    measured = int(there[0].split()[0])
    assert measured >= 16 and there[0].count("| yes |")+there[0].count("| **no** |") == measured
