"""The Python API that `import dsmi_zoo` offers, and the cost of the import."""

import inspect
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    Sampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

import dsmi_zoo
from dsmi_zoo._util.errors import InputError
from dsmi_zoo.pipeline.measures.catalog import COSTLY, ROW_MEASURES

torch.manual_seed(0)
IMAGES = torch.randn(24, 3, 32, 32)
LABELS = np.arange(24) % 3
FEW = ("dse_z", "dsmi_z_y", "neighbour_accuracy")


class Backwards(Sampler[list[int]]):
    """A batch sampler with a fixed order that wraps no other sampler."""

    def __iter__(self) -> Iterator[list[int]]:
        """Return all images in one batch, the last first."""
        return iter([list(range(23, -1, -1))])


class Own(torch.nn.Module):
    """A user's network; its embedding is the input of its last linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 4, stride=4), torch.nn.ReLU())
        self.head = torch.nn.Linear(8, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits [n, 3]."""
        return self.head(self.body(images).mean(dim=(2, 3)))


@pytest.fixture(scope="module")
def own() -> Own:
    torch.manual_seed(1)
    return Own()


def test_the_front_door_opens_without_any_library() -> None:
    code = (
        "import sys, time; started = time.process_time(); import dsmi_zoo\n"
        "print(time.process_time() - started, {'numpy', 'torch', 'pandas', 'dask', 'pydantic'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, imported = done.stdout.split(maxsplit=1)
    assert imported.strip() == "set()"
    assert float(seconds) < 0.3


def test_everything_that_is_promised_is_there_and_explains_itself() -> None:
    for name in dsmi_zoo.__all__:
        offered = getattr(dsmi_zoo, name)
        assert inspect.getdoc(offered), name
        assert name in dir(dsmi_zoo)
    with pytest.raises(AttributeError, match="has no attribute 'mesure'"):
        dsmi_zoo.mesure  # noqa: B018


def test_measure_gives_every_value_of_a_row(small_run) -> None:
    row = dsmi_zoo.read_results(small_run).iloc[0]
    import pandas as pd

    subset = pd.read_parquet(small_run / "subset.parquet")
    embedding = np.load(
        next((small_run / "embeddings").glob(f"{row['model'].replace('.', '-')}-*.npy"))
    )
    values = dsmi_zoo.measure(
        embedding,
        subset["label"],
        image_ids=subset["number"],
        input_clusters=subset["input_cluster"],
        scores="default",
    )
    assert {name: row[name] for name in values} == values
    numbers = {one.name for one in ROW_MEASURES if one.unit != "text"}
    assert set(values) == numbers - COSTLY | {"undefined_scores"}


def test_score_is_measure_of_the_penultimate_embedding(own: Own) -> None:
    with torch.no_grad():
        embedding = own.body(IMAGES).mean(dim=(2, 3)).numpy()
    scores, expected = dsmi_zoo.score(own, IMAGES, LABELS), dsmi_zoo.measure(embedding, LABELS)
    assert scores.pop("undefined_scores") == expected.pop("undefined_scores")
    assert scores == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_score_takes_a_timm_model_by_its_pre_logits() -> None:
    model = timm.create_model("test_vit", img_size=32, patch_size=8).eval()
    with torch.no_grad():
        embedding = model.forward_head(model.forward_features(IMAGES), pre_logits=True).numpy()
    expected = dsmi_zoo.measure(embedding, LABELS, scores=FEW)
    assert dsmi_zoo.score(model, IMAGES, LABELS, scores=FEW) == pytest.approx(expected, rel=1e-4)


def test_score_gives_the_same_for_every_form_of_the_images(own: Own) -> None:
    expected = dsmi_zoo.score(own, IMAGES, LABELS, scores=FEW)
    labelled = TensorDataset(IMAGES, torch.from_numpy(LABELS))
    forms = {
        "array": (IMAGES.numpy(), LABELS),
        "labelled data set": (labelled, None),
        "data set beside labels": (labelled, LABELS),
        "loader": (DataLoader(labelled, batch_size=5), None),
        "batches without labels": ([IMAGES[:10], IMAGES[10:]], LABELS),
        "names of classes": (IMAGES, [f"class {label}" for label in LABELS]),
    }
    for name, (images, labels) in forms.items():
        assert dsmi_zoo.score(own, images, labels, scores=FEW) == pytest.approx(
            expected, rel=1e-5
        ), name
    in_small_batches = dsmi_zoo.score(own, IMAGES, LABELS, scores=FEW, batch_size=7)
    assert in_small_batches == pytest.approx(expected, rel=1e-5)


def test_score_of_a_shuffling_loader_takes_its_labels_and_refuses_others(own: Own) -> None:
    loader = DataLoader(TensorDataset(IMAGES, torch.from_numpy(LABELS)), batch_size=5, shuffle=True)
    shuffled = dsmi_zoo.score(own, loader, scores=("dse_z",))
    assert shuffled == pytest.approx(dsmi_zoo.score(own, IMAGES, scores=("dse_z",)), rel=1e-5)
    with pytest.raises(
        InputError, match="the loader has an order of its own, as with shuffle=True"
    ):
        dsmi_zoo.score(own, loader, LABELS)


@pytest.mark.parametrize(
    "order",
    [
        {"sampler": SubsetRandomSampler(range(24))},
        {"sampler": WeightedRandomSampler(np.ones(24), 24)},
        {"batch_sampler": BatchSampler(RandomSampler(range(24)), 8, drop_last=False)},
        {"batch_sampler": Backwards()},
    ],
    ids=lambda order: str(next(iter(order.values()))).split()[0].rpartition(".")[2],
)
def test_no_order_but_the_datas_own_is_taken_beside_labels(own: Own, order: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="the loader has an order of its own"):
        dsmi_zoo.score(own, DataLoader(TensorDataset(IMAGES), **order), LABELS)


def test_an_impossible_device_leaves_the_network_where_it_was(own: Own) -> None:
    with pytest.raises(InputError, match="device='meta' computes nothing"):
        dsmi_zoo.score(own, IMAGES, LABELS, device="meta")
    assert own.head.weight.device.type == "cpu"


class Photographs(torch.utils.data.Dataset):
    """A data set of PIL images that lacks a transform to tensors."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, number: int) -> tuple[Image.Image, int]:
        """Return a photograph and its class."""
        return Image.new("RGB", (8, 8)), number


class Stream(IterableDataset):
    """An iterable data set: images in order, without indices."""

    def __iter__(self) -> Iterator[tuple[torch.Tensor, int]]:
        """Return an iterator of (image, class)."""
        return zip(IMAGES, LABELS.tolist(), strict=True)


def test_a_stream_of_images_is_scored_by_itself_or_in_a_loader(own: Own) -> None:
    expected = pytest.approx(dsmi_zoo.score(own, IMAGES, LABELS, scores=FEW), rel=1e-5)
    for stream in (Stream(), DataLoader(Stream(), batch_size=7)):
        assert dsmi_zoo.score(own, stream, scores=FEW) == expected
        assert dsmi_zoo.score(own, stream, LABELS, scores=FEW) == expected


class LikeTimm(torch.nn.Module):
    """A network with timm's methods for pre-logits but without ``num_classes``."""

    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Conv2d(3, 8, 4, stride=4)
        self.head = torch.nn.Linear(8, 3)

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        """Return a feature map [n, 8, h, w]."""
        return self.body(images)

    def forward_head(self, features: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """Return pre-logits [n, 8] or logits [n, 3]."""
        pooled = features.mean(dim=(2, 3))
        return pooled if pre_logits else self.head(pooled)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits [n, 3]."""
        return self.forward_head(self.forward_features(images))


def test_a_network_with_timms_methods_alone_is_embedded_by_pre_logits_or_a_layer() -> None:
    network = LikeTimm()
    of_body = pytest.approx(dsmi_zoo.score(network, IMAGES, LABELS, scores=FEW), rel=1e-5)
    assert dsmi_zoo.score(network, IMAGES, LABELS, layer="body", scores=FEW) == of_body


def test_score_without_labels_measures_what_needs_none(own: Own) -> None:
    assert {"dse_z", "rankme"} <= dsmi_zoo.score(own, IMAGES).keys()
    assert "dsmi_z_y" not in dsmi_zoo.score(own, IMAGES)


@pytest.mark.parametrize("form", ["tensor", "data set", "loader that shuffles", "stream"])
def test_score_leaves_the_network_and_the_random_states_as_they_were(own: Own, form: str) -> None:
    labelled = TensorDataset(IMAGES, torch.from_numpy(LABELS))
    forms = {
        "tensor": IMAGES,
        "data set": labelled,
        "loader that shuffles": DataLoader(labelled, batch_size=5, shuffle=True),
        "stream": Stream(),
    }
    own.train()
    before = {name: value.clone() for name, value in own.state_dict().items()}
    state = torch.random.get_rng_state()
    dsmi_zoo.score(own, forms[form], LABELS if form == "tensor" else None, scores=FEW)
    assert own.training
    assert all(torch.equal(before[name], value) for name, value in own.state_dict().items())
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("images", "arguments", "words"),
    [
        (IMAGES[0], {}, r"images have shape \[3, 32, 32\] where \[n, c, h, w\] is needed"),
        (
            (255 * IMAGES).to(torch.uint8),
            {},
            "images are torch.uint8; pass them as the model takes them",
        ),
        (IMAGES, {"layer": "boddy"}, "the model has no layer 'boddy'; did you mean body"),
        (IMAGES, {"scores": ("dsez",)}, "no score is called 'dsez'"),
        (IMAGES, {"sigma": -1}, "sigma is -1"),
        (IMAGES, {"batch_size": 0}, "batch_size is 0; pass a whole number"),
        (None, {}, "images are a NoneType; pass a tensor"),
        ("photos", {}, "images are a str; pass a tensor"),
        (
            Photographs(),
            {},
            "images come as Image; give the data set a transform that makes tensors",
        ),
        (IMAGES, {"labels": [1, 2]}, "labels has 2 entries but the embedding has 24 rows"),
        ([], {}, "there are no images"),
        (TensorDataset(IMAGES[:0]), {}, "there are no images"),
        (IMAGES, {"scores": 3}, "scores is 3; pass names of columns"),
        (IMAGES, {"scores": [3]}, "no score is called 3"),
        (IMAGES, {"layer": 3}, "layer is a int; pass its name"),
        (IMAGES, {"device": "gpu"}, "device='gpu' cannot be used here"),
        (
            IMAGES,
            {"batchsize": 3},
            "score has no setting 'batchsize'; beside its own arguments there are sigma",
        ),
        (
            torch.full_like(IMAGES, torch.nan),
            {},
            "the model gives NaN or infinite values for 24 of 24 images",
        ),
        (
            [["photo.jpg"]],
            {},
            "images come as str; give the data set a transform that makes tensors",
        ),
    ],
)
def test_score_refuses_what_it_cannot_embed_in_one_line(
    own: Own, images, arguments, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        dsmi_zoo.score(own, images, **arguments)


def test_clusters_and_ids_beside_a_loader_of_another_order_are_refused_as_labels_are(
    own: Own,
) -> None:
    loader = DataLoader(TensorDataset(IMAGES, torch.from_numpy(LABELS)), batch_size=5, shuffle=True)
    for beside in ({"input_clusters": LABELS}, {"image_ids": np.arange(24)}):
        with pytest.raises(InputError, match="the loader has an order of its own"):
            dsmi_zoo.score(own, loader, **beside)


def test_what_is_no_network_is_told(own: Own) -> None:
    for other in ("resnet18", Own, lambda images: images):
        with pytest.raises(InputError, match=r"the model is a \w+, not a torch\.nn\.Module"):
            dsmi_zoo.score(other, IMAGES, LABELS)


def test_a_pattern_may_stand_alone() -> None:
    assert dsmi_zoo.load_models("digits", "test_vit.*") == dsmi_zoo.load_models(
        "digits", ["test_vit.*"]
    )


def test_a_layer_of_ones_choice_is_embedded(own: Own) -> None:
    scores = dsmi_zoo.score(own, IMAGES, LABELS, layer="head", scores=FEW)
    with torch.no_grad():
        assert scores == pytest.approx(dsmi_zoo.measure(own(IMAGES), LABELS, scores=FEW), rel=1e-4)


@pytest.mark.parametrize(
    "function", [dsmi_zoo.measure, dsmi_zoo.score, dsmi_zoo.diffusion_spectral_entropy]
)
def test_help_shows_types_by_their_names(function: Callable[..., Any]) -> None:
    signature = str(inspect.signature(function))
    assert "_NestedSequence" not in signature
    assert len(signature) < 900


def test_a_network_on_the_meta_device_is_told() -> None:
    with torch.device("meta"):
        network = Own()
    with pytest.raises(InputError, match="the model is on the meta device"):
        dsmi_zoo.score(network, IMAGES, LABELS)
