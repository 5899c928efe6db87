"""Captions of CIFAR-10's pictures: the class, and what can be measured: 'a dark photo of a red truck'."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

CLASSES = (
    ("airplane", "plane"),
    ("automobile", "car"),
    ("bird",),
    ("cat",),
    ("deer",),
    ("dog",),
    ("frog",),
    ("horse",),
    ("ship", "boat"),
    ("truck",),
)
"""Names of each class, in the order of CIFAR-10's labels."""
BRIGHTNESS = ("dark", "", "bright")
CONTRAST = ("low contrast", "", "high contrast")
COLOURS = ("red", "orange", "brown", "yellow", "green", "blue", "purple", "pink", "white", "grey", "black", "")
"""The last of each is what is not said: neither dark nor bright, no colour that stands out."""
PICTURE = ("photo", "picture", "image")

MEAN = (100.0, 142.0)  # luma, from 0 to 255: a quarter of the training set is below, a quarter above
DEVIATION = (39.0, 60.0)  # likewise, its standard deviation in a picture
DULL = 0.35  # what a pixel of a dull colour counts beside one of another
SHARE = 0.4  # of the pixels, so counted, that a colour needs to be called the main one
NOTHING = -1  # an attribute that a caption does not mention


@dataclass(frozen=True)
class Caption:
    """A text, and what it says.

    Attributes:
        text: the caption.
        says: class, brightness, contrast, colour of the middle and of the border, as `measure` numbers them;
            NOTHING where it does not say.
    """

    text: str
    says: tuple[int, int, int, int, int]


def measure(images: Tensor) -> Tensor:
    """Brightness, contrast, main colour of the middle and of the border of pictures: int64 [B, 4].

    They are places in BRIGHTNESS, CONTRAST, COLOURS and COLOURS.

    Args:
        images: uint8 [B, 3, H, W], RGB.
    """
    luma = (images * images.new_tensor([0.299, 0.587, 0.114], dtype=torch.float32)[:, None, None]).sum(1).flatten(1)
    brightness = torch.bucketize(luma.mean(1), luma.new_tensor(MEAN))
    contrast = torch.bucketize(luma.std(1), luma.new_tensor(DEVIATION))
    colours = _colour_of_pixels(images)
    middle = torch.zeros(images.shape[2:], dtype=torch.bool, device=images.device)
    quarter, border = images.shape[-1] // 4, images.shape[-1] // 8
    middle[quarter:-quarter, quarter:-quarter] = True
    edge = torch.ones_like(middle)
    edge[border:-border, border:-border] = False
    return torch.stack([brightness, contrast, _main(colours[:, middle]), _main(colours[:, edge])], 1)


def write(attributes: Sequence[int], draw: random.Random) -> Caption:
    """A caption of a picture that mentions some of what it shows.

    Args:
        attributes: its class, and what `measure` found.
        draw: decides.
    """
    kind, brightness, contrast, colour, border = attributes
    says = [kind, *[NOTHING] * 4]
    adjectives = []
    for place, (names, value, chance) in enumerate(
        ((BRIGHTNESS, brightness, 0.6), (CONTRAST, contrast, 0.3), (COLOURS, colour, 0.75), (COLOURS, border, 0.4)), 1
    ):
        mentioned = names[value] and draw.random() < chance
        adjectives.append(names[value] if mentioned else "")
        says[place] = value if mentioned else NOTHING
    bright, sharp, coloured, ground = adjectives
    thing = _join(coloured, draw.choice(CLASSES[kind]))
    where = _join("on", with_article(_join(ground, "background"))) if ground else ""
    if not bright and not sharp and draw.random() < 0.3:
        text = _join(draw.choice((thing, with_article(thing))), where)
    else:
        text = _join(with_article(_join(bright, sharp, draw.choice(PICTURE))), "of", with_article(thing), where)
    return Caption(text, (says[0], says[1], says[2], says[3], says[4]))


def with_unknown_word(text: str, draw: random.Random) -> str:
    """The text with a word of random letters somewhere, so that a network learns to pass over words it cannot know."""
    words = text.split()
    unknown = "".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(1, 9)))
    words.insert(draw.randint(0, len(words)), unknown)
    return " ".join(words)


def words() -> list[str]:
    """All words that captions are made of, sorted."""
    names = [*(name for kind in CLASSES for name in kind), *BRIGHTNESS, *CONTRAST, *COLOURS, *PICTURE]
    return sorted({word for name in [*names, "a an of on background"] for word in name.split()})


def _join(*words: str) -> str:
    return " ".join(word for word in words if word)


def with_article(thing: str) -> str:
    """A thing with a or an before it."""
    return f"{'an' if thing[0] in 'aeiou' else 'a'} {thing}"


def _colour_of_pixels(images: Tensor) -> Tensor:
    """The name of each pixel's colour, a place in COLOURS: int64 [B, H, W]."""
    red, green, blue = (images / 255).unbind(1)
    value, low = torch.maximum(torch.maximum(red, green), blue), torch.minimum(torch.minimum(red, green), blue)
    chroma = (value - low).clamp(min=1e-6)
    saturation = chroma / value.clamp(min=1e-6)
    hue = torch.where(
        value == red,
        (green - blue) / chroma % 6,
        torch.where(value == green, (blue - red) / chroma + 2, (red - green) / chroma + 4),
    )
    hue = 60 * hue
    number = {name: place for place, name in enumerate(COLOURS)}
    found = torch.full_like(hue, number["red"], dtype=torch.int64)
    for name, begin, end in (("orange", 15, 42), ("yellow", 42, 65), ("green", 65, 165), ("blue", 165, 255)):
        found[(hue >= begin) & (hue < end)] = number[name]
    found[(hue >= 255) & (hue < 340)] = number["purple"]
    pale = saturation < 0.42
    found[(hue >= 15) & (hue < 65) & (pale | (value < 0.6))] = number["brown"]
    found[((hue < 15) | (hue >= 340)) & pale] = number["brown"]
    found[((hue < 15) | (hue >= 300)) & pale & (value > 0.65)] = number["pink"]
    grey = saturation < 0.13
    found[grey] = number["grey"]
    found[grey & (value > 0.78)] = number["white"]
    found[value < 0.18] = number["black"]
    return found


def _main(colours: Tensor) -> Tensor:
    """The commonest of colours [B, N] where its share is large enough, else the last place of COLOURS: int64 [B]."""
    weights = torch.tensor([DULL if name in ("brown", "grey", "black") else 1 for name in COLOURS])
    shares = torch.nn.functional.one_hot(colours, len(COLOURS)).sum(1) * weights.to(colours.device)
    share, main = (shares / shares.sum(1, keepdim=True)).max(1)
    return torch.where(share >= SHARE, main, len(COLOURS) - 1)
