"""Looks at a run in TensorBoard with a real browser: opens its pages, lists the tags they show,
takes screenshots.

    python docs/tensorboard.py --logdir runs/quickstart --page custom_scalars --output
    docs/tensorboard.png

Needs Debian's chromium and chromium-driver, and `pip install selenium`.
"""

import argparse
import contextlib
import io
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run"
    " --disable-background-networking --disable-component-update"
)
FLAGS += " --disable-sync --disable-dev-shm-usage --hide-scrollbars"
# all text of the page, inside shadow roots too
TEXT = """
const walk = node => {
  let found = [];
  for (const child of node.childNodes) {
    if (child.nodeType === Node.TEXT_NODE) found.push(child.textContent.trim());
    else if (child.nodeType === Node.ELEMENT_NODE && !["STYLE", "SCRIPT"].includes(child.tagName)) {
      if (child.getAttribute("title")) found.push(child.getAttribute("title"));
      found = found.concat(walk(child.shadowRoot || child), child.shadowRoot ? walk(child) : []);
    }
  }
  return found.filter(text => text);
};
return walk(document.body).join("\\n");
"""


def installed() -> bool:
    """Whether a browser and its driver are there."""
    return shutil.which("chromium") is not None and shutil.which("chromedriver") is not None


@contextlib.contextmanager
def serving(logdir: Path) -> Iterator[str]:
    """TensorBoard on a free port of this machine; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "tensorboard.main",
        "--logdir",
        str(logdir),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    process = subprocess.Popen(
        [*command, "--load_fast=false"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                if (
                    b"{}"
                    not in urllib.request.urlopen(f"{address}/data/runs", timeout=10).read()[:2]
                    and process.poll() is None
                ):
                    break
            if process.poll() is not None:
                raise RuntimeError(
                    f"TensorBoard ended with status {process.returncode}: {' '.join(command)}"
                )
            time.sleep(0.5)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=30)


@contextlib.contextmanager
def browser(width: int = 1500, height: int = 1000) -> Iterator[webdriver.Chrome]:
    """Headless Chromium with an empty profile."""
    with tempfile.TemporaryDirectory() as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium")
        for flag in [
            *FLAGS.split(),
            f"--user-data-dir={profile}",
            f"--window-size={width},{height}",
        ]:
            options.add_argument(flag)
        driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
        driver.set_page_load_timeout(120)
        try:
            yield driver
        finally:
            driver.quit()


def look(
    driver: webdriver.Chrome, address: str, page: str, wanted: list[str], seconds: float = 90.0
) -> str:
    """The text of a page as soon as it has all `wanted`, or after some seconds.

    Pages are histograms, images, custom_scalars, hparams, ...; "images&tagFilter=table_6" shows the
    tags that match.
    """
    driver.get(f"{address}/#{page}")
    driver.refresh()
    text, end = "", time.monotonic() + seconds
    while time.monotonic() < end:
        text = driver.execute_script(TEXT)
        if wanted and all(word in text for word in wanted):
            break
        time.sleep(1)
    return text


def screenshot(driver: webdriver.Chrome, path: Path, colours: int = 64) -> None:
    """A small PNG of what is seen."""
    time.sleep(3)  # curves are drawn after their names
    with Image.open(io.BytesIO(driver.get_screenshot_as_png())) as image:
        image.convert("RGB").quantize(colours, dither=Image.Dither.NONE).save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--logdir", type=Path, required=True)
    parser.add_argument(
        "--page",
        default="custom_scalars",
        help=(
            "histograms, images, custom_scalars, hparams; images&tagFilter=REGEX shows some tags"
            " only"
        ),
    )
    parser.add_argument(
        "--wait_for", nargs="*", default=[], help="texts that the page must show first"
    )
    parser.add_argument("--output", type=Path, default=Path("docs/tensorboard.png"))
    parser.add_argument("--height", type=int, default=1000)
    args = parser.parse_args()
    with serving(args.logdir) as address, browser(height=args.height) as driver:
        look(driver, address, args.page, args.wait_for, 40.0)
        screenshot(driver, args.output)


if __name__ == "__main__":
    main()
