"""Tables 1 and 2 with one's own runs: the paper's rows in its order, what was run, what is best."""

from typing import Any

import pytest

from lit_mimdit.evaluation.league import League, all_rows, label_of, leagues, markdown_of

ORDER = [
    *("AirNet", "DGUNet", "TransWeather", "PromptIR", "PromptIR*", "DiffIR", "DiffUIR", "DiffUIR*"),
    *("DA-CLIP", "AutoDIR*", "FoundIR", "DiT4SR", "MiM-DiT"),
]


def summary(n: int, name: str = "restored", system: str = "", **values: float) -> dict[str, Any]:
    """Of blurred images, as `evaluate` writes it; the rest is not looked at."""
    scores = {key: {"mean": value, "n": n} for key, value in values.items()}
    group = {"dataset": "FoundIR", "degradation": "01Blur", "versions": {"restored": scores}}
    made = {"system": {"class_path": f"lit_mimdit.systems.{system}"}} if system else None
    return {"name": name, "groups": [group], "restoration": made}


def cell(league: League, row: str, column: str) -> tuple[str, str]:
    line = next(line for line in league.body if line[0][0] == row)
    return line[league.head.index(column)]


def test_every_method_of_the_paper_has_a_row_in_its_order():
    assert all_rows() == ORDER


@pytest.mark.parametrize(
    ("name", "system", "row"),
    [
        ("restored", "daclip.DACLIP", "DA-CLIP"),
        ("restored", "autodir.AutoDIR", "AutoDIR*"),
        ("restored", "mimdit.MiMDiT", "MiM-DiT"),
        ("PromptIR*", "promptir.PromptIR", "PromptIR*"),  # a user's label wins
        ("my try", "promptir.PromptIR", "my try"),
        ("restored", "classical.Classical", "restored"),
        ("restored", "", "restored"),
    ],
)
def test_a_run_is_recognised_by_its_system_unless_it_has_a_name(name, system, row):
    assert label_of(summary(3, name, system)) == row


@pytest.mark.parametrize(
    ("system", "row"),
    [
        ("promptir.PromptIR", "PromptIR*"),
        ("autodir.AutoDIR", "AutoDIR*"),
        ("airnet.AirNet", "AirNet*"),
        ("spandrel.Spandrel", "restored"),
    ],
)
def test_imported_weights_have_an_asterisk(system, row):
    one = summary(3, system=system, lpips=0.3)
    one["restoration"]["checkpoint"] = {"name": "x.safetensors", "official": ["model.ckpt"]}
    assert label_of(one) == row
    assert label_of(one | {"name": "mine"}) == "mine"


def test_an_asterisk_that_the_paper_lacks_stands_behind_its_method():
    (table,) = leagues({"AirNet*": summary(3, lpips=0.3), "mine": summary(3, lpips=0.4)})
    assert [line[0][0] for line in table.body] == ["AirNet", "AirNet*", *ORDER[1:], "mine"]


def test_runs_of_one_method_stand_behind_it():
    own = {
        "PromptIR (seed_0)": summary(3, lpips=0.3),
        "PromptIR (seed_1)": summary(3, lpips=0.2),
        "AirNet* (a)": summary(3, lpips=0.4),
        "AirNet* (b)": summary(3, lpips=0.5),
    }
    (table,) = leagues(own)
    rows = [line[0][0] for line in table.body]
    assert rows[:3] == ["AirNet", "AirNet* (a)", "AirNet* (b)"]
    place = rows.index("PromptIR")
    assert rows[place + 1 : place + 4] == ["PromptIR (seed_0)", "PromptIR (seed_1)", "PromptIR*"]
    here = "LPIPS \u2193 here"
    assert cell(table, "PromptIR", here) == ("-", ""), "its runs stand below it"
    assert cell(table, "PromptIR (seed_1)", here) == ("0.2000", "best")
    assert cell(table, "AirNet", here) == ("not run", ""), "the authors' weights are other ones"


def test_own_numbers_stand_beside_the_papers_with_their_own_marks():
    own = {
        "AirNet": summary(3, lpips=0.3, fid=20.0),
        "PromptIR*": summary(3, lpips=0.2),
        "mine": summary(3, lpips=0.4),
    }
    (table,) = leagues(own)
    assert [line[0][0] for line in table.body] == [*ORDER, "mine"]
    paper, here = "LPIPS \u2193 paper", "LPIPS \u2193 here"
    assert cell(table, "AirNet", paper) == ("0.4340", "")
    assert cell(table, "PromptIR*", here) == ("0.2000", "best")
    assert cell(table, "AirNet", here) == ("0.3000", "second")
    assert cell(table, "mine", here) == ("0.4000", "")
    assert cell(table, "DGUNet", here) == ("not run", "")
    assert cell(table, "PromptIR*", paper) == ("-", "")  # table 1 has no such row
    assert cell(table, "mine", "FID \u2193 here") == ("not computed", "")
    marked = [line[table.head.index(paper)] for line in table.body]
    assert sorted(mark for _, mark in marked if mark) == ["best", "second"]
    text = markdown_of(table)
    assert "**0.2000**" in text and "<u>0.3000</u>" in text and "PromptIR\\*" in text


def test_own_numbers_have_their_intervals():
    one = summary(3, lpips=0.3, fid=20.0)
    one["groups"][0]["versions"]["restored"]["lpips"] |= {"low": 0.25, "high": 0.3512}
    one["groups"][0]["versions"]["restored"]["fid"] |= {"low": None, "high": None}
    (table,) = leagues({"AirNet": one, "DGUNet": summary(3, lpips=0.4)})
    found = cell(table, "AirNet", "LPIPS \u2193 here")
    assert found == ("0.3000 [0.2500, 0.3512]", "best")
    assert cell(table, "AirNet", "FID \u2193 here") == ("20.0000", "")
    assert "**0.3000 [0.2500, 0.3512]**" in markdown_of(table)


def test_runs_of_other_numbers_of_images_are_not_ranked():
    own = {"AirNet": summary(3, lpips=0.3), "DGUNet": summary(4, lpips=0.2)}
    (table,) = leagues(own)
    assert cell(table, "DGUNet", "LPIPS \u2193 here") == ("0.2000", "")
    assert "N = 3, 4; of different numbers, so not ranked" in table.title


def test_without_a_degradation_of_the_paper_there_is_no_table():
    other = summary(3, lpips=0.3)
    other["groups"][0]["degradation"] = "06JPEG"
    assert leagues({"AirNet": other}) == []
