from __future__ import annotations

import json

import pytest

from rtseg.checkpoint import create_model, list_models
from rtseg.cli.main import main

PAPER = (
    "Local-Semantic Attentive Bidirectional Bottleneck Network with Residual Feature Augmentation "
    "for Realtime Semantic Segmentation"
)


def test_every_model_is_listed_with_its_exact_counts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["protocol"] == "11 classes, 360x480, 1 GMAC = 2 GFLOP"
    rows = {row["name"]: row for row in document["models"]}
    assert sorted(rows) == list_models()
    assert rows["dabnet"] == {
        "name": "dabnet", "tasks": ["semantic"], "parameters": 754_571, "macs": 3_362_939_100,
    }  # fmt: skip
    assert rows["lsa_binet"]["parameters"] == 1_841_110
    assert rows["lsa_binet"]["macs"] == 8_655_357_020
    assert all(row["tasks"] for row in rows.values()), "some task must accept each output"


def test_the_table_shows_the_same_counts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    text = capsys.readouterr().out
    assert "754,571" in text
    assert "8.655" in text


def test_counts_follow_classes_and_size(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["models", "lsa_binet", "--num-classes", "19", "--size", "512x1024", "--json"]
    assert main(words) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["parameters"], document["macs"]) == (1_842_158, 26_297_595_488)


def test_a_pattern_chooses_models(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "dab*", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in document["models"]] == ["dabnet"]


def test_one_model_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "lsa_binet", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["paper"] == PAPER
    switches = {item["name"]: item["default"] for item in document["switches"]}
    assert switches["svfm_pool_ratio"] == 8
    assert switches["depths"] == [3, 6]
    assert "num_classes" not in switches
    create_model("lsa_binet", 3, **switches)  # what is shown is what it takes
    assert "LRFA comes before SVFM" in document["deviations"]
    assert main(["models", "dabnet"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("dabnet (semantic)\n754,571 parameters, 3,362,939,100 multiply-adds")
    assert "svfm_branches" in text
    assert PAPER.split(" for ")[0] in text


def test_a_variant_shows_its_own_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    main(["models", "dabnet", "--json"])
    switches = {
        item["name"]: item["default"] for item in json.loads(capsys.readouterr().out)["switches"]
    }
    assert (switches["lrfa"], switches["svfm"], switches["rcad"]) == (False, False, False)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lsa_bnet"], "model 'lsa_bnet' is unknown; did you mean one of: lsa_binet"),
        (["dabnet", "--size", "360"], "--size: is '360'"),
        (["dabnet", "--size", "16x64"], "--size: is '16x64'"),
        (["dabnet", "--num-classes", "0"], "--num-classes: is 0"),
    ],
)
def test_wrong_input_is_2(
    capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["models", *words]) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")
