"""The DCGAN: the paper's to the letter; every option trains, and a training that is interrupted or breaks down ends well."""
from dataclasses import replace

import numpy as np
import pytest
import torch
from fastai.optimizer import Adam as FastaiAdam

from mammogan import dcgan
from mammogan.dcgan import adversarial_step, Discriminator, gan_learner, Generator, networks, Objective, sample, train_dcgan
from mammogan.gan_training import Checkpoint, epochs_of, GANRun
from mammogan.networks import start_weights
from mammogan.objectives import augmented, squared_slope
from mammogan.presets import GANConfig, GANS, RECIPES
from mammogan.training import Callback, read_log, torch_adam, torch_rng
from mammogan.wavelets import fit_whitening

PLAIN = GANConfig(base=2, nz=8, batch=8, steps=12, precision="float32")
IDEAS = dict(penalty=1., norm="none", augment=("translation", "brightness"), ema=.9, classes=("mass", "calcification"), kernel=4,
             wavelets=True, batch_spread=True, modulation=True, grain=True, flips="vertical")
EACH = {**{k: {k: v} for k, v in IDEAS.items()}, "all": dict(IDEAS, penalty_every=2)}
KINDS = np.stack([np.arange(24) % 3 != 1, np.arange(24) % 3 != 0], 1)


@pytest.fixture(scope="module")
def patches(): return torch.randint(256, (24, 128, 128), generator=torch_rng(0, "patches")).byte().numpy()


def real(n=8): return torch.rand(n, 1, 128, 128, generator=torch_rng(1))*2-1
def pair(**options): return start_weights(Generator(2, 5), 0, "G"), start_weights(Discriminator([2]*5, **options), 0, "D")
def train(patches, folder, config=PLAIN, *callbacks): return train_dcgan(patches, config, 0, folder, KINDS if config.classes else None, lambda: callbacks, show=False)


@pytest.mark.parametrize("kernel, count", [(4, 8_903_880), (6, 8_904_780)])
def test_parameters_of_both_first_kernels(kernel, count):
    assert sum(p.numel() for p in Discriminator(first_kernel=kernel).parameters()) == count
    assert Discriminator([2]*5, kernel)(torch.zeros(1, 1, 128, 128)).shape == (1,)


def test_paper_is_the_protocol():
    c = GANS["paper"]
    assert (c.base, c.nz, c.batch, c.epochs, c.steps) == (45, 200, 64, 1000, 0) and epochs_of(c, 4536) == 1000
    assert (c.lr_g, c.lr_d, c.beta1, c.beta2, c.decay, c.decay_g, c.decay_d, c.smooth, c.flips) == (4e-4, 2e-4, 0., .99, .99, 10, 8, (.7, 1.), True)


@pytest.mark.parametrize("beta2", [.99, .999])
def test_adam_has_the_constants_of_the_settings(beta2, patches, tmp_path):
    learn = gan_learner(patches, replace(PLAIN, beta2=beta2), 0, tmp_path, show=False)
    for opt, lr in ((learn.opt_g.opt, 4e-4), (learn.opt_d.opt, 2e-4)):
        assert type(opt) is torch.optim.Adam
        assert [opt.defaults[k] for k in ("lr", "betas", "eps", "weight_decay")] == [lr, (0., beta2), 1e-8, 0]


def test_our_adam_leaves_a_network_without_gradient_alone():
    def drift(make):
        g, _ = pair()
        opt = make(list(g.parameters()))
        g(torch.randn(4, 5, generator=torch_rng(0, "z"))).mean().backward()
        opt.step(); opt.zero_grad()
        before = [p.clone() for p in g.parameters()]
        opt.step()
        return max((p-q).abs().max().item() for p, q in zip(g.parameters(), before))
    assert drift(lambda p: torch_adam(betas=(.5, .99))([p], lr=1e-3)) == 0 < drift(lambda p: FastaiAdam(p, lr=1e-3, mom=.5))


@pytest.mark.parametrize("penalty", [0., 1.])
def test_the_order_of_the_steps(penalty, monkeypatch):
    order, (g, d) = [], pair(batch_norm=False)
    opts = [torch.optim.Adam(net.parameters(), 1e-3) for net in (g, d)]
    def noted(name, part, method):
        call = getattr(part, method)
        monkeypatch.setattr(part, method, lambda *args, **kwargs: order.append(name) or call(*args, **kwargs))
    for noting in (("G", g, "forward"), ("D", d, "forward"), ("G learns", opts[0], "step"), ("D learns", opts[1], "step")): noted(*noting)
    adversarial_step(g, d, *opts, (real(2),), torch.zeros(2, 5), Objective(.9, penalty))
    assert order == ["G", "D", "D", "D learns", "D", "G learns"]


@pytest.mark.parametrize("name", EACH)
def test_each_idea_changes_only_what_it_may(name, patches):
    "Each network learns by its own step only, in a run of its own"
    c = replace(PLAIN, **EACH[name])
    assert GANRun("0", 1, c).id != GANRun("0", 1, PLAIN).id
    model = networks(c, 0, KINDS if c.classes else None, fit_whitening(patches) if c.wavelets else None)
    batch = (real(), torch.tensor(KINDS[:8]).float())[:1+bool(c.classes)]
    objective = Objective(.9, c.penalty, lambda x: augmented(x, c.augment, torch_rng(0)))
    for frozen in "GD":
        opts = [torch.optim.Adam(getattr(model, n).parameters(), 0. if n == frozen else 1e-3) for n in "GD"]
        start = {n: [p.clone() for p in getattr(model, n).parameters()] for n in "GD"}
        losses = adversarial_step(model.G, model.D, *opts, batch, torch.randn(8, model.G.nz, generator=torch_rng(2)), objective)
        moved = {n: any((p != q).any() for p, q in zip(getattr(model, n).parameters(), start[n])) for n in "GD"}
        assert moved == {"G": frozen != "G", "D": frozen != "D"} and all(torch.isfinite(v) for v in losses.values())
        assert all(p.requires_grad for n in "GD" for p in getattr(model, n).parameters())


def test_a_large_penalty_makes_d_flat():
    g, d = pair(batch_norm=False)
    opts = [torch.optim.Adam(g.parameters(), 0.), torch.optim.Adam(d.parameters(), 1e-2)]
    def slope():
        x = real().requires_grad_()
        return squared_slope(d(x), x).item()
    before = slope()
    for i in range(20): adversarial_step(g, d, *opts, (real(),), torch.randn(8, 5, generator=torch_rng(i)), Objective(.9, 1e4))
    assert slope() < before/10


def test_the_label_is_drawn_once_an_epoch_and_the_penalty_is_due_every_so_many_steps(patches, tmp_path, monkeypatch):
    given, step = [], dcgan.adversarial_step
    def noted(G, D, *args):
        assert G.training and D.training
        given.append(args[-1])
        return step(G, D, *args)
    monkeypatch.setattr(dcgan, "adversarial_step", noted)
    train(patches, tmp_path, replace(PLAIN, steps=6, norm="none", penalty=.5, penalty_every=4))
    assert [o.penalty for o in given] == [2., 0., 0., 0., 2., 0.]
    labels = [o.real_label for o in given]
    assert len({*labels}) == 2 and len({*labels[:3]}) == len({*labels[3:]}) == 1


def test_the_best_recipe_judges_whitened_bands(patches):
    d = Discriminator([2]*4, kernel=4, batch_norm=False, wavelets=True, batch_spread=True)
    d.whitening = fit_whitening(patches)
    view = d.view(torch.from_numpy(patches).unsqueeze(1)/127.5-1)
    assert view.shape == (24, 4, 64, 64) and d(view).shape == (24,)
    assert torch.allclose(view.square().mean((0, 2, 3)), torch.ones(4), atol=1e-3)


@pytest.mark.parametrize("pixels, kinds, sentence", [
    (np.zeros((1, 128, 128), np.uint8), None, "is too few to train a GAN"), (np.zeros((4, 64, 128), np.uint8), None, "uint8 is needed"),
    (np.zeros((4, 128, 128), np.uint8), KINDS, "needs their 0 or 1 for each of 4 patches")])
def test_what_cannot_be_learned_is_refused(pixels, kinds, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence): train_dcgan(pixels, replace(PLAIN, classes=("mass", "calcification")) if kinds is not None else PLAIN, 0, tmp_path, kinds)


class Interrupt(Callback):
    "Ends a training in the third epoch, after a checkpoint"
    def before_batch(self):
        if self.epoch == 2 and self.iter == 1: raise KeyboardInterrupt


@pytest.mark.parametrize("name", ["ema", "all"])
def test_a_training_interrupted_with_an_average_and_with_all_ideas_ends_with_the_same_bytes(name, patches, tmp_path, monkeypatch):
    monkeypatch.setattr(Checkpoint, "every", 0)
    config = replace(PLAIN, **EACH[name])
    with pytest.raises(KeyboardInterrupt): train(patches, tmp_path/"cut", config, Interrupt())
    assert (tmp_path/"cut"/"checkpoint.safetensors").exists()
    G = [train(patches, tmp_path/place, config) for place in ("cut", "whole")][0]
    for file in ("generator.safetensors", "log.csv", "samples.npy"): assert (tmp_path/"cut"/file).read_bytes() == (tmp_path/"whole"/file).read_bytes(), file
    if name == "all":
        assert G.kinds == {"mass": .333333, "calcification": .333333, "mass calcification": .333333}
        assert (sample(G, 2, kind="mass") != sample(G, 2, kind="calcification")).any()


def test_another_seed_gives_another_generator(patches, tmp_path):
    one, two = (train_dcgan(patches, PLAIN, s, tmp_path/str(s), show=False) for s in (0, 1))
    assert (sample(one, 4) != sample(two, 4)).any()
    assert [r["epoch"] for r in read_log(tmp_path/"0"/"log.csv")] == [0, 1, 2, 3] and np.load(tmp_path/"0"/"samples.npy").shape == (4, 8, 128, 128)


class Overflow(Callback):
    "Makes a weight of D not a number in the third epoch, `times` times"
    def __init__(self, times): self.left = times
    def after_batch(self):
        if self.epoch == 2 and self.iter == 1 and self.left: self.left -= 1; next(self.model.D.parameters()).data[0] = float("nan")


def test_a_breakdown_goes_back_and_does_not_depend_on_when_the_checkpoint_was(patches, tmp_path, capsys, monkeypatch):
    for every in (0, 10**9):
        monkeypatch.setattr(Checkpoint, "every", every)
        train(patches, tmp_path/str(every), PLAIN, Overflow(2))
        assert capsys.readouterr().err.count("goes back to its last checkpoint") == 2
    for file in ("generator.safetensors", "log.csv"): assert (tmp_path/"0"/file).read_bytes() == (tmp_path/"1000000000"/file).read_bytes(), file
    log = read_log(tmp_path/"0"/"log.csv")
    assert [r["recoveries"] for r in log] == [0, 0, 2, 2] and log[2]["lr_g"] == 1e-4
    with pytest.raises(ArithmeticError, match="broke down 4 times, last in epoch 2.*Lower lr_g"): train(patches, tmp_path/"hopeless", PLAIN, Overflow(9))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("recipe", RECIPES)
def test_both_recipes_train_on_a_gpu(recipe, patches, tmp_path):
    config = replace(RECIPES[recipe]["paper"], batch=8, epochs=2, precision="bf16")
    assert len(sample(train(patches, tmp_path, config), 4)) == 4
