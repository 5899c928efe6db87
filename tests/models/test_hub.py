"""Models from the hub, of which a server on this machine plays the part."""

import pytest
import torch
from edm_files import network, pickled, snapshot

import restart_sampling as rs
from restart_sampling.base.errors import InputError
from restart_sampling.base.files import sha256
from restart_sampling.generation.net_drawing import NetDrawing
from restart_sampling.models.hub import fetch_model
from restart_sampling.models.read_checkpoint import read_checkpoint
from restart_sampling.models.resolve import resolve
from tiny_model import tiny_model_file

pytest.importorskip("huggingface_hub")
from fake_hub import fake_hub
from huggingface_hub import constants

OLD, NEW = "a" * 40, "b" * 40
PLAN = "3 [2,1,1.0,3.0]"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with fake_hub(monkeypatch, tmp_path / "cache") as server:
        fetch_model.cache_clear()
        yield server
    fetch_model.cache_clear()


@pytest.fixture
def offline(hub, monkeypatch):
    """A function after which the hub is not asked any more."""

    def begin():
        fetch_model.cache_clear()
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        hub.requests.clear()

    yield begin
    assert not hub.requests


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The paths of a model and of another."""
    folder = tmp_path_factory.mktemp("models")
    return tiny_model_file(folder / "model.safetensors"), tiny_model_file(folder / "other.safetensors", size=16)


def hold(hub, models):
    """A repository whose branch has moved on, from one model to another with a plan."""
    first, second = (path.read_bytes() for path in models)
    files = {"model.safetensors": second, "plan.txt": PLAN.encode(), "first.safetensors": first, "modeling.py": b"1/0"}
    hub.repositories["me/flowers"] = {"main": NEW, "v1": OLD, OLD: {"model.safetensors": first}, NEW: files}


def test_a_model_of_the_hub_is_the_model_of_its_file(hub, models, offline):
    hold(hub, models)
    net = rs.load_model("hf://me/flowers")
    assert net.identity == sha256(models[1])
    assert net.default_plan == NetDrawing(net).about["plan"] == str(rs.Plan.parse(PLAN))
    assert not any("modeling" in request or "first" in request for request in hub.requests if "resolve" in request)
    offline()
    assert rs.load_model("hf://me/flowers").identity == sha256(models[1])
    assert resolve("hf://me/flowers").parent.name == NEW


@pytest.mark.parametrize(
    "source", ["hf://me/flowers@v1", f"hf://me/flowers@{OLD}", "hf://me/flowers/first.safetensors"]
)
def test_a_revision_or_a_file_is_another_model(source, hub, models, offline):
    hold(hub, models)
    assert rs.load_model(source).identity == sha256(models[0])
    offline()
    net = rs.load_model(source)
    assert (net.identity, net.default_plan) == (sha256(models[0]), None)


def test_a_branch_that_moves_does_not_move_within_a_process(hub, models):
    hold(hub, models)
    before = resolve("hf://me/flowers")
    hub.repositories["me/flowers"]["main"] = OLD
    assert resolve("hf://me/flowers") == before
    fetch_model.cache_clear()
    assert sha256(resolve("hf://me/flowers")) == sha256(models[0])


def test_a_branch_that_moves_while_files_are_fetched(hub, models):
    class Moving(dict):
        def __getitem__(self, name):
            commit = super().__getitem__(name)
            if name == "main":
                self["main"] = OLD
            return commit

    hold(hub, models)
    hub.repositories["me/flowers"] = Moving(hub.repositories["me/flowers"])
    net = rs.load_model("hf://me/flowers")
    assert (net.identity, net.default_plan) == (sha256(models[1]), str(rs.Plan.parse(PLAN)))


def test_the_cache_is_the_layout_of_huggingface_hub(hub, models, offline, tmp_path):
    """As `hf download`, or another machine, left it."""
    offline()
    folder = tmp_path / "cache" / "models--me--flowers"
    snapshot = {f"snapshots/{OLD}/model.safetensors": models[0].read_bytes(), "refs/main": OLD.encode()}
    for name, content in snapshot.items():
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(content)
    assert rs.load_model("hf://me/flowers").identity == sha256(models[0])


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("hf://me/flowers", "model.safetensors"),
        ("hf://me/flowers/first.safetensors", "first.safetensors"),
        ("hf://me/flowers", "plan.txt"),
    ],
)
def test_a_file_that_is_damaged_in_the_cache_is_seen(source, name, hub, models):
    """At equal size, of which huggingface_hub says nothing."""
    hold(hub, models)
    model = resolve(source)
    kept = model.with_name(name).resolve()
    content = bytearray(kept.read_bytes())
    content[-1] ^= 1
    kept.write_bytes(content)
    fetch_model.cache_clear()
    with pytest.raises(InputError, match=f"model {source} cannot be used: {kept} is damaged"):
        rs.load_model(source)
    kept.unlink()
    content[-1] ^= 1
    assert rs.load_model(source).identity == sha256(model)
    assert kept.read_bytes() == content


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("hf://me/nothing", "the hub shows no repository me/nothing"),
        ("hf://me/flowers@v9", "the repository has no revision v9; give a branch, a tag or a commit"),
        ("hf://me/flowers@new/petals", "has no revision new; give a branch, .* with %2F for each / in its name"),
        ("hf://me/flowers/no.safetensors", r"is not there; a repository holds model\.safetensors"),
        ("hf://me/empty", r"is not there; a repository holds model\.safetensors"),
        ("hf://me/latents", "cannot be used: its network is one of latents"),
        ("hf://me/text", "cannot be used: its network is a UNet2DConditionModel, and can be a UNet2DModel"),
        ("hf://me/flowers/modeling.py", "it is neither a safetensors file"),
        ("hf://me/bad-plan", r"plan\.txt: there is no preset 'none'"),
        ("hf://me/other-plan", r"plan\.txt names another file"),
        *(
            (source, "is not of the form hf://owner/name")
            for source in (
                *("hf://flowers", "hf://me/flowers@", "hf://../a", "hf://me/flowers@..", "hf://me/flowers@a%2F../x"),
                *("hf://me/flowers@/etc", "hf://me/flowers/a/./b", "hf://me/flowers//etc", "hf://me/flowers/a\\..\\b"),
            )
        ),
        ("hf://me/flowers/../../x", "is not of the form hf://owner/name"),
        ("hf://me/a--b@v1", "cannot be downloaded"),
    ],
)
def test_what_cannot_be_loaded_is_told_in_one_sentence(source, message, hub, models):
    hold(hub, models)
    unet = b'{"_class_name": "UNet2DModel", "sample_size": 8, "in_channels": 3, "out_channels": 3}'
    latents = {
        "model_index.json": b"{}",
        "unet/config.json": unet,
        "unet/diffusion_pytorch_model.safetensors": b"",
        "scheduler/scheduler_config.json": b'{"beta_schedule": "linear"}',
        "vqvae/config.json": b"{}",
    }
    text = {**latents, "unet/config.json": b'{"_class_name": "UNet2DConditionModel"}'}
    model = models[0].read_bytes()
    for name, files in {
        "empty": {"README.md": b""},
        "latents": latents,
        "text": text,
        "bad-plan": {"model.safetensors": model, "plan.txt": b"none"},
        "other-plan": {"model.safetensors": model, "plan.txt": b"/etc/secrets.json"},
    }.items():
        hub.repositories[f"me/{name}"] = {"main": NEW, NEW: files}
    with pytest.raises(InputError, match=message):
        rs.load_model(source)
    assert not any("diffusion_pytorch_model" in request for request in hub.requests)


@pytest.mark.parametrize("file", ["a+b (1), c=d.safetensors", "blume/größe#1.safetensors", "100%.safetensors"])
@pytest.mark.parametrize("revision", ["new/petals", "v1.0+cpu", "refs/pr/1"])
def test_names_with_odd_characters(file, revision, hub, models):
    hub.repositories["me/flowers"] = {revision: NEW, NEW: {file: models[0].read_bytes()}}
    asked = revision if revision.startswith("refs/") else revision.replace("/", "%2F")
    assert fetch_model(f"hf://me/flowers@{asked}/{file}").read_bytes() == models[0].read_bytes()


@pytest.mark.parametrize(
    ("source", "refusal", "message"),
    [
        ("hf://me/flowers", (401, ""), r"the hub refuses the token \(401\); log in anew"),
        ("hf://me/flowers/first.safetensors", (403, ""), r"the hub refuses the token \(403\); log in anew"),
        (
            "hf://me/flowers",
            (403, "GatedRepo"),
            "is gated; accept its terms at http://.*/me/flowers, and",
        ),
        ("hf://me/flowers", (429, ""), "the hub answers with the error 429; try again later"),
    ],
)
def test_what_the_hub_answers_is_told(source, refusal, message, hub, models):
    """Not that it cannot be reached."""
    hold(hub, models)
    hub.refusal = refusal
    with pytest.raises(InputError, match=message):
        fetch_model(source)


def test_without_a_connection_the_cache_is_named(hub, offline):
    offline()
    message = r"not in the cache of the hub \(.*cache; HF_HOME moves it\), and the hub is not asked, as HF_HUB_OFFLINE"
    for source in ("hf://me/flowers", "hf://me/flowers/a.safetensors", f"hf://me/flowers@{OLD}"):
        with pytest.raises(InputError, match=message):
            rs.load_model(source)


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setattr("restart_sampling.base.errors.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"huggingface_hub, which is not installed.*restart-sampling\[hub\]"):
        rs.load_model("hf://me/flowers")


@pytest.mark.parametrize(("old", "suffix"), [(False, "safetensors"), (True, "bin")])
def test_a_folder_of_diffusers(old, suffix, hub, tmp_path, offline):
    diffusers = pytest.importorskip("diffusers")
    unet = diffusers.UNet2DModel(
        sample_size=8,
        block_out_channels=[32],
        layers_per_block=1,
        down_block_types=["DownBlock2D"],
        up_block_types=["UpBlock2D"],
    )
    local = tmp_path / "ddpm"
    diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler()).save_pretrained(
        local, safe_serialization=suffix == "safetensors"
    )
    files = {path.relative_to(local).as_posix(): path.read_bytes() for path in local.rglob("*") if path.is_file()}
    if old:
        files = {name.rpartition("/")[2]: content for name, content in files.items()}
    hub.repositories["me/ddpm"] = {"main": NEW, NEW: {**files, "unet/large.onnx": b"x"}}
    model = read_checkpoint(resolve("hf://me/ddpm"))
    assert model.sha256 == read_checkpoint(local).sha256
    assert not any("large" in request for request in hub.requests)
    offline()
    x = torch.ones(1, 3, 8, 8)
    assert torch.equal(rs.load_model("hf://me/ddpm")(x, torch.ones(1)), rs.load_model(local)(x, torch.ones(1)))


def test_commands_take_the_plan_of_the_repository(hub, models, run, tmp_path, offline):
    hold(hub, models)
    out = tmp_path / "images"
    code, _, err = run("generate", "--model", "hf://me/flowers", "--seeds", "0-1", "--out", out, "--device", "cpu")
    assert code == 0, err
    assert str(rs.Plan.parse(PLAN)) in err
    offline()
    code, text, _ = run("model", "inspect", "hf://me/flowers")
    assert code == 0
    assert f"{NEW}/model.safetensors" in text
    assert sha256(models[1]) in text
    code, _, err = run("generate", "--model", "hf://me/flowers@v1", "--seeds", "0", "--out", out)
    assert code == 2
    assert "HF_HUB_OFFLINE" in err
    code, _, err = run("generate", "--model", "hf://me/a.py", "--seeds", "0", "--out", out, "--plan", "2")
    assert "hf://me/a.py is not in the cache" in err


def test_a_model_of_another_format_is_converted_for_the_hub(run, tmp_path):
    pickle = tmp_path / "network-snapshot.pkl"
    pickle.write_bytes(pickled(snapshot(network("vp_ddpmpp"))))
    words = ("--license", "mit", "--plan", "2", "--seeds", "0", "--device", "cpu")
    code, _, err = run("model", "push", pickle, tmp_path / "out", *words)
    assert code == 0, err
    made = read_checkpoint(resolve(tmp_path / "out"))
    assert made.format == "safetensors"
    assert made.metadata["source_sha256"] == sha256(pickle)
    assert (
        f"| Converted from | edm-pickle |\n| SHA-256 of the original | {sha256(pickle)} |"
        in (tmp_path / "out" / "README.md").read_text()
    )
