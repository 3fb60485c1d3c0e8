"""What is published: the paper (arXiv:1707.02725) and the authors' README and definition files."""

from typing import NamedTuple

EPOCHS = 400  # of the paper's CIFAR runs


class ImageNet(NamedTuple):
    """A row of the ImageNet table: parameters (10^6), FLOPs (10^9), top-1 test error (%)."""

    parameters: str
    flops: str
    error: str


IMAGENET = {  # by the name of our network
    "imagenet-18 W64": ImageNet("11.151", "1.8", "31.06"),
    "imagenet-18 W69": ImageNet("11.333", "2.1", "30.58"),
    "imagenet_igc-18 L4M32": ImageNet("11.205", "1.9", "30.77"),
    "imagenet_igc-18 L16M16": ImageNet("11.329", "2.2", "29.40"),
    "imagenet_igc-18 L100M2 doubling L": ImageNet("8.61", "1.3", "26.95"),
}
DEFINED = {  # convolutions and linear layer, and with gamma and beta: from the definition files
    "imagenet-18 W64": (11_679_912, 11_689_512),
    "imagenet-18 W69": (13_532_107, 13_542_457),
    "imagenet_igc-18 L4M32": (12_232_040, 12_251_240),
    "imagenet_igc-18 L16M16": (13_489_896, 13_528_296),
    "imagenet_igc-18 L100M2 doubling L": (8_607_700, 8_637_900),
}
CIFAR = {  # all parameters by depth, from the definition files
    "plain W16": {8: 75_290, 20: 269_722, 38: 561_370, 62: 950_234},
    "plain W18": {8: 95_068, 20: 341_020, 38: 709_948, 62: 1_201_852},
    "plain_igc L4M8": {8: 78_634, 20: 277_546, 38: 575_914, 62: 973_738},
    "plain_igc L24M2": {8: 48_442, 20: 155_962, 38: 317_242, 62: 532_282},
    "resnet W16": {50: 758_554, 74: 1_147_418, 98: 1_536_282},
    "resnet W18": {50: 959_356, 74: 1_451_260, 98: 1_943_164},
    "resnet_igc L4M8": {50: 778_538, 74: 1_176_362, 98: 1_574_186},
    "resnet_igc L24M2": {50: 433_210, 74: 648_250, 98: 863_290},
}
ACCURACY = {  # % on the test set, the best depth of "+Ident." networks
    "cifar10": {"L24M2": 95.15, "W18": 94.95},
    "cifar100": {"L24M2": 76.15, "W18": 75.30},
}
