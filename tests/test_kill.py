"""Work that is killed (SIGKILL: no goodbye, no cleaning up) and started again ends with the bytes of work that was not."""
import os, signal, subprocess, sys, time
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest

from mammogan import dataset, dcgan
from mammogan.core import RunStore
from mammogan.dataset import prepare
from mammogan.sources import open_archive
from mammogan.presets import PREPARE

SETTINGS = dict(base=2, nz=8, batch=8, epochs=9)
DIE = """
    import os, signal, sys
    import numpy as np
    def die(): os.kill(os.getpid(), signal.SIGKILL)
"""
BE_ASKED_TO_END = DIE.replace("SIGKILL", "SIGTERM")
SETUP = """
    from mammogan import dcgan, gan_training, training
    from mammogan.core import RunStore
    from mammogan.commands import command
    gan_training.Checkpoint.every = 0          # a checkpoint after every epoch
"""
TRAIN = f"""
    def train(): dcgan.gan_run(RunStore(sys.argv[2]), np.load(sys.argv[1]), dcgan.GANConfig(**{SETTINGS}), show=False)
"""
MOMENTS = {"in the middle of an epoch": """
               def die_in_the_sixth(self):
                   if self.epoch == 5 and self.iter == 1: die()
               training.EpochNumbers.before_batch = die_in_the_sixth""",
           "while a checkpoint is being written": """
               replace, written = os.replace, []
               def die_at_the_fifth(beside, path):
                   written.extend([path]*str(path).endswith("checkpoint.safetensors"))
                   if len(written) == 5: die()
                   replace(beside, path)
               os.replace = die_at_the_fifth"""}


def killed(*parts, args):
    "Run a script that must end by killing itself"
    done = subprocess.run([sys.executable, "-c", "\n".join(map(dedent, parts)), *map(str, args)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr


def stopped(*parts, args):
    "Run a script whose command sends itself SIGTERM and must end by it"
    done = subprocess.run([sys.executable, "-c", "\n".join(map(dedent, parts)), *map(str, args)], capture_output=True, text=True)
    assert done.returncode == 143 and done.stderr.rstrip().endswith("stopped; the same command goes on from here"), done.stderr


def files(folder): return {p.name: p.read_bytes() for p in Path(folder).iterdir()}
def train(patches, store): return dcgan.gan_run(RunStore(store), np.load(patches), dcgan.GANConfig(**SETTINGS), 0, show=False)


@pytest.fixture(scope="module")
def lesions(phantoms, tmp_path_factory):
    "Two dozen lesions on disk, for a GAN to learn from"
    file = tmp_path_factory.mktemp("lesions")/"lesions.npy"
    np.save(file, phantoms.positives[:24].normalised())
    return file


@pytest.fixture(scope="module")
def unbroken(lesions, tmp_path_factory):
    "The folder of an uninterrupted training"
    return train(lesions, tmp_path_factory.mktemp("unbroken"))


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_training_killed(moment, lesions, unbroken, tmp_path):
    killed(DIE, SETUP, MOMENTS[moment], TRAIN, "train()", args=(lesions, tmp_path))
    left, = (tmp_path/"gan").iterdir()
    assert (left/"checkpoint.safetensors").exists() and not (left/"generator.safetensors").exists() and not (left/"metrics.json").exists()
    resumed = train(lesions, tmp_path)
    assert resumed == left
    for name in ("generator.safetensors", "metrics.json", "log.csv", "samples.npy"):
        assert (resumed/name).read_bytes() == (unbroken/name).read_bytes(), name


def test_a_training_that_sigterm_stops_keeps_its_checkpoint_and_goes_on(lesions, unbroken, tmp_path):
    moment = MOMENTS["in the middle of an epoch"]
    stopped(BE_ASKED_TO_END, SETUP, moment, TRAIN, "command(train)()", args=(lesions, tmp_path))
    left, = (tmp_path/"gan").iterdir()
    assert (left/"checkpoint.safetensors").exists() and not (left/"generator.safetensors").exists()
    resumed = train(lesions, tmp_path)
    for name in ("generator.safetensors", "metrics.json", "log.csv"):
        assert (resumed/name).read_bytes() == (unbroken/name).read_bytes(), name


def test_a_preparation_killed_at_the_twentieth_image(phantoms, tmp_path, monkeypatch):
    killed(DIE, """
        from mammogan import dataset
        from mammogan.sources import open_archive
        from mammogan.presets import PREPARE
        work, seen = dataset.image_patches, []
        def image_patches(*args):
            seen.append(1)
            if len(seen) == 20: die()
            return work(*args)
        dataset.image_patches = image_patches
        dataset.prepare(open_archive(preset="smoke"), sys.argv[1], PREPARE["smoke"], chunk=8)""", args=[tmp_path/"set"])
    assert not (tmp_path/"set").exists()
    done_now, work = [], dataset.image_patches
    monkeypatch.setattr(dataset, "image_patches", lambda *args: done_now.append(args[1]) or work(*args))
    ps = prepare(open_archive(preset="smoke"), tmp_path/"set", PREPARE["smoke"], chunk=8)
    assert ps.info == phantoms.info
    assert len(done_now) == 48 - 16                       # two chunks of eight were finished, the third was not
    assert [p.name for p in tmp_path.glob("[!.]*")] == ["set"]


def test_a_preparation_killed_while_the_set_is_put_together(phantoms, tmp_path):
    killed(DIE, """
        from mammogan import dataset
        from mammogan.sources import open_archive
        from mammogan.presets import PREPARE
        import pandas as pd
        write, seen = pd.DataFrame.to_parquet, []
        def die_at_the_second(self, *args, **kwargs):
            seen.append(1)
            if len(seen) == 2: die()
            write(self, *args, **kwargs)
        pd.DataFrame.to_parquet = die_at_the_second
        dataset.prepare(open_archive(preset="smoke"), sys.argv[1], PREPARE["smoke"])""", args=[tmp_path/"set"])
    assert not (tmp_path/"set").exists()
    assert prepare(open_archive(preset="smoke"), tmp_path/"set", PREPARE["smoke"]).info == phantoms.info


def test_the_command_with_two_workers_killed_when_its_first_chunk_is_done(phantoms, tmp_path):
    file = Path(sys.executable).with_name("mammogan_prepare")
    if not file.exists(): pytest.skip("mammogan_prepare is not installed with this Python; pip install -e . writes it")
    def command(out): return [file, "--preset", "smoke", "--workers", "2", "--size", "512", "--out", tmp_path/out]
    running = subprocess.Popen(command("killed"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    while not list(tmp_path.glob(".killed.*.part/*.json")) and running.poll() is None: time.sleep(.005)
    os.killpg(running.pid, signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL and not (tmp_path/"killed").exists()
    for out in ("killed", "unbroken"): subprocess.run(command(out), check=True, capture_output=True)
    assert files(tmp_path/"killed") == files(tmp_path/"unbroken") != {}
    assert not list(tmp_path.glob(".*.part"))


def test_phantoms_killed_while_they_are_written_are_not_taken_for_whole(phantom_tree, tmp_path, monkeypatch):
    monkeypatch.setenv("MAMMOGAN_HOME", str(tmp_path))
    killed(DIE, """
        from mammogan import phantom
        work, seen = phantom.write_client, []
        def write_client(*args, **kwargs):
            seen.append(1)
            if len(seen) == 3: die()
            work(*args, **kwargs)
        phantom.write_client = write_client
        phantom.phantom_archive_path("smoke")""", args=[])
    assert not list((tmp_path/"phantoms").glob("smoke*")) and list((tmp_path/"phantoms").glob(".smoke*"))
