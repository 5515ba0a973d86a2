"""Fine-tuning: held-out parts, learning, and unusual networks and batches."""

import numpy as np
import pytest
import timm
import torch

from dsmi_zoo._util.errors import InputError
from dsmi_zoo.data_catalog.models.entry import Preprocessing
from dsmi_zoo.pipeline.config.finetuning import FineTuning
from dsmi_zoo.pipeline.embedding.embed import View
from dsmi_zoo.pipeline.embedding.finetune import (
    check_classes,
    fine_tune,
    predicted,
    rate_at,
    with_new_classifier,
)

CPU = torch.device("cpu")
HALF = (0.5, 0.5, 0.5)
PREPROCESSING = Preprocessing(crop_pct=1, interpolation="bicubic", mean=HALF, std=HALF)
SHORT = FineTuning(epochs=1, min_steps=12, batch_size=8, learning_rate=3e-3)


class NoClassifier(torch.nn.Module):
    """A backbone that gives one vector per image and runs out of memory above ``most`` images in training."""

    def __init__(self, most: int = 100) -> None:
        super().__init__()
        self.body = torch.nn.Conv2d(3, 8, 4)
        self.most, self.sizes = most, list[int]()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(images))
        if self.training and len(images) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return torch.as_tensor(self.body(images).mean(dim=(2, 3)))


def striped() -> tuple[View, np.ndarray]:
    """Return 24 noisy images of 16 x 16 pixels in three classes of one colour each, and their labels."""
    labels = np.arange(24) % 3
    pixels = np.random.default_rng(0).integers(0, 60, (24, 16, 16, 3), dtype=np.uint8)
    pixels[np.arange(24), :, :, labels] += 180
    return View(pixels, PREPROCESSING), labels


def test_every_image_is_held_out_once_and_each_class_is_spread_evenly() -> None:
    classes = np.repeat([0, 1, 2], [13, 7, 1])
    parts = FineTuning().held_out(classes)
    assert sorted(np.concatenate(parts).tolist()) == list(range(21))
    counts = np.array([np.bincount(classes[part], minlength=3) for part in parts])
    assert np.ptp(counts, axis=0).max() <= 1
    assert np.ptp(counts.sum(axis=1)) <= 1
    assert len(FineTuning().held_out(np.arange(3000) % 10)) == 2


@pytest.mark.parametrize("images", [2, 3, 33, 65, 97, 1000])
def test_no_batch_is_a_single_image_and_small_sets_have_enough_steps(images: int) -> None:
    steps = FineTuning().steps(images)
    assert images % steps.batch_size != 1
    assert steps.total >= FineTuning().min_steps
    rates = [rate_at(step, steps.total, 0.1) for step in range(steps.total)]
    assert max(rates) == pytest.approx(1, abs=0.1)
    assert rates[0] < 0.2
    assert rates[-1] < 0.01


def test_a_network_learns_and_the_same_seed_gives_the_same_predictions() -> None:
    inputs, labels = striped()
    train = np.arange(18)
    answers = []
    for _ in range(2):
        torch.manual_seed(0)
        model = with_new_classifier(timm.create_model("test_resnet"), 3, None, inputs)
        fine_tune(model, inputs, labels, train, SHORT, CPU, seed=1)
        answers.append(predicted(model, inputs, np.arange(18, 24), CPU))
    assert (answers[0] == labels[18:]).mean() > 0.9
    np.testing.assert_array_equal(*answers)


def test_a_network_without_a_classifier_gets_one_and_too_large_a_batch_is_parted() -> None:
    inputs, labels = striped()
    torch.manual_seed(0)
    network = NoClassifier(most=4)
    model = with_new_classifier(network, 3, ".", inputs)
    fine_tune(model, inputs, labels, np.arange(18), SHORT, CPU, seed=1)
    assert network.sizes.count(8) == 1, "the first batch of the first try"
    assert (predicted(model, inputs, np.arange(18, 24), CPU) == labels[18:]).all()


def test_a_network_that_never_fits_is_refused_in_one_line() -> None:
    inputs, labels = striped()
    model = with_new_classifier(NoClassifier(most=1), 3, ".", inputs)
    with pytest.raises(MemoryError, match=r"not even with 2 images of 256 pixels at a time$"):
        fine_tune(model, inputs, labels, np.arange(18), SHORT, CPU, seed=1)


def test_images_of_one_class_are_refused() -> None:
    with pytest.raises(InputError, match="one class"):
        check_classes(np.zeros(5, dtype=np.int64))
