"""The comparison, colours, the address, the filters of samples, saved figures, phone and paper."""

from __future__ import annotations

import base64
import csv
import io
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from browser_page import Page, needs_browser
from synthetic_runs import Method, make
from typer.testing import CliRunner

from personabench.cli.app import app
from personabench.report import write
from personabench.results.index import read_runs
from personabench.results.published import publish
from personabench.results.run_folder import RunFolder

pytestmark = needs_browser

METHODS = (
    Method("none", 0.0, 0.0),
    Method("rag", 0.1, 0.03, records=3),
    Method("rag", 0.02, 0.03, records=3, history="shuffled"),
    Method("rag", 0.05, 0.03, records=2, history="size=2"),
    Method("recency", 0.05, 0.05, records=3),
    Method("summary", 0.05, 0.05, asked=range(3)),
)
OTHER = (*METHODS[:3], Method("random", -0.02, 0.05, records=3))
SVG = "{http://www.w3.org/2000/svg}"


def answer(method: str, sample: str) -> str:
    return f"Harbour, lantern and {method}"


def flags(method: str, sample: str) -> dict[str, float]:
    """Every first sample of rag is flagged."""
    return {"cut_profile": 1} if method == "rag" and sample.endswith("-0") else {}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("views")
    make(folder, METHODS, users=12, each=2, answer=answer, flags=flags)
    other = {"kind": "scripted", "name": "another"}
    make(folder, OTHER, users=12, each=2, answer=answer, model=other)
    write(folder, folder / "report.html")
    return folder / "report.html"


@pytest.fixture
def page(browser: Page, report: Path) -> Iterator[Page]:
    browser.emulate(1400)
    browser.open(report)
    yield browser
    assert browser.console() == []


def run(page: Page, script: str, *arguments: Any) -> Any:
    return page.driver.execute_script(script, *arguments)


def choose_group(page: Page, model: str) -> None:
    groups = page.all("#samples .group-choice option")
    values = [each.get_attribute("value") for each in groups if model in each.text]
    page.set("#samples .group-choice", values[0])


def matrix_rows(page: Page) -> dict[str, Any]:
    return {
        row.find_element("css selector", "th").text: row for row in page.all("#matrix tbody tr")
    }


def test_the_first_screen_compares_methods_by_tasks(page: Page) -> None:
    rows = matrix_rows(page)
    assert next(iter(rows)) == "none", "what gains are measured against stands first"
    assert rows.keys() == {"none", "rag", "recency", "summary", "random"}
    heads = page.texts("#matrix thead th[scope=colgroup]")
    assert len(heads) == 2 and all("n=24, 12 users" in head for head in heads)
    own, twin = rows["rag"].find_elements("css selector", "td:nth-child(3) circle")[::-1]
    assert (own.get_attribute("fill"), twin.get_attribute("fill")) == (
        own.get_attribute("stroke"),
        "var(--card)",
    )
    assert own.get_attribute("stroke") == twin.get_attribute("stroke")
    assert "n=6" in rows["summary"].text and "3 users" in rows["summary"].text
    (unsure,) = rows["summary"].find_elements("css selector", "circle")
    assert unsure.get_attribute("stroke") == "var(--unsure)", "three users have no interval"
    assert rows["rag"].rect["y"] < 900, "on the first screen"
    assert not page.one("#sentences").is_displayed()
    page.one("#words summary").click()
    assert "rag" in page.one("#sentences").text


def test_a_method_has_one_hue_and_a_control_is_its_fill_or_size(page: Page) -> None:
    script = """
        const rows = report.groups.flatMap((group) => group.rows);
        return rows.map((row) => [row.method, row.history, row.baseline, markStyle(row, true)])"""
    marks = run(page, script)
    hues: dict[str, set[str]] = {}
    for method, _, _, style in marks:
        hues.setdefault(method, set()).add(style["color"])
    assert all(len(colours) == 1 for colours in hues.values()), hues
    assert len(set.union(*hues.values())) == len(hues), "methods differ"
    by_history = {history: style for method, history, _, style in marks if method == "rag"}
    assert by_history["shuffled"]["fill"] == "var(--card)" != by_history["own"]["fill"]
    assert by_history["size=2"]["r"] < by_history["own"]["r"]
    drawn = {each.get_attribute("stroke") for each in page.all("svg[aria-label^='rouge-1'] circle")}
    assert drawn <= {next(iter(colours)) for colours in hues.values()} | {"var(--unsure)"}


def luminance(colour: list[float]) -> float:
    parts = [part / 255 for part in colour[:3]]
    linear = [
        part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: list[float], other: list[float]) -> float:
    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


# Every painted colour of a figure but its grid, blended with its opacity over the card.
PAINTS = """
    const number = (text) => text.match(/[\\d.]+/g).map(Number);
    const probe = document.body.appendChild(document.createElement("i"));
    probe.style.color = "var(--card)";
    const card = number(getComputedStyle(probe).color);
    probe.remove();
    const marks = document.querySelectorAll(
      ".plot g[aria-label=dot] *, .plot g[aria-label=rule] line, .plot g[aria-label=line] path, "
      + ".plot g[aria-label=rect] rect, .plot g[aria-label=text] text, "
      + ".plot [aria-label*=axis] text, "
      + ".mark-of line, .mark-of circle, .cell .zero, .cell .tick, .key path");
    const paints = [];
    for (const mark of marks) {
      const style = getComputedStyle(mark);
      const wanted = mark.tagName === "text" ? ["fill"] : ["stroke", "fill"];
      const painted = wanted.filter((kind) => style[kind].startsWith("rgb"));
      const seen = painted.map((kind) => {
        const [r, g, b, a = 1] = number(style[kind]);
        let alpha = a * Number(style[`${kind}Opacity`]);
        for (let node = mark; node instanceof SVGElement; node = node.parentNode)
          alpha *= Number(getComputedStyle(node).opacity);
        return [r, g, b].map((part, at) => alpha * part + (1 - alpha) * card[at]);
      });
      if (seen.length) paints.push([mark.outerHTML.slice(0, 120), seen]);
    }
    return [card, paints];"""


@pytest.mark.parametrize("dark", [False, True])
def test_every_mark_stands_out_from_its_background(page: Page, dark: bool) -> None:
    page.emulate(1400, dark=dark)
    card, paints = run(page, PAINTS)
    assert len(paints) > 100
    # Of a hollow mark the edge counts.
    faint = [
        (mark, seen)
        for mark, seen in paints
        if max(contrast(colour, card) for colour in seen) < 3.0
    ]
    assert not faint
    hues = run(
        page,
        """const style = getComputedStyle(document.documentElement);
           const names = ["gain", "loss", "baseline", "unsure", "thin"];
           for (let hue = 0; hue < HUES; hue += 1) names.push(`hue-${hue}`);
           return names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()])""",
    )
    assert len(hues) == 15
    for name, value in hues:
        text = value.removeprefix("#")
        text = text if len(text) == 6 else "".join(2 * letter for letter in text)
        colour = [int(text[at : at + 2], 16) for at in (0, 2, 4)]
        assert contrast(colour, card) >= 3.0, (name, value)


@pytest.mark.variants
def test_the_address_keeps_the_view(page: Page, report: Path) -> None:
    page.set("#filter-model", "another")
    page.until(lambda: len(page.texts("#one option")) == 4)
    page.set("#filter-method", "ra")
    page.sort("Gain")
    page.one("#chooser summary").click()
    page.one("#columns input[name='Made worse']").click()
    page.set("#order", "loss")
    page.all("#list button")[3].click()
    page.until(lambda: page.all("#list button[aria-current]"))
    address = page.driver.current_url
    chosen = page.one("#sample h3").text
    assert address.startswith(report.as_uri() + "#model=another&method=ra")

    page.driver.get("about:blank")
    page.driver.get(address)
    page.until(lambda: page.texts("#sample h3") == [chosen] or page.texts("#sample h3 small"))
    page.until(lambda: page.one("#sample h3").text == chosen)
    assert page.one("#filter-method").get_attribute("value") == "ra"
    assert page.one("#order").get_attribute("value") == "loss"
    assert page.one("#table th[aria-sort=descending]").text.startswith("Gain")
    assert "Made worse" not in page.texts("#table thead th button")
    assert len(page.all("#table tbody tr.block")) == 1
    assert page.driver.current_url == address

    run(page, "location.hash = 'sort=Gain:up'")
    page.until(lambda: page.all("#table th[aria-sort=ascending]"))
    assert page.one("#filter-method").get_attribute("value") == ""


def test_columns_explain_themselves_and_can_be_chosen(page: Page) -> None:
    heads = page.all("#table thead button")
    assert all((head.get_attribute("title") or "").endswith(".") for head in heads)
    page.one("#chooser summary").click()
    sentences = page.texts("#columns label small")
    assert len(sentences) == len(page.all("#columns input")) and all(sentences)
    assert "Tokens/user" not in page.texts("#table thead button")
    page.one("#columns input[name='Tokens/user']").click()
    assert "Tokens/user" in page.texts("#table thead button")
    assert page.one("#columns input[name=Method]").get_attribute("disabled")


def test_head_and_first_column_stay_while_the_table_scrolls(page: Page) -> None:
    page.emulate(500)
    script = """
        const box = document.querySelector(".tall");
        box.style.maxHeight = "220px";
        const side = (selector, name) => {
          const cell = document.querySelector(selector).getBoundingClientRect();
          return Math.round(cell[name] - box.getBoundingClientRect()[name]);
        };
        const head = "#table thead th:nth-child(2)";
        const places = () => [side(head, "top"), side("#table tbody th[scope=row]", "left")];
        const before = places();
        box.scrollTo(120, 150);
        return [before, places(), box.scrollLeft, box.scrollTop]"""
    before, after, left, top = run(page, script)
    assert left > 50 and top > 50
    assert before == after


def test_samples_are_filtered_by_flag_and_score(page: Page) -> None:
    choose_group(page, "made-up")
    page.until(lambda: len(page.texts("#one option")) == len(METHODS))
    page.one("#sample-filters summary").click()
    assert page.texts("#has option") == ["any", "cut profile"]
    page.set("#has", "cut_profile")
    assert page.texts("#found") == ["12 of 24 samples"]
    none = next(each for each in page.all("#of option") if each.text == "none")
    page.set("#of", none.get_attribute("value"))
    assert page.texts("#found") == ["0 of 24 samples"]
    page.set("#has", "")
    scores = run(page, "return browsing.index.scores[rowOf('one')]")
    limit = sorted(scores)[len(scores) // 2]
    page.set("#least", str(limit))
    expected = sum(score >= limit for score in scores)
    assert page.texts("#found") == [f"{expected} of 24 samples"]
    page.set("#most", str(limit))
    assert page.texts("#found") == [f"{scores.count(limit)} of 24 samples"]


def test_samples_are_filtered_by_metadata(browser: Page, tmp_path: Path) -> None:
    words = [
        "run",
        "-t",
        "reviews",
        "-m",
        "none",
        "-b",
        "scripted",
        "-n",
        "16",
        "--results",
        str(tmp_path),
    ]
    assert CliRunner().invoke(app, words).exit_code == 0
    write(tmp_path, tmp_path / "report.html")
    browser.emulate(1400)
    browser.open(tmp_path / "report.html")
    browser.one("#sample-filters summary").click()
    choices = browser.texts("#metadata option")[1:]
    ratings = [choice for choice in choices if choice.startswith("rating: ")]
    assert len(ratings) > 1
    whole = len(run(browser, "return browsing.index.samples"))
    shown = []
    for option in browser.all("#metadata option"):
        if option.text in ratings:
            browser.set("#metadata", option.get_attribute("value"))
            shown.append(int(browser.texts("#found")[0].split(" of ")[0]))
    assert sum(shown) == whole and min(shown) > 0


def test_words_that_answer_and_reference_share_are_marked(page: Page) -> None:
    reference, output = "Lantern of the harbour", "Harbour, lantern and rag"
    script = """
        const host = document.createElement("div");
        host.append(...sharedWords(arguments[0], wordSet([arguments[1]])));
        const marked = [...host.querySelectorAll("mark")].map((each) => each.textContent);
        return [host.textContent, marked]"""
    assert run(page, script, output, reference) == [output, ["Harbour", "lantern"]]
    assert run(page, script, "猫は好き", "犬が好き")[1] == ["好き"]
    answers = page.texts(".answers .card .text")
    references = " ".join(
        run(page, "return [...document.querySelectorAll('#sample > .text')]")[-1].text.split()
    )
    marked = {word.lower() for word in page.texts(".answers mark")}
    assert answers and marked == {"harbour", "lantern"} & set(references.lower().split())


@pytest.fixture
def saved(page: Page, tmp_path: Path) -> Any:
    """Press a button of a figure and read the file that it saves."""
    command = page.driver.execute_cdp_cmd
    command("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})

    def press(host: str, kind: str) -> bytes:
        before = set(tmp_path.iterdir())
        page.driver.execute_script(
            "arguments[0].click()", page.one(f"{host} .tools [aria-label$='as {kind}']")
        )
        page.until(
            lambda: {
                each
                for each in set(tmp_path.iterdir()) - before
                if each.suffix == f".{kind.lower()}"
            }
        )
        (path,) = set(tmp_path.iterdir()) - before
        page.until(lambda: path.stat().st_size)
        return path.read_bytes()

    return press


FIGURES = ("#matrix", *(f"#figures > figure:nth-child({number})" for number in range(1, 7)))


@pytest.mark.parametrize("host", FIGURES)
def test_a_figure_is_saved_with_its_protocol_and_its_numbers(
    page: Page, saved: Any, host: str
) -> None:
    choose_group(page, "made-up")
    page.until(lambda: page.all(host))
    page.emulate(1400, dark=True)
    picture = ElementTree.fromstring(saved(host, "SVG"))
    text = " ".join("".join(each.itertext()) for each in picture.iter(f"{SVG}text"))
    assert "95 % intervals over users (bootstrap)" in text and "24 samples of" in text
    assert "rag" in text
    styled = [each for each in picture.iter() if each.get("style") or each.get("class")]
    assert not styled and not list(picture.iter(f"{SVG}style")), "looks the same everywhere"
    assert not any("var(" in value for each in picture.iter() for value in each.attrib.values())
    background = next(picture.iter(f"{SVG}rect"))
    assert background.get("fill") == "#ffffff"
    rows = list(csv.DictReader(io.StringIO(saved(host, "CSV").decode())))
    assert rows and {"task", "model", "metric", "method"} <= rows[0].keys()
    assert {row["method"] for row in rows} >= {"rag"}


def test_a_figure_is_saved_as_a_bitmap(page: Page, saved: Any) -> None:
    content = saved("#figures > figure:nth-child(1)", "PNG")
    assert content.startswith(b"\x89PNG")
    width = int.from_bytes(content[16:20], "big")
    assert width > 1200, "sharp in print"
    script = """
        const done = arguments[1];
        const bytes = Uint8Array.from(atob(arguments[0]), (each) => each.charCodeAt(0));
        createImageBitmap(new Blob([bytes])).then((image) => {
          const canvas = document.createElement("canvas");
          Object.assign(canvas, { width: image.width, height: image.height });
          const context = canvas.getContext("2d");
          context.drawImage(image, 0, 0);
          done(new Set(context.getImageData(0, 0, image.width, image.height).data).size);
        })"""
    assert page.driver.execute_async_script(script, base64.b64encode(content).decode()) > 20


def test_text_of_a_csv_is_no_formula(page: Page) -> None:
    cells = run(page, "return ['=1+1', '-x', 'a\"b', 1.5, -2, null].map(csvCell)")
    assert cells == ['"\'=1+1"', '"\'-x"', '"a""b"', "1.5", "-2", ""]


def test_a_phone_shows_scores_without_scrolling_sideways(page: Page, report: Path) -> None:
    page.emulate(390)
    page.driver.refresh()
    page.open(report)
    assert run(page, "return document.documentElement.scrollWidth") <= 390
    script = """
        const cells = [...document.querySelectorAll(arguments[0])];
        const boxes = cells.map((each) => each.getBoundingClientRect());
        return [boxes.length, Math.max(...boxes.map((box) => box.right))]"""
    for cells in ("#matrix td", "#table tbody tr:not(.block) td:nth-child(2)"):
        number, right = run(page, script, cells)
        assert number > 5 and right <= 390, cells


def test_the_browser_opens_where_there_are_samples(browser: Page, tmp_path: Path) -> None:
    make(tmp_path, METHODS[:3], users=8, each=1)
    for found in read_runs(tmp_path):
        publish(RunFolder(found.path), tmp_path / "reference")
    shutil.rmtree(tmp_path / "runs")
    make(tmp_path, METHODS[:3], users=8, each=1, model={"kind": "scripted", "name": "zeta"})
    write(tmp_path, tmp_path / "report.html", with_reference=True)
    browser.emulate(1400)
    browser.open(tmp_path / "report.html")
    assert browser.texts("#found") == ["8 of 8 samples"]
    chosen = run(
        browser, "return ['one', 'other'].map((name) => byId(name).selectedOptions[0].text)"
    )
    assert chosen == ["rag", "none"]
    assert "zeta" in browser.texts("#matrix thead th")[1], "one's own runs come first"
    browser.set("#samples .group-choice", "1")
    browser.until(lambda: "published scores" in browser.one("#sample").text)
    assert browser.console() == []


@pytest.mark.skipif(not shutil.which("pdftotext"), reason="poppler-utils is not installed")
@pytest.mark.variants
def test_paper_repeats_the_heads_of_tables(browser: Page, tmp_path: Path) -> None:
    grid = tuple(Method("rag", records=1, params={"k": k}) for k in range(1, 40))
    make(tmp_path, (Method("none"), *grid), users=6, each=1)
    write(tmp_path, tmp_path / "report.html")
    browser.open(tmp_path / "report.html")
    printed = browser.driver.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})
    (tmp_path / "page.pdf").write_bytes(base64.b64decode(printed["data"]))
    words = ["pdftotext", "-layout", str(tmp_path / "page.pdf"), "-"]
    text = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    results = text[text.index("Results") : text.index("Plots")]
    pages = results.split("\f")
    with_rows = [each for each in pages if "rag (k=" in each]
    assert len(with_rows) > 1 and all("worse" in each for each in with_rows), with_rows
    assert "rag (k=12)" in results, "names are not squeezed"
