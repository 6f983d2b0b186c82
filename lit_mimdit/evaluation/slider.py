"""A before/after slider as one piece of HTML, for reports, notebooks and the demo page.

It needs no library, no script element and no network: two ranges set two properties of the style.
"""

import base64
import html
import io

from PIL import Image

_AREA = "position:relative;overflow:auto;max-height:80vh;max-width:100%;background:#8883"
_IMAGE = "display:block;width:100%;max-width:none;height:auto;margin:0"
_BEFORE = f"{_IMAGE};position:absolute;left:0;top:0;clip-path:inset(0 calc(100% - var(--cut)) 0 0)"
_LINE = "position:absolute;top:0;bottom:0;left:var(--cut);border-left:2px solid #fff"
LEAST = 480  # pixels: smaller pictures are shown enlarged
_ROW = "display:flex;gap:8px;align-items:center;font:13px sans-serif"


def slider(before: str, after: str, width: int, names: tuple[str, str], about: str = "") -> str:
    """Returns two pictures of one size, one above the other; a range moves the border between them,
    another enlarges both.

    Args:
        before, after: addresses of the pictures, or data URIs.
        width: of the pictures in pixels; they are shown no wider than they are (or than `LEAST`),
            and no wider than the page.
        names: what the left and the right picture are called.
        about: what the pictures show, for readers who do not see them.
    """
    left, right = map(html.escape, names)
    alt = html.escape(about)
    return (
        f'<div class="before-after" style="--cut:50%;--zoom:1;max-width:{max(width, LEAST)}px">'
        f'<div style="{_AREA}"><div style="position:relative;width:calc(100% * var(--zoom))">'
        f'<img src="{html.escape(after)}" alt="{alt} {right}" style="{_IMAGE}">'
        f'<img src="{html.escape(before)}" alt="{alt} {left}" style="{_BEFORE}">'
        f'<div style="{_LINE}"></div></div></div>'
        f'<div style="{_ROW}"><span>{left}</span>{_range("cut", 0, 100, 50, "%")}'
        f"<span>{right}</span></div>"
        f'<div style="{_ROW}"><span>zoom</span>{_range("zoom", 1, 8, 1, "")}</div></div>'
    )


def _range(name: str, low: int, high: int, value: int, unit: str) -> str:
    """An input that sets a property of the slider it lies in."""
    move = f"this.closest('.before-after').style.setProperty('--{name}',this.value+'{unit}')"
    return (
        f'<input type="range" class="{name}" aria-label="{name}" min="{low}" max="{high}"'
        f' value="{value}" step="0.1" style="flex:1" oninput="{move}">'
    )


def png(image: Image.Image) -> bytes:
    """Returns a picture as the bytes of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def data_uri(image: Image.Image) -> str:
    """Returns a picture as a PNG inside an address."""
    return f"data:image/png;base64,{base64.b64encode(png(image)).decode()}"
