"""A report open in a real browser.

Needs Chromium and its driver (Debian: chromium, chromium-driver); tests that use it are skipped
where there is none.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
DRIVER = shutil.which("chromedriver")
needs_browser = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no chromium and chromedriver on this machine"
)

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage"
)


class Page:
    """An open report."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, path: Path, ready: str = "#sample h3") -> float:
        """Load a report; returns the seconds until a sample is shown."""
        begun = time.perf_counter()
        self.driver.get(path.as_uri())
        self.until(lambda: self.all(ready))
        return time.perf_counter() - begun

    def until(self, holds: Callable[[], Any]) -> None:
        limit = time.monotonic() + 20
        while not holds():
            assert time.monotonic() < limit, self.console()
            time.sleep(0.01)

    def all(self, selector: str) -> list[Any]:
        found: list[Any] = self.driver.find_elements(By.CSS_SELECTOR, selector)
        return found

    def one(self, selector: str) -> Any:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def texts(self, selector: str) -> list[str]:
        """The texts of all elements, read at once."""
        script = (
            "return [...document.querySelectorAll(arguments[0])]"
            ".map((node) => node.textContent.trim())"
        )
        found: list[str] = self.driver.execute_script(script, selector)
        return found

    def set(self, selector: str, value: str) -> None:
        """Choose or type a value as a person does."""
        element = self.one(selector)
        if element.tag_name == "select":
            script = (
                "const [e, v] = arguments; e.value = v; "
                "e.dispatchEvent(new Event('input', {bubbles: true}))"
            )
            self.driver.execute_script(script, element, value)
        else:
            element.clear()
            element.send_keys(value or Keys.BACKSPACE)

    def sort(self, column: str) -> None:
        next(
            each for each in self.all("#table thead button") if each.text.startswith(column)
        ).click()

    def columns(self, name: str) -> list[list[str]]:
        """The cells of a column of the table, by block."""
        heads = self.texts("#table thead th")
        at = next(number for number, head in enumerate(heads, 1) if head.rstrip(" ▲▼") == name)
        cell = f"tr:not(.block) > :nth-child({at})"
        blocks = range(2, len(self.all("#table tbody")) + 2)
        return [self.texts(f"#table tbody:nth-child({block}) {cell}") for block in blocks]

    def column(self, name: str) -> list[str]:
        return [text for block in self.columns(name) for text in block]

    def emulate(self, width: int, dark: bool = False, media: str = "") -> None:
        command = self.driver.execute_cdp_cmd
        sizes = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 800}
        command("Emulation.setDeviceMetricsOverride", sizes)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        command("Emulation.setEmulatedMedia", {"media": media, "features": [scheme]})

    def console(self) -> list[str]:
        """What the browser complained about since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Addresses asked for since the last call."""
        events = [
            json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")
        ]
        return [
            event["params"]["request"]["url"]
            for event in events
            if event["method"] == "Network.requestWillBeSent"
        ]


def open_browser(folder: Path) -> Iterator[Page]:
    """Start a browser with its profile in a folder; it ends when the iterator is closed."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in FLAGS.split():
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={folder}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield Page(driver)
    driver.quit()
