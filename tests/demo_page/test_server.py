"""The page over HTTP on this machine: what is served, and to whom."""

import importlib.util
import resource
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from demo_page.conftest import write
from lit_mimdit.cli import main
from lit_mimdit.demo_page import command, server

gradio_client = pytest.importorskip(
    "gradio_client", reason="gradio is not installed: pip install -e '.[test]'"
)
import httpx  # noqa: E402  comes with gradio


def client(address: str) -> "gradio_client.Client":
    return gradio_client.Client(address, verbose=False, analytics_enabled=False)


def restore(visitor, path: Path, seed: int = 0) -> tuple[bytes, str]:
    """The downloaded photograph, and what the page says."""
    arguments = [[gradio_client.handle_file(str(path))], seed, 1, 32, "none"]
    said, _, _, files, _ = visitor.predict(*arguments, api_name="/restore")
    return (Path(files[0]).read_bytes() if isinstance(files, list) else b""), said


def test_the_page_has_no_foreign_address_and_forbids_them(address):
    answer = httpx.get(address)
    assert answer.status_code == 200 and "restored photographs" in answer.text
    assert server.FOREIGN.findall(answer.content) == []
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert int(answer.headers["content-length"]) == len(answer.content)


def test_foreign_addresses_are_found():
    page = b'<a href="https://fonts.example/x?y=1"> "http://127.0.0.1:7860/a" http://www.w3.org/svg'
    assert server.FOREIGN.findall(page) == [b"https://fonts.example/x?y=1"]


def test_other_names_of_the_host_are_refused(address):
    assert httpx.get(address, headers={"host": "evil.example"}).status_code == 400


def test_only_its_own_files_are_served(address, bench, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("hidden words")
    inside = bench.new_folder() / "inside.txt"
    inside.write_text("mine")
    port = int(address.rsplit(":", 1)[1])
    root = f"{bench.folder}/.."

    def get(path: str) -> bytes:
        """The whole answer; a client library would tidy the path up first."""
        with socket.create_connection((server.HOST, port)) as plain:
            plain.sendall(
                f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
            )
            return b"".join(iter(lambda: plain.recv(65536), b""))

    assert get(f"/gradio_api/file={inside}").endswith(b"mine")
    back = "../" * 12
    for path in (
        f"/gradio_api/file={secret}",
        "/gradio_api/file=/etc/passwd",
        f"/gradio_api/file={back}etc/passwd",
        f"/gradio_api/file={root}/../../../../../../etc/passwd",
        f"/gradio_api/file={bench.folder}/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        f"/gradio_api/file={Path(server.__file__)}",
        f"/static/{back}etc/passwd",
        f"/assets/{back.replace('/', '%2f')}etc%2fpasswd",
        f"/theme.css/{back}etc/passwd",
    ):
        answer = get(path)
        assert b" 200 " not in answer.split(b"\r\n")[0], path
        assert b"root:" not in answer and b"hidden words" not in answer, path


def test_a_photograph_is_restored_and_a_broken_one_named(address, session, photo, tmp_path):
    from lit_mimdit.demo_page.workbench import Settings

    visitor = client(address)
    found, said = restore(visitor, photo, seed=4)
    settings = Settings(seed=4, steps=1, tile=32)
    (expected,), _ = session.restore("me", [photo], settings, lambda *_: None)
    assert found == expected.after.read_bytes() and "restored: 1" in said
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    found, said = restore(visitor, broken)
    assert not found and "broken.png: " in said and "/tmp" not in said
    with pytest.raises(Exception, match="."):  # a file outside the uploads is no photograph
        visitor.predict([{"path": "/etc/hostname"}], 0, 1, 32, "none", api_name="/restore")


def test_large_files_are_refused(address):
    assert httpx.get(f"{address}/config").json()["max_file_size"] == server.MAX_FILE


def resident() -> float:
    """Memory of this process in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def test_eight_at_once_are_not_mixed_up(address, session, tmp_path):
    paths = [write(tmp_path / f"{seed}.png", 8, 8, seed) for seed in range(8)]
    visitors = [client(address) for _ in paths]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(restore, visitors, paths))
    again = [restore(visitors[0], path)[0] for path in paths]
    assert [data for data, _ in found] == again and len(set(again)) == 8


@pytest.mark.usefixtures("takes_minutes")
def test_a_hundred_requests_leave_no_memory_behind(address, photo):
    visitor = client(address)
    for _ in range(20):
        restore(visitor, photo)
    before = resident()
    for _ in range(100):
        assert restore(visitor, photo)[0]
    assert resident() < 1.1 * before


def test_the_command_says_what_is_missing(monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "gradio" else find(name)
    )
    assert main(["demo"]) == 2
    assert 'pip install "gradio>=6.31,<7"' in capsys.readouterr().err


def test_a_port_that_is_taken_is_named():
    with socket.socket() as other:
        other.bind((server.HOST, 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ValueError, match=rf"port {port} cannot be used .*--port"):
            command.require_free(port)
    with pytest.raises(ValueError, match="port is 70000: choose 1 to 65535"):
        command.require_free(70000)
