"""Classify networks by timm's names: the kind of network, and the images that the weights saw."""

import re
from typing import Literal, get_args

NetworkKind = Literal["convolutional", "transformer", "hybrid", "MLP"]
KINDS: tuple[str, ...] = get_args(NetworkKind)

# Families by how they mix the positions of an image: convolutions (also pooling and gated convolutions), attention,
# both (whole stages or blocks of each, not merely a convolutional stem), or neither (MLPs over positions, and
# Sequencer's LSTMs over rows and columns). State-space mixers between convolutions count as hybrid.
FAMILIES: dict[NetworkKind, str] = {
    "convolutional": """byobnet convmixer convnext cspnet cspnext densenet dla dpn efficientnet fasternet focalnet
        ghostnet hardcorenas hgnet hrnet inception_next inception_resnet_v2 inception_v3 inception_v4 lcnetv2 mambaout
        mobilenetv3 nasnet nfnet pnasnet rdnet regnet repghost repvit res2net resnest resnet resnetv2 rexnet selecsls
        senet sknet starnet tresnet vgg vovnet xception xception_aligned""",
    "transformer": """beit cait convit crossvit davit deepseek_vit deit eva gcvit gemma4_vit hiera hieradet_sam2 mvitv2
        naflexvit nest pit pvt_v2 qwen3_vit swin_transformer swin_transformer_v2 swin_transformer_v2_cr tnt twins
        vision_transformer vision_transformer_relpos vision_transformer_sam volo xcit""",
    "hybrid": """byoanet coat cpubone csatv2 edgenext efficientformer efficientformer_v2 efficientvim efficientvit_mit
        efficientvit_msra fastvit iformer levit lowformer maxxvit mobilenetv5 mobilevit nextvit shvit swiftformer
        tiny_vit visformer vision_transformer_hybrid vitamin""",
    "MLP": "mlp_mixer sequencer",
}
KIND_OF_FAMILY: dict[str, NetworkKind] = {}
for _kind, _families in FAMILIES.items():
    KIND_OF_FAMILY.update(dict.fromkeys(_families.split(), _kind))

# Architectures, by prefix, whose kind is not that of most of their module.
EXCEPTIONS: tuple[tuple[str, str, NetworkKind], ...] = (
    (
        "fastvit",
        "fastvit_t",
        "convolutional",
    ),  # only sa, ma and mci have attention, in the last stage
    ("fastvit", "fastvit_s1", "convolutional"),
    ("metaformer", "poolformer", "convolutional"),  # pools over 3 x 3 neighbours
    ("metaformer", "convformer", "convolutional"),
    ("metaformer", "caformer", "hybrid"),  # convolutions in two stages, attention in two
    ("mobilenetv3", "mobilenetv4_hybrid", "hybrid"),
)

# Parts of a tag that name images beyond ImageNet-1k. SSLD also distils on 4 million images of ImageNet-22k.
MORE_IMAGES = re.compile(
    r"in12k|in21kp?|in22k|inw21k|clip|openai|laion\w*|datacomp\w*|metaclip\w*|dfn\w*|mclip2?|webli|jft|ig\d\w*|yfcc\w*"
    r"|cc12m|seer|swag|m30m|m38m|ssld|lvd\w*|sat493m|sa1b"
)

# The size of the set that a part of a tag names, where a source gives it.
IMAGES_OF = {
    "in1k": 1_281_167,  # Russakovsky et al. 2015
    "in21k": 14_197_122,  # all of ImageNet, 21,841 classes: image-net.org, 2011; also called 22k
    "in22k": 14_197_122,
    "in21kp": 11_797_632,  # ImageNet-21K-P: Ridnik et al. 2021, arXiv 2104.10972
    "openai": 400_000_000,  # Radford et al. 2021, arXiv 2103.00020
    "laion2b": 2_320_000_000,  # the English part of LAION-5B: Schuhmann et al. 2022, arXiv 2210.08402
    "ig1b": 940_000_000,  # Mahajan et al. 2018, arXiv 1805.00932
    "swag": 3_600_000_000,  # Singh et al. 2022, arXiv 2201.08371
    "seer": 1_000_000_000,  # Goyal et al. 2021, arXiv 2103.01988
    "jft": 300_000_000,  # Xie et al. 2020, arXiv 1911.04252
    "webli": 10_000_000_000,  # Chen et al. 2022, arXiv 2209.06794
    "m30m": 29_600_000,  # Fang et al. 2022, arXiv 2211.07636
    "m38m": 38_000_000,  # Fang et al. 2023, arXiv 2303.11331
}
# Parts of a tag whose size is not needed beside a larger set: a training method, and a subset of in22k.
NO_SIZE_NEEDED = ("clip", "in12k")


def kind_of(family: str | None, architecture: str) -> NetworkKind | None:
    """Return the kind of a network in a timm module; None for an unknown module."""
    for module, beginning, kind in EXCEPTIONS:
        if family == module and architecture.startswith(beginning):
            return kind
    return KIND_OF_FAMILY.get(family or "")


def saw_extra_data(architecture: str) -> bool | None:
    """Return whether weights were trained on images beyond ImageNet-1k, by timm's name ``network.tag``.

    Images that only a teacher saw do not count: a network distilled on ImageNet-1k is False whatever its teacher saw,
    one distilled on more images is True.

    Returns
    -------
    bool or None
        None when the tag names neither more images nor ImageNet-1k.
    """
    network, _, tag = architecture.partition(".")
    if any(MORE_IMAGES.fullmatch(part) for part in (*tag.split("_"), *network.split("_"))):
        return True
    return False if "in1k" in tag.split("_") else None


def pretraining_images(architecture: str) -> int | None:
    """Return the size of the largest set that weights were trained on, by timm's name ``network.tag``.

    Returns
    -------
    int or None
        None when the tag names no set, or one of unknown size.
    """
    parts = architecture.partition(".")[2].split("_")
    if "miil" in parts:  # their 21k is the processed one
        parts = ["in21kp" if part == "in21k" else part for part in parts]
    known = [IMAGES_OF[part] for part in parts if part in IMAGES_OF]
    unknown = [
        part
        for part in parts
        if MORE_IMAGES.fullmatch(part) and part not in (*IMAGES_OF, *NO_SIZE_NEEDED)
    ]
    if unknown or not known:
        return None
    more_than_known = max(known) == IMAGES_OF["in1k"] and saw_extra_data(architecture)
    return None if more_than_known else max(known)
