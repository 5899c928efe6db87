"""The report: one page with everything inside, which a browser can sort and follow."""

import base64
import hashlib
import html
import io
import json
import re
from contextlib import chdir
from html.parser import HTMLParser
from pathlib import Path

import browser
import pytest
from PIL import Image

from restart_sampling.cli import main
from restart_sampling.comparison.comparable import read_sweep
from restart_sampling.comparison.published import NOTES
from sweeps import PLANS, SWEEP, lines, made_up, plans_file, result, results_file

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Every element with its attributes; complains where tags do not match."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.text = [], [], {}
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def attributes(self, tag):
        return [attributes for each, attributes in self.elements if each == tag]


@pytest.fixture(scope="module")
def made(tiny, tmp_path_factory):
    """The folder of a sweep and its report."""
    folder = tmp_path_factory.mktemp("swept")
    for file in tiny.iterdir():
        (folder / file.name).symlink_to(file)
    with chdir(folder):
        for words in ((*SWEEP, "--plans", plans_file()), ("report", "out", "--out", "report.html")):
            with pytest.raises(SystemExit) as end:
                main([str(word) for word in words])
            assert end.value.code == 0
    return folder


@pytest.fixture
def swept(made, monkeypatch):
    monkeypatch.chdir(made)
    return Path("report.html").read_text()


def test_all_rows_are_there_with_their_images_and_points(swept):
    page = Page(swept)
    keys = list(read_sweep(Path("out/results.jsonl")))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    for key in keys:
        assert f"row-{key}" in ids
        assert f"nfe-point-{key}" in ids
    assert [attributes["data-key"] for attributes in page.attributes("tr") if "data-key" in attributes] == keys
    images = page.attributes("img")
    assert len(images) == len(PLANS)
    for image, line in zip(images, lines(), strict=True):
        data = base64.b64decode(image["src"].removeprefix("data:image/png;base64,"))
        assert data == (Path("out") / line["samples"]).read_bytes()
        assert Image.open(io.BytesIO(data)).size == (4 * 8, 8)
        assert f"{line['frechet_distance']:.4f}" in swept
    assert "<figcaption>Distance against the repeats" in swept


def test_nothing_comes_from_outside(swept):
    page = Page(swept)
    for tag, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "action", "data", "srcset"):
            link = attributes.get(name)
            assert link is None or link.startswith(("data:image/png;base64,", "#")), (tag, link)
    ids = {attributes.get("id") for _, attributes in page.elements}
    for link in re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', swept):
        assert (link[0] or link[1]) in ids
    assert "@import" not in swept
    assert page.attributes("link") == []


def test_names_are_text_and_not_markup(tmp_path, run):
    rows = [result("18", 7, name="<script>alert(1)</script>"), result("19", 6, name='"><b>')]
    (tmp_path / "s").mkdir()
    results_file(*rows, name=tmp_path / "s" / "results.jsonl")
    code, _, err = run("report", tmp_path / "s", "--out", tmp_path / "r.html")
    assert code == 0, err
    text = (tmp_path / "r.html").read_text()
    assert "<script>alert" not in text
    assert "<b>" not in text
    assert "its images were not kept" in text


def test_classes_of_one_s_own_are_not_listed_seed_by_seed(tmp_path, run):
    row = result("18", 7)
    for classes, said in (({"0": 3, "1": 3}, "given for each of 2 seeds"), (None, "drawn for each seed"), (5, "5")):
        row["run"]["class"] = classes
        results_file(row, name=tmp_path / "results.jsonl")
        assert run("report", tmp_path, "--out", tmp_path / "r.html")[0] == 0
        assert f"<dt>class</dt><dd>{said}</dd>" in (tmp_path / "r.html").read_text()


EVIL = "'\"><img src=x onerror=alert(1)></script><script>document.body.dataset.evil=1</script>{{ 7 * 7 }}"


def hostile():
    """Two rows where all that is text, or can be, would be a script."""
    first, second = (
        result(
            plan,
            7,
            name=f"{plan} {EVIL}",
            family=f"{plan} $^{EVIL}",
            images=EVIL,
            seconds=EVIL,
            published_fid=EVIL,
            frechet_distance_min=EVIL,
            model=EVIL,
            detector=EVIL,
            detector_name=EVIL,
            device=EVIL + "\ud800",
            blocks=EVIL,
            metrics=[EVIL],
            versions={EVIL: EVIL},
            reference={"path": EVIL, "sha256": EVIL, "images": EVIL, "source": EVIL},
        )
        for plan in ("18", "19")
    )
    for each in (first, second):
        each["run"] |= {key: EVIL for key in each["run"] if key != "plan"}
    return first, second


@pytest.fixture
def hostile_page(tmp_path, monkeypatch, run):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s").mkdir()
    results_file(*hostile(), name="s/results.jsonl")
    code, _, err = run("report", "s", "--out", "r.html")
    assert code == 0, err
    return Path("r.html").read_text()


def test_every_value_is_text_whatever_it_is(hostile_page):
    page = Page(hostile_page)
    assert len(page.attributes("script")) == 1
    assert page.attributes("img") == []
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert html.escape(EVIL).replace("&#x27;", "&#39;").replace("&quot;", "&#34;") in hostile_page
    assert "{{ 7 * 7 }}" in hostile_page


def test_the_policy_allows_the_page_s_own_script_and_style_only(hostile_page):
    page = Page(hostile_page)
    (policy,) = (each["content"] for each in page.attributes("meta") if "http-equiv" in each)
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'"
    for tag in ("script", "style"):
        (own,) = re.findall(rf"<{tag}>(.*?)</{tag}>", hostile_page, re.DOTALL)
        assert rules[f"{tag}-src"] == f"'sha256-{hash_of(own)}'"
    assert not any("style" in attributes for _, attributes in page.elements)


@pytest.mark.skipif(browser.find() is None, reason="Chromium is not installed")
def test_a_browser_runs_nothing_that_was_put_into_the_page(hostile_page):
    evil = "document.body.dataset.evil = 1"
    put_in = f'<script>{evil}</script><img src="x" onerror="{evil}"><i id="odd" style="font-size: 99px">odd</i>'
    seen = """
addEventListener("load", () => document.body.dataset.seen = JSON.stringify({
evil: "evil" in document.body.dataset, title: getComputedStyle(document.querySelector("h1")).fontSize,
odd: getComputedStyle(document.querySelector("#odd")).fontSize}));
"""
    assert visit(hostile_page.replace("<h2>", f"{put_in}<h2>", 1), seen) == {
        "evil": False,
        "title": "26px",
        "odd": "15px",
    }


def test_values_that_are_plotted_have_to_be_numbers(tmp_path, run):
    (tmp_path / "s").mkdir()
    wrong = {"nfe": [EVIL, True], "frechet_distance": ["7", True], "frechet_distance_error": [None, False]}
    for key, value in [(key, value) for key, values in wrong.items() for value in values]:
        results_file(result("18", 7) | {key: value}, name=tmp_path / "s" / "results.jsonl")
        code, _, err = run("report", tmp_path / "s", "--out", tmp_path / "r.html")
        assert (code, len(err.splitlines())) == (2, 1)
        assert f"the results of row '18' have {key} " in err
        assert not (tmp_path / "r.html").exists()


def test_lines_that_are_none_are_named_and_counted(tmp_path, run):
    good = [json.dumps(each).encode() for each in made_up()[:3]]
    no_run, wrong_type, plan = (dict(made_up()[0]) for _ in range(3))
    del no_run["run"]
    damaged = [b'{"schema": "restart-sampl', good[1].replace(b"made-up", b"made\xff"), b'{"a": NaN}', b"[" * 100_000]
    damaged += [json.dumps(each).encode() for each in (no_run, {**wrong_type, "run": "x"}, {**plan, "plan": 4.0})]
    damaged.append(json.dumps({**plan, "frechet_distance_blocks": [7.0, True]}).encode())
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "results.jsonl").write_bytes(b"\n".join([good[0], *damaged, *good[1:]]) + b"\n")
    assert run("report", tmp_path / "s", "--out", tmp_path / "r.html")[0] == 0
    page = (tmp_path / "r.html").read_text()
    assert "3 rows, " in page
    assert "8 damaged lines left out, numbers 2, 3, 4, 5, 6, 7, 8, 9" in page
    code, _, err = run("figure", tmp_path / "s" / "results.jsonl", "--out", tmp_path / "f.png")
    assert code == 0
    assert "results.jsonl: 8 damaged lines left out" in err
    (tmp_path / "s" / "results.jsonl").write_bytes(b"\n".join(good).decode().encode("utf-16"))
    code, _, err = run("report", tmp_path / "s", "--out", tmp_path / "r.html")
    assert (code, "results.jsonl is in UTF-16; save it as UTF-8" in err) == (2, True)


def test_the_papers_figures_and_notes(tmp_path, run):
    (tmp_path / "s").mkdir()
    results_file(*made_up(), name=tmp_path / "s" / "results.jsonl")
    assert run("report", tmp_path / "s", "--out", tmp_path / "r.html", "--paper", "cifar10-edm")[0] == 0
    text = (tmp_path / "r.html").read_text()
    assert all(note[:40] in text for note in NOTES["cifar10-edm"])


def test_a_folder_without_a_sweep(tmp_path, run):
    code, _, err = run("report", tmp_path, "--out", tmp_path / "r.html")
    assert code == 2
    assert "neither the results.jsonl of a sweep nor the run.json of a run of tune; give what was their --out" in err


# Clicks as a reader would, and leaves what it saw in the page.
VISIT = """
const column = (index) => [...table.tBodies[0].rows].map((row) => row.cells[index].textContent);
const head = (name) => heads.findIndex((each) => each.textContent === name);
const outside = performance.getEntriesByType("resource").filter((each) => !each.name.startsWith("data:"));
const seen = {resources: outside.length};
seen.written = column(head("distance"));
heads[head("distance")].querySelector("button").click();
seen.rising = column(head("distance"));
heads[head("distance")].querySelector("button").click();
seen.falling = column(head("distance"));
heads[head("difference")].querySelector("button").click();
seen.differences = column(head("difference"));
const point = [...document.querySelectorAll('[id^="nfe-point-"]')].at(-1);
const key = point.id.split("point-")[1];
seen.tip = point.querySelector("title").textContent;
point.dispatchEvent(new PointerEvent("pointerenter"));
seen.lit = document.querySelectorAll(".hot").length;
seen.litKey = document.querySelector("tr.hot").dataset.key === key;
point.dispatchEvent(new PointerEvent("pointerleave"));
seen.dark = document.querySelectorAll(".hot").length;
point.querySelector("a").dispatchEvent(new MouseEvent("click", {bubbles: true, cancelable: true}));
seen.hash = location.hash === `#row-${key}`;
seen.images = [...document.images].every((image) => image.complete && image.naturalWidth > 0);
const figure = document.querySelector("figure svg").getBoundingClientRect();
seen.drawn = figure.width > 300 && figure.height > 200;
seen.corners = getComputedStyle(document.querySelector("figure svg path")).strokeLinejoin;
document.body.dataset.seen = JSON.stringify(seen);
"""


def hash_of(text):
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def visit(page, script=VISIT):
    """Opens the page with more in its own script, which its policy then allows, and no other; gives what that saw."""
    own = page[page.rindex("<script>") + len("<script>") : page.rindex("</script>")]
    file = Path("visited.html")
    file.write_text(page.replace(own, own + script).replace(hash_of(own), hash_of(own + script)))
    found = re.search(r'data-seen="([^"]*)"', browser.look(file.resolve(), "--dump-dom"))
    assert found, "a script of the page has failed"
    return json.loads(html.unescape(found[1]))


@pytest.mark.skipif(browser.find() is None, reason="Chromium is not installed")
def test_in_a_browser(swept):
    seen = visit(swept)
    distances = [f"{line['frechet_distance']:.4f}" for line in lines()]
    assert seen["written"] == distances
    assert seen["rising"] == sorted(distances, key=float)
    assert seen["falling"] == sorted(distances, key=float, reverse=True)
    assert seen["differences"][-1] == ""
    assert seen["differences"][:-1] == sorted(seen["differences"][:-1], key=float)
    assert seen["tip"].startswith("3 [2,3,0.5,3]: NFE 11, distance")
    assert seen["lit"] == 4  # its line in the table, its images, its point in two figures
    for yes in ("litKey", "hash", "images", "drawn"):
        assert seen[yes], yes
    assert seen["corners"] == "round"
    assert seen["resources"] == seen["dark"] == 0


def test_the_verdict_is_on_top_and_no_column_is_there_twice(tmp_path, run, swept):
    assert swept.index("<h2>Verdict</h2>") < swept.index("<h2>Figures</h2>")
    assert "The lowest distance is that of" in html.unescape(swept)
    heads = re.findall(r'<th[^>]*><button type="button">([^<]*)</button></th>', swept)
    assert heads[:3] == ["row", "family", "NFE"]  # rows without names are called as their plans
    assert len(set(heads)) == len(heads)
    results_file(*(result(plan, 1.0, name=f"row {plan}") for plan in PLANS), name=tmp_path / "results.jsonl")
    assert run("report", tmp_path, "--out", tmp_path / "named.html")[0] == 0
    heads = re.findall(r'<button type="button">([^<]*)</button>', (tmp_path / "named.html").read_text())
    assert heads[:4] == ["row", "plan", "family", "NFE"]
