"""Folders of repositories for the hub, and their upload, to a stub of its client."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import restart_sampling as rs
from restart_sampling.base.files import sha256
from restart_sampling.images.writers import image_grid
from restart_sampling.models.read_checkpoint import read_checkpoint
from restart_sampling.models.write_checkpoint import write_safetensors
from tiny_model import tiny_model_file

huggingface_hub = pytest.importorskip("huggingface_hub")

PLAN = "3 [2,1,1,3]"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model_file(tmp_path_factory.mktemp("model") / "my model.safetensors")


@pytest.fixture
def push(run, model, tmp_path):
    """Runs the command, with what all of its runs have in common."""

    def push(*words, out=tmp_path / "flowers", model=model, licence="mit", plan=("--plan", PLAN)):
        return run(
            "model", "push", model, out, "--license", licence, "--seeds", "0-11", "--device", "cpu", *plan, *words
        )

    return push


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def card(folder: Path) -> tuple[dict, str]:
    """The metadata of a card, and its text."""
    _, metadata, text = (folder / "README.md").read_text().split("---\n", 2)
    return {key: json.loads(value) for key, _, value in (line.partition(": ") for line in metadata.splitlines())}, text


def test_a_folder_is_a_model_with_its_plan(push, model, run, tmp_path):
    code, out, err = push()
    assert (code, out) == (0, ""), err
    folder = tmp_path / "flowers"
    assert files_in(folder) == ["README.md", "model.safetensors", "plan.txt", "samples.png"]
    assert (folder / "model.safetensors").read_bytes() == model.read_bytes()
    net = rs.load_model(folder)
    assert net.identity == sha256(model)
    assert net.default_plan == str(rs.Plan.parse(PLAN))
    samples = [
        batch.images for batch in rs.generate(net, seeds=range(12), classes=[0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 0, 1])
    ]
    shown = np.asarray(Image.open(folder / "samples.png")).transpose(2, 0, 1)
    assert shown.shape == (3, 2 * 18 - 2, 10 * 18 - 2)
    assert np.array_equal(shown[:, :16:2, :16:2], samples[0][0])
    assert np.array_equal(shown[:, 18::2, 18 : 18 + 16 : 2], samples[0][11])
    assert "*Seeds 0-11, with the plan" in card(folder)[1]
    code, _, err = run("generate", "--model", folder, "--seeds", "0", "--out", tmp_path / "images", "--device", "cpu")
    assert code == 0, err


def test_a_card_has_what_the_hub_reads(push, model, tmp_path):
    push()
    metadata, text = card(tmp_path / "flowers")
    assert metadata == {
        "license": "mit",
        "library_name": "restart-sampling",
        "pipeline_tag": "unconditional-image-generation",
        "tags": ["restart-sampling", "diffusion"],
    }
    assert huggingface_hub.ModelCard.load(tmp_path / "flowers" / "README.md").data.license == "mit"
    assert 'rs.load_model("hf://OWNER/flowers")' in text
    assert f"| SHA-256 | {sha256(model)} |" in text
    assert "`3 [2,1,1,3]`, with 7 evaluations" in text


def test_a_licence_can_be_a_text(push, tmp_path):
    (tmp_path / "Our Terms.txt").write_text("as you like")
    push(licence=tmp_path / "Our Terms.txt")
    assert (tmp_path / "flowers" / "LICENSE").read_text() == "as you like"
    metadata, _ = card(tmp_path / "flowers")
    assert (metadata["license"], metadata["license_name"], metadata["license_link"]) == (
        "other",
        "our-terms",
        "LICENSE",
    )


def test_text_of_a_file_stays_text_in_the_card(push, model, tmp_path):
    hostile = tmp_path / "hostile.safetensors"
    metadata = {"dataset": "a | b\n# c <script> [x](y)"}
    write_safetensors(replace(read_checkpoint(model), path=hostile, metadata=metadata), hostile)
    push(model=hostile)
    _, text = card(tmp_path / "flowers")
    assert r"| Dataset | a \| b\n# c \<script> \[x\](y) |" in text


@pytest.mark.parametrize(
    ("words", "options", "message"),
    [
        (
            (),
            {"licence": "Apache 2"},
            "--license Apache 2: it is no file, and no identifier of the hub, such as apache-2.0",
        ),
        ((), {"plan": ()}, "--plan is missing"),
        ((), {"plan": ("--plan", "x")}, "there is no preset 'x'"),
        ((), {"model": "nothing.safetensors"}, "is not a file"),
        (("--private",), {}, "--private is for an upload; give --to OWNER/NAME as well"),
        (("--to", "flowers"), {}, "--to flowers: give owner/name"),
        (("--to", "me/flowers"), {}, "an upload needs a token"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_drawn(words, options, message, push, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    monkeypatch.setattr("restart_sampling.generation.net_drawing.NetDrawing.draw", None)
    code, _, err = push(*words, **options)
    assert code == 2
    assert message in err
    assert not (tmp_path / "flowers").exists()


def test_a_folder_that_exists_stays_as_it_is(push, tmp_path):
    (tmp_path / "flowers").mkdir()
    (tmp_path / "flowers" / "mine").write_text("x")
    code, _, err = push()
    assert code == 2
    assert "exists; give the name of a new folder" in err
    assert files_in(tmp_path / "flowers") == ["mine"]


@pytest.fixture
def api(monkeypatch):
    """A stub of the hub's client, which has a token: what it was asked, in order."""
    asked = []

    class Api:
        error = refusal = None
        seen_by_all = False

        def whoami(self):
            if Api.refusal:
                raise Api.refusal

        def create_repo(self, repository, *, private, exist_ok):
            asked.append(("create", repository, private, exist_ok))

        def model_info(self, repository):
            return SimpleNamespace(private=not Api.seen_by_all)

        def upload_folder(self, *, repo_id, folder_path, commit_message):
            if Api.error:
                raise Api.error
            asked.append(("upload", repo_id, files_in(folder_path)))
            return SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/1")

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_x")
    return SimpleNamespace(asked=asked, stub=Api)


def test_an_upload_goes_where_it_is_told(push, api, tmp_path):
    code, out, err = push("--to", "me/flowers")
    assert code == 0, err
    assert out == "https://hub/me/flowers/commit/1\n"
    files = ["README.md", "model.safetensors", "plan.txt", "samples.png"]
    assert api.asked == [("create", "me/flowers", None, True), ("upload", "me/flowers", files)]
    assert 'rs.load_model("hf://me/flowers")' in card(tmp_path / "flowers")[1]


def test_nothing_is_uploaded_without_a_target(push, api):
    assert push()[0] == 0
    assert api.asked == []


def test_what_is_private_goes_to_no_repository_that_all_can_see(push, api):
    api.stub.seen_by_all = True
    code, _, err = push("--to", "me/flowers", "--private")
    assert code == 2
    assert "me/flowers is there already, and all can see it" in err
    assert api.asked == [("create", "me/flowers", True, True)]


def test_a_token_that_is_refused_is_told_before_anything_is_drawn(push, api, tmp_path):
    api.stub.refusal = OSError("401 Client Error")
    api.stub.refusal.response = SimpleNamespace(status_code=401)
    code, _, err = push("--to", "me/flowers")
    assert code == 2
    assert "--to me/flowers: the hub refuses the token (401); log in anew" in err
    assert not (tmp_path / "flowers").exists()


def test_a_failed_upload_leaves_the_folder(push, api, tmp_path):
    api.stub.error = ConnectionError("no route\nmore")
    code, _, err = push("--to", "me/flowers")
    assert code == 2
    assert "is written, but not uploaded: ConnectionError: no route; then 'hf upload me/flowers" in err
    assert (tmp_path / "flowers" / "README.md").exists()


def test_a_grid_is_white_where_no_images_are_left():
    images = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2), np.uint8)
    grid = image_grid(images, columns=3, scale=1)
    assert grid.tolist() == [[[0, 0, 255, 1, 1, 255, 2, 2]] * 2 + [[255] * 8] + [[3, 3, 255, 4, 4, 255, 255, 255]] * 2]
