"""The DCGAN: what it is to the letter, what it was stays what it was, and a training that is killed or breaks down ends well."""
import hashlib, os, signal, subprocess, sys
from dataclasses import asdict, replace
from textwrap import dedent

import numpy as np
import pytest
import torch
from torch import nn

from mammogan import dcgan
from mammogan.core import fingerprint, RunStore
from mammogan.dcgan import (
    adversarial_step, Discriminator, epochs_of, GANRun, Generator, start_weights,
    train_dcgan)
from mammogan.presets import GANConfig, GANS
from mammogan.training import read_log, torch_rng
from mammogan.wavelets import fit_whitening

PLAIN = GANConfig(base=2, nz=8, batch=8, steps=12, precision="float32")
IDEAS = dict(penalty=1., norm="none", augment=("translation", "brightness"), ema=.9, classes=("mass", "calcification"), kernel=4, wavelets=True, batch_spread=True, modulation=True, grain=True, flips="vertical")
EACH = {**{k: {k: v} for k, v in IDEAS.items()}, "all": dict(IDEAS, penalty_every=2)}


@pytest.fixture(scope="module")
def patches(): return torch.randint(256, (24, 128, 128), generator=torch_rng(0, "patches")).byte().numpy()
KINDS = np.stack([np.arange(24) % 3 != 1, np.arange(24) % 3 != 0], 1)


@pytest.mark.parametrize("kernel, count", [(4, 8_903_880), (6, 8_904_780)])
def test_parameters_of_both_first_kernels(kernel, count):
    assert sum(p.numel() for p in Discriminator(first_kernel=kernel).parameters()) == count
    assert Discriminator([2]*5, kernel)(torch.zeros(1, 1, 128, 128)).shape == (1,)


@pytest.mark.parametrize("beta2", [.99, .999])
def test_both_second_betas_reach_adam(beta2, patches, tmp_path):
    learn = dcgan.gan_learner(patches, replace(PLAIN, beta2=beta2), 0, tmp_path, show=False)
    assert learn.opt_g.opt.defaults["betas"] == learn.opt_d.opt.defaults["betas"] == (0., beta2)


def test_paper_is_the_protocol():
    c = GANS["paper"]
    assert (c.base, c.nz, c.batch, c.epochs, c.steps) == (45, 200, 64, 1000, 0) and epochs_of(c, 4536) == 1000
    assert (c.lr_g, c.lr_d, c.beta1, c.beta2, c.decay, c.decay_g, c.decay_d, c.smooth, c.flips) == (4e-4, 2e-4, 0., .99, .99, 10, 8, (.7, 1.), True)


def test_each_idea_gives_a_run_of_its_own():
    c = replace(GANS["paper"], precision="float32")
    runs = {GANRun("0", 1, x).id for x in (c, *(replace(c, **v) for v in EACH.values()))}
    assert len(runs) == len(EACH)+1


@pytest.mark.parametrize("name", EACH)
def test_each_idea_changes_only_what_it_may(name):
    "Both networks learn, each by its own step; nothing gets a gradient that it should not keep"
    c = replace(PLAIN, **EACH[name])
    pixels = torch.randint(256, (24, 128, 128), generator=torch_rng(0, "patches")).byte().numpy()
    model = dcgan.networks(c, 0, KINDS if c.classes else None, fit_whitening(pixels) if c.wavelets else None)
    before = {n: [p.clone() for p in part.parameters()] for n, part in model.named_children()}
    real, kinds = torch.rand(8, 1, 128, 128, generator=torch_rng(1))*2-1, torch.tensor(KINDS[:8]).float() if c.classes else None
    change = (lambda x: dcgan.augmented(x, c.augment, rng)) if c.augment else None
    for frozen in "GD":
        rng = torch_rng(0)
        opts = {n: torch.optim.Adam(getattr(model, n).parameters(), 0. if n == frozen else 1e-3) for n in "GD"}
        start = {n: [p.clone() for p in getattr(model, n).parameters()] for n in "GD"}
        losses = adversarial_step(model.G, model.D, opts["G"], opts["D"], real, torch.randn(8, model.G.nz, generator=torch_rng(2)), .9, "float32", c.penalty, change, kinds)
        moved = {n: any((p != q).any() for p, q in zip(getattr(model, n).parameters(), start[n])) for n in "GD"}
        assert moved == {"G": frozen != "G", "D": frozen != "D"} and all(torch.isfinite(v) for v in losses.values())
        assert all(p.requires_grad for n in "GD" for p in getattr(model, n).parameters())
    if c.ema: assert all((p == q).all() for p, q in zip(model.E.parameters(), before["E"]))


def test_r1_is_what_it_says():
    "A penalty so large that D learns nothing else makes D flat"
    g, d = start_weights(Generator(2, 5), 0, "G"), start_weights(Discriminator([2]*5, batch_norm=False), 0, "D")
    og, od = torch.optim.Adam(g.parameters(), 0.), torch.optim.Adam(d.parameters(), 1e-2)
    real = torch.rand(8, 1, 128, 128, generator=torch_rng(0))*2-1
    def slope():
        x = real.clone().requires_grad_(); return dcgan.squared_slope(d(x), x).item()
    before = slope()
    for i in range(20): adversarial_step(g, d, og, od, real, torch.randn(8, 5, generator=torch_rng(i)), .9, penalty=1e4)
    assert slope() < before/10


def test_the_penalty_is_due_every_so_many_steps_and_counts_as_many_times(patches, tmp_path, monkeypatch):
    given, step = [], dcgan.adversarial_step
    def noted(*args): given.append(args[8]); return step(*args)
    monkeypatch.setattr(dcgan, "adversarial_step", noted)
    train_dcgan(patches, replace(PLAIN, steps=6, norm="none", penalty=.5, penalty_every=4), 0, tmp_path, show=False)
    assert given == [2., 0., 0., 0., 2., 0.]


def test_r1_of_the_best_recipe_is_measured_on_whitened_bands(patches):
    d = start_weights(Discriminator([2]*4, batch_norm=False, kernel=4, wavelets=True, batch_spread=True), 0, "D")
    d.whitening = fit_whitening(patches)
    view = d.view(torch.from_numpy(patches).unsqueeze(1)/127.5-1)
    assert view.shape == (24, 4, 64, 64) and torch.allclose(view.square().mean((0, 2, 3)), torch.ones(4), atol=1e-3)


KILL = """
    import os, signal, sys
    import numpy as np
    from mammogan import dcgan
    from mammogan.core import RunStore
    dcgan.Checkpoint.__init__.__defaults__ = (0,)
    def die(self):
        if self.epoch == 2 and self.iter == 1: os.kill(os.getpid(), signal.SIGKILL)
    dcgan.LossMeans.before_batch = die
    config = dcgan.GANConfig(**eval(sys.argv[3]))
    dcgan.train_dcgan(np.load(sys.argv[1]), config, 0, sys.argv[2], show=False, kinds=np.stack([np.arange(24) % 3 != 1, np.arange(24) % 3 != 0], 1))
"""


@pytest.mark.parametrize("name", ["ema", "all"])
def test_killed_with_an_average_and_with_all_ideas(name, patches, tmp_path):
    np.save(tmp_path/"x.npy", patches)
    settings = {k: v for k, v in asdict(replace(PLAIN, **EACH[name])).items()}
    kinds = KINDS if EACH[name].get("classes") else None
    code = KILL if kinds is not None else KILL.replace("kinds=np.stack([np.arange(24) % 3 != 1, np.arange(24) % 3 != 0], 1)", "kinds=None")
    done = subprocess.run([sys.executable, "-c", dedent(code), str(tmp_path/"x.npy"), str(tmp_path/"cut"), repr(settings)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (tmp_path/"cut"/"checkpoint.safetensors").exists()
    for place in ("cut", "whole"): train_dcgan(patches, GANConfig(**settings), 0, tmp_path/place, show=False, kinds=kinds)
    for file in ("generator.safetensors", "log.csv", "samples.npy"): assert (tmp_path/"cut"/file).read_bytes() == (tmp_path/"whole"/file).read_bytes(), file


class Overflow(dcgan.Callback):
    "Makes a weight infinite in the third epoch, the first `times` times"
    def __init__(self, seen, times): self.seen, self.times = seen, times
    def after_batch(self):
        if self.epoch == 2 and self.iter == 1 and len(self.seen) < self.times: self.seen.append(1); next(self.model.D.parameters()).data[0] = float("nan")


def test_a_breakdown_goes_back_and_is_told_and_does_not_depend_on_when_the_checkpoint_was(patches, tmp_path, capsys, monkeypatch):
    for every in (0, 1e9):
        monkeypatch.setattr(dcgan.Checkpoint.__init__, "__defaults__", (every,))
        seen = []
        train_dcgan(patches, PLAIN, 0, tmp_path/str(every), show=False, callbacks=lambda: [Overflow(seen, 2)])
        assert len(seen) == 2 and capsys.readouterr().err.count("goes back to its last checkpoint") == 2
    for file in ("generator.safetensors", "log.csv"): assert (tmp_path/"0"/file).read_bytes() == (tmp_path/"1000000000.0"/file).read_bytes(), file
    log = read_log(tmp_path/"0"/"log.csv")
    assert [r["recoveries"] for r in log] == [0, 0, 2, 2] and log[2]["lr_g"] == 1e-4
    with pytest.raises(ArithmeticError, match="broke down 4 times, last in epoch 2.*Lower lr_g"): train_dcgan(patches, PLAIN, 0, tmp_path/"hopeless", show=False, callbacks=lambda: [Overflow([], 9)])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_both_recipes_train_on_a_gpu():
    from mammogan.gan_benchmarks import describe_recipe_speed, recipe_times
    times = recipe_times(45, 64, 24, 2, "bf16")
    print(describe_recipe_speed(times, 24))
    assert min(*times.a, *times.b) > 0
