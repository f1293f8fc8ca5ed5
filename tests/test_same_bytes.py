"""The same seed gives the same bytes, with any number of workers."""
import hashlib

import joblib
import pytest

from mammogan.dataset import prepare
from mammogan.sources import open_archive, open_patches
from mammogan.presets import PREPARE


def name_in(folder, p): return "/".join(["set" if q.startswith("phantom-") else q for q in p.relative_to(folder).parts])      # the name of a prepared set's folder follows the times of its files
def hashes(folder): return {name_in(folder, p): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("[!.]*")) if p.is_file()}


def test_phantoms_and_patches_are_the_same_files_with_two_workers_in_another_home(phantoms, places, tmp_path, monkeypatch):
    monkeypatch.setenv("MAMMOGAN_HOME", str(tmp_path))
    assert open_patches(preset="smoke", workers=2).info == phantoms.info
    one, two = hashes(places[0]), hashes(tmp_path)
    assert len(two) > 100 and two == {name: one[name] for name in two}


def test_another_seed_gives_other_phantoms(phantoms, places, tmp_path, monkeypatch):
    monkeypatch.setenv("MAMMOGAN_HOME", str(tmp_path))
    assert open_patches(preset="smoke", seed=1).info["fingerprint"] != phantoms.info["fingerprint"]
    assert not set(hashes(tmp_path).values()) & {h for n, h in hashes(places[0]).items() if n.endswith((".dcm", ".npy"))}


def test_a_dask_cluster_prepares_the_same_files(phantoms, tmp_path):
    distributed = pytest.importorskip("distributed")
    prepare(open_archive(preset="smoke"), tmp_path/"alone", PREPARE["smoke"], chunk=8)
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, local_directory=tmp_path/"dask") as cluster, distributed.Client(cluster) as client:
        with joblib.parallel_config(backend="dask"): prepare(open_archive(preset="smoke"), tmp_path/"cluster", PREPARE["smoke"], workers=2, chunk=8)
        done = client.run_on_scheduler(lambda dask_scheduler: {str(t[0]) for t in dask_scheduler.transition_log if t[2] == "memory"})
        assert sum("prepare_chunk" in name for name in done) == 12, done     # six chunks, each shared by two workers
    assert hashes(tmp_path/"alone") == hashes(tmp_path/"cluster")
