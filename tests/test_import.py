"""The package as a package: what importing it costs, what it exports, what its notebooks may need."""
import ast, configparser, importlib, json, pkgutil, subprocess, sys

import pytest

import mammogan
from conftest import NOTEBOOKS, REPO

SETTINGS = configparser.ConfigParser(delimiters=["="])
SETTINGS.read(REPO/"settings.ini", encoding="utf-8")


def code_cells(notebook):
    "The sources of a notebook's code cells, with their tags"
    for cell in json.loads(notebook.read_text())["cells"]:
        if cell["cell_type"] == "code": yield "".join(cell["source"]), cell["metadata"].get("tags", [])


def imported(source):
    "The top-level packages that a cell imports"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import): yield from (a.name.split(".")[0] for a in node.names)
        if isinstance(node, ast.ImportFrom): yield (node.module or "").split(".")[0]


@pytest.mark.parametrize("module", ["mammogan", "mammogan.core", "mammogan.sources", "mammogan.commands"])
def test_importing_the_package_its_data_side_or_its_commands_pulls_in_neither_torch_nor_fastai(module):
    code = f"import sys, {module}; print([m for m in ('torch', 'fastai', 'nbdev') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_the_version_is_that_of_the_settings():
    assert mammogan.__version__ == SETTINGS["DEFAULT"]["version"]


@pytest.mark.parametrize("name", [m.name for m in pkgutil.iter_modules(mammogan.__path__)])
def test_every_module_imports_and_has_all_that_it_exports(name):
    module = importlib.import_module(f"mammogan.{name}")
    assert all(hasattr(module, o) for o in getattr(module, "__all__", []))


def test_every_console_command_is_a_function_of_the_package():
    for command in SETTINGS["DEFAULT"].get("console_scripts", "").split():
        name, place = command.split("=")
        module, function = place.split(":")
        assert name.startswith("mammogan_") and callable(getattr(importlib.import_module(module), function))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: p.stem)
def test_no_notebook_needs_nbdev(notebook):
    assert not any("nbdev" in imported(source) for source, _ in code_cells(notebook))


@pytest.mark.parametrize("notebook", sorted((REPO/"nbs").glob("0[1-7]_*.ipynb")), ids=lambda p: p.stem)
def test_a_numbered_room_has_one_cell_of_parameters_and_refuses_others(notebook):
    cells = list(code_cells(notebook))
    parameters, = [source for source, tags in cells if "parameters" in tags]
    assert {"source", "data", "preset", "seed", "runs"} <= {n.id for n in ast.walk(ast.parse(parameters)) if isinstance(n, ast.Name)}
    assert any("check_parameters(globals()" in source for source, _ in cells)
