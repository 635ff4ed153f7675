"""A real browser without a window, and questions about the page in it."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from urllib.parse import unquote, urlsplit

from tests.reports import programs

# text colour, and the first background behind it that can be seen
COLOURS = """
const colour = getComputedStyle(arguments[0]).color;
for (let at = arguments[0]; at; at = at.parentElement) {
  const behind = getComputedStyle(at).backgroundColor;
  if (!/, 0\\)$/.test(behind)) return [colour, behind];
}
return [colour, "rgb(255, 255, 255)"];
"""


def start():
    """A driver of Chromium that keeps the messages of the console."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = programs.browser()
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-background-networking"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))


def look(driver, width, scheme):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features, "media": ""})


def every(driver, selector, value):
    """``value``, an expression of ``e``, of every element."""
    return driver.execute_script(f"return [...document.querySelectorAll(arguments[0])].map((e) => {value})", selector)


def column(driver, section, n, rows="tr:first-child"):
    selector = f"#{section} > .wide tbody {rows} > :nth-child({n})"
    return every(driver, selector, "e.firstChild.textContent.trim()")


def header(driver, section, n):
    return driver.find_element("css selector", f"#{section} > .wide thead th:nth-child({n})")


def wait(driver, condition):
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(driver, 10).until(lambda _: condition())


def broken_links(driver, folder):
    """Links of the page in ``folder`` that lead nowhere, or to files that are not part of it."""
    ids = set(every(driver, "[id]", "e.id"))
    broken = []
    for link in every(driver, "a", "e.getAttribute('href')"):
        parts = urlsplit(link)
        if link.startswith("#"):
            leads_somewhere = unquote(link[1:]) in ids
        else:
            leads_somewhere = not (parts.scheme or parts.netloc or link.startswith("/"))
            leads_somewhere = leads_somewhere and (folder / unquote(parts.path)).is_file()
        if not leads_somewhere:
            broken.append(link)
    return broken


@contextmanager
def printed(driver):
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    yield
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
