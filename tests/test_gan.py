"""The DCGAN: the paper's to the letter; every option trains; an interrupted or broken training ends well."""
from dataclasses import replace

import numpy as np
import pytest
import torch
from fastai.optimizer import Adam as FastaiAdam

from mammogan import dcgan
from mammogan.dcgan import adversarial_step, Discriminator, gan_learner, networks, Objective, sample, train_dcgan
from mammogan.gan_training import Checkpoint, epochs_of, GANRun
from mammogan.objectives import augmented, squared_slope
from mammogan.presets import GANConfig, GANS, RECIPES
from mammogan.training import Callback, read_log, torch_adam, torch_rng
from mammogan.wavelets import fit_whitening

PLAIN = GANConfig(base=2, nz=8, batch=8, steps=12, precision="float32")
CLASSES = ("mass", "calcification")
IDEAS = dict(penalty=1., norm="none", augment=("translation", "brightness"), ema=.9, classes=CLASSES, kernel=4,
             wavelets=True, batch_spread=True, modulation=True, grain=True, flips="vertical")
EACH = {**{k: {k: v} for k, v in IDEAS.items()}, "all": dict(IDEAS, penalty_every=2)}
KINDS = np.stack([np.arange(24) % 3 != 1, np.arange(24) % 3 != 0], 1)
PATCHES = torch.randint(256, (24, 128, 128), generator=torch_rng(0)).byte().numpy()
REAL = torch.rand(8, 1, 128, 128, generator=torch_rng(1))*2-1


def weights(net): return torch.cat([p.detach().flatten() for p in net.parameters()])


def train(folder, config=PLAIN, callback=None, seed=0):
    return train_dcgan(PATCHES, config, seed, folder, KINDS, lambda: [callback]*bool(callback), show=False)


def step(model, batch=(REAL,), objective=Objective(.9), rates=(1e-3, 1e-3), n=1):
    opts = [torch.optim.Adam(net.parameters(), r) for net, r in zip((model.G, model.D), rates)]
    z = torch.randn(8, model.G.nz, generator=torch_rng(2))
    for _ in range(n): losses = adversarial_step(model.G, model.D, *opts, batch, z, objective)
    return losses


def contents(folder): return {n: (folder/n).read_bytes() for n in ("generator.safetensors", "log.csv", "samples.npy")}


def test_paper_is_the_protocol():
    counts = [len(weights(Discriminator(first_kernel=k))) for k in (4, 6)]
    c = GANS["paper"]
    assert counts == [8_903_880, 8_904_780]
    assert (c.base, c.nz, c.batch, c.epochs, epochs_of(c, 4536)) == (45, 200, 64, 1000, 1000)
    assert (c.lr_g, c.lr_d, c.beta1, c.beta2, c.decay, c.decay_g, c.decay_d) == (4e-4, 2e-4, 0., .99, .99, 10, 8)
    assert (c.smooth, c.flips) == ((.7, 1.), True)


def test_adam_has_the_constants_of_the_settings(tmp_path):
    learn = gan_learner(PATCHES, replace(PLAIN, beta2=.999), 0, tmp_path, show=False)
    for opt, lr in ((learn.opt_g.opt, 4e-4), (learn.opt_d.opt, 2e-4)):
        assert type(opt) is torch.optim.Adam
        assert [opt.defaults[k] for k in ("lr", "betas", "eps", "weight_decay")] == [lr, (0., .999), 1e-8, 0]


def test_our_adam_leaves_a_network_without_gradient_alone():
    def moves(make):
        p = torch.nn.Parameter(torch.ones(3))
        opt = make([p], lr=1e-3)
        p.sum().backward()
        opt.step(); opt.zero_grad()
        before = p.detach().clone()
        opt.step()
        return bool((p != before).any())
    assert moves(FastaiAdam) and not moves(torch_adam())


@pytest.mark.parametrize("name", EACH)
def test_each_idea_is_a_run_of_its_own_and_each_network_learns_by_its_own_step(name):
    c = replace(PLAIN, **EACH[name])
    assert GANRun("0", 1, c).id != GANRun("0", 1, PLAIN).id
    model = networks(c, 0, KINDS, fit_whitening(PATCHES) if c.wavelets else None)
    batch = (REAL, torch.tensor(KINDS[:8]).float())[:1+bool(c.classes)]
    for rates in ((0., 1e-3), (1e-3, 0.)):
        before = [weights(net) for net in (model.G, model.D)]
        losses = step(model, batch, Objective(.9, c.penalty, lambda x: augmented(x, c.augment, torch_rng(0))), rates)
        moved = [bool((weights(net) != b).any()) for net, b in zip((model.G, model.D), before)]
        assert moved == [r > 0 for r in rates] and all(torch.isfinite(v) for v in losses.values())
        assert all(p.requires_grad for p in [*model.G.parameters(), *model.D.parameters()])


def test_a_large_penalty_makes_d_flat():
    model, x = networks(replace(PLAIN, norm="none"), 0), REAL.clone().requires_grad_()
    before = squared_slope(model.D(x), x)
    step(model, objective=Objective(.9, 1e4), rates=(0., 1e-2), n=20)
    assert squared_slope(model.D(x), x) < before/10


def test_the_label_is_drawn_once_an_epoch_and_the_penalty_is_due_every_so_many_steps(tmp_path, monkeypatch):
    given = []
    def noted(G, D, *args):
        assert G.training and D.training
        given.append(args[-1])
        return adversarial_step(G, D, *args)
    monkeypatch.setattr(dcgan, "adversarial_step", noted)
    train(tmp_path, replace(PLAIN, steps=6, norm="none", penalty=.5, penalty_every=4))
    assert [o.penalty for o in given] == [2., 0., 0., 0., 2., 0.]
    labels = [o.real_label for o in given]
    assert labels == [labels[0]]*3 + [labels[3]]*3 and labels[0] != labels[3]


@pytest.mark.parametrize("shape, sentence", [((1, 128, 128), "is too few to train a GAN"), ((4, 64, 128), "uint8 is needed"),
                                             ((4, 128, 128), "needs their 0 or 1 for each of 4 patches")])
def test_what_cannot_be_learned_is_refused(shape, sentence, tmp_path):
    config = replace(PLAIN, classes=CLASSES)
    with pytest.raises(ValueError, match=sentence): train_dcgan(np.zeros(shape, np.uint8), config, 0, tmp_path, KINDS)


class Accident(Callback):
    "Calls a function in the third epoch, several times"
    def __init__(self, what, times=1): self.what, self.left = what, times
    def after_batch(self):
        if self.epoch != 2 or self.iter != 1 or not self.left: return
        self.left -= 1
        self.what(self.model)


def interrupt(model): raise KeyboardInterrupt
def overflow(model): next(model.D.parameters()).data[0] = float("nan")


def test_an_interrupted_training_ends_with_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(Checkpoint, "every", 0)
    config, cut = replace(PLAIN, **EACH["all"]), tmp_path/"cut"
    with pytest.raises(KeyboardInterrupt): train(cut, config, Accident(interrupt))
    assert (cut/"checkpoint.safetensors").exists()
    G, _ = train(cut, config), train(tmp_path/"whole", config)
    assert contents(cut) == contents(tmp_path/"whole")
    assert np.load(cut/"samples.npy").shape == (4, 8, 128, 128)
    assert G.kinds == {"mass": .333333, "calcification": .333333, "mass calcification": .333333}
    assert (sample(G, 2, kind="mass") != sample(G, 2, kind="calcification")).any()


def test_another_seed_gives_another_generator(tmp_path):
    one, two = (train(tmp_path/str(s), seed=s) for s in (0, 1))
    assert (sample(one, 4) != sample(two, 4)).any()


def test_a_breakdown_goes_back_and_does_not_depend_on_when_the_checkpoint_was(tmp_path, capsys, monkeypatch):
    for place, every in (("often", 0), ("never", 10**9)):
        monkeypatch.setattr(Checkpoint, "every", every)
        train(tmp_path/place, callback=Accident(overflow, 2))
        assert capsys.readouterr().err.count("goes back to its last checkpoint") == 2
    assert contents(tmp_path/"often") == contents(tmp_path/"never")
    log = read_log(tmp_path/"often"/"log.csv")
    assert [(r["epoch"], r["recoveries"]) for r in log] == [(0, 0), (1, 0), (2, 2), (3, 2)] and log[2]["lr_g"] == 1e-4
    with pytest.raises(ArithmeticError, match="broke down 4 times, last in epoch 2.*Lower lr_g"):
        train(tmp_path/"hopeless", callback=Accident(overflow, 9))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("recipe", RECIPES)
def test_both_recipes_train_on_a_gpu(recipe, tmp_path):
    config = replace(RECIPES[recipe]["paper"], batch=8, epochs=2, precision="bf16")
    assert len(sample(train(tmp_path, config), 4)) == 4
