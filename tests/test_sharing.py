"""Sharing a generator: its folder, its command, its DICOM and its package, in separate processes."""
import json, re, shutil, subprocess, sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from PIL import Image
from pydicom.datadict import tag_for_keyword

from mammogan.core import RunStore
from mammogan.dcgan import gan_run, Generator, load_generator, sample
from mammogan.networks import start_weights
from mammogan.presets import GANConfig
from mammogan.commands import mammogan_generate
from mammogan import sharing
from mammogan.conditions import condition_classes
from mammogan.presets import RECIPES
from mammogan.sharing import (
    card_numbers, give_away, load_published, medigan_package, open_generator, write_patches)
from mammogan.training import load_tensors, save_tensors

# Secondary Capture Image Storage, PS3.3 A.8.1: required attributes of its mandatory modules (1: with a value, 2: possibly empty)
REQUIRED = {"Patient": {2: "PatientName PatientID PatientBirthDate PatientSex"},
            "General Study": {1: "StudyInstanceUID", 2: "StudyDate StudyTime ReferringPhysicianName StudyID AccessionNumber"},
            "General Series": {1: "Modality SeriesInstanceUID", 2: "SeriesNumber"},
            "SC Equipment": {1: "ConversionType"},
            "General Image": {2: "InstanceNumber PatientOrientation"},
            "Image Pixel": {1: "SamplesPerPixel PhotometricInterpretation Rows Columns BitsAllocated BitsStored HighBit PixelRepresentation PixelData"},
            "SOP Common": {1: "SOPClassUID SOPInstanceUID"}}


@pytest.fixture(scope="module")
def trained(phantoms, tmp_path_factory):
    "The folder of a small GAN's training"
    lesions = phantoms.positives
    return gan_run(RunStore(tmp_path_factory.mktemp("runs")), lesions.normalised(), GANConfig(base=2, nz=8, batch=16, steps=6), 0, show=False), lesions


@pytest.fixture(scope="module")
def given(trained, tmp_path_factory):
    folder, lesions = trained
    table = card_numbers(load_generator(folder), lesions.normalised(), lesions.rows.patient, repeats=2)
    return give_away(folder, tmp_path_factory.mktemp("given")/"small-phantom-lesions", lesions, table, licence="apache-2.0")


def command(*args):
    file = Path(sys.executable).with_name("mammogan_generate")
    if not file.exists(): pytest.skip("mammogan_generate is not installed next to this Python: pip install -e . writes it")
    return subprocess.run([file, *map(str, args)], capture_output=True, text=True)


def bytes_of(folder): return {p.name: p.read_bytes() for p in sorted(Path(folder).iterdir())}


def test_the_folder_opens_without_running_code_and_gives_the_same_patches(trained, given):
    assert (Generator.load(given).sample(9, seed=2) == sample(load_generator(trained[0]), 9, 2)).all()
    assert not [p for p in given.iterdir() if p.suffix in (".pkl", ".pt", ".pth", ".bin")]


def test_the_card_has_its_data_uses_and_limits(given):
    card = (given/"README.md").read_text(encoding="utf-8")
    for words in ("simulated mammograms (phantoms)", "results on phantoms", "Not for diagnosis", "floor", "## Limits",
                  "SHA-256", "84 patches of", "apache-2.0"):
        assert words in card
    for name in ("Fréchet distance, texture", "kernel distance, texture", "checkerboard index"): assert f"| {name} |" in card


def test_two_folders_of_one_generator_differ_only_in_their_time(trained, given, tmp_path):
    again = give_away(trained[0], tmp_path/given.name, trained[1], licence="apache-2.0")
    for name in ("generator.safetensors", "preview.png"): assert (again/name).read_bytes() == (given/name).read_bytes()


@pytest.mark.parametrize("format, ending, files", [("png", "png", 4), ("npy", "npy", 1), ("dicom", "dcm", 4)])
def test_the_command_writes_what_the_function_writes(given, tmp_path, format, ending, files):
    done = command("--generator", given, "--n", 4, "--seed", 5, "--format", format, "--out", tmp_path/"a")
    write_patches(load_generator(given), 4, 5, tmp_path/"b", format)
    account = json.loads(done.stdout.splitlines()[-1])
    assert account["patches"] == 4 and account["files"] == files and account["format"] == format
    assert bytes_of(tmp_path/"a") == bytes_of(tmp_path/"b") and {p.suffix for p in (tmp_path/"a").iterdir()} == {f".{ending}"}
    assert bytes_of(tmp_path/"a") != (write_patches(load_generator(given), 4, 6, tmp_path/"c", format), bytes_of(tmp_path/"c"))[1]


@pytest.mark.parametrize("given_args, sentence", [(dict(generator="nowhere"), "nowhere holds no generator"), ({}, "generator is empty"), (dict(format="jpeg"), "format='jpeg' is not known. Choose one of: png, npy, dicom"),
                                                  (dict(n=0), "n=0 cannot be used"), (dict(kind="mass"), "was not trained with conditions")])
def test_an_error_is_a_sentence(given, given_args, sentence, tmp_path):
    wanted = dict(generator=str(given), out=str(tmp_path/"out"), **{}) if given_args and "generator" not in given_args else dict(out=str(tmp_path/"out"))
    with pytest.raises(SystemExit, match=re.escape(sentence)): mammogan_generate(**{**wanted, **given_args})


def test_the_command_ends_with_a_sentence_and_a_status():
    done = command("--generator", "nowhere")
    assert done.returncode and "nowhere holds no generator" in done.stderr and "Traceback" not in done.stderr


def test_a_folder_with_other_fakes_is_refused_and_left_as_it_was(given, tmp_path):
    assert not command("--generator", given, "--n", 3, "--out", tmp_path/"a").returncode
    before = bytes_of(tmp_path/"a")
    mammogan_generate(generator=str(given), n=3, out=str(tmp_path/"a"))                    # the same draw
    assert bytes_of(tmp_path/"a") == before
    for other in (dict(n=3, seed=1), dict(n=2), dict(n=3, format="dicom")):
        with pytest.raises(SystemExit, match=r"holds \d files? of another draw or of something else, such as fake-0-0000"):
            mammogan_generate(generator=str(given), out=str(tmp_path/"a"), **other)
    assert bytes_of(tmp_path/"a") == before


def with_a_number(folder, number, out):
    "A copy of a generator's folder in which one weight is a given number"
    tensors, about = load_tensors(Path(folder)/"generator.safetensors")
    first = next(k for k, v in tensors.items() if v.is_floating_point())
    tensors[first].view(-1)[0] = number
    shutil.copytree(folder, out)
    save_tensors(Path(out)/"generator.safetensors", tensors, **about)
    return first, tensors


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(number, given, tmp_path):
    first, tensors = with_a_number(given, number, tmp_path/"broken")
    torch.save(dict(g_ema=tensors), tmp_path/"broken.pth")
    for name in ("broken", "broken.pth"):
        sentence = f"{tmp_path/name}.* cannot be used: 1 of the [0-9,]+ numbers in {first} are not finite."
        with pytest.raises(SystemExit, match=sentence): mammogan_generate(str(tmp_path/name), 2, out=str(tmp_path/"out"))
    medigan_package(tmp_path/"broken", tmp_path/"package")
    call = "from package import generate; generate('package/generator.safetensors', 2, 'made')"
    done = subprocess.run([sys.executable, "-c", call], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and f"numbers in {first} are not finite" in done.stderr
    assert not (tmp_path/"out").exists() and not (tmp_path/"made").exists()


def test_dicom_has_every_required_attribute_and_no_patient(given, tmp_path):
    files = write_patches(load_generator(given), 3, 0, tmp_path, "dicom")
    for f in files:
        ds = pydicom.dcmread(f)             # without `force`: preamble, prefix and file meta information must be there
        for module, kinds in REQUIRED.items():
            for kind, names in kinds.items():
                for name in names.split():
                    assert tag_for_keyword(name) in ds, f"{module}: {name} is not there"
                    if kind == 1: assert ds[name].value not in ("", None), f"{module}: {name} is empty"
        assert ds.SOPClassUID == "1.2.840.10008.5.1.4.1.1.7" == ds.file_meta.MediaStorageSOPClassUID and ds.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID
        assert all(pydicom.uid.UID(ds[k].value).is_valid for k in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"))
        assert not any(str(ds[k].value) for k in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyDate"))
        assert list(ds.ImageType) == ["DERIVED", "SECONDARY"] and ds.ConversionType == "SYN" and ds.SyntheticData == "YES"
        for k in ("ImageComments", "DerivationDescription", "SeriesDescription"): assert "SYNTHETIC" in ds[k].value
        assert len(ds.SeriesDescription) <= 64 and len(ds.DerivationDescription) <= 1024       # LO and ST


def test_the_package_runs_where_there_is_no_mammogan(trained, given, tmp_path):
    package = medigan_package(given, tmp_path/"small_lesions")
    code = f"""
import importlib, json, sys
sys.path.insert(0, {str(tmp_path)!r}); sys.modules["mammogan"] = None
about = json.load(open({str(package/'metadata.json')!r}))["small_lesions"]["execution"]
call = getattr(importlib.import_module(about["package_name"]), about["generate_method"]["name"])
model = {str(package)!r}+"/"+about["model_name"]+about["extension"]
assert about["generate_method"]["args"]["base"] == ["model_file", "num_samples", "output_path", "save_images"]
call(model_file=model, num_samples=6, output_path={str(tmp_path/'out')!r}, save_images=True, **about["generate_method"]["args"]["custom"])
images = call(model_file=model, num_samples=3, output_path="", save_images=False)
assert len(images) == 3 and images[0].shape == tuple(about["image_size"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    pictures = [Image.open(p) for p in sorted((tmp_path/"out").iterdir())]
    assert len(pictures) == 6 and {(p.size, p.mode) for p in pictures} == {((128, 128), "L")}
    bad = subprocess.run([sys.executable, "-c", code.replace("+about[\"extension\"]", "")], capture_output=True, text=True, cwd=tmp_path)
    assert bad.returncode and "could not generate patches" in bad.stderr


def test_a_conditional_generator_survives_all_of_it(tmp_path, phantoms):
    lesions = phantoms.positives
    kinds = np.stack([np.arange(len(lesions)) % 2, (np.arange(len(lesions))+1) % 2], 1)
    folder = gan_run(RunStore(tmp_path/"runs"), lesions.normalised(), GANConfig(base=2, nz=8, batch=16, steps=6, classes=("mass", "calcification"), ema=.9), 0, show=False, kinds=kinds)
    gift = give_away(folder, tmp_path/"kinds", lesions)
    assert "| kind | mass 50%, calcification 50% |" in (gift/"README.md").read_text(encoding="utf-8")
    G = Generator.load(gift)
    assert len(write_patches(G, 2, 0, tmp_path/"png", kind="mass")) == 2
    package = medigan_package(gift, tmp_path/"of_kinds")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.modules['mammogan'] = None; from of_kinds import generate; assert len(generate({str(package/'generator.safetensors')!r}, 3, '', False, kind='mass')) == 3"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


@pytest.fixture(scope="module")
def best(phantoms, tmp_path_factory):
    "A gift of the recipe `best` with conditions of two columns, in full and in half precision"
    place, lesions = tmp_path_factory.mktemp("best"), phantoms.positives
    lesions.rows["area"] = np.arange(len(lesions))*7.
    conditions = condition_classes(lesions, "status size")
    settings = GANConfig(**{**vars(RECIPES["best"]["smoke"]), "steps": 6, "classes": conditions.names})
    facts = dict(limits=conditions.limits)
    folder = gan_run(RunStore(place/"runs"), lesions.normalised(), settings, 0, show=False, kinds=conditions.kinds, about=facts)
    return give_away(folder, place/"full", lesions), give_away(folder, place/"half", lesions, half=True)


def test_the_card_of_the_recipe_best_names_it_and_its_conditions(best):
    card = (best[0]/"README.md").read_text(encoding="utf-8")
    for words in ("The recipe is `best`", "| status | benign", "| size | small 33%, medium 33%, large 33% |", "size (area) is small up to"):
        assert words in card
    asked = re.search(r"--generator full ((?:--kind \w+ ?)+)", card)[1].replace("--kind", "").split()
    assert len(asked) == 2 and len(Generator.load(best[0]).sample(2, kind=" ".join(asked))) == 2


def test_half_precision_hardly_changes_patches(best):
    full, half = (Generator.load(f).sample(64, seed=1).astype(int) for f in best)
    assert abs(full-half).max() <= 2 and (abs(full-half) <= 1).mean() > .999
    assert (best[1]/"generator.safetensors").stat().st_size < .6*(best[0]/"generator.safetensors").stat().st_size


@pytest.mark.parametrize("which", ["full", "half"])
def test_the_package_of_a_conditional_wavelet_generator_draws_what_sample_draws(best, which, tmp_path):
    gift = best[which == "half"]
    package = medigan_package(gift, tmp_path/"of_best")
    code = f"""
import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.modules["mammogan"] = None
import numpy as np
from of_best import generate
model = {str(package/"generator.safetensors")!r}
np.save({str(tmp_path/"made.npy")!r}, generate(model, 4, "", False, seed=3) + generate(model, 4, "", False, seed=3, kind="benign large"))
generate(model, 1, "", False, kind="huge")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1 and "kind='huge' is not known. Choose from: status:benign" in done.stderr, done.stderr
    ours = Generator.load(gift)
    expected = np.concatenate([ours.sample(4, seed=3), ours.sample(4, seed=3, kind="benign large")]).astype(int)
    assert abs(np.load(tmp_path/"made.npy").astype(int)-expected).max() <= 1
    assert (package/"__init__.py").stat().st_size < 20_000
    assert "size:large" in json.loads((package/"metadata.json").read_text())["of_best"]["selection"]["condition"]


def test_kinds_can_be_asked_for_one_by_one(best, tmp_path):
    one, two = command("--generator", best[0], "--n", 3, "--kind", "benign", "--kind", "large", "--out", tmp_path/"a"), tmp_path/"b"
    assert json.loads(one.stdout.splitlines()[-1])["kind"] == "benign large", one.stderr
    mammogan_generate(generator=str(best[0]), n=3, kind="benign large", out=str(two))
    assert bytes_of(tmp_path/"a") == bytes_of(two)
    with pytest.raises(SystemExit, match="kind='huge' is not known. Choose from: status:benign, "):
        mammogan_generate(generator=str(best[0]), kind=["benign", "huge"], out=str(two))


def test_a_generator_that_comes_with_the_package_is_opened_by_its_name(best, tmp_path, monkeypatch, capsys):
    shutil.copytree(best[1], tmp_path/"generators"/"cbis-masses")
    monkeypatch.setattr(sharing, "generators_folder", lambda: tmp_path/"generators"); monkeypatch.chdir(tmp_path)
    assert (open_generator("cbis-masses").sample(2) == Generator.load(best[1]).sample(2)).all()
    mammogan_generate(generator="cbis-masses", n=2, out=str(tmp_path/"out"))
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["patches"] == 2
    for name in ("other", ""):
        with pytest.raises(SystemExit, match="With this version come: cbis-masses."): mammogan_generate(generator=name)
    (tmp_path/"cbis-masses").mkdir()                       # a folder of this name that holds something else
    assert (open_generator("cbis-masses").sample(2) == Generator.load(best[1]).sample(2)).all()
    shutil.copytree(best[0], tmp_path/"cbis-masses", dirs_exist_ok=True)      # and one that holds a generator
    assert (open_generator("cbis-masses").sample(2) == Generator.load(best[0]).sample(2)).all()
    monkeypatch.setattr(sharing, "generators_folder", lambda: tmp_path/"empty")
    with pytest.raises(SystemExit, match="No generator comes with this version. The folder of a generator works, too."): mammogan_generate(generator="other")


@pytest.mark.parametrize("prefix", ["main.", "module.main.", ""])
def test_the_authors_state_is_opened_under_any_name(prefix, tmp_path):
    full = start_weights(Generator(4, 20), 0, "G").eval()
    torch.save({prefix+k.removeprefix("layers."): v for k, v in full.state_dict().items()}, tmp_path/"g.pth")
    with torch.no_grad(): assert torch.equal(load_published(tmp_path/"g.pth")(torch.ones(1, 20)), full.to(memory_format=torch.channels_last)(torch.ones(1, 20)))


@pytest.mark.parametrize("what", ["code", "text", "discriminator", "list"])
def test_a_file_that_is_no_state_is_refused_with_its_name(what, tmp_path):
    file = tmp_path/"state.pth"
    if what == "code": torch.save(dict(run=print), file)
    elif what == "text": file.write_text("weights")
    elif what == "discriminator": torch.save({"0.weight": torch.zeros(45, 1, 4, 4)}, file)
    else: torch.save([torch.zeros(3)], file)
    with pytest.raises(ValueError, match="state.pth"): load_published(file)


def test_the_packaged_generator_draws_the_same_patches_without_a_network(tmp_path):
    "By its name alone, with conditions; its card cites its data, and it comes with sixteen real patches"
    from mammogan.sharing import named_generators, open_generator, real_and_fake
    folder = named_generators()["cbis-masses"]
    G = open_generator("cbis-masses")
    a, b = (sample(G, 4, 1, kind="spiculated malignant") for _ in range(2))
    assert (a == b).all() and a.shape == (4, 128, 128) and 20 < a.std() < 90
    assert (folder/"generator.safetensors").stat().st_size < 3_000_000
    card = (folder/"README.md").read_text(encoding="utf-8")
    assert "Lee and others 2017" in card and "cc-by-3.0" in card and "suspiciously near" in card
    assert [len(v) for v in real_and_fake("cbis-masses").values()] == [16, 16]
