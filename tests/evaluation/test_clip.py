"""CLIP scores and aesthetic scores, against the models' own features and the published heads' own layers."""

import hashlib
import json
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from restart_sampling.base.download import cache_folder
from restart_sampling.base.errors import InputError
from restart_sampling.evaluation import aesthetic
from restart_sampling.evaluation.aesthetic import DEFAULT_HEAD, HEADS, HeadFile, fold, load_aesthetic, read_head
from restart_sampling.evaluation.clip import ClipScore, load_clip, preprocess
from tiny_clip import clip_folder

TEXTS = ["a cat on a mat", "Two dogs, running", "the sea", "a very red bus in the rain", "x"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return clip_folder(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def clip(folder):
    return load_clip(str(folder))


def images(count=5, side=32):
    """Four flat fields each: pure noise looks alike to a random network."""
    fields = np.random.default_rng(0).integers(0, 256, (count, 3, 2, 2), dtype=np.uint8)
    return torch.from_numpy(fields.repeat(side // 2, axis=2).repeat(side // 2, axis=3))


def pooled(features):
    """transformers 5 gives an object where 4 gave the tensor."""
    return getattr(features, "pooler_output", features)


@pytest.mark.parametrize(
    ("size", "resized", "left", "top"),
    [  # widths, heights and offsets are torchvision's own
        ((225, 224), (225, 224), 0, 0),
        ((227, 224), (227, 224), 2, 0),
        ((224, 229), (224, 229), 0, 2),
        ((639, 427), (335, 224), 56, 0),
        ((427, 640), (224, 335), 0, 56),
        ((500, 375), (298, 224), 37, 0),
        ((37, 101), (224, 611), 0, 194),
        ((512, 512), (224, 224), 0, 0),
    ],
)
def test_preprocessing_is_the_originals_to_one_grey_level(size, resized, left, top):
    """Against torch's bicubic with antialiasing, in float, and torchvision's offsets."""
    width, height = size
    x, y = np.meshgrid(np.linspace(0, 9 * np.pi, width), np.linspace(0, 7 * np.pi, height))
    picture = np.stack([127 + 90 * np.sin(x + y), 127 + 90 * np.cos(x), 127 + 90 * np.sin(2 * y)])
    picture = picture.round().astype(np.uint8)
    scaled = F.interpolate(
        torch.from_numpy(picture)[None].float(), resized[::-1], mode="bicubic", antialias=True, align_corners=False
    )
    expected = scaled[0, :, top : top + 224, left : left + 224].round().clamp(0, 255).numpy()
    found = preprocess(Image.fromarray(picture.transpose(1, 2, 0)), 224)
    assert (found.shape, found.dtype) == ((3, 224, 224), np.uint8)
    assert np.abs(found - expected).max() <= 1


def test_grey_and_transparent_pictures_become_rgb():
    grey = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50), dtype=np.uint8))
    expected = preprocess(grey.convert("RGB"), 32)
    assert np.array_equal(preprocess(grey, 32), expected)
    assert np.array_equal(preprocess(grey.convert("RGBA"), 32), expected)


def test_the_score_is_the_cosine_of_the_models_own_features(clip, folder):
    from transformers import CLIPModel, CLIPTokenizer

    network, tokenizer = CLIPModel.from_pretrained(folder).eval(), CLIPTokenizer.from_pretrained(folder)
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
    with torch.no_grad():
        seen = pooled(network.get_image_features(pixel_values=(images() / 255 - mean) / std))
        # Each text alone and without padding: neither may matter.
        read = torch.cat(
            [
                pooled(network.get_text_features(input_ids=torch.tensor([tokenizer(text)["input_ids"]])))
                for text in TEXTS
            ]
        )
    expected = F.cosine_similarity(seen.double(), read.double())
    found = ClipScore(clip)(images(), TEXTS)
    assert (found.dtype, found.shape) == (torch.float32, (5,))
    assert torch.allclose(found.double(), expected, atol=1e-6)
    assert expected.min() < 0  # no clamp
    assert expected.std() > 0.05  # else this would say little
    assert ClipScore(clip).about["scale"] == 1


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_batch_size_does_not_matter(size, clip):
    score = ClipScore(clip)
    whole = score(images(), TEXTS)
    parts = [score(images()[at : at + size], TEXTS[at : at + size]) for at in range(0, 5, size)]
    assert torch.allclose(torch.cat(parts), whole, atol=1e-6)


def test_a_text_of_more_than_77_tokens_loses_the_last_ones(clip):
    """75 tokens are kept between start and end, as in the original; here every letter is one."""
    kept = "ab " * 37 + "c"  # 37 x 2 + 1
    assert torch.equal(clip.text_features([f"{kept} and much more"]), clip.text_features([kept]))
    assert not torch.equal(clip.text_features(["ab " * 37 + "d"]), clip.text_features([kept]))


def test_texts_are_cleaned_as_in_the_original(clip):
    rough = ["Fish &amp;amp; chips", " two\n\t dogs ", "\u201cSTOP\u201d, it\u2019s red"]
    clean = ["fish & chips", "two dogs", '"stop", it\'s red']
    assert torch.equal(clip.text_features(rough), clip.text_features(clean))


def test_other_weights_have_another_identity(clip, folder, tmp_path):
    assert load_clip(str(folder)).identity == clip.identity
    assert load_clip(str(clip_folder(tmp_path, seed=1))).identity != clip.identity


def test_what_is_no_clip_is_one_sentence(folder, tmp_path):
    from transformers import Dinov2Config

    Dinov2Config().save_pretrained(tmp_path / "dino")
    with pytest.raises(InputError, match=r"model of the kind 'dinov2'.*has to be a CLIP"):
        load_clip(str(tmp_path / "dino"))
    with pytest.raises(InputError, match=r"nowhere could not be loaded.*give the path of its folder"):
        load_clip(str(tmp_path / "nowhere"))


def test_damaged_weights_are_one_sentence(tmp_path):
    weights = clip_folder(tmp_path) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"^CLIP .* could not be loaded \(.*\); without internet give the path"):
        load_clip(str(tmp_path))


def test_weights_that_are_missing_are_not_drawn_at_random(tmp_path):
    from safetensors.torch import load_file, save_file

    weights = clip_folder(tmp_path) / "model.safetensors"
    state = load_file(weights)
    del state["visual_projection.weight"]
    save_file(state, weights, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lacks 1 of its weights, such as visual_projection.weight"):
        load_clip(str(tmp_path))


def head_module(features=12, *, relu=False):
    """A head with the published layers (dropout too), so that torch names its weights as the published files do."""
    widths = [features, 1024, 128, 64, 16, 1]
    parts = []
    for place, (a, b) in enumerate(pairwise(widths)):
        parts.append(nn.Linear(a, b))
        if relu and place < 4:
            parts.append(nn.ReLU())
        if place < 3:
            parts.append(nn.Dropout(0.2))
    module = nn.Module()
    module.layers = nn.Sequential(*parts)
    return module.eval()


@pytest.fixture
def publish(tmp_path, monkeypatch):
    """Puts a head where a download would be, as if it were a published one."""
    monkeypatch.setenv("RESTART_SAMPLING_CACHE", str(tmp_path))

    def publish(name, module, relu=False):
        path = tmp_path / f"{name}.pth"
        torch.save(module.state_dict(), path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        monkeypatch.setitem(aesthetic.HEADS, name, HeadFile("https://127.0.0.1/none", digest, "a CLIP", relu))
        return path

    return publish


def test_the_published_heads_have_these_names_of_weights():
    linear, relu = (sorted(head_module(relu=relu).state_dict()) for relu in (False, True))
    assert [key for key in linear if "weight" in key] == [f"layers.{n}.weight" for n in (0, 2, 4, 6, 7)]
    assert {key for key in relu if "weight" in key} == {f"layers.{n}.weight" for n in (0, 3, 6, 9, 11)}


@pytest.mark.parametrize("relu", [False, True])
def test_the_aesthetic_score_is_that_of_the_head(relu, clip, publish):
    torch.manual_seed(0)
    module = head_module(relu=relu)
    publish("tiny", module, relu)
    score = load_aesthetic("tiny", clip)
    assert len(score.layers) == (5 if relu else 1)
    with torch.no_grad():
        features = clip.image_features(images())
        expected = module.double().layers(features.double())[:, 0]
    assert torch.allclose(features.norm(dim=1), torch.ones(5))
    assert torch.allclose(score(images(), TEXTS).double(), expected, atol=1e-6)
    assert expected.std() > 1e-4


def test_a_single_layer_is_a_head_too(clip, publish):
    module = nn.Linear(12, 1)
    publish("tiny", module)
    with torch.no_grad():
        expected = module(clip.image_features(images()))[:, 0]
    assert torch.allclose(load_aesthetic("tiny", clip)(images(), TEXTS), expected, atol=1e-6)


def test_linear_layers_fold_to_one_map(publish):
    torch.manual_seed(0)
    module = head_module(768)
    weight, bias = fold(read_head(publish("tiny", module)))
    assert (weight.shape, bias.shape) == ((1, 768), (1,))
    x = F.normalize(torch.randn(100, 768), dim=1)
    with torch.no_grad():
        assert torch.allclose(F.linear(x, weight, bias), module.layers(x), atol=9e-7)


@pytest.mark.skipif(not (cache_folder() / f"{DEFAULT_HEAD}.pth").exists(), reason="the head is not downloaded")
def test_the_papers_head_folds_to_the_known_map():
    weight, bias = fold(read_head(cache_folder() / f"{DEFAULT_HEAD}.pth"))
    assert bias.item() == pytest.approx(5.2366, abs=1e-4)
    assert weight.norm().item() == pytest.approx(17.996, abs=1e-3)


def test_six_heads_are_pinned():
    assert len(HEADS) == 6
    assert all(len(head.sha256) == 64 and head.url.startswith("https://github.com/") for head in HEADS.values())
    assert len({head.sha256 for head in HEADS.values()}) == 6
    assert [name for name, head in HEADS.items() if head.relu] == ["ava+logos-l14-reluMSE"]


def test_heads_that_do_not_fit_are_one_sentence(clip, publish):
    with pytest.raises(InputError, match=r"no aesthetic head 'pretty'; allowed: sac\+logos"):
        load_aesthetic("pretty", clip)
    path = publish("wide", head_module(768))
    with pytest.raises(InputError, match=r"takes 768 features, and CLIP .* gives 12; give it a CLIP"):
        load_aesthetic("wide", clip)
    path.write_bytes(b"other")
    with pytest.raises(InputError, match=r"has sha256 .*, and must have"):
        load_aesthetic("wide", clip)


def test_the_description_of_a_score_is_json(clip, publish):
    publish("tiny", nn.Linear(12, 1))
    for score in (ClipScore(clip), load_aesthetic("tiny", clip)):
        assert json.loads(json.dumps(score.about))["identity"] == clip.identity
