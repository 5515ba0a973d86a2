"""LEEP: the labels given the probabilities of a network's own classifier."""

from math import log

import numpy as np
import pytest
import timm
import torch

from dsmi_zoo.pipeline.embedding.embed import embed_inputs
from dsmi_zoo.pipeline.engine.row_content import scored_by_classifier
from dsmi_zoo.pipeline.measures.core.checks import UndefinedScore
from dsmi_zoo.pipeline.measures.scores import leep as module
from dsmi_zoo.pipeline.measures.scores.leep import leep
from dsmi_zoo.pipeline.measures.scores.nce import ONE_LABEL, nce
from dsmi_zoo.pipeline.networks import forward
from dsmi_zoo.pipeline.networks.forward import TensorInputs

CPU = torch.device("cpu")


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


def drawn(seed: int, n: int = 300, width: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities of ``width`` classes, and labels of three classes that they partly predict."""
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    return softmax(2 * np.eye(width)[labels] + generator.normal(size=(n, width))), labels


def published(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return LEEP by equations 1 and 2 of Nguyen et al., one number at a time."""
    n, width = probabilities.shape
    count = labels.max() + 1
    joint = [[0.0] * width for _ in range(count)]
    for row in range(n):
        for z in range(width):
            joint[labels[row]][z] += float(probabilities[row, z]) / n
    total = 0.0
    for row in range(n):
        expected = 0.0
        for z in range(width):
            of_z = sum(joint[y][z] for y in range(count))
            expected += joint[labels[row]][z] / of_z * float(probabilities[row, z])
        total += log(expected) / n
    return total


@pytest.mark.parametrize("block", [module.BLOCK, 100])
def test_leep_is_the_published_formula_in_parts_of_any_size(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK", block)
    probabilities, labels = drawn(0)
    value, _ = leep(probabilities, labels, np.arange(300))
    assert value == pytest.approx(published(probabilities, labels), abs=1e-7)
    assert -log(3) < value < -0.1
    renamed, _ = leep(probabilities[:, ::-1], labels + 5, np.arange(300))
    assert renamed == pytest.approx(value)


def test_leep_of_certain_predictions_is_their_nce() -> None:
    probabilities, labels = drawn(1)
    predictions, images = probabilities.argmax(axis=1), np.arange(300)
    certain = np.eye(12, dtype=np.float32)[predictions]  # some classes are never predicted
    value, error = leep(certain, labels, images)
    of_nce, error_of_nce = nce(predictions, labels, images)
    assert value == pytest.approx(of_nce, abs=1e-12)
    assert error == pytest.approx(error_of_nce, rel=0.1)  # over all images, not within classes


def test_its_standard_error_is_the_spread_over_fresh_images() -> None:
    values, errors = np.array([leep(*drawn(seed), np.arange(300)) for seed in range(60)]).T
    assert np.median(errors) / values.std(ddof=1) == pytest.approx(1, abs=0.3)
    # Repeats of an image add no information.
    probabilities, labels = drawn(0)
    thrice = leep(np.repeat(probabilities, 3, axis=0), np.repeat(labels, 3), np.arange(900) // 3)
    assert thrice == pytest.approx((values[0], errors[0]))


def test_its_standard_error_is_the_jackknifes_that_leaves_out_each_image() -> None:
    probabilities, labels = drawn(0)
    value, error = leep(probabilities, labels, np.arange(300))
    others = [np.delete(np.arange(300), row) for row in range(300)]
    left = np.array([leep(probabilities[some], labels[some], some)[0] for some in others])
    pseudo = 299 * (value - left)
    within = sum(99 * np.var(pseudo[labels == label], ddof=1) for label in range(3)) / 297
    assert error == pytest.approx(np.sqrt(within / 300), rel=0.03)


def test_where_nothing_varies_leep_is_0_and_has_no_error() -> None:
    probabilities, labels = drawn(0)
    assert leep(probabilities, 0 * labels, np.arange(300)) == (0.0, None)
    assert leep(np.eye(3, dtype=np.float32)[labels], labels, np.arange(300)) == (0.0, None)


def test_outputs_that_are_not_finite_have_no_leep_but_a_reason() -> None:
    probabilities, labels = drawn(0)
    probabilities[7, 2] = np.nan
    with pytest.raises(UndefinedScore, match="the outputs of the classifier are not all finite"):
        leep(probabilities, labels, np.arange(300))


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    model: torch.nn.Module = timm.create_model("test_resnet", num_classes=7)
    return model.eval()


def images(n: int = 10) -> TensorInputs:
    return TensorInputs(torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(0)))


def test_a_forward_pass_keeps_the_probabilities_of_the_classifier_if_asked() -> None:
    model, inputs = network(), images()
    embedding = embed_inputs(model, inputs, CPU, probabilities=True, batch_size=4)
    with torch.inference_mode():
        expected = model(inputs.images).softmax(dim=1).numpy()
    assert embedding.probabilities is not None
    np.testing.assert_allclose(embedding.probabilities, expected, atol=1e-6)
    assert embed_inputs(model, inputs, CPU, batch_size=4).probabilities is None


def test_outputs_that_are_probabilities_are_taken_as_they_are() -> None:
    class Certain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = network()

        def forward(self, given: torch.Tensor) -> torch.Tensor:
            return self.body(given).softmax(dim=1)

    inputs = images()
    settings = {"layer": "body.layer1", "probabilities": True, "batch_size": 4}
    embedding = embed_inputs(Certain().eval(), inputs, CPU, **settings)  # type: ignore[arg-type]
    of_body = embed_inputs(network(), inputs, CPU, probabilities=True, batch_size=4)
    assert embedding.probabilities is not None
    assert of_body.probabilities is not None
    np.testing.assert_allclose(embedding.probabilities, of_body.probabilities, atol=1e-6)


def test_a_row_has_nce_and_leep_of_its_classifier_or_the_reason_why_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    labels, numbers = np.arange(10) % 2, np.arange(10)
    embedding = embed_inputs(network(), images(), CPU, probabilities=True)
    kept, scores, reasons = scored_by_classifier(embedding, labels, numbers)
    assert kept.probabilities is None
    assert scores["leep"] == leep(embedding.probabilities, labels, numbers)[0]  # type: ignore[arg-type]
    assert -log(2) <= scores["leep"] < 0 < scores["leep_se"]
    assert "leep" not in reasons

    *_, reasons = scored_by_classifier(embedding, 0 * labels, numbers)
    assert reasons == {"nce_se": ONE_LABEL, "leep_se": ONE_LABEL}
    *_, reasons = scored_by_classifier(embedding, numbers, numbers)
    assert reasons["leep_se"] == "each class has one image"

    monkeypatch.setattr(forward, "MAX_PROBABILITIES", 69)  # one less than the 70 probabilities
    wide = embed_inputs(network(), images(), CPU, probabilities=True)
    _, scores, reasons = scored_by_classifier(wide, labels, numbers)
    assert "leep" not in scores
    assert scores["nce"] == nce(wide.predictions, labels, numbers)[0]  # type: ignore[arg-type]
    assert reasons["leep"] == "the probabilities of 10 images by 7 outputs exceed 1 GiB"

    headless = timm.create_model("test_resnet", num_classes=0).eval()
    without = embed_inputs(headless, images(), CPU, probabilities=True)
    assert scored_by_classifier(without, labels, numbers)[1:] == ({}, {})
