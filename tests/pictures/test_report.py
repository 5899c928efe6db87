"""The report: one page with everything inside, which a browser can sort and follow."""

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import browser
import pytest
from PIL import Image

from restart_sampling.comparison.published import NOTES
from restart_sampling.comparison.results import read_sweep
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


@pytest.fixture
def swept(place, run):
    assert run(*SWEEP, "--plans", plans_file())[0] == 0
    code, _, err = run("report", "out", "--out", "report.html")
    assert code == 0, err
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


def test_the_papers_figures_and_notes(tmp_path, run):
    (tmp_path / "s").mkdir()
    results_file(*made_up(), name=tmp_path / "s" / "results.jsonl")
    assert run("report", tmp_path / "s", "--out", tmp_path / "r.html", "--paper", "cifar10-edm")[0] == 0
    text = (tmp_path / "r.html").read_text()
    assert all(note[:40] in text for note in NOTES["cifar10-edm"])


def test_a_folder_without_a_sweep(tmp_path, run):
    code, _, err = run("report", tmp_path, "--out", tmp_path / "r.html")
    assert code == 2
    assert "results.jsonl cannot be read" in err


# Clicks as a reader would, and leaves what it saw in the page.
VISIT = """
<script>
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
document.body.dataset.seen = JSON.stringify(seen);
</script>
"""


@pytest.mark.skipif(browser.find() is None, reason="Chromium is not installed")
def test_in_a_browser(swept):
    page = Path("visited.html")
    page.write_text(swept.replace("</body>", VISIT + "</body>"))
    dom = browser.look(page.resolve(), "--dump-dom")
    found = re.search(r'data-seen="([^"]*)"', dom)
    assert found, "a script of the page has failed"
    seen = json.loads(found[1].replace("&quot;", '"'))
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
    assert seen["resources"] == seen["dark"] == 0
