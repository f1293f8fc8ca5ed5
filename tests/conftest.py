"""What the tests share: places of their own, so that they neither find nor leave anything, and the smoke phantoms."""
import os, random
from pathlib import Path

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "passive")     # before torch is loaded, which a test may import before the library
REPO = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((REPO/"nbs").glob("*.ipynb"))
LONG = ["reproduce", "papermill", "study", "stopped", "metrics", "kill", "train", "commands", "docs", "sharing"]    # modules, the longest first


def pytest_configure(config):
    config.option.loadscopereorder = False                                # pytest-xdist would begin with the modules of most tests
    for warning in ("ignore:.*torch.jit.script", "ignore:The 'mode.chained_assignment'"): config.addinivalue_line("filterwarnings", warning)    # fastai's imports


def pytest_collection_modifyitems(items):
    "Long modules begin first, so that none is left alone at the end; a test that waits for ever ends after a quarter of an hour, with the stacks of all its threads"
    places = {f"test_{name}": i for i, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.stem, len(LONG)))
    for item in items: item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session", autouse=True)
def places(tmp_path_factory):
    "MAMMOGAN_HOME and MAMMOGAN_RUNS of these tests, for this process and for all that it starts"
    with pytest.MonkeyPatch.context() as m:
        for name in ("HOME", "RUNS"): m.setenv(f"MAMMOGAN_{name}", str(tmp_path_factory.mktemp(name.lower())))
        m.setenv("PYTHONWARNINGS", "ignore")
        yield Path(os.environ["MAMMOGAN_HOME"]), Path(os.environ["MAMMOGAN_RUNS"])


@pytest.fixture(scope="session")
def phantoms(places):
    "The patches of the smoke phantoms, made once, by one worker"
    from mammogan.sources import open_patches
    return open_patches(preset="smoke", workers=1)


@pytest.fixture(scope="session")
def phantom_tree(phantoms):
    "The folder of the smoke phantoms: an OMI-DB delivery"
    from mammogan.phantom import phantom_archive_path
    return phantom_archive_path("smoke")


@pytest.fixture(scope="session")
def real_data():
    "The folder of real data, where there is one"
    folder = Path(os.environ.get("MAMMOGAN_DATA") or "none")
    if not folder.is_dir(): pytest.skip("MAMMOGAN_DATA names no folder with real data (mini-mias, cbis-mass-patches)")
    return folder


def mutated(data:bytes, seed:int) -> bytes:
    "A file after one to eight accidents: bytes changed, cut out, doubled, put in; its end cut off"
    rng, data = random.Random(seed), bytearray(data)
    for _ in range(rng.randint(1, 8)):
        at, n = rng.randrange(len(data)), rng.choice([1, 1, 2, 4, 30])
        what = rng.choice(["change", "change", "change", "cut", "double", "insert", "end"])
        if what == "change": data[at:at+n] = bytes(rng.choice([0, 1, 255, rng.randrange(256)]) for _ in data[at:at+n])
        elif what == "cut": del data[at:at+n]
        elif what == "double": data[at:at] = data[at:at+n]
        elif what == "insert": data[at:at] = rng.randbytes(n)
        else: del data[max(40, at):]
        if len(data) < 50: break
    return bytes(data)
