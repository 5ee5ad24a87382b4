"""The page in a real browser: it sorts, filters and browses, asks nobody for anything, and runs
nothing but its own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from browser_page import Page, needs_browser
from synthetic_runs import SUITE, Method, make

from personabench.report import write

pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

pytestmark = needs_browser

EVIL = (
    '</script><script>document.title="owned"</script>'
    '<img src="https://example.invalid/x.png" onerror="owned=1">'
)


def answer(method: str, sample: str) -> str:
    """Every second answer tries to get out of its place."""
    return EVIL if sample.endswith("-1") else f"Harbour lantern by {method}"


METHODS = "#table tbody th[scope=row]"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    make(folder, answer=answer)
    make(folder, SUITE[:2], answer=answer, model={"kind": "scripted", "name": "another"})
    assert write(folder, folder / "report.html") == []
    return folder / "report.html"


@pytest.fixture
def page(browser: Page, report: Path) -> Iterator[Page]:
    browser.emulate(1400)
    browser.requests()
    browser.open(report)
    yield browser
    assert browser.console() == []
    assert browser.requests() == [report.as_uri()]


def test_the_page_shows_everything_without_a_complaint_or_a_request(page: Page) -> None:
    assert page.texts("#filtered") == ["12 of 12 runs"]
    assert len(page.all("#sentences .card")) == 2
    assert len(page.all("#table tbody tr:not(.block)")) == 12
    assert len(page.all("#table tbody tr.block")) == 2
    titles = page.texts("#figures > figure > figcaption strong")
    assert titles[:2] == ["rouge-1", "Gain over none"]
    page.set("#plots .group-choice", "1" if len(titles) == 4 else "0")
    titles = page.texts("#figures > figure > figcaption strong")
    assert titles[2:4] == ["Is the gain personal?", "Quality against cost"]
    assert titles[4:] == ["How much history", "How much k", "Gain of each user over none"]
    assert len(page.all("#figures svg.plot")) == 5 + 1 + 9
    assert len(page.texts("#statistics li")) > 5
    assert len(page.all("#provenance details")) == 12


def test_columns_sort_within_a_task_both_ways_and_back(page: Page) -> None:
    def scores() -> list[list[float]]:
        blocks = page.columns("rouge-1 ↑")
        return [[float(text.split()[0].split("[")[0]) for text in block] for block in blocks]

    before = page.texts(METHODS)
    page.sort("rouge-1")
    assert len(scores()) == 2, "two models are never in one order"
    assert scores() == [sorted(block, reverse=True) for block in scores()]
    assert page.one("#table th[aria-sort=descending] button").text.startswith("rouge-1")
    page.sort("rouge-1")
    assert scores() == [sorted(block) for block in scores()]
    page.sort("rouge-1")
    assert page.texts(METHODS) == before


def test_rows_without_a_value_sort_last(page: Page) -> None:
    for _ in range(2):
        page.sort("Gain")
        for gains in page.columns("Gain"):
            assert all(gains[:-1]) and gains[-1] == ""


def test_filters_reach_the_whole_page(page: Page) -> None:
    page.set("#filter-model", "another")
    assert page.texts("#filtered") == ["2 of 12 runs"]
    assert len(page.all("#sentences .card")) == 1
    assert len(page.all("#provenance details")) == 2
    page.until(lambda: page.texts(".answers .card strong") == page.texts("#one option"))
    assert len(page.texts("#one option")) == 2
    page.set("#filter-model", "")
    page.set("#filter-method", "Rec")
    assert page.texts(METHODS) == [name for name in page.texts(METHODS) if "recency" in name]
    assert page.texts("#filtered") == ["1 of 12 runs"]
    page.set("#filter-method", "no such method")
    assert page.texts("#filtered") == ["0 of 12 runs"]


def test_another_metric_has_intervals_but_no_tests(page: Page) -> None:
    page.set("#filter-metric", "rouge-L")
    heads = [head.rstrip(" ▲▼") for head in page.texts("#table thead th")]
    assert "rouge-L ↑" in heads and "Gain" in heads
    assert not {"p", "Beats", "Made worse"} & set(heads)
    assert all("[" in text for text in page.column("rouge-L ↑"))


def test_samples_are_found_ordered_and_compared(page: Page) -> None:
    page.set("#find", "u00007")
    assert page.texts("#found") == ["3 of 120 samples"]
    page.set("#find", "")
    page.set("#order", "loss")
    values = [float(text.replace("−", "-")) for text in page.texts("#list .gain")]
    assert len(values) == 50 and values == sorted(values) and values[0] < 0
    page.one("#more").click()
    assert len(page.all("#list li")) == 100
    page.set("#order", "gain")
    assert float(page.texts("#list .gain")[0].replace("−", "-")) > 0


def test_browsing_shows_input_answers_records_and_messages(page: Page) -> None:
    page.set("#samples .group-choice", "1" if len(page.texts("#one option")) == 2 else "0")
    page.until(lambda: len(page.texts("#one option")) == 10)
    page.set("#find", "q00004-2")
    page.one("#list button").click()
    page.until(lambda: "Sample q00004-2" in page.one("#sample h3").text)
    text = page.one("#sample").text
    assert "q00004-2" in text and "Reference" in text and "Harbour lantern by summary" in text
    assert len(page.all(".answers .card")) == 10
    assert "the user has 6" in text
    assert len(page.all(".records tbody tr")) >= 4
    fold = next(each for each in page.all("#sample details") if "summary" in each.text)
    fold.find_element(By.TAG_NAME, "summary").click()
    page.until(lambda: "Describe u00004." in fold.text)
    assert "Write a headline." in fold.text and "likes short headlines" in fold.text


def test_the_keyboard_is_enough(page: Page) -> None:
    page.one("#list button").send_keys(Keys.ENTER)
    first = page.one("#sample h3").text
    page.driver.execute_script("document.querySelector('.steps button:last-child').focus()")
    page.driver.switch_to.active_element.send_keys(Keys.ENTER)
    page.until(lambda: page.one("#sample h3").text != first)
    button = page.one("#table thead button")
    button.send_keys(Keys.SPACE)
    assert page.all("#table th[aria-sort=ascending]")
    assert page.driver.switch_to.active_element.text.startswith("Method"), (
        "focus stays on the column"
    )


def test_markup_in_an_answer_stays_text(page: Page) -> None:
    page.set("#find", "q00002-1")
    page.one("#list button").click()
    page.until(lambda: "Sample q00002-1" in page.one("#sample h3").text)
    shown = page.texts(".answers .card .text")
    assert shown and set(shown) == {EVIL}
    for fold in page.all("#sample details summary"):
        fold.click()
    page.until(lambda: EVIL in page.texts("#sample .message.reply .text"))
    assert not page.all("img")
    assert page.driver.title == "Personalization report"
    assert page.driver.execute_script("return typeof owned") == "undefined"


def test_the_policy_stops_what_is_not_the_pages_own(browser: Page, report: Path) -> None:
    """Markup that got in nevertheless would neither run nor load."""
    browser.open(report)
    browser.requests()
    add = """
        const script = document.createElement("script"); script.append("window.owned = 1");
        const image = document.createElement("img"); image.setAttribute("src", "https://example.invalid/x.png");
        document.body.append(script, image);
        fetch("https://example.invalid/y").catch(() => {}); """
    browser.driver.execute_script(add)
    browser.until(
        lambda: browser.driver.execute_script("return document.querySelector('img').complete")
    )
    assert browser.driver.execute_script("return typeof owned") == "undefined"
    complaints = " ".join(browser.console())
    for blocked in ("'TrustedScript'", "y' violates", "x.png' violates"):
        assert blocked in complaints, complaints


def test_the_page_fits_a_phone(page: Page, report: Path) -> None:
    page.emulate(390)
    page.driver.refresh()
    page.requests()
    page.open(report)
    assert page.driver.execute_script("return document.documentElement.scrollWidth") <= 390
    widest = (
        "return Math.max(...[...document.querySelectorAll('svg')]"
        ".map((s) => s.getBoundingClientRect().right))"
    )
    assert page.driver.execute_script(widest) <= 390


@pytest.mark.parametrize("width", [390, 1400])
def test_names_of_methods_that_score_and_cost_the_same_do_not_cover_each_other(
    browser: Page, tmp_path: Path, width: int
) -> None:
    same = [
        Method(name, 0.0, 0.0, records=4, params={"k": k})
        for name in ("rag", "recency", "random")
        for k in range(1, 6)
    ]
    make(tmp_path, (SUITE[0], *same), users=8)
    write(tmp_path, tmp_path / "report.html")
    browser.emulate(width)
    browser.open(tmp_path / "report.html")
    script = """
        const chart = document.querySelector('svg[aria-label="Score against cost"]');
        return [...chart.querySelectorAll('g[aria-label=text] text')]
            .map((node) => node.getBoundingClientRect())
            .map(({left, right, top, bottom}) => [left, right, top, bottom])"""
    boxes = browser.driver.execute_script(script)
    assert len(boxes) == 16
    assert max(right for _, right, _, _ in boxes) <= width
    for (left, right, top, bottom), (
        other_left,
        other_right,
        other_top,
        other_bottom,
    ) in combinations(boxes, 2):
        across = min(right, other_right) - max(left, other_left)
        down = min(bottom, other_bottom) - max(top, other_top)
        assert across <= 0 or down <= 3, boxes


LONG = "tokens_that_a_summary_of_a_whole_profile_may_have"
GRID = (
    SUITE[0],
    *(
        Method("summary", offline=90, params={LONG: size, "sessions": 4})
        for size in (32, 64, 128, 256)
    ),
    *(
        Method("summary", offline=90, params={LONG: size, "sessions": 8})
        for size in (32, 64, 128, 256)
    ),
    *(
        Method("summary", offline=90, params={LONG: 32, "sessions": size}, history="shuffled")
        for size in (4, 8)
    ),
    Method("rag", 0.1, records=4),
    Method("rag", 0.1, records=4, history="shuffled"),
)
BOXES = """return [...document.querySelectorAll(arguments[0])].map((each) => {
    const {left, right, top, bottom} = each.getBoundingClientRect();
    return [each.textContent, left, right, top, bottom]})"""


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("grid")
    make(folder, GRID, users=8)
    write(folder, folder / "report.html")
    return folder / "report.html"


def squeezed(names: list[str]) -> list[str]:
    """Names without spaces, which a name in several lines loses."""
    return sorted("".join(name.split()) for name in names)


def separate(boxes: list[list[Any]], width: int) -> bool:
    """Whether boxes lie inside the page and none covers another."""
    inside = all(left >= 0 and right <= width for _, left, right, _, _ in boxes)
    pairs = combinations([box[1:] for box in boxes], 2)
    return inside and all(
        min(a[1], b[1]) - max(a[0], b[0]) <= 0 or min(a[3], b[3]) - max(a[2], b[2]) <= 3
        for a, b in pairs
    )


@pytest.mark.parametrize("width", [390, 1280])
def test_every_run_of_a_grid_has_a_line_of_its_own_and_its_whole_name(
    browser: Page, grid: Path, width: int
) -> None:
    browser.emulate(width)
    browser.open(grid)
    names = browser.driver.execute_script("return report.groups[0].rows.map((row) => row.label)")
    assert len(set(names)) == len(GRID) and max(map(len, names)) > 80
    for title, shown in (("rouge-1", names), ("gain", [name for name in names if name != "none"])):
        figure = f"svg[aria-label^='{title} (']"
        dots = browser.driver.execute_script(BOXES, f"{figure} g[aria-label=dot] circle")
        assert len({round(top) for _, _, _, top, _ in dots}) == len(shown), "a line for each run"
        labels = browser.driver.execute_script(
            BOXES, f"{figure} g[aria-label='y-axis tick label'] > text"
        )
        assert squeezed([label for label, *_ in labels]) == squeezed(shown)
        assert separate(labels, width)
    figure = "svg[aria-label='Score against cost']"
    methods = [name for name in names if "history=" not in name]
    assert len(browser.all(f"{figure} g[aria-label=dot] circle")) == len(methods) < len(names)
    letters = browser.driver.execute_script(BOXES, f"{figure} g[aria-label=text] text")
    assert len({letter for letter, *_ in letters}) == len(methods) and separate(letters, width)
    keys = browser.texts(f"figure:has({figure}) .key li > span:last-child")
    assert squeezed(keys) == squeezed(methods)
    assert separate(
        browser.driver.execute_script(BOXES, f"figure:has({figure}) .key li > span:last-child"),
        width,
    )
    users = browser.texts("#figures figure:last-child .multiples strong")
    assert squeezed(users) == squeezed([name for name in names if name != "none"])
    assert browser.driver.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.console() == []


def test_pointing_at_a_run_tells_its_whole_name(browser: Page, grid: Path) -> None:
    browser.emulate(1280)
    browser.open(grid)
    (label, *_) = browser.driver.execute_script(
        "return report.groups[0].rows.slice(-1).map((row) => row.label)"
    )
    dot = browser.all("svg[aria-label^='rouge-1 ('] g[aria-label=dot] circle")[-1]
    browser.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", dot)
    ActionChains(browser.driver).move_to_element(dot).perform()
    browser.until(lambda: browser.texts("svg[aria-label^='rouge-1 ('] g[aria-label=tip] text"))
    (caption,) = browser.texts("svg[aria-label^='rouge-1 ('] g[aria-label=tip] text")
    assert "".join(caption.split()).replace("\u200b", "").startswith("".join(label.split()))


def test_curves_of_one_method_are_told_apart(browser: Page, grid: Path) -> None:
    browser.emulate(1280)
    browser.open(grid)
    figure = f"figure:has(svg[aria-label='Score against {LONG}'])"
    own = ["summary (sessions=4), n=24", "summary (sessions=8), n=24"]
    assert sorted(browser.texts(f"{figure} .key li")) == own
    assert len(browser.all(f"{figure} g[aria-label=line] path")) == 2
    assert len(browser.texts(f"{figure} g[aria-label=dot] path")) == 8


def test_a_curve_joins_common_samples_only_and_says_so(browser: Page, tmp_path: Path) -> None:
    some = {1: range(0, 12), 2: range(4, 16), 4: range(0, 20), 8: range(19, 21)}
    make(
        tmp_path,
        tuple(
            Method("rag", 0.0, 0.0, records=k, params={"k": k}, asked=who)
            for k, who in some.items()
        ),
        users=24,
    )
    write(tmp_path, tmp_path / "report.html")
    browser.emulate(1280)
    browser.open(tmp_path / "report.html")
    figure = "figure:has(svg[aria-label='Score against k'])"
    heights = {
        round(box[3])
        for box in browser.driver.execute_script(BOXES, f"{figure} g[aria-label=dot] path")[:3]
    }
    assert len(heights) == 1, "the same answers on the same samples score the same"
    (line,) = browser.all(f"{figure} g[aria-label=line] path")
    assert line.get_attribute("d").count("L") == 2
    assert len(browser.all(f"{figure} g[aria-label=dot] path[fill='var(--card)']")) == 1
    assert browser.texts(f"{figure} .key li") == ["rag, n=24, 6"]
    caption = " ".join(browser.texts(f"{figure} p"))
    assert "the 24 samples of 8 users that joined points have; the runs have 36, 36, 60" in caption
    assert "Not joined" in caption and "k=8 (n=6)" in caption
    frontier = "figure:has(svg[aria-label='Score against cost'])"
    assert len(browser.all(f"{frontier} g[aria-label=dot] circle[fill='var(--card)']")) == 2
    assert "hollow" in browser.texts(f"{frontier} figcaption")[0]


def test_groups_of_the_same_task_and_model_have_different_names(
    browser: Page, tmp_path: Path
) -> None:
    for number in (1, 2):
        make(
            tmp_path,
            SUITE[:2],
            users=6,
            model={"kind": "scripted", "name": "tiny", "quantization": f"q{number}"},
        )
    write(tmp_path, tmp_path / "report.html")
    browser.emulate(1280)
    browser.open(tmp_path / "report.html")
    names = browser.texts("#plots .group-choice option")
    assert len(names) == len(set(names)) == 2 and all("quantization q" in name for name in names)
    assert len(set(browser.texts("#table .block strong"))) == 2
    runs = browser.texts("#table tbody a")
    browser.set("#filter-method", runs[0])
    assert browser.texts("#table tbody a") == runs[:1]


def test_dark_follows_the_system_and_the_button(page: Page) -> None:
    def background() -> str:
        found: str = page.driver.execute_script(
            "return getComputedStyle(document.body).backgroundColor"
        )
        return found

    light = background()
    page.emulate(1400, dark=True)
    dark = background()
    assert dark != light
    page.one("#theme").click()
    assert background() == light
    page.one("#theme").click()
    assert background() == dark


def test_print_leaves_out_what_is_only_for_screens(page: Page) -> None:
    page.emulate(800, dark=True, media="print")
    assert (
        page.driver.execute_script("return getComputedStyle(document.body).backgroundColor")
        == "rgb(255, 255, 255)"
    )
    assert not page.one("#filters").is_displayed()
    assert not page.one("#samples").is_displayed()
    assert page.one("#table").is_displayed() and page.one("#figures svg").is_displayed()


def test_a_run_in_the_table_leads_to_its_provenance(page: Page) -> None:
    link = page.one("#table tbody a")
    page.driver.execute_script("arguments[0].click()", link)
    page.until(lambda: page.all("details.run[open] dd"))
    assert page.one("details.run[open] code").text == link.text
    facts = dict(
        zip(page.texts("details.run[open] dt"), page.texts("details.run[open] dd"), strict=True)
    )
    assert facts["fingerprint"].startswith(link.text)
    assert {
        "data hash",
        "method hash",
        "params",
        "sampling",
        "seed",
        "versions",
        "usage",
    } <= facts.keys()


@pytest.mark.slow
def test_5000_samples_of_8_methods_open_in_3_seconds_and_weigh_25_mb(
    browser: Page, tmp_path: Path
) -> None:
    eight = (*SUITE[:7], Method("recency", 0.05, 0.05, records=8, params={"k": 8}))
    make(tmp_path, eight, users=1000, each=5, records=20, words=900)
    path = tmp_path / "report.html"
    write(tmp_path, path)
    assert 10e6 < path.stat().st_size < 25e6, "texts that do not compress away"
    browser.emulate(1400)
    assert min(browser.open(path) for _ in range(5)) < 3.0
    assert browser.texts("#found") == ["5,000 of 5,000 samples"]
    begun = time.perf_counter()
    browser.set("#order", "loss")
    browser.one("#list button").click()
    browser.until(lambda: browser.all("#list button[aria-current]"))
    assert time.perf_counter() - begun < 3.0
    assert browser.console() == []
