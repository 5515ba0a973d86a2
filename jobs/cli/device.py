"""Commands about the device that a model will run on: time and convert."""

from pathlib import Path
from typing import Any, Literal

import click

from ..terminal import display
from .options import PATH, given_settings, options, out_option


@click.command("time")
@click.argument("models", nargs=-1, metavar="[MODEL[@SIZE]]...")
@out_option
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    help="Where to time; auto takes a GPU if there is one.  [default: auto]",
)
@options("precision", default_shown="the run's")
@click.option(
    "--compile", "compiled", is_flag=True, help="Time each network compiled by torch, too."
)
@click.option("--again", is_flag=True, help="Time again what OUT has times of.")
@click.pass_context
def time_command(
    context: click.Context,
    models: tuple[str, ...],
    out: Path,
    device: Literal["auto", "cpu", "cuda"],
    compiled: bool,
    again: bool,
    **_: Any,
) -> int:
    """Time models of a run on this machine: latency, images per second and memory, one model after the other.

    Without a MODEL, those that are tied for first. Times are kept in OUT/timed, so the same command resumes. Exits with
    1 if a model could not be timed.

    \b
    Examples:
      dsmi-zoo time --out runs/photos
      dsmi-zoo time resnet50.a1_in1k --out runs/photos --device cpu --compile
    """
    shown = display()
    with shown.never_silent():
        from ..tools.timing import time_models

        precision = given_settings(context).get("precision")
        return time_models(
            out, models, device, precision, compiled=compiled, again=again, display=shown
        )


@click.command("convert")
@click.argument("model", metavar="MODEL[@SIZE]")
@out_option
@click.option(
    "--to",
    required=True,
    type=PATH,
    metavar="FILE",
    help="A new file that ends in .onnx, .pt2 or .safetensors.",
)
def convert_command(model: str, out: Path, to: Path) -> int:
    """Convert a model of a run for deployment, with a ridge probe for the run's classes, and prove it.

    The file gives the scores of the classes and the embedding; FILE.json beside it holds the classes, the transform of
    an image, and the proof: its embeddings and predictions on the run's images, beside those of the network and of the
    run. Nothing is written, and the exit code is 1, if they differ.

    \b
    Examples:
      dsmi-zoo convert resnet50.a1_in1k --out runs/photos --to resnet50.onnx
      dsmi-zoo convert resnet50.a1_in1k@224 --out runs/photos --to resnet50.safetensors
    """
    shown = display()
    with shown.never_silent():
        from ..tools.convert import convert

        return convert(out, model, to, shown)
