"""Throughput of this pipeline against the way of the paper's script, in one run on one machine.

    python benchmarks/zoo_against_authors.py [--images 600] [--repeat 3]

Eight of timm's ``test_*`` models with random weights share one preprocessing of 160 pixels over JPEGs of 500 x 400.
Here: one decoding for all models, Dask workers, ``measure``. There: each model decodes and crops for itself with 2
loader processes, then the reference package computes all six measures, the clusters of the inputs anew for each model.
The start of processes and the import of libraries are excluded on both sides. Each side then runs once more without
its forward passes: their outputs are those of the first time. (Subtracting the time of the forward passes instead would
subtract the decoding that the loader's processes do meanwhile.)
"""

import argparse
import os
import tempfile
import time
import warnings
from pathlib import Path
from statistics import median

import numpy as np
import safetensors.torch
import skimage.data
import timm
import torch
from PIL import Image
from timm.data import create_transform
from torch.utils.data import DataLoader, Dataset

from dsmi_zoo.data_catalog.datasets.registry import open_dataset
from dsmi_zoo.jobs.clusters.opening import open_workers
from dsmi_zoo.pipeline.config.run import resolve_config
from dsmi_zoo.pipeline.engine.graph import run_entries
from dsmi_zoo.pipeline.plan.plan import make_plan

with warnings.catch_warnings():  # importing the package silences all warnings
    import dse_dsmi

MODELS = (
    "test_byobnet", "test_convnext", "test_convnext2", "test_convnext3",
    "test_efficientnet", "test_efficientnet_gn", "test_resnet", "test_vit",
)  # fmt: skip
PHOTOGRAPHS = (
    "astronaut",
    "brick",
    "camera",
    "chelsea",
    "coffee",
    "grass",
    "gravel",
    "horse",
    "moon",
    "rocket",
)
SIZE = 160
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def make_images(root: Path, count: int) -> None:
    """Random crops of ten photographs, 500 x 400, ten classes."""
    rng = np.random.default_rng(0)
    for name in PHOTOGRAPHS:
        pixels = getattr(skimage.data, name)()
        photograph = Image.fromarray(
            pixels if pixels.dtype == np.uint8 else (pixels * 255).astype(np.uint8)
        )
        photograph = photograph.convert("RGB").resize((900, 700), Image.Resampling.BICUBIC)
        (root / name).mkdir(parents=True)
        for number in range(count // len(PHOTOGRAPHS)):
            left, top = int(rng.integers(401)), int(rng.integers(301))
            photograph.crop((left, top, left + 500, top + 400)).save(
                root / name / f"{number:03d}.jpg", quality=90
            )


def make_catalog(folder: Path) -> Path:
    """A catalogue of the eight models with random weights."""
    lines = ["model,checkpoint,family,img_size,crop_pct,interpolation,mean,std"]
    for name in MODELS:
        torch.manual_seed(0)
        model = timm.create_model(name, pretrained=False)
        safetensors.torch.save_file(model.state_dict(), folder / f"{name}.safetensors")
        lines.append(
            f"{name},{name}.safetensors,test,{SIZE},0.95,bicubic,{' '.join(map(str, MEAN))},{' '.join(map(str, STD))}"
        )
    path = folder / "models.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def prepare_worker(tally: str, stored: str | None) -> None:
    """On a worker: import what a task needs; let every decoding leave one byte; take stored embeddings if there are."""
    import sklearn.cluster
    import sklearn.linear_model
    import sklearn.model_selection  # noqa: F401

    import dsmi_zoo.pipeline.embedding.train
    import dsmi_zoo.pipeline.networks.timm  # noqa: F401
    from dsmi_zoo.data_catalog.datasets import folders as image_files
    from dsmi_zoo.pipeline.embedding import embed

    def counted(path: Path, read=image_files.read_image) -> Image.Image:  # type: ignore[no-untyped-def]
        with open(tally, "ab") as file:  # noqa: PTH123
            file.write(b".")
        return read(path)

    image_files.read_image = counted
    if stored is not None:

        def looked_up(model, *_unused, **_settings) -> embed.Embedding:  # type: ignore[no-untyped-def]
            name = model.pretrained_cfg["architecture"]
            return embed.Embedding(np.load(next(Path(stored).glob(f"{name}-{SIZE}-*.npy"))), None)

        embed.embed_inputs = looked_up


def ours(
    catalog: Path, images: Path, folder: Path, stored: Path | None = None
) -> tuple[float, int]:
    """Seconds and decodings of this pipeline, with the embeddings of ``stored`` in place of forward passes."""
    config = resolve_config(
        {
            "catalog": str(catalog),
            "out": folder / "out",
            "subset": {"dataset": "imagefolder", "data_root": images},
            "compute": {"cache": folder / "cache"},
        }
    )
    (folder / "out").mkdir(parents=True)
    tally = folder / "tally"
    tally.touch()
    with open_workers(config.compute, config.folder) as workers:
        workers.client.run(prepare_worker, str(tally), str(stored) if stored else None)
        started = time.perf_counter()
        plan = make_plan(config)
        done = list(run_entries(workers, plan, plan.jobs))
        seconds = time.perf_counter() - started
    assert len(done) == len(MODELS)
    assert all(entry.ok for entry in done), done
    return seconds, tally.stat().st_size


class Images(Dataset):  # type: ignore[type-arg]
    """What the paper's script reads, decoded and cropped by the loader."""

    def __init__(self, root: Path) -> None:
        images = open_dataset("imagefolder", root)
        self.paths = [root / name for name in images.names]
        self.labels = images.labels
        self.transform = create_transform(
            SIZE, is_training=False, crop_pct=0.95, interpolation="bicubic", mean=MEAN, std=STD
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        with Image.open(self.paths[number]) as image:
            return self.transform(image.convert("RGB")), int(self.labels[number])


def theirs(
    folder: Path, root: Path, outputs: dict[str, list[torch.Tensor]], look_up: bool
) -> tuple[float, int]:
    """The same for a loop over models that shares nothing between them; ``outputs`` are kept, or looked up."""
    decoded = 0
    started = time.perf_counter()
    for name in MODELS:
        model = timm.create_model(
            name, pretrained=False, checkpoint_path=str(folder / f"{name}.safetensors")
        ).eval()
        if not look_up:
            outputs[name] = []
        inputs, labels = [], []
        for batch, classes in DataLoader(Images(root), batch_size=64, num_workers=2):
            if not look_up:
                with torch.inference_mode():
                    outputs[name].append(
                        model.forward_head(model.forward_features(batch), pre_logits=True)
                    )
            inputs.append(torch.nn.functional.interpolate(batch, size=(64, 64)).flatten(1))
            labels.append(classes)
            decoded += len(batch)
        Z, X = (torch.cat(parts).double().numpy() for parts in (outputs[name], inputs))
        six_measures(Z, X, torch.cat(labels).numpy()[:, None])
    return time.perf_counter() - started, decoded


def six_measures(Z: np.ndarray, X: np.ndarray, y: np.ndarray) -> None:
    """All that the reference package computes for a model."""
    sigma, clusters = float(np.sqrt(Z.shape[1])), len(np.unique(y))
    dse_dsmi.diffusion_spectral_entropy(Z, gaussian_kernel_sigma=sigma)
    dse_dsmi.diffusion_spectral_mutual_information(Z, y, gaussian_kernel_sigma=sigma)
    dse_dsmi.diffusion_spectral_mutual_information(
        Z, X, n_clusters=clusters, gaussian_kernel_sigma=sigma
    )
    dse_dsmi.diffusion_spectral_entropy(Z, classic_shannon_entropy=True)
    dse_dsmi.diffusion_spectral_mutual_information(Z, y, classic_shannon_entropy=True)
    dse_dsmi.diffusion_spectral_mutual_information(
        Z, X, n_clusters=clusters, classic_shannon_entropy=True
    )


def main() -> None:
    """Print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    whole, rest = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = folder / "images"
        make_images(images, arguments.images)
        catalog = make_catalog(folder)
        # Imports and first use stay out of the time.
        assert Images(images)[0][0].shape == (
            3,
            SIZE,
            SIZE,
        )
        six_measures(*warm_up())
        for repeat in range(arguments.repeat):
            first, second = folder / f"{repeat}", folder / f"{repeat}-without"
            outputs: dict[str, list[torch.Tensor]] = {}
            whole.append(
                (ours(catalog, images, first), theirs(folder, images, outputs, look_up=False))
            )
            stored = first / "out" / "embeddings"
            rest.append(
                (
                    ours(catalog, images, second, stored),
                    theirs(folder, images, outputs, look_up=True),
                )
            )
    print(
        f"{len(MODELS)} models, {arguments.images} images, {os.cpu_count()} cores, {arguments.repeat} runs, medians"
    )
    for title, runs in (("all", whole), ("without forward passes", rest)):
        mine, other = median(a[0] for a, _ in runs), median(b[0] for _, b in runs)
        ratio = median(b[0] / a[0] for a, b in runs)
        print(
            f"  {title}: this pipeline {mine:.1f} s, each model for itself {other:.1f} s: {ratio:.1f} times faster"
        )
    print(f"  images decoded: {whole[0][0][1]} and {whole[0][1][1]}")


def warm_up() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A small embedding, inputs and labels."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(60, 8)), rng.normal(size=(60, 8)), np.arange(60)[:, None] % 3


if __name__ == "__main__":
    main()
