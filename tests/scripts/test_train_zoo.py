"""The program that trains the shipped weights: it stops, travels and goes on to equal results."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rtseg import recipe
from rtseg.errors import ConfigError, DataError

SCRIPTS = Path(__file__).parents[2] / "scripts"
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(SCRIPTS))
    import train_zoo
    import zoo_files
    import zoo_jobs
    import zoo_run

LATER = float("inf")
TINY = (
    "train.epochs=null", "train.iterations=3", "train.batch_size=2", "train.log_every=1",
    "data.augment.crop=[48,64]", "data.workers=0", "schedule.warmup_iterations=0",
)  # fmt: skip
TEST = zoo_jobs.Scoring("test", "camvid", "test")
SEEN = zoo_jobs.Scoring("val", "camvid", "val", seen=True)
SCENES = zoo_jobs.Scoring(
    "scenes", "synthetic", "test", options={"size": [64, 96], "length": 1}
)  # fmt: skip
DABNET = zoo_jobs.Job("dabnet", "dabnet/camvid", (TEST, SEEN), ship="dabnet-toy")


@pytest.fixture
def data(camvid_root: Path, tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "camvid").symlink_to(camvid_root)
    return tmp_path / "data"


def setting_of(data: Path, state: Path, **changed: Any) -> zoo_run.Setting:
    basic = zoo_run.Setting(data, state, False, TINY, "cpu", 1)
    return basic._replace(**changed)


def equal(one: Path, other: Path) -> bool:
    first, second = (load_file(path / "model.safetensors") for path in (one, other))
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


def test_a_job_that_stops_and_travels_ends_bit_equal(data: Path, tmp_path: Path) -> None:
    job = dataclasses.replace(DABNET, scorings=(TEST,))
    whole, first, second = (tmp_path / name for name in ("whole", "first", "second"))
    summary = zoo_run.work_on(job, setting_of(data, whole), deadline=LATER)
    for step in (1, 2):
        assert zoo_run.work_on(job, setting_of(data, first), deadline=0.0) is None
        assert train_zoo.status([DABNET], first) == [f"{'dabnet':28}at step {step}"]
    assert zoo_files.pack(first, tmp_path / "parts", [DABNET], limit=2**30, part=2**20) == []
    parts = sorted((tmp_path / "parts").iterdir())
    assert [path.name for path in parts[:2]] == ["zoo.tar.gz.000", "zoo.tar.gz.001"]
    assert all(path.stat().st_size == 2**20 for path in parts[:-1])
    assert zoo_files.unpack(tmp_path / "parts", second) == ["dabnet"]
    assert not (second / "dabnet/last/model.safetensors").exists()  # its state has them as well
    again = zoo_run.work_on(job, setting_of(data, second), deadline=LATER)
    assert summary is not None
    assert again is not None
    assert equal(whole / "dabnet/result", second / "dabnet/result")
    assert again["scores"] == summary["scores"]
    assert (again["steps"], again["reduced"]) == (3, False)
    assert "done, test miou" in train_zoo.status([DABNET], second)[0]


@pytest.fixture(scope="module")
def finished(camvid_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state after the job is done."""
    root = tmp_path_factory.mktemp("zoo")
    (root / "camvid").symlink_to(camvid_root)
    zoo_run.work_on(DABNET, setting_of(root, root / "state"), deadline=LATER)
    return root / "state"


def test_the_result_holds_scores_of_the_weights_that_ship(finished: Path) -> None:
    from rtseg import evaluate, load

    result = finished / "dabnet/result"
    names = {path.name for path in result.iterdir()}
    assert names == {
        "README.md", "config.json", "config.yaml", "env.json", "log.jsonl", "metrics.csv",
        "model.safetensors", "plots", "summary.json", "test", "val",
    }  # fmt: skip
    assert sorted(path.name for path in (result / "plots").iterdir()) == ["loss.png", "score.png"]
    assert not (finished / "dabnet/last").exists()
    weights = load_file(result / "model.safetensors")
    kinds = {name.rsplit(".", 1)[-1]: value.dtype for name, value in weights.items()}
    assert (kinds["weight"], kinds["running_var"]) == (torch.float16, torch.float32)
    with pytest.warns(match="non-commercial research"):
        loaded = load(result)
    written = json.loads((result / "config.json").read_text())
    assert written["recipe"]["data"]["train"]["root"] == "data/camvid"  # not of this machine
    assert written["facts"]["recipe"] == "dabnet/camvid"
    root = finished.parent / "camvid"
    assert not [
        path for path in result.rglob("*.*") if str(root.parent).encode() in path.read_bytes()
    ]
    scores = evaluate(loaded, f"camvid={root}", split="test", device="cpu").scores
    summary = json.loads((result / "summary.json").read_text())
    assert summary["scores"]["test"] == {"seen_in_training": False, **scores}
    assert summary["scores"]["val"]["seen_in_training"] is True
    assert scores == json.loads((result / "test/metrics.json").read_text())["scores"]
    assert "camvid test, 2 images" in (card := (result / "README.md").read_text())
    assert "the whole schedule, changed by train.epochs=null" in card
    assert f"| miou | {scores['miou']:.4f} |" in card


def test_finished_weights_ship(finished: Path, tmp_path: Path) -> None:
    unnamed = dataclasses.replace(DABNET, ship="")
    assert zoo_files.ship(finished, [unnamed], zoo=tmp_path) == []
    assert zoo_files.ship(finished, [DABNET], zoo=tmp_path) == ["dabnet-toy"]
    assert sorted(path.name for path in (tmp_path / "dabnet-toy").iterdir()) == [
        "README.md", "SHA256SUMS", "config.json", "model.safetensors",
    ]  # fmt: skip
    lines = (tmp_path / "dabnet-toy/SHA256SUMS").read_text().splitlines()
    assert [line[64:] for line in lines] == ["  README.md", "  config.json", "  model.safetensors"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other/model.safetensors").write_bytes(bytes(zoo_files.SIZE_LIMIT - 2**20))
    with pytest.raises(DataError, match=r"would hold 25\.\d MiB of weights"):
        zoo_files.ship(finished, [DABNET], zoo=tmp_path)


def test_what_does_not_fit_is_left_out(finished: Path, tmp_path: Path) -> None:
    big = dataclasses.replace(DABNET, name="big")
    (finished / "big").mkdir(exist_ok=True)
    (finished / "big/noise").write_bytes(torch.randint(256, (2**22,)).byte().numpy().tobytes())
    assert zoo_files.pack(finished, tmp_path, [big, DABNET], limit=2**22) == ["big"]
    assert zoo_files.unpack(tmp_path, tmp_path / "state") == ["dabnet"]
    pupil = dataclasses.replace(DABNET, name="pupil", teacher="dabnet")
    (finished / "pupil").mkdir(exist_ok=True)
    zoo_files.pack(finished, tmp_path, [pupil], limit=2**30)
    assert zoo_files.unpack(tmp_path, tmp_path / "taught") == ["dabnet", "pupil"]
    assert (tmp_path / "taught/dabnet/result/model.safetensors").is_file()
    assert not (tmp_path / "taught/dabnet/log.jsonl").exists()
    (tmp_path / "zoo.tar.gz.000").write_bytes(b"no archive")
    with pytest.raises(DataError, match="cannot be unpacked"):
        zoo_files.unpack(tmp_path, tmp_path / "broken")
    with pytest.raises(DataError, match=r"holds no zoo\.tar\.gz\.000"):
        zoo_files.unpack(tmp_path / "taught", tmp_path / "broken")


def test_a_job_goes_on_as_it_was_begun(data: Path, tmp_path: Path) -> None:
    setting = setting_of(data, tmp_path)
    assert zoo_run.work_on(DABNET, setting, deadline=0.0) is None
    with pytest.raises(ConfigError, match="was begun with overrides"):
        zoo_run.train(DABNET, setting._replace(changes=(*TINY, "train.seed=1")), deadline=0.0)


def test_a_failing_job_does_not_stop_the_next(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pupil = dataclasses.replace(DABNET, name="pupil", teacher="nobody")
    setting = setting_of(data, tmp_path / "state")
    assert train_zoo.work([pupil, DABNET], setting, deadline=LATER) is False
    out = capsys.readouterr().out
    assert "pupil: failed: pupil: needs the weights of job nobody" in out
    assert "dabnet: done, test miou" in out
    assert train_zoo.work([DABNET], setting, deadline=0.0) is True  # nothing left to do
    late = dataclasses.replace(DABNET, name="late")
    assert train_zoo.work([late], setting, deadline=0.0) is True
    assert "late: no time left in this call" in capsys.readouterr().out


def test_samples_in_memory_are_those_of_the_files(camvid_root: Path) -> None:
    from rtseg.data.camvid import CamVid

    files = CamVid(camvid_root, split="train")
    held = zoo_run.Held(files)
    assert (held.classes, held.kinds, len(held)) == (files.classes, files.kinds, 4)
    for index in range(4):
        assert held[index].path == files[index].path
        assert (held[index].image == files[index].image).all()
        assert (held[index].labels["semantic"] == files[index].labels["semantic"]).all()


@pytest.mark.parametrize("job", zoo_jobs.JOBS, ids=lambda job: job.name)
@pytest.mark.parametrize("reduced", [False, True])
def test_every_job_has_a_recipe_that_takes_its_overrides(job: zoo_jobs.Job, reduced: bool) -> None:
    chosen = recipe.read_recipe(job.recipe, [*job.overrides, *(job.reduced if reduced else ())])
    train = chosen.sections["train"]
    assert train["device" if "device" in train else "seed"] is not None
    parts = chosen.sections["data"]["train"]
    names = {part["name"] for part in (parts if isinstance(parts, list) else [parts])}
    assert ("camvid" in names) == bool(job.notice)  # the terms follow the data
    for scoring in job.scorings:
        split = parts["split"] if isinstance(parts, dict) else "train"
        trained_on = {"trainval": {"train", "val"}}.get(split, {split})
        assert scoring.seen == (scoring.reader == "camvid" and scoring.split in trained_on)


def test_names_are_unique_and_teachers_come_first() -> None:
    names = [job.name for job in zoo_jobs.JOBS]
    ships = [job.ship for job in zoo_jobs.JOBS if job.ship]
    assert len(set(names)) == len(names)
    assert len(set(ships)) == len(ships)
    for job in zoo_jobs.JOBS:
        assert not job.teacher or names.index(job.teacher) < names.index(job.name)
    assert [job.name for job in zoo_jobs.choose(["dabnet", "lsa_binet"])] == names[:2]
    with pytest.raises(ConfigError, match=r"job 'dabnt' is unknown.*dabnet"):
        zoo_jobs.choose(["dabnt"])


def test_on_a_gpu_steps_are_compiled_and_images_change_there(tmp_path: Path) -> None:
    setting = setting_of(tmp_path, tmp_path, device="cuda", reduced=True)
    changes = zoo_run._overrides(zoo_jobs.JOBS[0], setting)
    assert {"data.augment_on=device", "train.compile=true", "train.precision=bf16"} <= set(changes)
    sections = recipe.read_recipe("lsa_binet/camvid", changes).sections
    assert sections["train"]["iterations"] == 3  # what the caller changes wins


@pytest.mark.slow
def test_both_maps_are_scored_where_they_are_and_pupils_learn(data: Path, tmp_path: Path) -> None:
    road = zoo_jobs.Scoring("road", "camvid", "test", options={"kinds": ["drivable"]})
    scenes = "data.train.0.size=[64,96]", "data.train.0.length=4", "data.val.size=[64,96]"
    joint = zoo_jobs.Job(
        "joint", "twinmixing/synthetic_camvid_tiny", (SCENES, road), (*scenes, "data.val.length=1")
    )
    setting = setting_of(data, tmp_path / "state")
    summary = zoo_run.work_on(joint, setting, deadline=LATER)
    assert summary is not None
    assert "lane_iou" in summary["scores"]["scenes"]
    assert "drivable_miou" in summary["scores"]["road"]
    assert not [name for name in summary["scores"]["road"] if name.startswith(("lane", "score"))]
    table = tmp_path / "state/joint/result/road/per_class.csv"
    assert [line.split(",")[0] for line in table.read_text().splitlines()] == ["name", "drivable"]
    small = "bsdnet/camvid_small_s"
    teacher = zoo_jobs.Job("teacher", small, (TEST,))
    pupil = zoo_jobs.Job("pupil", small, (TEST,), ("distill.mode=both",), teacher="teacher")
    assert train_zoo.work([teacher, pupil], setting, deadline=LATER)
    events = (tmp_path / "state/pupil/log.jsonl").read_text()
    assert "ofa" in events
    assert "cwd" in events
