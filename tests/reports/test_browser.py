"""A report's HTML page in a real browser: it sorts, leads to its runs, is readable, and runs no foreign code."""

from __future__ import annotations

import re

import pytest

from reports.formats import files
from tests.reports import tricky
from tests.reports.browser import COLOURS, broken_links, column, every, header, look, printed, wait

pytest.importorskip("selenium")
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys


@pytest.fixture(scope="session")
def pages(finished, write_report, tmp_path_factory):
    """A finished sweep's page, and the tricky one."""
    plan, runs_dir, collected = finished
    folder = tmp_path_factory.mktemp("pages")
    write_report(collected, plan, folder / "ablation", folder=runs_dir)
    files.write(tricky.page(folder), folder / "awkward [out] 100%" / "tricky")
    return {"ablation": folder / "ablation", "tricky": folder / "awkward [out] 100%" / "tricky"}


@pytest.fixture
def view(chromium, pages):
    """Opens one of ``pages`` afresh, in light colours on a wide screen; the console must stay silent."""

    def opened(name, width=1280, scheme="light"):
        look(chromium, width, scheme)
        chromium.get("about:blank")
        chromium.get((pages[name] / "report.html").as_uri())
        return chromium

    yield opened
    assert chromium.get_log("browser") == []


@pytest.mark.parametrize("name", ["ablation", "tricky"])
def test_every_link_and_picture_is_there(view, pages, name):
    driver = view(name)
    ids = every(driver, "[id]", "e.id")
    assert len(every(driver, "a", "1")) > 30 and len(ids) == len(set(ids))
    assert broken_links(driver, pages[name]) == []
    assert set(every(driver, "[popovertarget]", "e.getAttribute('popovertarget')")) <= set(ids)
    assert set(every(driver, "[aria-labelledby]", "e.getAttribute('aria-labelledby')")) <= set(ids)
    pictures = every(driver, "img", "[e.naturalWidth, e.alt]")
    assert len(pictures) == {"ablation": 5, "tricky": 1}[name]
    assert all(width > 0 and alt for width, alt in pictures)
    assert every(driver, "link, iframe, [src]:not(img), img:not([src^='data:'])", "e.outerHTML") == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400, 1920])
def test_every_verdict_is_shown_whole(view, width, scheme):
    """On a narrow screen once the table is scrolled to its end."""
    driver = view("ablation", width=width, scheme=scheme)
    if width > 400:
        assert not any(every(driver, ".wide", "e.scrollWidth > e.clientWidth"))
    driver.execute_script("document.querySelector('.wide').scrollLeft = 1e6")
    right = "e.getBoundingClientRect().right"
    ends = every(
        driver,
        ".wide .tone > span",
        f"[{right}, ...['td', '.wide'].map((s) => e.closest(s)).map((e) => {right})]",
    )
    assert ends and all(badge <= min(cell, table) for badge, cell, table in ends)


def test_a_narrow_screen_scrolls_figures_rather_than_shrinking_them(view):
    driver = view("ablation", width=400)
    pictures = every(driver, "figure img", "[e.getBoundingClientRect().width, Number(e.getAttribute('width'))]")
    assert pictures and all(shown >= own for shown, own in pictures)


@pytest.mark.parametrize("name", ["ablation", "tricky"])
def test_a_narrow_screen_scrolls_the_table_and_not_the_page(view, name):
    driver = view(name, width=400)
    assert driver.execute_script("return document.documentElement.scrollWidth") <= 400
    assert any(every(driver, ".wide", "e.scrollWidth > e.clientWidth"))
    driver.execute_script("document.querySelector('.wide').scrollLeft = 150")
    edges = "return ['', ' tbody th'].map((s) => document.querySelector('.wide' + s).getBoundingClientRect().left)"
    outer, first = driver.execute_script(edges)
    assert first == pytest.approx(outer, abs=2)  # the arm's name stays in sight
    button = driver.find_element(By.CSS_SELECTOR, ".runs-of")
    driver.execute_script("arguments[0].click()", button)
    wait(driver, lambda: every(driver, ".placed:popover-open", "1"))
    left, right = every(driver, ":popover-open", "[e.getBoundingClientRect().left, e.getBoundingClientRect().right]")[0]
    assert left >= 0 and right <= 400


def test_numbers_sort_as_numbers_and_the_third_click_restores(view):
    driver = view("tricky")
    before = column(driver, "verdicts", 2)
    head = header(driver, "verdicts", 2)
    states = []
    for _ in range(3):
        head.find_element(By.TAG_NAME, "button").click()
        values = every(driver, "#verdicts > .wide tbody td:nth-child(2)", "e.dataset.order ?? null")
        states.append((head.get_attribute("aria-sort"), [None if v is None else float(v) for v in values]))
    assert states[0] == ("ascending", [-3.0, 8.25, 9.5, 71.0, 71.0, 100.25, None])
    assert states[1] == ("descending", [100.25, 71.0, 71.0, 9.5, 8.25, -3.0, None])
    assert states[2][0] == "none" and column(driver, "verdicts", 2) == before


def test_words_sort_as_words_by_keyboard_too(view):
    driver = view("tricky")
    head = header(driver, "table-1", 1)
    head.find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
    assert column(driver, "table-1", 1) == ["Alpha", "alpha 9", "alpha 10", "bravo", "charlie", "delta"]
    head.find_element(By.TAG_NAME, "button").send_keys(Keys.SPACE)
    assert head.get_attribute("aria-sort") == "descending" and column(driver, "table-1", 1)[0] == "delta"


def test_pairs_stay_together_and_one_column_sorts_at_a_time(view):
    driver = view("tricky")
    pairs = "#table-1 > .wide tbody"
    rows = "[...e.rows].map((r) => r.cells[0].textContent + ' ' + r.cells[1].textContent)"
    before = every(driver, pairs, rows)
    for n in (1, 2):
        header(driver, "table-1", n).find_element(By.TAG_NAME, "button").click()
    after = every(driver, pairs, rows)
    assert [pair[0] for pair in after] == [
        "alpha 9 −20.0", "alpha 10 −10.0", "bravo 0.0", "Alpha 20.0", "delta 30.0", "charlie –",
    ]  # fmt: skip
    assert sorted(after) == sorted(before) and all(pair[1].startswith("ours ") for pair in after)
    assert every(driver, "#table-1 th[aria-sort]:not([aria-sort='none'])", "e.cellIndex") == [1]
    assert set(every(driver, "#verdicts th[aria-sort]", "e.getAttribute('aria-sort')")) == {"none"}


def test_a_number_opens_the_list_of_exactly_its_runs(view, pages):
    driver = view("tricky")
    section = next(s for s in tricky.page(pages["tricky"] / "again").sections if s.name == "verdicts")
    buttons = driver.find_elements(By.CSS_SELECTOR, "#verdicts .runs-of")
    cells = [cell for row in section.grid.rows for cell in row if cell.runs]
    assert len(buttons) == len(cells) == 14
    for button, cell in [(buttons[0], cells[0]), (buttons[-1], cells[-1])]:
        button.send_keys(Keys.ENTER)
        wait(driver, lambda: every(driver, ".placed:popover-open", "1"))
        assert every(driver, ":popover-open .to-run", "e.textContent") == list(cell.runs)
        text = every(driver, ":popover-open", "e.innerText")[0]
        shown = [run for run in section.runs if run.id in cell.runs]
        for run in shown:
            assert f"{run.arm}, seed {run.seed}, {' '.join(run.status.split())}, commit {run.commit[:8]}" in text
            assert f"metrics.jsonl:{run.sources[1].line}" in text
        links = every(driver, ":popover-open span a", "decodeURI(e.href)")
        assert len(links) == 3 * len(shown) and all("/run-" in link for link in links)
        near = "[e.getBoundingClientRect().top, e.getBoundingClientRect().bottom]"
        (top, bottom), (at, end) = every(driver, ":popover-open", near)[0], driver.execute_script(
            f"const e = arguments[0]; return {near}", button
        )  # fmt: skip
        assert abs(top - end) < 12 or abs(bottom - at) < 12  # beside its number
        button.send_keys(Keys.ESCAPE)
        assert every(driver, ":popover-open", "1") == []


def test_a_run_in_the_list_leads_to_its_row_though_it_was_folded_or_filtered_away(view):
    driver = view("tricky")
    assert every(driver, "#verdicts details.runs", "e.open") == [False]
    driver.find_element(By.CSS_SELECTOR, "#verdicts .runs-of").click()
    link = driver.find_element(By.CSS_SELECTOR, ":popover-open .to-run")
    wait(driver, link.is_displayed)
    run = link.text
    link.click()
    wait(driver, lambda: every(driver, "#verdicts details.runs", "e.open") == [True])
    assert every(driver, ":target code", "e.textContent")[0] == run and every(driver, ":popover-open", "1") == []
    box = driver.find_element(By.CSS_SELECTOR, "#verdicts .filter input")
    box.send_keys("ARM 0000000a")
    assert every(driver, "#verdicts .runs tbody:not([hidden]) td:nth-child(2)", "e.textContent") == ["arm 3"]
    assert every(driver, "#verdicts output", "e.textContent") == ["1 of 24"]
    driver.execute_script("location.hash = ''")
    driver.find_element(By.CSS_SELECTOR, "#verdicts .runs-of").click()
    driver.find_element(By.CSS_SELECTOR, ":popover-open .to-run").click()
    wait(driver, lambda: len(every(driver, "#verdicts .runs tbody:not([hidden])", "1")) == 24)


def test_marks_lead_to_their_remark_and_back(view):
    driver = view("tricky")
    marks = every(driver, "#verdicts sup a", "[e.textContent, e.id, e.hash]")
    assert [letter for letter, _, _ in marks] == list("abaabaabaab")
    assert all(target == f"#verdicts.remark-{letter}" for letter, _, target in marks)
    back = every(driver, ".remarks .back", "e.hash.slice(1)")
    assert sorted(back) == sorted(mark for _, mark, _ in marks)


def test_hostile_words_are_shown_and_nothing_more(view):
    driver = view("tricky")
    assert driver.title.startswith("Tricky <script>")
    assert len(every(driver, "script", "1")) == 1 and len(every(driver, "img", "1")) == 1
    shown = " ".join(tricky.HOSTILE.split())
    every(driver, "details", "e.open = true")
    notes = every(driver, "#verdicts td.notes", "e.innerText")
    assert len(notes) == 24 and set(notes) == {shown}
    assert every(driver, "#verdicts .settings pre", "e.innerText")[0] == f"note: {tricky.HOSTILE}\n"
    assert every(driver, ".warnings li", "e.innerText")[0] == shown
    # in sentences, stars and backquotes are markup, and nothing else is
    sentence = shown.replace("*z*", "z").replace("`c`", "c")
    assert every(driver, "#verdicts .places li, figcaption", "e.firstChild.textContent")[0] in sentence
    assert sentence in every(driver, "#verdicts .remarks dd", "e.innerText")[0]


def test_the_policy_lets_nothing_else_run(view, chromium):
    driver = view("tricky")
    driver.execute_script("""
      const script = document.createElement("script");
      script.textContent = "document.title = 'owned'";
      document.body.append(script);
      const image = document.createElement("img");
      image.src = "http://127.0.0.1:9/x.png";
      document.body.append(image);
    """)
    wait(driver, lambda: every(driver, "img", "e.complete") == [True, True])
    assert driver.title != "owned"
    messages = [entry["message"] for entry in chromium.get_log("browser")]
    assert len(messages) == 2 and all("Content Security Policy" in message for message in messages)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_contrast(view, scheme):
    driver = view("tricky", scheme=scheme)
    dark = scheme == "dark"
    assert (sum(rgb(driver.execute_script(COLOURS, driver.find_element(By.TAG_NAME, "main"))[1])) < 200) == dark
    selector = (
        ".tone > :first-child, .runs-of, .caution, .legend li, .remarks dd, h2, a, .about, summary, .state, td code"
    )
    elements = driver.find_elements(By.CSS_SELECTOR, selector)
    assert len(elements) > 50
    for element in elements:
        ratio = contrast(*map(rgb, driver.execute_script(COLOURS, element)))
        assert ratio >= 4.5, (element.get_attribute("outerHTML")[:200], ratio)


def test_tones_differ_without_colour(view):
    driver = view("tricky")
    tone = "#verdicts .tone-{} > :first-child"
    look = "getComputedStyle(e, '::before').content + getComputedStyle(e).fontWeight + getComputedStyle(e).fontStyle"
    looks = [every(driver, tone.format(name), look)[0] for name in ("agrees", "inconclusive", "excluded", "waiting")]
    assert len(set(looks)) == 4


def test_print_has_everything_and_no_controls(view):
    driver = view("tricky")
    with printed(driver):
        driver.execute_script("window.dispatchEvent(new Event('beforeprint'))")
        assert all(every(driver, "details", "e.open"))
        assert set(every(driver, ".wide", "getComputedStyle(e).overflow")) == {"visible"}
        assert set(every(driver, "nav, .filter", "getComputedStyle(e).display")) == {"none"}
        driver.execute_script("window.dispatchEvent(new Event('afterprint'))")
        assert not any(every(driver, "details", "e.open"))


def test_decimal_points_of_a_column_meet(view):
    driver = view("tricky")
    script = """
      return [...document.querySelectorAll("#verdicts > .wide tbody td:nth-child(2) button")].map((button) => {
        const texts = document.createTreeWalker(button, NodeFilter.SHOW_TEXT);
        for (let text; (text = texts.nextNode()); ) {
          const at = text.data.indexOf(".");
          if (at < 0) continue;
          const range = document.createRange();
          range.setStart(text, at);
          range.setEnd(text, at + 1);
          return [button.textContent, range.getBoundingClientRect().left];
        }
      });
    """
    points = [left for text, left in driver.execute_script(script) if re.match(r"\d", text)]
    assert len(points) == 5 and max(points) - min(points) < 1.5


def rgb(colour):
    return tuple(float(part) for part in re.findall(r"[\d.]+", colour)[:3])


def contrast(first, second):
    """Of WCAG 2: 21 for black on white."""

    def luminance(colour):
        parts = [c / 255 for c in colour]
        red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)
