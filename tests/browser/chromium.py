"""A headless Chromium, and the page of a running host as a user handles it."""

from __future__ import annotations

import shutil
from contextlib import contextmanager

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1400,1500"),
)


@contextmanager
def browser(profile):
    """A browser with a fresh profile folder; the test is skipped where there is none."""
    binary, driver_binary = shutil.which("chromium") or shutil.which("chromium-browser"), shutil.which("chromedriver")
    if binary is None or driver_binary is None:
        pytest.skip("needs chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(driver_binary))
    try:
        yield driver
    finally:
        driver.quit()


class Page:
    """The page, by its element ids."""

    def __init__(self, driver, address):
        self.driver = driver
        driver.get(address)
        self.find("#txt2img_prompt textarea")

    def find(self, selector, seconds=60):
        """The first element, once it is there."""
        return WebDriverWait(self.driver, seconds).until(
            lambda driver: next(iter(driver.find_elements(By.CSS_SELECTOR, selector)), None),
            f"nothing matches {selector}",
        )

    def all(self, selector):
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector):
        return " ".join(element.text for element in self.all(selector))

    def value(self, selector):
        """What a field holds."""
        return self.find(selector).get_attribute("value")

    def wait(self, condition, seconds=120):
        """Until `condition()` holds."""
        return WebDriverWait(self.driver, seconds).until(lambda _: condition())

    def click(self, selector):
        element = self.find(selector)
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        self.wait(lambda: element.is_displayed() and element.is_enabled())
        element.click()

    def type(self, selector, value):
        element = self.find(selector)
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        element.send_keys(Keys.CONTROL, "a")
        element.send_keys(str(value), Keys.TAB)

    def number(self, elem_id, value):
        self.type(f"#{elem_id} input[type=number]", value)

    def choose(self, elem_id, label):
        """Pick an entry of a drop-down; its list closes when the page around it changes, and is opened again then."""
        entries = f"#{elem_id} ul[role=listbox] li, ul[role=listbox] li"

        def opened():
            self.driver.execute_script("document.activeElement.blur()")
            self.click(f"#{elem_id} input")
            return any(label in entry.text for entry in self.all(entries))

        self.wait(opened)
        next(entry for entry in self.all(entries) if label in entry.text).click()

    def loaded(self, selector):
        """Whether a picture or video has come."""
        script = "return [...document.querySelectorAll(arguments[0])].some(e => (e.naturalWidth || e.videoWidth) > 0)"
        return self.driver.execute_script(script, selector)
