"""A real browser looks at a real run in TensorBoard."""

import importlib.util
from pathlib import Path

import pytest

from lit_mimdit import cli

pytest.importorskip("selenium", reason="selenium is not installed: pip install -e '.[test]'")
SCRIPT = Path(__file__).parents[2] / "docs" / "tensorboard.py"
spec = importlib.util.spec_from_file_location("docs_tensorboard", SCRIPT)
script = importlib.util.module_from_spec(spec)
spec.loader.exec_module(script)

PAGES = {
    "histograms&tagFilter=inter_moe_train%2F": [
        "inter_moe_train/block_00_0_spatial",
        "inter_moe_train/block_02_3_se",
    ],
    "histograms&tagFilter=intra_moe_train%2Fblock_00": [
        "intra_moe_train/block_00_0_spatial_expert_0"
    ],
    "images&tagFilter=routing_train": [
        "routing_train/table_6",
        "routing_train/sub_expert_shares",
        "routing_train_by_degradation/01Blur",
    ],
    "custom_scalars": [
        "1 At a glance",
        "2 Inter weights by degradation (table 6)",
        "blur (01Blur)",
        "Inter weights, mean over blocks",
    ],
    "hparams": ["optimizer.lr", "branch.intra.experts", "val/psnr_restored"],
}


@pytest.mark.usefixtures("processes")
@pytest.mark.skipif(
    not script.installed(), reason="no browser here: apt-get install chromium chromium-driver"
)
def test_a_browser_finds_the_routers(tiny, pictured_settings, tmp_path):
    callbacks = pictured_settings["trainer"]["callbacks"]
    config = tiny(**{"trainer.callbacks": callbacks, "trainer.max_steps": 4})
    assert cli.main(["fit", "-c", config]) == 0
    with script.serving(Path("runs/quickstart")) as address, script.browser() as driver:
        for page, wanted in PAGES.items():
            text = script.look(driver, address, page, wanted)
            missing = [word for word in wanted if word not in text]
            assert not missing, f"{page} lacks {missing}; it shows: {text.split(chr(10))[:150]}"
        script.screenshot(driver, tmp_path / "page.png")
        assert not any(
            "not-there" in script.look(driver, address, page, ["not-there"], 2.0)
            for page in ("histograms", "images")
        )
    assert (tmp_path / "page.png").stat().st_size > 5000
