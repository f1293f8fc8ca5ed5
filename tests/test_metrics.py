"""The measures against other people's implementations, and FID against pytorch-fid's own command line."""
import json, os, re, subprocess, sys

import numpy as np
import pytest
from PIL import Image

from mammogan.distances import frechet_distance, kernel_distance, manifolds, Sample
from mammogan.features import INCEPTION, inception_extractor, inception_file, random_inception
from mammogan.pictures import folder_of_pictures, Pictures


def textures(n, seed, side=64, exponent=1.3):
    "Smooth random fields, (n,side,side) uint8"
    r, f = np.random.default_rng(seed), np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side)))
    f[0, 0] = 1
    x = np.fft.ifft2(np.fft.fft2(r.normal(size=(n, side, side)))/f**exponent).real
    return np.clip(128+40*x/x.std((1, 2), keepdims=True), 0, 255).astype(np.uint8)


def write_pngs(folder, pixels, patients=3):
    folder.mkdir()
    for i, p in enumerate(pixels): Image.fromarray(p).save(folder/f"P_{i//patients:05}_{i:04}.png")
    return folder


@pytest.fixture(scope="module")
def features():
    r = np.random.default_rng(0)
    return r.normal(size=(400, 16)), r.normal(size=(300, 16))*1.2+.3


def test_fid_is_that_of_pytorch_fids_command_line(tmp_path):
    "Sixty pictures, weights made here and put where torch keeps downloads; the same number to a thousandth"
    real, fake = write_pngs(tmp_path/"real", textures(30, 1)), write_pngs(tmp_path/"fake", textures(30, 2, exponent=1.6))
    weights = tmp_path/"torch"/"hub"/"checkpoints"/INCEPTION
    weights.parent.mkdir(parents=True)
    random_inception(weights)
    environment = dict(os.environ, TORCH_HOME=str(tmp_path/"torch"))
    done = subprocess.run([sys.executable, "-m", "pytorch_fid", real, fake, "--num-workers", "0", "--device", "cpu"], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-500:]
    theirs = float(re.search(r"FID: +([\d.e+-]+)", done.stdout)[1])
    ours = frechet_distance(*(inception_extractor(weights)(folder_of_pictures(f).pixels) for f in (real, fake)))
    assert theirs > 0 and abs(ours/theirs-1) < 1e-3


def test_weights_with_another_hash_are_refused_as_fid(tmp_path, monkeypatch):
    monkeypatch.setenv("MAMMOGAN_INCEPTION", str(random_inception(tmp_path/"random.pth")))
    with pytest.raises(ValueError, match="is not pt_inception"): inception_file()


def test_precision_recall_density_coverage_against_prdc(features):
    prdc = pytest.importorskip("prdc", reason="prdc comes with the extra [dev]")
    real, fake = features
    for k in (3, 5):
        theirs, ours = prdc.compute_prdc(real, fake, k), manifolds(Sample(real), Sample(fake), k=k, k_density=k)
        for name, f in ours.items(): assert abs(f()-theirs[name]) < 1e-12, name


def test_kid_against_torch_fidelity(features):
    metric = pytest.importorskip("torch_fidelity.metric_kid", reason="torch-fidelity comes with the extra [dev]")
    theirs = metric.kid_features_to_metric(*map(_tensor, features), kid_subsets=1, kid_subset_size=300, kid_degree=3, kid_gamma=None, kid_coef0=1, rng_seed=0, verbose=False)
    chosen = np.random.RandomState(0).choice(400, 300, replace=False)      # their draw: first of the first set
    ours = kernel_distance(Sample(features[0][chosen]), Sample(features[1]))["KID"]()
    assert abs(ours/theirs[metric.KEY_METRIC_KID_MEAN]-1) < 1e-6


def test_kid_over_subsets_against_torch_fidelity(features):
    from mammogan.distances import kid_subsets
    metric = pytest.importorskip("torch_fidelity.metric_kid", reason="torch-fidelity comes with the extra [dev]")
    theirs = metric.kid_features_to_metric(*map(_tensor, features), kid_subsets=200, kid_subset_size=100, kid_degree=3, kid_gamma=None, kid_coef0=1, rng_seed=0, verbose=False)
    mean, sd = kid_subsets(*features, subsets=200, size=100)
    assert abs(mean-theirs[metric.KEY_METRIC_KID_MEAN]) < 4*sd/np.sqrt(100)
    assert .8 < sd/theirs[metric.KEY_METRIC_KID_STD] < 1.25


def test_frechet_against_torch_fidelity(features):
    metric = pytest.importorskip("torch_fidelity.metric_fid", reason="torch-fidelity comes with the extra [dev]")
    theirs = metric.fid_statistics_to_metric(*(metric.fid_features_to_statistics(_tensor(f)) for f in features), verbose=False)
    assert abs(frechet_distance(*features)/theirs[metric.KEY_METRIC_FID]-1) < 1e-6


def test_precision_and_recall_against_torch_fidelity(features):
    metric = pytest.importorskip("torch_fidelity.metric_prc", reason="torch-fidelity comes with the extra [dev]")
    theirs = metric.prc_features_to_metric(*map(_tensor, features[::-1]), prc_neighborhood=3, prc_batch_size=100, verbose=False)      # the set that is judged comes first
    ours = manifolds(Sample(features[0]), Sample(features[1]))
    for name in ("precision", "recall"): assert abs(ours[name]()-theirs[name]) < 1e-6


def _tensor(x):
    import torch
    return torch.from_numpy(x)


@pytest.fixture(scope="module")
def evaluate(tmp_path_factory):
    "The command, run as its script runs it, whether it is installed or not"
    script = tmp_path_factory.mktemp("script")/"mammogan_evaluate.py"
    script.write_text("from mammogan.commands import mammogan_evaluate\nif __name__ == '__main__': mammogan_evaluate()\n")
    return lambda *args: subprocess.run([sys.executable, script, *map(str, args)], capture_output=True, text=True)


def test_the_command_ends_with_one_json_object(tmp_path, evaluate):
    real, fake = write_pngs(tmp_path/"real", textures(60, 3)), tmp_path/"fakes.npy"
    np.save(fake, np.clip(textures(50, 4)+(np.indices((64, 64)).sum(0) % 2)*12., 0, 255).astype(np.uint8))
    (real/"broken.png").write_bytes(b"\x89PNG no more")
    done = evaluate("--real", real, "--fake", fake, "--features", "texture", "--draws", 20, "--repeats", 3, "--out", tmp_path/"out", "--json")
    assert done.returncode == 0, done.stderr[-500:]
    found = json.loads(done.stdout.splitlines()[-1])
    rows = {r["measure"]: r for r in found["table"]}
    assert (found["real"], found["fake"]) == (60, 50)
    assert rows["checkerboard index"]["verdict"] == "worse" and rows["checkerboard index"]["ratio"] > 2
    assert any("1 file was left out, such as broken.png" in n for n in found["notes"])
    assert all(v is None or v == v for r in found["table"] for v in r.values())            # no NaN
    assert {p.name for p in (tmp_path/"out").iterdir()} == {"evaluation.csv", "evaluation.json", "closest-pairs.png"}


def evaluated(capsys, **given):
    "The last line of the same command, called in this process"
    from mammogan.commands import mammogan_evaluate
    capsys.readouterr()
    mammogan_evaluate(**{k: str(v) if isinstance(v, os.PathLike) else v for k, v in dict(dict(features="texture", draws=5, repeats=2, json=True), **given).items()})
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.mark.parametrize("fake, sentence", [(np.zeros((3, 64, 64)), "holds float64; 8-bit grey patches"), (np.full((3, 64, 64), np.nan), "values that are not numbers"),
                                            (np.zeros((3, 32, 32), np.uint8), "bring them to one size first"), (np.zeros((0, 64, 64), np.uint8), "N above 0 is needed"),
                                            (np.array([dict(no="array")]), "cannot be opened as a NumPy array of numbers")])
def test_fakes_that_cannot_be_compared_are_a_sentence(tmp_path, capsys, fake, sentence):
    real = write_pngs(tmp_path/"real", textures(8, 5))
    np.save(tmp_path/"fakes.npy", fake)
    with pytest.raises(SystemExit, match=sentence): evaluated(capsys, real=real, fake=tmp_path/"fakes.npy")


@pytest.mark.parametrize("n", [1, 2, 5])
def test_few_fakes_give_numbers_or_reasons(tmp_path, capsys, n):
    real = write_pngs(tmp_path/"real", textures(20, 6))
    np.save(tmp_path/"fakes.npy", textures(n, 7))
    rows = evaluated(capsys, real=real, fake=tmp_path/"fakes.npy")["table"]
    assert all(r["value"] is not None or r["note"] for r in rows)
    assert all(r["low"] is not None or r["note"] for r in rows if r["value"] is not None)


def test_constant_and_tiny_sets_give_rows_with_reasons():
    from mammogan.evaluation import evaluate
    real, flat, pair = textures(40, 1), np.zeros((12, 64, 64), np.uint8), textures(2, 2)
    few = Pictures(real, np.arange(40)//4, "real")
    one = evaluate(few, pair[:1], repeats=2, draws=5).set_index("measure")
    assert one.value["Fréchet distance"] is None and "at least 2 fake patches; there is 1" in one.note["Fréchet distance"]
    assert one.value["checkerboard index"] > 0
    for x, y in ((few, flat), (Pictures(flat, np.arange(12)), real), (Pictures(flat), flat), (Pictures(pair, ["a", "a"]), real), (Pictures(pair[:1], ["a"]), pair[:1])):
        table = evaluate(x, y, repeats=2, draws=5)
        assert (table.value.notna() | (table.note != "")).all()
        numbers = table.drop(columns=["measure", "features", "patches", "verdict", "note"])
        assert numbers.map(lambda v: v is None or np.isfinite(v)).all().all()


def test_sets_without_patients_are_compared_and_noted(tmp_path, capsys):
    for name, seed in (("real", 8), ("held", 9)): np.save(tmp_path/f"{name}.npy", textures(40, seed))
    np.save(tmp_path/"fakes.npy", np.concatenate([np.load(tmp_path/"real.npy")[:3], textures(30, 10)]))
    found = evaluated(capsys, real=tmp_path/"real.npy", fake=tmp_path/"fakes.npy", held=tmp_path/"held.npy", out=tmp_path/"out")
    assert all(r["value"] is not None for r in found["table"])
    for sentence in ("real.npy: patients unknown", "held.npy: patients unknown", "fakes.npy: 3 patches are some of the real ones, to the last pixel."): assert any(sentence in n for n in found["notes"])
    assert (tmp_path/"out"/"closest-pairs.png").is_file()
