"""What a rendered file says of itself, who signed it, and what is found out when it was changed."""

import datetime
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import c2pa
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from tests import written

from omnihuman.config.schema.evaluate import Render
from omnihuman.errors import UserError
from omnihuman.inference import certificate
from omnihuman.inference.certificate import CERTIFICATE_VARIABLE, KEY_VARIABLE, SELF_MADE, signing_identity
from omnihuman.inference.content_credentials import read_manifest
from omnihuman.inference.provenance import FORMAT, Provenance, sidecar_path
from omnihuman.inference.verification import VerifiedVideo, verify
from omnihuman.storage.files import file_sha256

CONFIG = Render(upscale=1)


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """A signed video with sound, and its sidecar."""
    return written.write(tmp_path / "a.mp4", CONFIG).path


def test_the_manifest_says_that_a_model_made_it_and_of_what(video: Path) -> None:
    with c2pa.Reader(video) as reader:
        told = json.loads(reader.json())
    manifest = told["manifests"][told["active_manifest"]]
    said = {assertion["label"]: assertion["data"] for assertion in manifest["assertions"]}
    (action,) = said["c2pa.actions.v2"]["actions"]
    assert action["action"] == "c2pa.created" and action["digitalSourceType"].endswith("/trainedAlgorithmicMedia")
    assert len(action["parameters"]["ingredients"]) == 1
    (ingredient,) = manifest["ingredients"]
    picture = file_sha256(video.with_name("picture.png"))
    assert (ingredient["title"], ingredient["relationship"]) == ("image", "inputTo")
    assert ingredient["description"] == f"sha256 {picture}" and "thumbnail" not in ingredient
    assert manifest["claim_generator_info"][0]["name"] == "omnihuman"
    assert said["org.omnihuman.render"]["parameters"]["seed"] == 7
    assert "time" not in manifest["signature_info"], "no server was asked for a time stamp"

    read, sidecar = read_manifest(video), Provenance.load(video)
    assert read and read.broken == () and read.provenance
    assert (read.self_made, read.ours, read.signer) == (True, True, SELF_MADE)
    assert replace(read.provenance, video_sha256=sidecar.video_sha256, tracks_sha256=sidecar.tracks_sha256) == sidecar


def test_the_sidecar_is_of_the_signed_file_and_reproducible(video: Path, tmp_path: Path) -> None:
    told = json.loads(sidecar_path(video).read_text())
    assert told["video_sha256"] == file_sha256(video) and told["format"] == FORMAT
    assert set(told["tracks_sha256"]) == {"video", "audio"} and told["made_by"].startswith("omnihuman ")
    assert told["content_id"] == Provenance.load(video).content_id
    assert str(tmp_path) not in sidecar_path(video).read_text(), "it names no path"
    again = written.write(tmp_path / "b.mp4", CONFIG).provenance
    assert replace(again, video_sha256="") == replace(Provenance.load(video), video_sha256="")
    plain = replace(CONFIG, content_credentials=False)
    one, other = (written.write(tmp_path / name, plain).path for name in ("c.mp4", "d.mp4"))
    assert one.read_bytes() == other.read_bytes() and sidecar_path(one).read_bytes() == sidecar_path(other).read_bytes()
    assert read_manifest(one) is None and verify(one).unchanged


def flip_a_pixel(video: Path) -> None:
    with av.open(str(video)) as container:
        packet = next(container.demux(video=0))
        place = (packet.pos or 0) + packet.size // 2
    content = bytearray(video.read_bytes())
    content[place] ^= 1
    video.write_bytes(content)


def pack_anew(video: Path) -> None:
    """Into a new container, nothing encoded again."""
    target = video.with_name("packed.mp4")
    with av.open(str(video)) as source, av.open(str(target), "w") as container:
        tracks = {stream: container.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = tracks[packet.stream]
                container.mux(packet)
    target.replace(video)


def encode_anew(video: Path) -> None:
    with av.open(str(video)) as source:
        frames = [frame.to_ndarray(format="rgb24") for frame in source.decode(video=0)]
    with av.open(str(video), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "30"})
        stream.width, stream.height, stream.pix_fmt = written.WIDTH, written.HEIGHT, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def edit_the_sidecar(video: Path) -> None:
    told = Provenance.load(video)
    replace(told, parameters={**told.parameters, "seed": 8}).save(video)


def forge_the_sidecar(video: Path) -> None:
    sidecar_path(video).write_text(sidecar_path(video).read_text().replace('"seed": 7', '"seed": 8'))


def cut_the_file(video: Path) -> None:
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (flip_a_pixel, ["pictures, sound or index are not what was signed", "pictures: changed", "sound: as rendered"]),
        (pack_anew, ["credentials that it was written with are gone", "only the container around them was changed"]),
        (encode_anew, ["credentials that it was written with are gone", "pictures: changed", "sound: removed"]),
        (cut_the_file, ["not the one that the sidecar describes"]),
        (edit_the_sidecar, ["the sidecar tells of another content than the signed manifest"]),
        (forge_the_sidecar, ["its content_id is that of another content"]),
    ],
)
def test_a_change_is_found_and_named(video: Path, change: Callable[[Path], None], said: list[str]) -> None:
    assert verify(video) == VerifiedVideo(str(video), True, (), True, read_manifest(video), Provenance.load(video))
    change(video)
    found = verify(video)
    assert not found.unchanged
    for part in said:
        assert any(part in change for change in found.changes), found.changes
    assert found.provenance.parameters["seed"] == 7, "the signed one is believed"


def test_without_its_sidecar_a_file_still_tells(video: Path) -> None:
    before = Provenance.load(video)
    sidecar_path(video).unlink()
    found = verify(video)
    assert found.unchanged and not found.has_sidecar and found.provenance.content_id == before.content_id
    flip_a_pixel(video)
    assert verify(video).changes == ("pictures, sound or index are not what was signed",)
    encode_anew(video)
    with pytest.raises(UserError, match=r"no a\.mp4\.json beside it"):
        verify(video)


def test_a_sidecar_that_names_another_maker_is_not_believed(video: Path) -> None:
    path = sidecar_path(video)
    told = json.loads(path.read_text())
    path.write_text(json.dumps(told | {"made_by": "another 9", "model": {**told["model"], "name": "another"}}))
    found = verify(video)
    assert not found.unchanged and found.provenance.model.name == "omnihuman"
    path.write_text(json.dumps(told | {"tracks_sha256": ["x"]}))
    assert any("tracks_sha256 is no mapping" in change for change in verify(video).changes)


def test_sidecars_of_other_formats(video: Path) -> None:
    path, told = sidecar_path(video), json.loads(sidecar_path(video).read_text())
    first = {key: told[key] for key in ("model", "inputs", "parameters", "video_sha256")}
    path.write_text(json.dumps(first))
    older = Provenance.load(video)
    assert older.content_id == told["content_id"] and (older.made_by, older.tracks_sha256) == ("", {})
    assert verify(video).unchanged
    flip_a_pixel(video)
    assert "the file is not the one that the sidecar describes" in verify(video).changes
    path.write_text(json.dumps({**told, "format": FORMAT + 1}))
    with pytest.raises(UserError, match="needs a later version of omnihuman"):
        Provenance.load(video)


def signed_by_another_program(source: Path, target: Path) -> None:
    """With the manifest of a camera."""
    captured = "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"
    actions = {"actions": [{"action": "c2pa.created", "digitalSourceType": captured}]}
    me = signing_identity()
    builder = c2pa.Builder({"assertions": [{"label": "c2pa.actions.v2", "data": actions}]})
    signer = c2pa.Signer.from_info(c2pa.C2paSignerInfo(me.algorithm, me.chain, me.key, None))
    builder.sign_file(source, target, signer)


@pytest.mark.parametrize(("name", "manifests"), [("signed.png", 2), ("a lie.jpg", 1), ("nothing", 1)])
def test_an_input_with_a_manifest_of_its_own_is_carried_along(
    tmp_path: Path, video: Path, name: str, manifests: int
) -> None:
    signed_by_another_program(tmp_path / "picture.png", tmp_path / "signed.png")
    picture = (tmp_path / "signed.png").rename(tmp_path / name)
    written.write(tmp_path / "b.mp4", CONFIG, picture=picture)
    with c2pa.Reader(tmp_path / "b.mp4") as reader:
        assert len(json.loads(reader.json())["manifests"]) == manifests
    assert verify(tmp_path / "b.mp4").unchanged


def test_a_manifest_of_another_program_is_no_provenance(tmp_path: Path) -> None:
    plain = written.write(tmp_path / "plain.mp4", replace(CONFIG, content_credentials=False)).path
    signed_by_another_program(plain, tmp_path / "a.mp4")
    with pytest.raises(UserError, match="content credentials of another program"):
        verify(tmp_path / "a.mp4")


def test_the_certificate_is_made_once_for_its_owner_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNIHUMAN_HOME", str(tmp_path / "home"))
    chain, key = certificate.self_made_files()
    before = chain.read_bytes(), key.read_bytes()
    assert key.stat().st_mode & 0o777 == 0o600
    assert certificate.self_made_files() == (chain, key) and (chain.read_bytes(), key.read_bytes()) == before
    signer, root = x509.load_pem_x509_certificates(chain.read_bytes())
    signer.verify_directly_issued_by(root)
    for one in (signer, root):
        (organisation,) = one.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
        assert organisation.value == SELF_MADE and "proves no identity" in SELF_MADE
    assert str(signing_identity().key) not in repr(signing_identity())
    video = written.write(tmp_path / "a.mp4", CONFIG).path
    monkeypatch.setenv("OMNIHUMAN_HOME", str(tmp_path / "another machine"))
    elsewhere = read_manifest(video)
    assert elsewhere and (elsewhere.broken, elsewhere.self_made, elsewhere.ours) == ((), True, False)


def own_certificate(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    key: CertificateIssuerPrivateKeyTypes | None = None,
    days: int = 30,
    purpose: x509.ObjectIdentifier = ExtendedKeyUsageOID.EMAIL_PROTECTION,
) -> None:
    """A certificate of an organisation, named by the environment."""
    ca, own = ec.generate_private_key(ec.SECP256R1()), key or ec.generate_private_key(ec.SECP384R1())
    now = datetime.datetime.now(datetime.UTC)
    name = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Studio"), x509.NameAttribute(NameOID.COMMON_NAME, "Anna")]
    usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(name))
        .issuer_name(x509.Name(name[:1]))
        .public_key(own.public_key())  # pyright: ignore[reportArgumentType]
        .serial_number(5)
        .not_valid_before(now - datetime.timedelta(days=60))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.public_key()), critical=False)
        .sign(ca, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "own.pem").write_bytes(made.public_bytes(pem))
    form, no_password = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "own.key").write_bytes(own.private_bytes(pem, form, no_password))
    monkeypatch.setenv(CERTIFICATE_VARIABLE, str(folder / "own.pem"))
    monkeypatch.setenv(KEY_VARIABLE, str(folder / "own.key"))


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP384R1()),
        rsa.generate_private_key(65537, 2048),
        ed25519.Ed25519PrivateKey.generate(),
    ],
    ids=["P-384", "RSA", "Ed25519"],
)
def test_the_users_own_certificate_signs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: CertificateIssuerPrivateKeyTypes
) -> None:
    own_certificate(tmp_path, monkeypatch, key)
    manifest = read_manifest(written.write(tmp_path / "a.mp4", CONFIG).path)
    assert manifest and (manifest.broken, manifest.signer, manifest.self_made) == ((), "Anna, Studio", False)


def test_a_certificate_that_cannot_sign_is_told_before_any_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(said: str) -> None:
        with pytest.raises(UserError, match=said) as caught:
            written.write(tmp_path / "a.mp4", CONFIG)
        assert "PRIVATE" not in str(caught.value) and not list(tmp_path.glob("*.mp4"))

    monkeypatch.setattr(written, "pictures", written.none)
    own_certificate(tmp_path, monkeypatch, days=-1)
    refused(r"own\.pem ended on .*: have it renewed")
    own_certificate(tmp_path, monkeypatch, purpose=ExtendedKeyUsageOID.SERVER_AUTH)
    refused("C2PA does not accept it")
    own_certificate(tmp_path, monkeypatch)
    (tmp_path / "own.key").write_bytes(certificate.self_made_files()[1].read_bytes())
    refused("is not that of the first certificate")
    encrypted = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
    )
    (tmp_path / "own.key").write_bytes(encrypted)
    refused("give PEM without a password")
    (tmp_path / "own.pem").write_bytes(b"no certificate")
    refused("give PEM, your own first")
    monkeypatch.delenv(KEY_VARIABLE)
    refused(f"{CERTIFICATE_VARIABLE} is set and {KEY_VARIABLE} is not")
