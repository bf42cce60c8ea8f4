from __future__ import annotations

import contextlib
import io
import json
from typing import Any

import pytest

from rtseg.checkpoint import create_model, list_models
from rtseg.cli import models
from rtseg.cli.main import main
from rtseg.recipe import read_recipe

PAPER = (
    "Local-Semantic Attentive Bidirectional Bottleneck Network with Residual Feature Augmentation "
    "for Realtime Semantic Segmentation"
)


def document(*words: str) -> dict[str, Any]:
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        assert main(["models", *words, "--json"]) == 0
    loaded: dict[str, Any] = json.loads(text.getvalue())
    return loaded


@pytest.fixture(scope="module")
def rows() -> dict[str, Any]:
    return {row["name"]: row for row in document()["models"]}


# ---------------------------------------------------------------- all networks
def test_every_model_is_listed_with_its_exact_counts(rows: dict[str, Any]) -> None:
    assert sorted(rows) == list_models()
    facts = {
        name: (row["parameters"], row["macs"], row["input_size"], row["num_classes"])
        for name, row in rows.items()
    }
    assert facts["dabnet"] == (754_571, 3_362_939_100, [360, 480], 11)
    assert facts["lsa_binet"] == (1_841_110, 8_655_357_020, [360, 480], 11)
    assert facts["twinmixing_tiny"] == (98_176, 852_019_712, [384, 640], None)
    assert facts["twinmixing_large"] == (1_501_681, 13_148_467_712, [384, 640], None)
    assert facts["bsdnet_s"] == (4_354_355, 31_021_088_768, [1024, 2048], 19)
    assert facts["sctnet_b"] == (17_437_779, 119_523_049_472, [1024, 2048], 19)
    assert facts["bisegunet_half"][0] == 5_301_579
    assert facts["bisegunet_half"][1] * 2 == 34_314_473_472
    assert facts["bisenetformer_r50"][0] == 31_650_516
    assert facts["stdc2_classifier"] == (10_373_768, 1_384_652_288, [224, 224], 1000)


def test_every_model_has_a_task(rows: dict[str, Any]) -> None:
    assert all(row["tasks"] for row in rows.values()), "some task must accept each output"
    assert rows["dabnet"]["tasks"] == ["semantic"]
    assert rows["stdc1_classifier"]["tasks"] == ["classification"]
    assert rows["twinmixing_nano"]["tasks"] == ["road_lane"]


def test_training_may_have_more_parameters(rows: dict[str, Any]) -> None:
    extra = {
        name: row["training_parameters"] - row["parameters"]
        for name, row in rows.items()
        if row["training_parameters"] != row["parameters"]
    }
    small, large = 38_419, 150_547
    assert extra == {
        "bsdnet_s": small, "bsdnet_b": large, "sctnet_s": small, "sctnet_b": large,
    }  # fmt: skip


def test_published_figures_stand_beside_the_same_count(rows: dict[str, Any]) -> None:
    weights, cost = rows["lsa_binet"]["published"]
    assert (weights["rule"], weights["counted"], weights["printed"]) == (
        "parameters", 1_841_110, "1.84 M",
    )  # fmt: skip
    assert (cost["counted"], cost["printed"]) == (8_811_001_220, "8.81 G")
    assert cost["deviation_percent"] == pytest.approx(0.01)
    deviations = {
        name: [item["deviation_percent"] for item in row["published"]]
        for name, row in rows.items()
        if row["published"]
    }
    assert all(len(both) == 2 for both in deviations.values())
    assert all(abs(both[0]) < 1.1 for both in deviations.values()), "parameters, to the last digit"
    far = {name for name, both in deviations.items() if abs(both[1]) > 6}
    assert far == {"bsdnet_b", "sctnet_b"}, "printed costs that no count gives"
    assert {name for name, row in rows.items() if not row["published"]} == {
        "twinmixing_nano", "bisegunet_s2", "bisegunet_half", "bisegunet_edge",
        *(name for name in rows if name.endswith("_classifier")),
    }  # fmt: skip


def test_the_table_shows_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "*net"]) == 0
    text = capsys.readouterr().out
    lines = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    assert lines["lsa_binet"].split() == [
        "lsa_binet", "semantic", "360x480/11", "1,841,110", "1.84", "M", "+0.1%", "8.655",
        "8.811", "8.81", "G", "+0.0%",
    ]  # fmt: skip
    assert lines["dabnet"].split()[-4:] == ["20.441", "20.9", "G", "-2.2%"]
    assert "bsdnet_s" not in lines


def test_names_are_not_folded(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "bsdnet_b*", "--size", "64x64"]) == 0
    assert main(["models", "bisenetformer_stdc*", "--size", "64x64"]) == 0
    text = capsys.readouterr().out
    names = ("bsdnet_b_classifier ", "bisenetformer_stdc1 ", "bisenetformer_stdc2 ")
    assert all(f"  {name}" in text for name in names)


def test_counts_follow_classes_and_size() -> None:
    row = document("lsa_binet", "--num-classes", "19", "--size", "512x1024")
    assert (row["parameters"], row["macs"]) == (1_842_158, 26_297_595_488)
    assert row["published"] == []
    only_size = document("dabnet", "--size", "64x64")
    assert (only_size["num_classes"], only_size["input_size"]) == (11, [64, 64])
    only_classes = document("dabnet", "--num-classes", "19")
    assert (only_classes["parameters"], only_classes["input_size"]) == (756_643, [360, 480])
    without = document("twinmixing_nano", "--num-classes", "19", "--size", "64x64")
    assert (without["parameters"], without["num_classes"]) == (24_167, None)


# ---------------------------------------------------------------- one network
def test_one_model_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    lsa = document("lsa_binet")
    assert lsa["paper"] == PAPER
    switches = {item["name"]: item["default"] for item in lsa["switches"]}
    assert switches["svfm_pool_ratio"] == 8
    assert switches["depths"] == [3, 6]
    assert "num_classes" not in switches
    create_model("lsa_binet", 3, **switches)  # what is shown is what it takes
    assert "LRFA comes before SVFM" in lsa["deviations"]
    assert "Max-pooling" not in lsa["contradictions"]
    assert "8.81 G for 360x480 and for 512x1024" in lsa["contradictions"]
    assert [item["counted"] for item in lsa["published"]] == [
        1_841_110, 8_811_001_220, 26_769_831_520,
    ]  # fmt: skip
    assert main(["models", "dabnet"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("dabnet (semantic)\n754,571 parameters, 3,362,939,100 multiply-adds")
    assert "svfm_branches" in text
    assert PAPER.split(" for ")[0] in text
    assert "flops: twice the multiply-adds" in text
    assert "20.9 G" in text


def test_recipes_and_rows_of_a_network_are_named() -> None:
    trained = {name: models._recipes(name) for name in ("dabnet", "lsa_binet")}
    assert "dabnet/camvid" in trained["dabnet"]
    assert {"lsa_binet/camvid", "lsa_binet/cityscapes"} <= set(trained["lsa_binet"])
    assert not set(trained["dabnet"]) & set(trained["lsa_binet"])
    for name, recipes in trained.items():
        for recipe in recipes:
            assert read_recipe(recipe).sections["model"]["name"] == name
    assert any("@" in recipe for recipe in trained["lsa_binet"])
    assert models._recipes("stdc3_classifier") == []


@pytest.mark.parametrize("name", list_models())
def test_every_paper_is_named_with_its_deviations(name: str) -> None:
    description = models._module_docstring(name)
    assert models._PAPER.search(description)
    found = {key: pattern.search(description) for key, pattern in models._SECTIONS.items()}
    assert found["deviations"]
    assert found["contradictions"] or name in ("stdc1_classifier", "stdc2_classifier")


def test_a_variant_shows_its_own_defaults() -> None:
    switches = {item["name"]: item["default"] for item in document("dabnet")["switches"]}
    assert (switches["lrfa"], switches["svfm"], switches["rcad"]) == (False, False, False)


def test_training_parameters_are_mentioned(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "bsdnet_s", "--size", "64x64"]) == 0
    assert "; training has 38,419 parameters more" in capsys.readouterr().out


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
