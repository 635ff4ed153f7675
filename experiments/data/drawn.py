"""The drawn data sets by name, as a config asks for them."""

from __future__ import annotations

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from errors import ConfigError, unknown
from experiments.data.matching import Match
from experiments.data.probes import Diagonal, Pair, Search
from experiments.data.scenes import Scenes
from experiments.data.token_images import TokenImages
from experiments.schema import Config

# data set → its class, and the settings of the section data that it takes beside size, seed and length
DRAWN: dict[str, tuple[type[TokenImages], tuple[str, ...]]] = {
    "scenes": (Scenes, ()),
    "search": (Search, ("shuffled", "max_distance")),
    "pair": (Pair, ("shuffled", "max_distance")),
    "diagonal": (Diagonal, ("shuffled", "max_distance")),
    "match": (Match, ("shuffled",)),
}
ATTACKS = ("shuffled", "max_distance")
Channels = tuple[float, float, float]


def open_drawn(config: Config, split: str) -> TokenImages:
    """The images of a split, ``train`` or ``eval``.

    Raises ConfigError for a data set that is not drawn, and for settings that it does not have.
    """
    name = config.data.dataset
    if name not in DRAWN:
        raise ConfigError(unknown(f"data.dataset of {config.task}", name, DRAWN))
    images, taken = DRAWN[name]
    given = {key: value for key in ATTACKS if (value := getattr(config.data, key)) is not None}
    if foreign := [key for key in given if key not in taken]:
        valid = [each for each, (_, keys) in DRAWN.items() if foreign[0] in keys]
        raise ConfigError(f"data.{foreign[0]}: not a setting of {name} (valid for: {', '.join(valid)})")
    height, width = config.data.image_size
    return images((height, width), config.seed, _number(config, f"{split}_images"), split, **given)


def normalisation(config: Config) -> tuple[Channels, Channels]:
    """Mean and standard deviation of the red, green and blue of a pixel in 0 … 1, without opening the data."""
    if config.data.dataset in DRAWN:
        labelling = DRAWN[config.data.dataset][0].labelling
        return (labelling.mean,) * 3, (labelling.std,) * 3
    return IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD


def _number(config: Config, key: str) -> int:
    """How many images to draw, which no folder can say."""
    number = getattr(config.data, key)
    if number is None:
        raise ConfigError(f"data.{key}: {config.data.dataset} are drawn, so say how many")
    return int(number)
