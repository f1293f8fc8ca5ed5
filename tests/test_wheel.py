"""The wheel that pip installs: small, typed, whole, and with nothing in it that does not belong to the library."""
import re, shutil, subprocess, sys, tarfile, zipfile

import pytest

from conftest import REPO


PLANTED = [f"mammogan/generators/planted/{name}" for name in ("config.json", "generator.safetensors", "README.md")]


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    "A copy of the sources, as committed or as they are now, with one generator more"
    source = tmp_path_factory.mktemp("source")
    shutil.copytree(REPO/"mammogan", source/"mammogan", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "settings.ini", "README.md", "LICENSE", "MANIFEST.in", "CITATION.cff", "CHANGELOG.md"): shutil.copy(REPO/name, source)
    for file in PLANTED: (source/file).parent.mkdir(parents=True, exist_ok=True); (source/file).write_bytes(b"{}")
    return source


def built(source, out, kind):
    "What setuptools builds: a wheel or a source distribution"
    done = subprocess.run([sys.executable, "setup.py", "-q", kind, "-d", out], cwd=source, capture_output=True, text=True)
    if f"invalid command '{kind}'" in done.stderr or "No module named 'setuptools'" in done.stderr: pytest.skip("setuptools or wheel is not installed here; pip builds wheels in an environment of its own")
    assert done.returncode == 0, done.stderr[-2000:]
    file, = out.iterdir()
    return file


@pytest.fixture(scope="module")
def wheel(sources, tmp_path_factory): return built(sources, tmp_path_factory.mktemp("wheel"), "bdist_wheel")


def names(wheel):
    with zipfile.ZipFile(wheel) as z: return z.namelist()


def packed_size(wheel, generators):
    "Bytes that the generators, or all else, take in the wheel"
    with zipfile.ZipFile(wheel) as z: return sum(f.compress_size for f in z.infolist() if f.filename.startswith("mammogan/generators/") == generators)


def test_it_is_under_a_megabyte_without_its_generators_and_under_five_with_them(wheel):
    assert packed_size(wheel, generators=False) < 1_000_000 and wheel.stat().st_size < 5_000_000


def test_it_holds_every_module_the_mark_of_types_the_generators_and_nothing_else(wheel):
    library = {f"mammogan/{p.name}" for p in (REPO/"mammogan").glob("*.py")} | {"mammogan/py.typed", "mammogan/reader_page.html", *PLANTED}
    library |= {f"mammogan/templates/{p.name}" for p in (REPO/"mammogan"/"templates").iterdir()}
    generators = {p.relative_to(REPO).as_posix() for p in (REPO/"mammogan"/"generators").glob("*/*")}
    assert {n for n in names(wheel) if ".dist-info/" not in n} == library | generators


def test_the_source_distribution_holds_the_generators(sources, tmp_path):
    with tarfile.open(built(sources, tmp_path, "sdist")) as t: held = {n.partition("/")[2] for n in t.getnames()}
    assert set(PLANTED) <= held


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
