"""Published extractors: layouts, preprocessing, what they say on networks of random weights, what is refused."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from benchmarks.damage import drawn_people
from tests.test_pose_estimator import BOB, PERSON, write_detector, write_pose
from tests.test_published_scorers import write_yunet
from tests.tiny_onnx import node, write_model

from omnihuman.config.schema.evaluate import Extractors
from omnihuman.encoders.pose_estimator import estimator_files
from omnihuman.encoders.syncnet import SyncNet
from omnihuman.encoders.weights import files_sha256
from omnihuman.errors import UserError
from omnihuman.evaluation.extractors import arcface, i3d
from omnihuman.evaluation.extractors.inception import Inception, embed_pictures, resize_like_tensorflow1
from omnihuman.evaluation.extractors.part import clips_of, evenly
from omnihuman.evaluation.metrics.frames import consistency
from omnihuman.evaluation.metrics.measure import Metric, Shown
from omnihuman.evaluation.metrics.registry import make_metrics
from omnihuman.storage.files import file_sha256

LAYOUT = Path(__file__).with_name("inception_layout.json")
"""Shapes of torch-fidelity 0.4.0's convolutions by name; batch norms and the classifier follow from them."""


def formula_weights(names: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights that any implementation with these names can be given."""
    weights = {}
    for name, tensor in names.items():
        if name.endswith("num_batches_tracked"):
            weights[name] = tensor
            continue
        number = torch.arange(tensor.numel(), dtype=torch.float64) + 100 * len(name)
        scattered = ((torch.sin(12.9898 * number) * 43758.5453) % 1 - 0.5).float().reshape(tensor.shape)
        if name.endswith(".conv.weight") or name == "fc.weight":
            weights[name] = 6 * scattered / tensor[0].numel() ** 0.5
        elif name.endswith(("bn.weight", "running_var")):
            weights[name] = 1 + 0.5 * scattered
        else:
            weights[name] = 0.1 * scattered
    return weights


def pattern() -> torch.Tensor:
    """uint8 [2, 3, 40, 57]."""
    x, y = torch.meshgrid(torch.arange(40), torch.arange(57), indexing="ij")
    one = torch.stack([(x * 7 + y) % 256, (x * y) % 256, (3 * y) % 256])
    return torch.stack([one, 255 - one.roll(11, dims=1)]).to(torch.uint8)


def shown(frames: np.ndarray, reference: np.ndarray | None = None) -> Shown:
    return Shown("item", "person", 25.0, frames, reference=reference)


def pictures(count: int = 3, height: int = 60, width: int = 80) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8)


def metric(name: str, config: Extractors) -> Metric:
    return make_metrics([name], config)[0]


# Inception


@pytest.fixture(scope="module")
def inception() -> Inception:
    network = Inception()
    network.load_state_dict(formula_weights(network.state_dict()))
    return network.eval()


def test_inception_has_the_published_names_and_shapes() -> None:
    layout = {name: tuple(shape) for name, shape in json.loads(LAYOUT.read_text()).items()}
    expected = {"fc.weight": (1008, 2048), "fc.bias": (1008,)}
    for name, shape in layout.items():
        expected |= {f"{name}.conv.weight": shape, f"{name}.bn.num_batches_tracked": ()}
        norms = ("weight", "bias", "running_mean", "running_var")
        expected |= {f"{name}.bn.{part}": shape[:1] for part in norms}
    assert {name: tuple(tensor.shape) for name, tensor in Inception().state_dict().items()} == expected


def test_inception_says_what_torch_fidelity_says(inception: Inception) -> None:
    """Every 256th of the 2048 numbers and their length, by torch-fidelity 0.4.0 on the same weights and pictures."""
    expected = [
        [15.3214, 29.2399, 0.083, 6.9174, 24.4743, 0.2912, 12.5538, 3.6906],
        [5.1245, 32.8526, 0.0, 6.5437, 24.7886, 0.851, 9.7111, 6.0837],
    ]
    with torch.inference_mode():
        found = inception(pattern())
    np.testing.assert_allclose(found[:, ::256], expected, atol=2e-3)
    np.testing.assert_allclose(found.norm(dim=1), [7054.2202, 6943.2085], rtol=1e-5)


def test_features_do_not_depend_on_the_batch(inception: Inception, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = pictures(5)
    together = embed_pictures(inception, frames)
    monkeypatch.setattr("omnihuman.evaluation.extractors.inception.BATCH", 2)
    np.testing.assert_allclose(embed_pictures(inception, frames), together, rtol=1e-4, atol=1e-3)


def test_resizing_is_tensorflow_1s() -> None:
    """Place i of the new picture lies at i * old / new of the old one: no half pixels, no smoothing."""
    row = torch.arange(6.0).expand(1, 1, 6, 6)
    assert torch.allclose(resize_like_tensorflow1(row, 3)[0, 0, 0], torch.tensor([0.0, 2.0, 4.0]))
    larger = torch.tensor([0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5, 5])
    assert torch.allclose(resize_like_tensorflow1(row, 12)[0, 0, 0], larger)
    assert torch.equal(resize_like_tensorflow1(row.transpose(2, 3), 12)[0, 0, :, 0], larger)


def test_fid_loads_the_pinned_file_alone(inception: Inception, tmp_path: Path) -> None:
    path = tmp_path / "weights-inception.pth"
    torch.save(inception.state_dict(), path)
    config = Extractors(inception_weights=str(path), inception_sha256=file_sha256(path))
    fid = metric("fid", config)
    kept = fid.keep(shown(pictures(2)))
    assert fid.name == "fid" and kept is not None and kept.shape == (2, 2048)
    with pytest.raises(UserError, match=r"inception_weights=.* has the hash .* evaluate\.extractors\.inception_sha256"):
        metric("fid", replace(config, inception_sha256="0"))
    with pytest.raises(UserError, match="no such file"):
        metric("fid", replace(config, inception_weights=str(tmp_path / "none")))
    torch.save({"conv": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="not a state dict of torch-fidelity"):
        metric("fid", replace(config, inception_sha256=file_sha256(path)))


# I3D


class TinyI3D(torch.nn.Module):
    """The call of the published file; its numbers are means of colours at the start and the end."""

    def forward(
        self, video: torch.Tensor, rescale: bool = True, resize: bool = True, return_features: bool = False
    ) -> torch.Tensor:
        assert not rescale and not resize and return_features
        means = video.mean(dim=[3, 4])
        return torch.cat([means[:, :, 0], means[:, :, -1]], dim=1).repeat(1, 67)[:, :400]


def test_fvd_and_kvd_read_clips_through_a_pinned_torchscript(tmp_path: Path) -> None:
    path = tmp_path / "i3d_torchscript.pt"
    torch.jit.script(TinyI3D()).save(str(path))
    config = Extractors(i3d_weights=str(path), i3d_sha256=file_sha256(path))
    frames = np.zeros((40, 30, 50, 3), np.uint8)
    frames[-1] = 255
    kept = metric("fvd", config).keep(shown(frames))
    assert kept is not None and kept.shape == (2, 400)
    np.testing.assert_allclose(kept[:, :6], [[-1] * 6, [-1, -1, -1, 1, 1, 1]], atol=1e-6)
    assert metric("kvd", config).keep(shown(frames[:15])) is None
    with pytest.raises(UserError, match="i3d_resizing: unknown 'stretch', expected one of crop, squash"):
        metric("fvd", replace(config, i3d_resizing="stretch"))
    with pytest.raises(UserError, match="has the hash"):
        metric("fvd", replace(config, i3d_sha256=""))
    path.write_bytes(b"none")
    with pytest.raises(UserError, match="no TorchScript file"):
        metric("fvd", replace(config, i3d_sha256=file_sha256(path)))


def test_the_two_ways_to_224_pixels_differ_at_the_sides() -> None:
    wide = np.zeros((2, 40, 120, 3), np.uint8)
    wide[:, :, :40] = 255
    cropped, squashed = (i3d.prepared(wide, way) for way in ("crop", "squash"))
    assert cropped.shape == squashed.shape == (3, 2, 224, 224)
    assert (cropped < 0).float().mean() > 0.99, "the bright third lies outside the centre"
    assert (squashed > 0).float().mean() == pytest.approx(1 / 3, abs=0.01)


def test_frames_and_clips_are_spread_over_the_video() -> None:
    frames = np.arange(100)
    assert evenly(frames)[[0, -1]].tolist() == [0, 99] and len(evenly(frames)) == 16
    assert len(evenly(frames[:5])) == 5
    assert [clip[0] for clip in clips_of(frames)] == [0, 28, 56, 84] and all(
        len(clip) == 16 for clip in clips_of(frames)
    )
    assert [len(clips_of(frames[:count])) for count in (15, 16, 33, 64)] == [0, 1, 2, 4]


# SyncNet, DWPose, ArcFace, DINO, Q-Align


@pytest.mark.slow
def test_sync_is_measured_by_a_pinned_syncnet_and_two_metrics_share_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = tmp_path / "syncnet_v2.model"
    torch.save(SyncNet().state_dict(), path)
    config = Extractors(syncnet_weights=str(path), syncnet_sha256=file_sha256(path))
    confidence, distance = make_metrics(["sync_c", "sync_d"], config)
    person = drawn_people(1, 160, 4.2, shots=("face",))[0]
    assert confidence.keep(replace(person, frames=person.frames[:90], driving=None)) is None, "too short"
    found = [each.keep(person) for each in (confidence, distance)]
    assert all(each is not None and np.isfinite(each).all() for each in found)
    assert confidence.name == "sync_c" and distance.name == "sync_d"
    with pytest.raises(UserError, match=r"evaluate\.extractors\.syncnet_weights=.* has the hash"):
        metric("sync_c", replace(config, syncnet_sha256="0"))


def test_hands_and_pose_by_dwpose(tmp_path: Path) -> None:
    write_detector(tmp_path / "yolox_l.onnx", (BOB, PERSON, 0.9, 0.0))
    peaks = np.stack([np.arange(133) % 90 + 2, np.arange(133) % 120 + 2], axis=1)
    write_pose(tmp_path / "dw-ll_ucoco_384.onnx", peaks, np.full(133, 0.8))
    config = Extractors(pose_weights=str(tmp_path), pose_sha256=files_sha256(estimator_files(tmp_path)))
    hkc, hkv = make_metrics(["hkc", "hkv"], config)
    video = shown(pictures(6, 120, 200))
    assert hkc.keep(video) == pytest.approx(0.8, abs=1e-3) and hkv.keep(video) == pytest.approx(0, abs=1e-6)
    with pytest.raises(UserError, match=r"evaluate\.extractors\.pose_weights=.* has the hash"):
        metric("hkc", replace(config, pose_sha256="0"))


def test_a_face_is_brought_to_arcfaces_template() -> None:
    angle, scale, shift = 0.3, 2.5, np.array([40.0, 25.0])
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = arcface.PLACES @ turn.T + shift
    picture = np.zeros((400, 400, 3), np.uint8)
    for x, y in points.round().astype(int):
        picture[y - 4 : y + 5, x - 4 : x + 5] = 255
    face = arcface.aligned(picture, points)
    assert face.shape == (112, 112, 3)
    assert all(face[round(y), round(x), 0] > 200 for x, y in arcface.PLACES) and face[5, 5, 0] == 0


def test_identity_is_the_cosine_by_arcface_and_its_licence_is_asked_for(tmp_path: Path) -> None:
    write_yunet(tmp_path / "yunet.onnx")
    constants = {"flat": np.array([1, -1])}
    nodes = [node("AveragePool", ["input"], "small", kernel_shape=[28, 28], strides=[28, 28])]
    nodes.append(node("Reshape", ["small", "flat"], "output"))
    write_model(tmp_path / "arcface.onnx", nodes, constants, {"input": (1, 3, 112, 112)}, {"output": (1, 48)})
    paths = [tmp_path / name for name in ("arcface.onnx", "yunet.onnx")]
    weights, faces = (str(path) for path in paths)
    hashes = [file_sha256(path) for path in paths]
    config = Extractors(
        arcface_weights=weights, arcface_sha256=hashes[0], face_weights=faces, face_sha256=hashes[1],
        allow_non_commercial=True,
    )  # fmt: skip
    picture = np.zeros((96, 96, 3), np.uint8)
    picture[40:48, 40:48, 2] = 255
    identity = metric("identity", config)
    bare = np.zeros_like(picture)
    same = identity.keep(shown(np.stack([picture, picture, bare, bare]), picture))
    assert identity.name == "identity" and same == pytest.approx(0.5), "frames without a face count as 0"
    assert identity.keep(shown(picture[None], bare)) is None and identity.keep(shown(picture[None])) is None
    with pytest.raises(UserError, match="may not be used commercially"):
        metric("identity", replace(config, allow_non_commercial=False))
    with pytest.raises(UserError, match=r"needs evaluate\.extractors\.face_weights"):
        metric("identity", replace(config, face_weights=""))
    with pytest.raises(UserError, match=r"face_weights=.* has the hash"):
        metric("identity", replace(config, face_sha256="0"))


def test_subjects_are_known_by_dino(tmp_path: Path) -> None:
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    tiny = ViTConfig(hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, image_size=32)
    ViTModel(tiny, add_pooling_layer=False).save_pretrained(tmp_path)
    names = ("config.json", "model.safetensors")
    pinned = files_sha256({f"network/{name}": tmp_path / name for name in names})
    config = Extractors(dino_weights=str(tmp_path), dino_sha256=pinned)
    subject = metric("subject_consistency", config)
    still, moving = np.repeat(pictures(1, 40, 60), 4, axis=0), pictures(4, 40, 60)
    assert subject.keep(shown(still)) == pytest.approx(1.0, abs=1e-5)
    assert subject.keep(shown(moving)) < 1.0 and subject.name == "subject_consistency"
    assert consistency(np.ones((3, 24))) == pytest.approx(1.0)
    with pytest.raises(UserError, match=r"dino_weights=.* has the hash"):
        metric("subject_consistency", replace(config, dino_sha256=""))


def test_q_align_asks_for_its_licence_and_for_pyiqa(monkeypatch: pytest.MonkeyPatch) -> None:
    config = Extractors(qalign_weights="q-future/one-align")
    with pytest.raises(UserError, match=r"non-commercial.*stand-in.*allow_non_commercial=true"):
        metric("iqa", config)
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    with pytest.raises(UserError, match="pip install pyiqa"):
        metric("ase", replace(config, allow_non_commercial=True))
    with pytest.raises(UserError, match="knows Q-Align as q-future/one-align alone"):
        metric("iqa", replace(config, allow_non_commercial=True, qalign_weights="somewhere"))


def test_q_align_rates_frames_one_by_one_by_what_was_pinned_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pyiqa and its 16 GB are not here: a package of the same call stands for it."""
    from huggingface_hub import constants

    class Package(ModuleType):
        @staticmethod
        def create_metric(name: str, device: str) -> Callable[..., float]:
            assert name == "qalign" and device == "cpu" and constants.HF_HUB_OFFLINE
            return lambda picture, task_: float(picture.max()) * {"quality": 4, "aesthetic": 2}[task_] * len(picture)

    monkeypatch.setitem(sys.modules, "pyiqa", Package("pyiqa"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    config = Extractors(qalign_weights="q-future/one-align", allow_non_commercial=True)
    with pytest.raises(UserError, match="not in the hub's cache"):
        metric("iqa", config)
    snapshot = tmp_path / "models--q-future--one-align/snapshots/abc"
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs/main").write_text("abc")
    files = {name: snapshot / name for name in ("config.json", "modeling.py")}
    for path in files.values():
        path.write_text("{}")
    with pytest.raises(UserError, match="has the hash"):
        metric("iqa", config)
    iqa, ase = make_metrics(["iqa", "ase"], replace(config, qalign_sha256=files_sha256(files)))
    video = shown(np.full((3, 8, 9, 3), 255, np.uint8))
    assert (iqa.keep(video), ase.keep(video)) == (4.0, 2.0) and not constants.HF_HUB_OFFLINE
