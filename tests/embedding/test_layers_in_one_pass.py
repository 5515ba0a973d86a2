"""Layers of a network: their names, and all their embeddings from one forward pass."""

from typing import Any

import numpy as np
import pytest
import timm
import torch

from dsmi_zoo.pipeline.embedding.embed import embed_inputs, shares_a_pass
from dsmi_zoo.pipeline.networks.forward import TensorInputs
from dsmi_zoo.pipeline.networks.layers import LayerNames, layer_names

CPU = torch.device("cpu")
ARCHITECTURES = (
    "test_resnet", "test_vit", "test_vit4", "test_efficientnet", "test_efficientnet_ln", "test_convnext",
    "test_nfnet", "test_byobnet", "test_mambaout", "test_maxvit",
)  # fmt: skip


def network(architecture: str, **arguments: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    model: torch.nn.Module = timm.create_model(architecture, **arguments)
    return model.eval()


def names_on_meta(architecture: str) -> LayerNames:
    with torch.device("meta"):
        model: Any = timm.create_model(architecture).eval()
        return layer_names(model, torch.zeros(1, *model.pretrained_cfg["input_size"]))


@pytest.mark.parametrize(
    ("architecture", "precision"),
    [*((name, "fp32") for name in ARCHITECTURES), ("test_resnet", "bf16"), ("test_vit", "bf16")],
)
def test_layers_of_one_pass_equal_those_of_their_own_to_the_last_bit(
    architecture: str, precision: str
) -> None:
    model: Any = network(architecture)
    images = TensorInputs(torch.randn(3, *model.pretrained_cfg["input_size"]))
    names = layer_names(model, images.images[:1]).steps
    settings: dict[str, Any] = {"batch_size": 2, "precision": precision}
    together = embed_inputs(model, images, CPU, also=names, **settings)
    own = embed_inputs(model, images, CPU, **settings)
    assert not together.problems
    np.testing.assert_array_equal(together.values, own.values)
    np.testing.assert_array_equal(together.predictions, own.predictions)  # type: ignore[arg-type]
    for name in names:
        alone = embed_inputs(model, images, CPU, layer=name, **settings)
        np.testing.assert_array_equal(together.others[name], alone.values)
        np.testing.assert_array_equal(together.predictions, alone.predictions)  # type: ignore[arg-type]
        assert together.depths[name] == alone.depths[name]


def test_depths_grow_along_a_network_from_0_to_1() -> None:
    model = network("test_vit")
    images = TensorInputs(torch.randn(2, 3, 160, 160))
    names = layer_names(model, images.images[:1]).steps
    depths = embed_inputs(model, images, CPU, also=names).depths
    assert [*depths] == [*names]
    assert 0 < depths["patch_embed"] < depths["blocks.0"] < depths["blocks.5"] < depths["norm"] < 1
    assert list(depths.values()) == sorted(depths.values())


@pytest.mark.parametrize(
    ("architecture", "blocks", "between"),
    [
        ("resnet18", [f"layer{i}.{j}" for i in range(1, 5) for j in range(2)], ["conv1", "bn1", "act1", "maxpool"]),
        ("vit_tiny_patch16_224", [f"blocks.{i}" for i in range(12)], ["patch_embed", "norm"]),
        ("mixer_s32_224", [f"blocks.{i}" for i in range(8)], ["stem", "norm"]),
        ("test_convnext2", [f"stages.{i}.blocks.0" for i in range(4)],
         ["stem", *(f"stages.{i}.downsample" for i in (1, 2, 3))]),
        ("test_maxvit", [f"stages.{i}.blocks.0" for i in range(4)], ["stem", "norm"]),
        ("dla34", [f"level{i}" for i in range(6)], ["base_layer"]),
    ],
)  # fmt: skip
def test_blocks_are_the_repeated_units_and_all_adds_what_lies_between(
    architecture: str, blocks: list[str], between: list[str]
) -> None:
    names = names_on_meta(architecture)
    assert list(names.blocks) == blocks
    assert sorted(names.steps) == sorted(blocks + between)
    assert set(names.steps) <= set(names.modules)


class Squeezed(torch.nn.Sequential):
    """A block whose parts form a sequence too."""

    def __init__(self) -> None:
        gate = torch.nn.Sequential(torch.nn.Linear(8, 2), torch.nn.Linear(2, 8))
        super().__init__(torch.nn.Linear(8, 16), torch.nn.Linear(16, 8), gate)


class Unused(torch.nn.Module):
    """A network with two stages of blocks; the first stage never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = torch.nn.Linear(12, 8), torch.nn.Linear(8, 3)
        self.stages = torch.nn.ModuleList(
            [torch.nn.Sequential(Squeezed(), Squeezed()) for _ in "ab"]
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.stages[1](self.stem(images.flatten(1))))  # type: ignore[no-any-return]


def test_a_part_of_a_block_is_no_block_and_what_does_not_run_is_no_layer() -> None:
    names = layer_names(Unused().eval(), torch.zeros(1, 3, 2, 2))
    assert names.blocks == ("stages.1.0", "stages.1.1")
    assert names.steps == ("stem", "stages.1.0", "stages.1.1")


def test_a_layer_that_gives_nothing_says_why_and_the_others_are_there() -> None:
    images = TensorInputs(torch.randn(4, 3, 2, 2))
    embedding = embed_inputs(Unused().eval(), images, CPU, also=["stages.0", "stages.1.0"])
    assert list(embedding.others) == ["stages.1.0"]
    assert "'stages.0' did not run" in str(embedding.problems["stages.0"])


def test_a_network_whose_arithmetic_hooks_change_shares_no_pass() -> None:
    encoder = torch.nn.TransformerEncoderLayer(8, 2, batch_first=True)
    assert not shares_a_pass(torch.nn.Sequential(encoder, torch.nn.Linear(8, 2)))
    assert shares_a_pass(network("test_vit"))
