"""The reader study in a real browser: made by the command, read by keyboard and by finger without a network, closed in the middle, saved, scored."""
import json, os, shutil

import numpy as np
import pandas as pd
import pytest

from mammogan.reader_study import read_key

N, READER = 12, 'Ana "A", Ruiz'
PRESSED = [int(c) for c in np.random.default_rng(0).integers(1, 7, N)]     # what the first reader presses, patch by patch
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"))), None)
needs_browser = pytest.mark.skipif(not CHROMIUM, reason="no chromium and no google-chrome on the PATH: the page cannot be opened (Debian: apt-get install chromium)")


def command(capsys, *words):
    "Run mammogan_readers, and give its JSON and its messages"
    from mammogan.commands import mammogan_readers
    capsys.readouterr()
    mammogan_readers([*map(str, words)])
    out, err = capsys.readouterr()
    return json.loads(out.splitlines()[-1]), err


@pytest.fixture(scope="module")
def fakes(tmp_path_factory):
    "Pictures of an untrained generator, as mammogan_generate writes them"
    from mammogan.dcgan import Generator
    from mammogan.networks import start_weights
    from mammogan.commands import mammogan_generate
    folder = tmp_path_factory.mktemp("fakes")
    start_weights(Generator(2, 8), 0, "G").save(folder/"generator")
    mammogan_generate(str(folder/"generator"), N, 0, str(folder/"png"))
    return folder/"png"


@pytest.fixture
def made(phantoms, fakes, tmp_path, capsys):
    "A study of phantoms' lesions and those fakes: the command's result"
    return command(capsys, "make", "--real", phantoms.folder, "--fake", fakes, "--n", N, "--seed", 5, "--out", tmp_path/"study.html", "--title", "Real or <fake>?")[0]


@pytest.fixture(scope="module")
def browser():
    "Chromium without a window"
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright, which drives the browser, comes with the extra [dev]")
    with playwright.sync_playwright() as p:
        found = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"] if os.name == "posix" and os.geteuid() == 0 else [])
        yield found
        found.close()


@pytest.fixture
def visit(browser, made):
    "Open the page in a browser of a given kind, without a network; its requests and complaints are recorded"
    contexts = []
    def open_context(**kind):
        context = browser.new_context(offline=True, accept_downloads=True, **kind)
        context.asked, context.complaints = [], []
        context.on("request", lambda r: context.asked.append(r.url))
        context.on("console", lambda m: context.complaints.append(m.text))
        context.on("weberror", lambda e: context.complaints.append(str(e.error)))
        contexts.append(context)
        return context
    yield open_context
    for context in contexts:
        assert context.complaints == [] and all(url.startswith(("file:", "data:", "blob:")) for url in context.asked)
        context.close()


def ready(page): page.locator("#begin:enabled").wait_for(state="attached")     # all pictures are decoded


def opened(context, made):
    page = context.new_page()
    page.goto(f"file://{made['page']}")
    ready(page)
    return page


def press(page, *keys):
    for k in keys: page.keyboard.press(k)


def view(page): return page.evaluate("({...view, at: state.at})")
def brightness(page): return page.evaluate("""(() => {
    const c = $("patch"), pen = canvas(c.width, c.height).getContext("2d", {willReadFrequently: true})
    pen.drawImage(c, 0, 0)
    return pen.getImageData(0, 0, c.width, c.height).data.reduce((sum, v, i) => i % 4 ? sum : sum + v, 0)/c.width/c.height })()""")
def expected(page): return page.evaluate("(() => { const t = levels(), g = pictures[state.at].grey; return g.reduce((s, v) => s + t[v], 0)/g.length })()")


def saved(page, folder, name):
    "The table that the page's Save button gives"
    with page.expect_download() as download: page.get_by_role("button", name="Save the answers").click()
    download.value.save_as(folder/name)
    return folder/name, download.value.suggested_filename


def test_the_same_seed_gives_the_same_page_and_no_truth_is_in_it(made, phantoms, fakes, tmp_path, capsys):
    again, messages = command(capsys, "make", "--real", phantoms.folder, "--fake", fakes, "--n", N, "--seed", 5, "--out", tmp_path/"again"/"study.html", "--title", "Real or <fake>?")
    for what in ("page", "key"): assert open(again[what], "rb").read() == open(made[what], "rb").read()
    assert "6 real patches of 6 patients and 6 fakes" in messages and "about 2" in messages
    page, key = open(made["page"], encoding="utf-8").read(), pd.read_csv(made["key"])
    assert key.truth.value_counts().to_dict() == dict(real=6, fake=6)
    assert not any(o in page for o in key.origin) and all(p in page for p in key.patch)


@needs_browser
def test_a_reader_with_a_keyboard_goes_on_after_closing_the_page_and_is_scored_as_pressed(visit, made, tmp_path, capsys):
    context = visit(viewport=dict(width=1280, height=800))
    page = opened(context, made)
    assert page.get_by_role("heading").first.inner_text() == "Real or <fake>?"
    page.get_by_label("Your name").fill(READER); page.get_by_label("Years of experience").fill("12,5"); press(page, "Enter")
    for c in PRESSED[:5]: press(page, str(c))
    press(page, "ArrowLeft", "ArrowLeft", "ArrowRight", "u", "Control+z", str(PRESSED[3]), str(7-PRESSED[4]), "Backspace", str(PRESSED[4]))
    assert page.locator("#where").inner_text() == f"6 of {N}"
    with page.expect_event("close"): page.close(run_before_unload=True)     # at once, and with its unload handlers, as a reader closes it

    page = opened(context, made)
    assert page.get_by_role("button", name="Go on as").inner_text() == f"Go on as {READER}: 5 of {N} answered"
    press(page, "Enter")
    assert page.locator("#where").inner_text() == f"6 of {N}"
    page.reload(); ready(page); press(page, "Enter")
    press(page, "ArrowRight", *map(str, PRESSED[6:]))
    assert page.locator("#sum").inner_text() == f"1 of {N} patches has no answer yet."
    page.get_by_role("button", name="Go to the first without an answer").click(); press(page, str(PRESSED[5])); press(page, *["ArrowRight"]*N)
    assert f"answered all {N}" in page.locator("#sum").inner_text()

    file, name = saved(page, tmp_path, "ana.csv")
    table, truth = pd.read_csv(file), read_key(made["key"])
    assert name == "answers-Ana-A-Ruiz.csv"
    assert list(table) == "reader experience position patch answer confidence seconds".split()
    assert table.confidence.tolist() == PRESSED and table.answer.tolist() == ["real" if c > 3 else "fake" for c in PRESSED]
    assert table.patch.tolist() == list(truth.index) and table.position.tolist() == list(range(1, N+1))
    assert set(table.reader) == {READER} and set(table.experience) == {12.5} and (table.seconds > 0).all()

    scores, messages = command(capsys, "score", "--key", made["key"], "--answers", file)
    ana, = scores["readers"]
    right = [(c > 3) == (t == "real") for c, t in zip(PRESSED, truth)]
    pairs = [(PRESSED[i] > PRESSED[j]) + (PRESSED[i] == PRESSED[j])/2 for i in range(N) for j in range(N) if truth.iloc[i] == "real" and truth.iloc[j] == "fake"]
    assert (ana["reader"], ana["answered"], ana["missing"]) == (READER, N, 0)
    assert ana["accuracy"] == round(np.mean(right), 4) and ana["auc"] == round(np.mean(pairs), 4)
    assert "published, radiologist 1" in messages and "0.48" in messages and "too few to say anything" in messages


@needs_browser
def test_window_and_zoom_change_what_is_seen_and_nothing_else(visit, made, phantoms, fakes):
    from PIL import Image
    page = opened(visit(viewport=dict(width=1280, height=800)), made)
    page.get_by_label("Your name").fill("Ben"); page.get_by_role("button", name="Begin").click()
    key, shown = pd.read_csv(made["key"]), page.evaluate("pictures.map(p => Array.from(p.grey))")
    for origin, truth, grey in zip(key.origin, key.truth, shown):                    # the fakes' pixels reach the screen as they are in their files
        if truth == "fake": assert np.array_equal(np.asarray(Image.open(fakes/origin)).ravel(), grey)

    assert page.evaluate("Array.from(levels())") == list(range(256))
    plain = brightness(page)
    assert abs(plain - expected(page)) < 1.5
    press(page, *["ArrowUp"]*4); assert view(page)["centre"] == 96 and brightness(page) > plain+10 and abs(brightness(page) - expected(page)) < 1.5
    press(page, *["Shift+ArrowUp"]*8); assert view(page)["width"] == 128
    assert page.evaluate("Array.from(levels())") == np.clip(np.rint(((np.arange(256) - 95.5)/127 + .5)*255), 0, 255).astype(int).tolist()
    press(page, "r"); assert view(page) == dict(centre=128, width=256, zoom=1, x=.5, y=.5, at=0) and brightness(page) == plain

    box = page.locator("#patch").bounding_box()
    def at(x, y): return box["x"]+x*box["width"], box["y"]+y*box["height"]
    page.mouse.move(*at(.25, .25)); page.mouse.wheel(0, -500*np.log(2))
    for _ in range(100):                                                             # the browser delivers a wheel event when it likes
        if view(page)["zoom"] > 1.9: break
        page.wait_for_timeout(50)
    assert abs(view(page)["x"] - .375) < .01 and abs(view(page)["y"] - .375) < .01
    page.keyboard.down("Shift"); page.mouse.down(); page.mouse.move(*at(.15, .25)); page.mouse.up(); page.keyboard.up("Shift")
    assert abs(view(page)["x"] - .425) < .01 and view(page)["width"] == 256
    page.mouse.move(*at(.5, .5)); page.mouse.down(); page.mouse.move(*at(.75, .25)); page.mouse.up()
    assert abs(view(page)["width"] - 320) < 1 and abs(view(page)["centre"] - 64) < 1
    press(page, "+", "+", "-"); assert abs(view(page)["zoom"] - 2*1.25) < .02
    press(page, "4"); assert view(page) == dict(centre=128, width=256, zoom=1, x=.5, y=.5, at=1)     # every patch begins with the same view


@needs_browser
@pytest.mark.parametrize("width, height", [(360, 640), (390, 844), (844, 390)])
def test_on_a_phone_everything_is_within_reach_and_two_fingers_zoom(width, height, visit, made, tmp_path, capsys):
    page = opened(visit(viewport=dict(width=width, height=height), device_scale_factor=3, has_touch=True, is_mobile=True), made)
    page.get_by_label("Your name").fill("Phone"); page.get_by_role("button", name="Begin").tap()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth && document.documentElement.scrollHeight <= innerHeight")
    for b in page.locator("#scale button, #tools button, canvas").all():
        box = b.bounding_box(); assert box["x"] >= 0 and box["y"] >= 0 and box["x"]+box["width"] <= width and box["y"]+box["height"] <= height
    assert all(b.bounding_box()["height"] >= 44 for b in page.locator("#scale button").all())

    box = page.locator("#patch").bounding_box()
    x, y, far = box["x"]+box["width"]/2, box["y"]+box["height"]/2, box["width"]/8
    fingers = page.context.new_cdp_session(page)
    for kind, apart in (("touchStart", far), ("touchMove", 2*far), ("touchEnd", None)):
        fingers.send("Input.dispatchTouchEvent", dict(type=kind, touchPoints=[] if apart is None else [dict(x=x-apart, y=y, id=0), dict(x=x+apart, y=y, id=1)]))
    assert abs(view(page)["zoom"] - 2) < .1 and view(page)["width"] == 256

    for c in PRESSED[:-1]: page.locator("#scale button").nth(c-1).tap()
    page.get_by_role("button", name="Next patch").tap()
    file, _ = saved(page, tmp_path, "phone.csv")
    scores, messages = command(capsys, "score", "--key", made["key"], "--answers", file)
    assert (scores["readers"][0]["answered"], scores["readers"][0]["missing"]) == (N-1, 1) and "Phone left 1 patches without an answer" in messages


@needs_browser
def test_a_browser_that_alters_pictures_or_keeps_nothing_is_reported(visit, made):
    context = visit()
    context.add_init_script("const read = CanvasRenderingContext2D.prototype.getImageData; CanvasRenderingContext2D.prototype.getImageData = function(...a) { const d = read.apply(this, a); d.data[40] ^= 1; return d }")
    page = context.new_page(); page.goto(f"file://{made['page']}")
    page.get_by_text("This browser alters pictures").first.wait_for()
    assert page.get_by_role("button", name="Begin").is_disabled()

    context = visit()
    context.add_init_script("Storage.prototype.setItem = () => { throw new Error('full') }")
    page = opened(context, made)
    page.get_by_label("Your name").fill("Ben"); press(page, "Enter", "3")
    assert page.get_by_text("This browser does not keep answers").nth(1).is_visible() and view(page)["at"] == 1


@needs_browser
def test_a_second_window_takes_over_and_the_first_loses_nothing(visit, made):
    context = visit()
    first = opened(context, made)
    first.get_by_label("Your name").fill("Ana"); press(first, "Enter", "1", "2", "3")
    second = opened(context, made)
    second.get_by_role("button", name="Go on as Ana: 3 of").click(); press(second, "4", "5")
    first.bring_to_front(); first.get_by_role("button", name="Go on as Ana: 5 of").wait_for()
    first.close(); second.reload(); ready(second)
    assert second.evaluate("kept().answers.slice(0, 6).map(a => a.confidence)") == [1, 2, 3, 4, 5, 0]


@needs_browser
def test_another_reader_begins_anew_and_two_readers_agree_as_they_pressed(visit, made, tmp_path, capsys):
    context, files = visit(), []
    page = opened(context, made)
    page.on("dialog", lambda d: d.accept())
    for name, answers in (("Ana", PRESSED), ("Ben", PRESSED[:-2]+[7-c for c in PRESSED[-2:]])):
        page.get_by_label("Your name").fill(name); press(page, "Enter", *map(str, answers))
        files.append(saved(page, tmp_path, f"{name}.csv")[0]); page.get_by_role("button", name="Another reader begins").click()
    assert page.evaluate("kept()") is None
    scores, _ = command(capsys, "score", "--key", made["key"], "--answers", *files)
    pair, = scores["agreement"]
    from sklearn.metrics import cohen_kappa_score
    a, b = (pd.read_csv(f).answer for f in files)
    assert pair["readers"] == ["Ana", "Ben"] and pair["patches"] == N and pair["kappa"] == round(cohen_kappa_score(a, b), 4)
    with pytest.raises(SystemExit, match="The reader 'Ana' comes twice"): command(capsys, "score", "--key", made["key"], "--answers", files[0], shutil.copy(files[0], tmp_path/"copy.csv"))
