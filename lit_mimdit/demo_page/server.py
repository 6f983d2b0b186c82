"""Serves the page on this machine alone, with nothing from elsewhere in it.

The server binds to 127.0.0.1. It answers to this machine's names only, so that a foreign page
cannot reach it under a name of its own (DNS rebinding). A content security policy keeps the
browser from loading anything from another host.
"""

import os
import re
import tempfile
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"
MAX_FILE = 256 * 2**20  # bytes of an uploaded file
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:;"
    " style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:;"
    " connect-src 'self' data: blob:; worker-src 'self' blob:; frame-ancestors 'none';"
    " form-action 'self'; base-uri 'self'; object-src 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
# addresses of other hosts; those of w3.org only name the language of a drawing
FOREIGN = re.compile(rb"https?://(?!127\.0\.0\.1|localhost|www\.w3\.org)[^\s\"'<>\\)]*")
NEEDS = 'the demo page needs gradio, which is not installed; run: pip install "gradio>=6.31,<7"'


def offline(folder: Path) -> None:
    """Tell gradio and the hub, before gradio is imported, to send nothing and to keep uploads in
    `folder`.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["GRADIO_TEMP_DIR"] = str(folder / "uploads")


class Sealed:
    """ASGI middleware: security headers on every answer, and no foreign address in any page.

    Gradio writes addresses of examples and logos into its page. A browser would not load them, by
    the policy; they are taken out all the same.
    """

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        # a page that is compressed could not be searched for addresses
        asked = [pair for pair in scope["headers"] if pair[0] != b"accept-encoding"]
        held: list[Any] = []  # the start of a page, and its parts

        async def sealed(message: Any) -> None:
            if message["type"] == "http.response.start":
                given = dict(message["headers"])
                for name, value in HEADERS.items():
                    given[name.encode()] = value.encode()
                message = message | {"headers": list(given.items())}
                if given.get(b"content-type", b"").startswith(b"text/html"):
                    held.append(message)
                    return
            elif held:
                held.append(message["body"])
                if message.get("more_body"):
                    return
                body = FOREIGN.sub(b"", b"".join(held[1:]))
                headers = dict(held[0]["headers"]) | {b"content-length": str(len(body)).encode()}
                await send(held[0] | {"headers": list(headers.items())})
                message = {"type": "http.response.body", "body": body}
                held.clear()
            await send(message)

        await self.app(scope | {"headers": asked}, receive, sealed)


def application(session: Any, folder: Path, results: Path) -> Any:
    """Returns the ASGI application of a session.

    Args:
        session: see session.py.
        folder: of this run, for examples and uploads.
        results: the only folder that is served beside the uploads.

    Raises:
        ValueError: gradio is not installed.
    """
    try:
        import fastapi
        import gradio as gr
    except ImportError as error:
        raise ValueError(NEEDS) from error
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from lit_mimdit.demo_page.examples import write_examples
    from lit_mimdit.demo_page.page import build

    page = build(session, write_examples(folder / "examples"))
    app = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])
    app.add_middleware(Sealed)
    fonts = ["system-ui", "sans-serif"]
    return gr.mount_gradio_app(
        app,
        page,
        path="/",
        server_name=HOST,
        allowed_paths=[str(results)],
        max_file_size=MAX_FILE,
        show_error=False,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        footer_links=[],
        theme=gr.themes.Default(font=fonts, font_mono=["monospace"]),
        css="table.scores td, table.scores th { padding: 2px 10px; text-align: right }",
    )


def temporary() -> tempfile.TemporaryDirectory:
    """Returns a folder for uploads and results that goes when the server ends."""
    return tempfile.TemporaryDirectory(prefix="lit_mimdit_demo_")
