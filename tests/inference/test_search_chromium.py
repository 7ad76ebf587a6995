"""The page as a person uses it, in a real headless Chromium: type, see, play, and what goes wrong."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from etude.inference.search import Searchable
from etude.inference.search_page import search_app
from tests.support.serving import serving

BROWSER, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
WAIT_S = 60.0
pytestmark = pytest.mark.slow


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    for program in (BROWSER, DRIVER):
        assert program.is_file(), f"{program} is missing: apt-get install chromium chromium-driver"
    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        f"--user-data-dir={tmp_path}/user",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    driver.set_window_size(1000, 800)
    yield driver
    driver.quit()


def until(browser: webdriver.Chrome, what: Callable[[webdriver.Chrome], object], message: str) -> None:
    WebDriverWait(browser, WAIT_S, poll_frequency=0.1).until(lambda driver: bool(what(driver)), message)


def status(browser: webdriver.Chrome) -> str:
    return browser.find_element(By.ID, "status").text


def until_said(browser: webdriver.Chrome, text: str) -> None:
    until(browser, lambda driver: text in status(driver), f"the page never said: {text}")


def titles(browser: webdriver.Chrome) -> list[str]:
    return [one.text for one in browser.find_elements(By.CSS_SELECTOR, "#tracks .title")]


def ask(browser: webdriver.Chrome, query: str) -> None:
    field = browser.find_element(By.ID, "query")
    field.clear()
    field.send_keys(query, Keys.ENTER)


def play_button(browser: webdriver.Chrome, title: str) -> WebElement:
    for item in browser.find_elements(By.CSS_SELECTOR, "#tracks li"):
        if item.find_element(By.CLASS_NAME, "title").text == title:
            return item.find_element(By.TAG_NAME, "button")
    raise AssertionError(f"{title} is not on the page")


def seconds_played(browser: webdriver.Chrome) -> float:
    return float(browser.execute_script("return document.getElementById('audio').currentTime"))


def complaints(browser: webdriver.Chrome) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser")]


def fits_the_width(browser: webdriver.Chrome) -> bool:
    script = "return document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    return bool(browser.execute_script(script))


def test_type_see_results_play(browser: webdriver.Chrome, library: Searchable, tmp_path: Path) -> None:
    with serving(search_app(library)) as port:
        browser.get(f"http://localhost:{port}/")
        assert library.name in browser.find_element(By.CLASS_NAME, "library").text
        active = browser.switch_to.active_element
        assert active.get_attribute("id") == "query"  # one can type at once
        assert active.accessible_name == "How does it sound?"
        ask(browser, "a low tone")
        until(browser, lambda driver: len(titles(driver)) == 3, "three results never came")
        assert titles(browser)[0] == "Low <b>tone"  # as text, whatever is in a title
        assert status(browser) == "3 tracks for “a low tone”, best first."
        scores = [float(one.text) for one in browser.find_elements(By.CSS_SELECTOR, "#tracks .score")]
        assert scores == sorted(scores, reverse=True) and scores[0] > 0.9

        button = play_button(browser, "Low <b>tone")
        assert button.accessible_name == "Play Low <b>tone"
        button.send_keys(Keys.ENTER)
        until(browser, lambda driver: seconds_played(driver) > 0.3, "nothing is heard")
        assert play_button(browser, "Low <b>tone").accessible_name == "Pause Low <b>tone"
        assert browser.find_element(By.ID, "now").text == "Low <b>tone"
        browser.save_screenshot(str(tmp_path / "playing.png"))
        play_button(browser, "Low <b>tone").click()
        until(browser, lambda driver: driver.execute_script("return audio.paused"), "it goes on playing")

        play_button(browser, "High tone").click()
        until(browser, lambda driver: driver.find_element(By.ID, "now").text == "High tone", "no other track")
        until(browser, lambda driver: seconds_played(driver) > 0.3, "the other track is not heard")
        browser.execute_script("audio.currentTime = 3")  # the server is asked for a range
        until(browser, lambda driver: seconds_played(driver) >= 3, "it cannot be wound forward")

        browser.refresh()  # the address holds the query
        until(browser, lambda driver: len(titles(driver)) == 3, "the query was lost")
        assert complaints(browser) == []


def test_it_fits_a_phone(browser: webdriver.Chrome, library: Searchable, tmp_path: Path) -> None:
    with serving(search_app(library)) as port:
        phone = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
        browser.get(f"http://127.0.0.1:{port}/?q=high+tone")
        until(browser, lambda driver: len(titles(driver)) == 3, "three results never came")
        play_button(browser, "High tone").click()
        until(browser, lambda driver: seconds_played(driver) > 0.3, "nothing is heard")
        assert fits_the_width(browser)
        for one in browser.find_elements(By.CSS_SELECTOR, "button"):
            assert min(one.size.values()) >= 44  # pixels that a thumb finds
        browser.save_screenshot(str(tmp_path / "phone.png"))
        assert complaints(browser) == []


def test_what_goes_wrong_is_said_on_the_page(
    browser: webdriver.Chrome, library: Searchable, home: Path, tmp_path: Path
) -> None:
    with serving(search_app(library)) as port:
        browser.get(f"http://localhost:{port}/")
        ask(browser, "   ")
        until_said(browser, "Say how the music sounds")
        ask(browser, "qwertz")
        until_said(browser, "The model knows none of these words")
        ask(browser, "low " * 20)
        until_said(browser, "The text 'low low")
        assert titles(browser) == []
        browser.save_screenshot(str(tmp_path / "wrong.png"))

        ask(browser, "mid tone")
        until(browser, lambda driver: len(titles(driver)) == 3, "three results never came")
        file = home / "music" / "Mid tone.flac"
        file.rename(home / "away.flac")
        play_button(browser, "Mid tone").click()
        until_said(browser, "Mid tone: this track cannot be had now: No such file or directory.")
        (home / "away.flac").rename(file)
        play_button(browser, "Mid tone").click()  # and again, once it is back
        until(browser, lambda driver: seconds_played(driver) > 0.1, "it is not tried again")

        ask(browser, "high tone")
        until(browser, lambda driver: titles(driver)[:1] == ["High tone"], "three results never came")
        (home / "music" / "High tone.flac").write_bytes(b"FORM\0\0\0\0AIFFCOMM")  # what browsers cannot play
        play_button(browser, "High tone").click()
        until_said(browser, "This browser cannot play the file of High tone")
    ask(browser, "high tone")
    until_said(browser, "The server does not answer")
