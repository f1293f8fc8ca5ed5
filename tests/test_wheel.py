"""The wheel that pip installs: small, typed, whole, and with nothing in it that does not belong to the library."""
import re, shutil, subprocess, sys, zipfile

import pytest

from conftest import REPO


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    "The wheel, built from a copy of the sources as committed or as they are now"
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    shutil.copytree(REPO/"mammogan", source/"mammogan", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "settings.ini", "README.md", "LICENSE"): shutil.copy(REPO/name, source)
    done = subprocess.run([sys.executable, "setup.py", "-q", "bdist_wheel", "-d", out], cwd=source, capture_output=True, text=True)
    if "invalid command 'bdist_wheel'" in done.stderr or "No module named 'setuptools'" in done.stderr: pytest.skip("setuptools or wheel is not installed here; pip builds wheels in an environment of its own")
    assert done.returncode == 0, done.stderr[-2000:]
    file, = out.glob("*.whl")
    return file


def names(wheel):
    with zipfile.ZipFile(wheel) as z: return z.namelist()


def test_it_is_under_a_megabyte(wheel): assert wheel.stat().st_size < 1_000_000


def test_it_holds_every_module_the_mark_of_types_and_nothing_else(wheel):
    library = {f"mammogan/{p.name}" for p in (REPO/"mammogan").glob("*.py")} | {"mammogan/py.typed"}
    assert {n for n in names(wheel) if ".dist-info/" not in n} == library


def test_its_metadata_state_version_licence_commands_and_extras(wheel):
    with zipfile.ZipFile(wheel) as z:
        metadata, entries = [z.read(next(n for n in z.namelist() if n.endswith(f".dist-info/{name}"))).decode() for name in ("METADATA", "entry_points.txt")]
    version = re.search(r"^version = (\S+)$", (REPO/"settings.ini").read_text(), re.M)[1]
    assert re.fullmatch(r"\d+\.\d+\.\d+", version) and f"\nVersion: {version}\n" in metadata
    assert "Apache-2.0" in metadata and "Requires-Python: >=3.10" in metadata
    assert {"dev", "dicom", "cluster"} <= set(re.findall(r"^Provides-Extra: (\S+)", metadata, re.M))
    assert "mammogan_reproduce=" in entries.replace(" ", "") and "nbdev" not in re.sub(r"extra == .dev.", "", "\n".join(l for l in metadata.splitlines() if l.startswith("Requires-Dist") and "extra" not in l))


def test_the_citation_names_the_same_version():
    version = re.search(r"^version = (\S+)$", (REPO/"settings.ini").read_text(), re.M)[1]
    assert re.search(r"^version: (\S+)$", (REPO/"CITATION.cff").read_text(encoding="utf-8"), re.M)[1] == version
