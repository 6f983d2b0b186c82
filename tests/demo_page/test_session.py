"""What the buttons of the page do, without the library that draws them."""

import json
import struct
import threading
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from demo_page.conftest import write
from lit_mimdit.cli import main
from lit_mimdit.data.image_io import read_photo
from lit_mimdit.demo_page.compare import Systems
from lit_mimdit.demo_page.session import Refused, Session
from lit_mimdit.demo_page.workbench import KEPT, Settings

ME = "visitor"


def silent(share: float, said: str) -> None:
    assert 0 < share <= 1 and said


def test_the_download_is_what_the_restore_command_writes(session, branch_file, tmp_path):
    exif = Image.Exif()
    exif[271], exif[274] = "Maker", 6
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    pixels = np.random.default_rng(0).integers(0, 255, (24, 40, 3), np.uint8)
    source = tmp_path / "a.jpg"
    Image.fromarray(pixels).save(source, exif=exif, icc_profile=profile.tobytes())
    (result,), failed = session.restore(ME, [source], Settings(seed=3, steps=1), silent)
    target = tmp_path / "out.png"
    call = ["restore", str(source), "-o", str(target), "--checkpoint", str(branch_file)]
    assert main([*call, "--seed", "3", "--steps", "1", "--device", "cpu"]) == 0
    assert result.after.read_bytes() == target.read_bytes() and not failed
    with Image.open(result.after) as image:
        assert image.size == (24, 40)  # upright
        assert image.getexif()[271] == "Maker" and image.info["icc_profile"]


def test_weights_and_tiles_are_those_of_the_restorer(session, bench, photo):
    (result,), _ = session.restore(ME, [photo], Settings(), silent)
    lq = read_photo(photo).rgb[None]
    _, (decisions,) = bench.restorer(lq, torch.tensor([0]))
    expected = torch.stack([mim.inter.weights for mim in decisions], 1).numpy()
    assert np.array_equal(result.inter, expected) and len(expected) == 2 == len(result.boxes)
    assert result.chosen.sum(-1).max() == 1  # top_k is 1
    page = session.shown_routing(result)
    assert "looks like: " in page and page.count("<svg") == 2 + 4  # bars, blocks, a map a group
    assert 'type="range" class="cut"' in session.shown(result)


def test_settings_reach_the_sampler(bench):
    made = bench.restorer_for(Settings(steps=5, tile=16, colour="adain", inter={"swin": 0}))
    assert (made.config.steps, made.config.tile, made.config.colour) == (5, 16, "adain")
    assert made.config.overlap == 8 and made.record()["what_if"] == {"inter": {"swin": 0.0}}
    assert bench.restorer_for(Settings()) is bench.restorer


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Settings(steps=0), "sampling.steps is 0"),
        (Settings(tile=13), "multiples of 8 px"),
        (Settings(fidelity_weight=0.5), "no fidelity network was loaded"),
        (Settings(prompt="a cat"), "no text encoders"),
        (Settings(inter={"swan": 1}), "no group 'swan'"),
    ],
)
def test_impossible_settings_are_refused_in_one_line(session, photo, settings, message):
    with pytest.raises(Refused) as error:
        session.restore(ME, [photo], settings, silent)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_prompt_reaches_a_backbone_that_knows_text(pipeline_folder, tmp_path, cache):
    from kit.files import mim_file

    from lit_mimdit.demo_page.workbench import Workbench
    from lit_mimdit.inference.sampler import SamplingConfig
    from lit_mimdit.inference.system_file import save_system
    from lit_mimdit.models.backbone import load_backbone
    from lit_mimdit.models.branch_config import BranchConfig, IntraConfig
    from lit_mimdit.models.network import MiMDiTNetwork

    loaded = load_backbone(str(pipeline_folder))
    config = BranchConfig(width=16, heads=2, window=2, intra=IntraConfig(2, 1), zero_std=0.5)
    branch = MiMDiTNetwork(loaded.transformer, config, loaded.prompt).branch
    sampling = SamplingConfig(steps=1, tile=32, overlap=8)
    save_system(tmp_path / "b.safetensors", mim_file(branch, sampling, loaded.identity))
    bench = Workbench(tmp_path, tmp_path / "b.safetensors", device="cpu")
    assert bench.knows_text
    told = bench.restorer_for(Settings(prompt="a cat", guidance=2.0))
    assert told.record()["prompt"]["text"] == "a cat" and told.config.guidance == 2.0
    assert not torch.equal(told.prompts.of().embeds, bench.restorer.prompts.of().embeds)


def test_a_broken_file_does_not_cost_the_others(session, photo, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff no picture")
    results, failed = session.restore(ME, [broken, photo], Settings(), silent)
    assert [result.name for result in results] == ["photo.png"]
    assert len(failed) == 1 and failed[0].startswith("broken.jpg: ") and "/" not in failed[0]
    with pytest.raises(Refused, match=r"^broken\.jpg: "):
        session.restore(ME, [broken], Settings(), silent)
    with pytest.raises(Refused, match="no photograph is chosen"):
        session.restore(ME, [], Settings(), silent)


def png_of_one_block(width: int, height: int) -> bytes:
    """A PNG whose head says a size, and whose pixels are hardly there."""
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))]
    parts += [(b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_decompression_bombs_are_refused_in_one_line(session, tmp_path):
    bomb, large = tmp_path / "bomb.png", tmp_path / "large.png"
    bomb.write_bytes(png_of_one_block(20_000, 20_000))  # beyond what the package reads at all
    large.write_bytes(png_of_one_block(9_000, 8_000))  # beyond what the page takes
    for path, size in ((bomb, "400"), (large, "72")):
        with pytest.raises(Refused, match=rf"{path.name}.*{size}\.0 megapixels") as error:
            session.restore(ME, [path], Settings(), silent)
        assert "\n" not in str(error.value)


def test_cancelling_stops_the_computation(session, bench, photo):
    calls = []

    def cancel(share: float, said: str) -> None:
        calls.append(share)
        assert session.cancel(ME)

    before = set(bench.folder.rglob("*_restored.png"))
    with pytest.raises(Refused, match="cancelled"):
        session.restore(ME, [photo], Settings(steps=50), cancel)
    assert len(calls) == 1  # of 100 evaluations
    # nothing is new; the oldest of many results may be gone
    assert set(bench.folder.rglob("*_restored.png")) <= before
    assert not session.cancel(ME)
    assert session.restore(ME, [photo], Settings(), silent)[0]  # the next request is not stopped


def test_a_new_request_of_a_visitor_stops_the_one_before(session, photo):
    begun, came = threading.Event(), threading.Event()

    def wait(share: float, said: str) -> None:
        begun.set()
        assert came.wait(60)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(session.restore, ME, [photo], Settings(steps=50), wait)
        assert begun.wait(60)
        stop = session._stops[ME]
        second = pool.submit(session.restore, ME, [photo], Settings(), silent)
        stopped = stop.wait(10)
        came.set()
        assert stopped and second.result()[0]
        with pytest.raises(Refused, match="cancelled"):
            first.result()


def test_what_if_shows_both_ways(session, bench, photo):
    settings = Settings(inter={"spatial": 0.0}, intra={"se": [1]})
    own, other = session.what_if(ME, photo, settings, silent)
    assert (other.inter[..., 0] == 0).all() and (own.inter[..., 0] > 0).all()
    assert (other.chosen[:, 3, 1] == 1).all()
    assert own.after.read_bytes() != other.after.read_bytes()
    page = session.shown_what_if(own, other)
    assert "as the routers decide" in page and str(other.after) in page
    with pytest.raises(Refused, match="nothing is overruled"):
        session.what_if(ME, photo, Settings(), silent)


def test_systems_are_compared_with_scores(session, photo, tmp_path):
    systems = session.systems
    names = [systems.own, "classical: median"]
    rows = session.compare(ME, photo, photo, names, 0, silent)
    assert [row.system for row in rows] == ["degraded", *names]
    assert rows[0].scores["ssim_y"] == "1.0000"  # the photograph is its own reference
    assert float(rows[2].scores["psnr"]) < 60
    page = session.shown_comparison(rows)
    assert page.count('class="before-after"') == 2 and "PSNR" in page
    plain = session.compare(ME, photo, None, names[1:], 0, silent)
    assert not plain[0].scores and "<table" not in session.shown_comparison(plain)
    other = write(tmp_path / "other.png", 16, 16)
    for reference, chosen, message in (
        (other, names, "other.png is 16 x 16 and photo.png 40 x 24 pixels"),
        (None, [], "no system is chosen"),
        (None, ["magic"], "there is no system 'magic'"),
    ):
        with pytest.raises(Refused, match=message):
            session.compare(ME, photo, reference, chosen, 0, silent)


def test_any_exported_file_is_a_system(bench, photo, branch_file, tmp_path):
    systems = Systems(bench, [branch_file], "cpu")
    session = Session(bench, systems)
    rows = session.compare(ME, photo, None, [systems.own, branch_file.name], 0, silent)
    assert rows[1].result.after.read_bytes() == rows[2].result.after.read_bytes()
    with pytest.raises(ValueError, match="no such file"):
        Systems(bench, [tmp_path / "none.safetensors"], "cpu")


def test_a_folder_becomes_a_zip_with_a_table(session, tmp_path):
    (tmp_path / "b").mkdir()
    paths = [write(tmp_path / "one.png", 16, 16), write(tmp_path / "b" / "one.png", 16, 24, 1)]
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    made = session.folder(ME, [*paths, broken], Settings(), silent)
    with zipfile.ZipFile(made.zip) as archive:
        names = archive.namelist()
        record = json.loads(archive.read("restoration.json"))
    assert len([name for name in names if name.endswith(".png")]) == 2
    assert {"scores.csv", "restoration.json"} < set(names)
    assert record["seed"] == 0 and len(record["images"]) == 2
    assert made.head[0] == "photograph" and len(made.rows) == 2
    assert any(note.startswith("broken.png: ") for note in made.notes)
    with pytest.raises(Refused, match=r"broken\.png"):
        session.folder(ME, [broken], Settings(), silent)
    with pytest.raises(Refused, match="choose a folder"):
        session.folder(ME, [], Settings(), silent)


def test_old_results_are_removed(bench):
    folders = [bench.new_folder() for _ in range(KEPT + 3)]
    assert [folder.is_dir() for folder in folders] == [False] * 3 + [True] * KEPT


def test_eight_visitors_at_once_get_their_own(session, tmp_path):
    paths = [write(tmp_path / f"{seed}.png", 8, 8, seed) for seed in range(8)]
    expected = {}
    for path in paths:
        (result,), _ = session.restore(ME, [path], Settings(), silent)
        expected[path] = result.after.read_bytes()
    assert len(set(expected.values())) == 8
    found = {}

    def visit(path):
        (result,), _ = session.restore(path.name, [path], Settings(), silent)
        found[path] = result.after.read_bytes()

    threads = [threading.Thread(target=visit, args=[path]) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected
