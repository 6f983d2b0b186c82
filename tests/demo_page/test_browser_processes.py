"""A real browser drives the page."""

import importlib.util
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo_page.conftest import write

pytest.importorskip("selenium", reason="selenium is not installed: pip install -e '.[test]'")
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver

SCRIPT = Path(__file__).parents[2] / "docs" / "tensorboard.py"
spec = importlib.util.spec_from_file_location("docs_tensorboard", SCRIPT)
script = importlib.util.module_from_spec(spec)
spec.loader.exec_module(script)

pytestmark = pytest.mark.skipif(
    not script.installed(), reason="no browser here: apt-get install chromium chromium-driver"
)
MOVE = """
arguments[0].value = arguments[1];
arguments[0].dispatchEvent(new Event("input", {bubbles: true}));
"""
SECONDS = 120


@pytest.fixture
def page(processes, address) -> Iterator[WebDriver]:
    with script.browser(1400, 1500) as driver:
        driver.get(address)
        wait(driver, "#restore")
        yield driver
        # nothing but this machine was asked, and nothing was asked for in vain
        asked = driver.execute_script(
            "return performance.getEntriesByType('resource').map(entry => entry.name)"
        )
        assert all(url.startswith(("data:", "blob:", address)) for url in asked), asked
        errors = [line for line in driver.get_log("browser") if line["level"] == "SEVERE"]
        assert not errors, errors


def wait(driver: WebDriver, selector: str, text: str = "", gone: bool = False):
    """The element, as soon as it is there, is seen, and has the text."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        found = driver.find_elements(By.CSS_SELECTOR, selector)
        try:
            if found and text in found[0].text:
                return found[0]
        except Exception:
            continue
        time.sleep(0.1)
    shown = driver.find_element(By.TAG_NAME, "body").text
    raise AssertionError(f"no {selector} with {text!r}; the page shows: {shown[:2000]}")


def upload(driver: WebDriver, field: str, *paths: Path) -> None:
    wait(driver, f"#{field} input[type=file]").send_keys("\n".join(map(str, paths)))
    wait(driver, f"#{field}", paths[0].stem)


def press(driver: WebDriver, button: str) -> None:
    driver.execute_script("arguments[0].click()", wait(driver, f"#{button}"))


def tab(driver: WebDriver, name: str) -> None:
    for one in driver.find_elements(By.CSS_SELECTOR, "button[role=tab]"):
        if one.text == name:
            one.click()
            return
    raise AssertionError(name)


def border(driver: WebDriver, view: str) -> tuple[float, float]:
    """Width of what is seen of the left picture, and of the picture, in pixels."""
    return tuple(
        driver.execute_script(
            "const root = document.querySelector(arguments[0]);"
            "const image = root.querySelectorAll('img')[1].getBoundingClientRect();"
            "const line = root.querySelectorAll('img')[1].nextElementSibling;"
            "return [line.getBoundingClientRect().left - image.left, image.width]",
            f"#{view} .before-after",
        )
    )


def test_a_photograph_is_restored_looked_at_and_restored_otherwise(page, tmp_path):
    photo = write(tmp_path / "garden.png", 24, 40)
    upload(page, "photographs", photo)
    press(page, "restore")
    wait(page, "#said", "restored: 1")
    wait(page, "#view .before-after")
    left, width = border(page, "view")
    assert left == pytest.approx(width / 2, abs=2) and width > 100
    page.execute_script(MOVE, wait(page, "#view input.cut"), 20)
    assert border(page, "view")[0] == pytest.approx(width / 5, abs=2)
    page.execute_script(MOVE, wait(page, "#view input.zoom"), 3)
    assert border(page, "view")[1] == pytest.approx(3 * width, rel=0.05)
    loaded = "return [...document.querySelectorAll('#view img')].every(i => i.naturalWidth === 40)"
    assert page.execute_script(loaded)
    why = wait(page, "#why", "looks like: ").text
    assert re.search(r"looks like: (rain|haze) 0\.\d\d", why) and "block 2" in why
    assert "garden_restored.png" in wait(page, "#download", "KB").text.replace("\n", "")

    page.execute_script("arguments[0].click()", wait(page, "#what_if button"))
    press(page, "restore_both")
    wait(page, "#said_if", "nothing is overruled")
    page.execute_script("arguments[0].click()", wait(page, "#overruled input[type=checkbox]"))
    page.execute_script(MOVE, wait(page, "#weight_spatial input[type=range]"), 0.5)
    press(page, "restore_both")
    wait(page, "#view_if .before-after", "what if")
    names = page.execute_script(
        "return [...document.querySelectorAll('#view_if img')].map(image => image.src)"
    )
    assert len(set(names)) == 2


def test_cancelling_and_a_broken_file(page, tmp_path):
    broken = tmp_path / "torn.png"
    broken.write_bytes(b"no picture")
    upload(page, "photographs", broken)
    press(page, "restore")
    wait(page, "#said", "torn.png: ")
    page.get(page.current_url)
    upload(page, "photographs", write(tmp_path / "wide.png", 300, 300))  # takes many tiles
    press(page, "restore")
    wait(page, "#said", " left")  # the progress tells the time left
    press(page, "cancel")
    wait(page, "#said", "cancelled")
    upload_next = write(tmp_path / "next.png", 8, 8)
    page.get(page.current_url)
    upload(page, "photographs", upload_next)
    press(page, "restore")
    begun = time.monotonic()
    wait(page, "#said", "restored: 1")
    assert time.monotonic() - begun < 30  # it does not wait for the cancelled one


def test_a_folder_is_restored(page, tmp_path):
    folder = tmp_path / "holiday"
    folder.mkdir()
    for seed in range(2):
        write(folder / f"day{seed}.png", 8, 8, seed)
    tab(page, "folder")
    wait(page, "#folder_files")
    wait(page, "#folder_files input[type=file]").send_keys(str(folder))
    wait(page, "#folder_files", "day0")
    press(page, "restore_all")
    wait(page, "#said_folder", "restored: 2")
    wait(page, "#scores", "day1.png")
    assert "restored.zip" in wait(page, "#zip", "KB").text.replace("\n", "")
