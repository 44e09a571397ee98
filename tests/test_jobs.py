"""Files of jobs: what is wrong is told at once, with line and field, and nothing is written."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.batches import PARAMS, prepared, random_version, write_jobs

from omnihuman.errors import UserError
from omnihuman.inference.render import parameters
from omnihuman.registry.versions import ModelVersion
from omnihuman.rendering.jobs import read_jobs

pytest_plugins = ["tests.batch_fixtures"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"image": "a.png", "sed": 1}, "unknown key sed; did you mean seed?"),
        ({"image": "none.png"}, "image: {inputs}/none.png: no such file"),
        ({"image": "empty.png"}, "image: {inputs}/empty.png: the file is empty"),
        ({"image": "a.png", "audio": "x" * 300}, "audio: "),
        ({"image": 3}, "image: is 3, expected text"),
        ({"image": "\ud800"}, 'image: is "\\ud800", expected text'),
        ({"text": "x"}, "image: is missing"),
        ({"image": "a.png", "audio": None}, "audio: is missing, and so is pose"),
        ({"image": "a.png", "image_pose": "a.png"}, "image_pose: acts with pose only"),
        ({"image": "a.png", "seed": 1.5}, "seed: is 1.5, expected a whole number"),
        ({"image": "a.png", "seed": True}, "seed: is true, expected a whole number"),
        ({"image": "a.png", "output": "../x.mp4"}, "output: ../x.mp4 leaves the output folder"),
        ({"image": "a.png", "output": "/x.mp4"}, "output: /x.mp4 leaves the output folder"),
        ({"image": "a.png", "output": "out/x.mp4"}, "output: out/x.mp4 leaves the output folder"),
        ({"image": "a.png", "output": "x.avi"}, "output: x.avi: only .mp4 can be written, name it x.mp4"),
        ({"image": "a.png", "output": ".x.mp4"}, "begins with a dot"),
        ({"image": "a.png", "output": "x" * 300 + ".mp4"}, "longer than 200 bytes"),
        ({"image": "a.png", "output": "taken.mp4"}, "output: taken.mp4: a folder has this name"),
        ({"image": "a.png", "output": ""}, "output: names the output folder itself"),
        ({"image": "a.png", "output": "sub/.."}, "output: names the output folder itself"),
        ({"image": "a.png", "output": "a\0.mp4"}, "output: "),
        ({"image": "a.png", "output": "long/" * 1000 + "x.mp4"}, "File name too long"),
        ({"image": "a.png", "output": "loop/x.mp4"}, "output: "),
        ({"image": "a\0.png"}, "image: "),
        ({"image": "a.png", "seed": 10**30}, "seed: is 1e+30, expected a whole number of at most 20 digits"),
        ({"image": "a.png", "parameters": {"num_steps": 10**400}}, "parameters.num_steps: is Infinity"),
        ({"image": "a.png", "parameters": {"shift": -(10**400)}}, "parameters.shift: is -Infinity, expected a finite"),
        ({"image": "a.png", "output": "sub/../first.mp4"}, "output: first.mp4 is the output of line 1 too"),
        ({"image": "a.png", "output": "first.mp4/b.mp4"}, "needs a folder where line 1 writes first.mp4"),
        ({"image": "a.png", "parameters": {"num_step": 2}}, "did you mean parameters.num_steps?"),
        ({"image": "a.png", "parameters": {"crf": 99}}, "parameters: render.crf is 99"),
        ({"image": "a.png", "parameters": {"upscale": 0}}, "parameters: render.upscale is 0"),
        ({"image": "a.png", "parameters": {"shift": 0}}, "parameters: sampling.shift is 0"),
        ({"image": "a.png", "parameters": {"solver": "rk4"}}, "parameters: sampling.solver: unknown 'rk4'"),
        ({"image": "a.png", "parameters": {"shift_by_tokens": 1}}, "parameters.shift_by_tokens: is 1, expected true"),
        ({"image": "a.png", "conditions": "text"}, 'conditions: is "text", expected a list'),
        ({"image": "a.png", "conditions": ["sound"]}, "conditions: condition 'sound' is unknown"),
        ({"image": "a.png", "conditions": ["pose"]}, "conditions: the condition pose is chosen, but nothing is given"),
        ({"image": "a.png", "parameters": [1]}, "parameters: is [1], expected an object"),
        ('{"image": "a.png", "audio": "s.wav", "parameters": {"shift": NaN}}', "parameters.shift: is NaN"),
        ('{"image": "a.png", "audio": "s.wav", "seed": ' + "9" * 5000 + "}", "seed: is Infinity"),
        ('{"image": "a.png", "image": "b.png"}', "the key image stands there twice"),
        ('{"image": ', "column 11: is no JSON"),
        ('["a.png"]', "is no JSON object"),
    ],
)
def test_a_wrong_line_is_named_with_line_and_field(inputs: Path, line: dict[str, Any] | str, said: str) -> None:
    (inputs / "empty.png").touch()
    output = inputs / "videos"
    (output / "taken.mp4").mkdir(parents=True)
    (output / "out").symlink_to(inputs)
    (output / "loop").symlink_to("loop")
    jobs = write_jobs(inputs, {"image": "a.png", "output": "first.mp4"}, "", line)
    with pytest.raises(UserError) as caught:
        read_jobs(jobs, output, PARAMS)
    assert "one mistake, nothing was rendered\n  line 3" in str(caught.value)
    assert said.format(inputs=inputs) in str(caught.value)


def test_all_mistakes_are_told_at_once_and_nothing_is_written(inputs: Path, version: ModelVersion) -> None:
    good = {"image": "a.png", "output": "a.mp4"}
    jobs = write_jobs(inputs, {"imgae": "a.png"}, good, {"image": "none.png", "sede": 3}, good)
    with pytest.raises(UserError) as caught:
        prepared(jobs, inputs / "videos", version)
    assert [line.split(":")[0] for line in str(caught.value).splitlines()[1:]] == [
        "  line 1", "  line 1, image", "  line 3", "  line 3, image", "  line 4, output",
    ]  # fmt: skip
    assert not (inputs / "videos").exists()


@pytest.mark.parametrize(
    ("content", "said"), [(None, "No such file"), (b"\n \n", "holds no jobs"), (b"\xff", "no UTF-8")]
)
def test_a_file_without_jobs(tmp_path: Path, content: bytes | None, said: str) -> None:
    if content is not None:
        (tmp_path / "jobs.jsonl").write_bytes(content)
    with pytest.raises(UserError, match=said):
        read_jobs(tmp_path / "jobs.jsonl", tmp_path / "out", PARAMS)


def test_a_job_overrides_parameters_and_paths_are_relative_to_the_file(
    inputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = {
        "image": "a.png",
        "seed": 5,
        "text": "a wave",
        "parameters": {"num_steps": 3, "guidance_audio": 1, "shift_by_tokens": True},
    }
    path = write_jobs(inputs, job)
    monkeypatch.chdir("/")
    (read,) = read_jobs(path, Path("anywhere"), PARAMS)
    assert read.files == {"image": inputs / "a.png", "audio": inputs / "s.wav"} and read.output is None
    assert read.sampling == replace(PARAMS.sampling, num_steps=3, guidance_audio=1.0, shift_by_tokens=True)
    assert read.render == PARAMS.render
    assert read.parameters()["text"] == "a wave" and read.parameters()["seed"] == 5


@pytest.mark.parametrize(("chosen", "followed"), [(["text", "audio"], ("text", "audio")), ([], ()), (None, None)])
def test_a_job_may_choose_its_conditions(
    inputs: Path, version: ModelVersion, chosen: list[str] | None, followed: tuple[str, ...] | None
) -> None:
    batch = prepared(write_jobs(inputs, {"image": "a.png", "conditions": chosen}), inputs / "videos", version)
    (item,) = batch.manifest.items
    request = item.request(inputs / "out.mp4")
    assert request.conditions == followed
    assert item.parameters == parameters(request, PARAMS.sampling, PARAMS.render), "told as a single render tells it"


def test_the_identity_is_content_and_not_names(inputs: Path, version: ModelVersion, tmp_path: Path) -> None:
    (inputs / "copy.png").write_bytes((inputs / "a.png").read_bytes())
    jobs = write_jobs(
        inputs, {"image": "a.png"}, {"image": "copy.png"}, {"image": "b.png"}, {"image": "a.png", "seed": 1}
    )
    manifest = prepared(jobs, inputs / "videos", version).manifest
    assert [item.lines for item in manifest.items] == [(1, 2), (3,), (4,)]
    assert [name.rpartition("-")[0] for name in manifest.items[0].outputs] == ["a", "copy"]
    other = prepared(jobs, inputs / "videos", random_version(tmp_path / "other", 2)).manifest
    assert not {item.id for item in other.items} & {item.id for item in manifest.items}
