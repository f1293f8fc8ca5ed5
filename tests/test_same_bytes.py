"""The same seed gives the same bytes, whoever does the work."""
import hashlib

from mammogan.sources import open_patches


def name_in(folder, p): return "/".join(["set" if q.startswith("phantom-") else q for q in p.relative_to(folder).parts])      # a prepared set's folder is named by its files' times, too
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
