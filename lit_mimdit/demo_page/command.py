"""`python -m lit_mimdit demo`: a local page that restores photographs and shows the routers."""

import importlib.util
import socket
from pathlib import Path

from lit_mimdit.demo_page.server import HOST, NEEDS, application, offline, temporary


def demo(
    *,
    checkpoint: Path | None = None,
    backbone: str | None = None,
    systems: list[Path] | None = None,
    fidelity: str = "auto",
    device: str = "auto",
    port: int = 7860,
    max_megapixels: float = 50.0,
) -> None:
    """Open a page on this machine: restore photographs, compare systems, and see why the routers
    decided as they did.

    The page listens on 127.0.0.1 alone. It sends nothing anywhere, and needs the network only for
    systems of the hub. Stop it with Ctrl-C; uploaded and restored photographs are removed then.

    Args:
        checkpoint: File of an exported system or a training checkpoint, or repository on the hub,
            OWNER/NAME. Unless given it is the branch that comes with the package.
        backbone: Folder or hub id of the backbone, if it is not where it was in training.
        systems: Exported files of other systems, or their repositories on the hub, for the tab that
            compares.
        fidelity: Network that corrects the result: a file, `package`, `none` or `auto`. `auto` is
            `package` without --checkpoint, else `none`.
        device: Where it runs: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        port: Port of the page.
        max_megapixels: Larger photographs are refused before they are decoded.
    """
    if importlib.util.find_spec("gradio") is None:
        raise ValueError(NEEDS)
    require_free(port)
    with temporary() as name:
        folder = Path(name)
        offline(folder)
        import uvicorn

        from lit_mimdit.demo_page.compare import Systems
        from lit_mimdit.demo_page.session import Session
        from lit_mimdit.demo_page.workbench import Workbench

        results = folder / "results"
        results.mkdir()
        options = checkpoint, backbone, device, fidelity, max_megapixels
        bench = Workbench(results, *options)
        session = Session(bench, Systems(bench, systems or [], device))
        app = application(session, folder, results)
        print(f"http://{HOST}:{port}/    (Ctrl-C stops it)", flush=True)
        # pages that are open hold a connection, and Ctrl-C must not wait for them
        options = {"log_level": "warning", "timeout_graceful_shutdown": 1}
        uvicorn.run(app, host=HOST, port=port, **options)


def require_free(port: int) -> None:
    """Raises ValueError for a port that does not exist or is taken."""
    if not 1 <= port <= 65535:
        raise ValueError(f"port is {port}: choose 1 to 65535")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise ValueError(
                f"port {port} cannot be used ({error.strerror}); choose another with --port"
            ) from error
