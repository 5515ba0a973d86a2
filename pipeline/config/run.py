"""Every setting of a run, resolved once: the command line overrides the file, which overrides the defaults."""

import json
import logging
import shlex
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    ValidationError,
    model_validator,
)

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.paths import absolute_path, is_file
from dsmi_zoo._util.settings import (
    ONLY_IN_FILE,
    SEVERAL,
    Clash,
    KeyPath,
    OnCommandLine,
    Settings,
    flags_of,
    options_of,
    settings_of,
    validation_line,
)
from dsmi_zoo._util.tables import read_toml
from dsmi_zoo.data_catalog.datasets.names import DATASETS, NEEDS_NO_ROOT
from dsmi_zoo.data_catalog.models.filters import Filters
from dsmi_zoo.data_catalog.models.registry import BUILT_IN, seeded_zoo

from ..measures.core.settings import MeasureSettings
from .compute import ComputeSettings

log = logging.getLogger(__name__)

SettingsType = TypeVar("SettingsType", bound=BaseModel)
Metric = Literal["accuracy", "balanced_accuracy"]
PAPER_REPEATS = 3  # of each image, as in the script of the paper's authors


def _no_empty_name(folder: Any) -> Any:
    if folder == "":
        raise ValueError("must name a folder")
    return folder


ALL, BLOCKS = "all", "blocks"
"""Values of ``layers`` that stand for several layers of each network."""


def _listed(names: Any) -> Any:
    """Split names at commas; a list of them may be given as well."""
    if isinstance(names, str):
        names = (names,)
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ValueError("must be all, blocks, or names of layers")
    return tuple(part.strip() for name in names for part in name.split(","))


def _layers(names: tuple[str, ...]) -> tuple[str, ...]:
    if not all(names):
        raise ValueError("must be all, blocks, or names of layers with commas between them")
    if len(names) > 1 and {ALL, BLOCKS} & set(names):
        raise ValueError("must be all or blocks alone, or names of layers")
    return tuple(dict.fromkeys(names))


def _sample(text: str) -> str:
    # Imported here because it loads numpy.
    from dsmi_zoo.data_catalog.datasets.sampling import Sample

    return str(Sample.of(text))


def _as_text(path: Any) -> Any:
    return str(path) if isinstance(path, Path) else path


class SubsetSettings(Settings):
    """Settings of the images that are embedded."""

    dataset: Annotated[str, OnCommandLine(metavar="NAME")] = Field(
        default="digits", description=f"{', '.join(DATASETS)} or timm:NAME."
    )
    data_root: Path | None = Field(default=None, description="The folder of the images.")
    classes: Annotated[str | None, OnCommandLine(metavar="NAMES", default="all")] = Field(
        default=None, description="all, imagenette+imagewoof, or classes with commas."
    )
    images_per_class: Annotated[int | None, OnCommandLine(default="all")] = Field(
        default=None, ge=2, lt=2**31, description="Images per class."
    )
    sample: Annotated[Annotated[str, AfterValidator(_sample)] | None, ONLY_IN_FILE] = Field(
        default=None,
        description="A sample of these images, as in a search: 1/9 of each class, or 15 of each.",
    )
    repeats: Annotated[int | None, OnCommandLine(default=str(PAPER_REPEATS))] = Field(
        default=None,
        ge=1,
        le=10_000,
        description="Random crops of each image, by the paper's protocol.",
    )
    seed: Annotated[int, OnCommandLine("subset-seed")] = Field(
        default=0, ge=0, lt=2**63, description="Seed of the choice of images."
    )
    allow_train_images: bool = Field(
        default=False, description="Accept ImageNet training images in an imagenet folder."
    )
    skip_bad_images: bool = Field(
        default=False, description="Leave out images that cannot be decoded."
    )
    class_order: Annotated[
        str | None, BeforeValidator(_as_text), OnCommandLine(metavar="text|number|FILE")
    ] = Field(
        default=None,
        description="Order of a classifier's outputs: text, number, or a file with a class per line.",
    )
    white: Annotated[float | None, OnCommandLine(metavar="LEVEL", default="from the images")] = (
        Field(
            default=None,
            gt=0,
            allow_inf_nan=False,
            description="White in images of more than 8 bits: 4095, 65535, 1.",
        )
    )
    keep_copies: bool = Field(default=False, description="Keep exact copies of images.")
    name: Annotated[str | None, OnCommandLine(metavar="TEXT", default="the folder's")] = Field(
        default=None,
        min_length=1,
        max_length=100,
        description="Name of the images in the report.",
    )

    @property
    def title(self) -> str:
        """The name of the images for people: the name as set, else that of their folder, else the data set's."""
        folder = self.data_root.name if self.data_root is not None else ""
        return self.name or folder or self.dataset


class RunConfig(Settings):
    """All settings of a run."""

    catalog: Annotated[str, OnCommandLine(metavar="NAME|FILE")] = Field(
        default="digits",
        description=f"{', '.join(BUILT_IN)}, digits:SEED, fashion:SEED, or a CSV or Parquet file.",
    )
    models: Annotated[tuple[str, ...], SEVERAL, OnCommandLine(metavar="GLOB ...")] = Field(
        default=(), description="Only models whose name or name@size matches."
    )
    filters: Filters = Filters()
    protocol: Literal["standard", "paper"] = Field(
        default="standard", description="standard: each model's own transform; paper: random crops."
    )
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = Field(
        default="fp32", description="Arithmetic of the forward pass."
    )
    pool: Literal["avg", "max", "avgmax", "token", "map"] | None = Field(
        default=None,
        description="Pooling of backbones without a classifier, instead of timm's.",
    )
    random_weights: bool = Field(
        default=False, description="Dry run with untrained weights, as timm initialises them."
    )
    layers: Annotated[
        tuple[str, ...],
        BeforeValidator(_listed),
        AfterValidator(_layers),
        OnCommandLine(metavar="all|blocks|NAME,..."),
    ] = Field(
        default=(),
        description="More layers, a row each: blocks, all (also those between), or names.",
    )
    out: Annotated[
        Path | None, BeforeValidator(_no_empty_name), OnCommandLine(default="runs/<catalog>")
    ] = Field(default=None, description="The run's directory.")
    subset: SubsetSettings = SubsetSettings()
    measures: MeasureSettings = MeasureSettings()
    metric: Metric = Field(
        default="accuracy",
        description="Rank models by accuracy, or by balanced_accuracy, its mean over classes.",
    )
    compute: ComputeSettings = Field(default_factory=ComputeSettings)

    @model_validator(mode="before")
    @classmethod
    def _trained_zoos_on_their_own_images(cls, given: Any) -> Any:
        """Default to the data set on which the networks of a seeded zoo are trained."""
        zoo = seeded_zoo(str(given.get("catalog"))) if isinstance(given, dict) else None
        if zoo is None:
            return given
        subset = given.get("subset", {})
        if isinstance(subset, SubsetSettings):
            subset = subset.model_dump(exclude_unset=True)
        # The subset's fields report other errors in it.
        if not isinstance(subset, dict) or "dataset" in subset:
            return given
        if subset.get("data_root") is not None and zoo[0] in NEEDS_NO_ROOT:
            return given
        return given | {"subset": {**subset, "dataset": given["catalog"]}}

    @model_validator(mode="after")
    def _no_repeats_without_random_crops(self) -> Self:
        if self.protocol == "standard" and self.subset.repeats not in (None, 1):
            reason = "the standard protocol has one row per image, because repeats fake signal; use paper's"
            raise Clash(reason, "subset.repeats")
        return self

    @model_validator(mode="after")
    def _no_budget_without_weights(self) -> Self:
        kinds = ("budget", "budget_gb", "max_download")
        limits = [name for name in kinds if getattr(self.compute, name) is not None]
        if self.random_weights and self.compute.finetune is not None:
            raise Clash(
                "a dry run with random weights chooses no model; leave one out",
                "random_weights",
                "compute.finetune",
            )
        if self.random_weights and limits:
            reason = (
                "without weights there is nothing to download and nothing to choose; leave one out"
            )
            raise Clash(reason, "random_weights", *(f"compute.{name}" for name in limits))
        return self

    @model_validator(mode="after")
    def _no_search_over_layers(self) -> Self:
        if self.layers and self.compute.budget is not None:
            reason = "a search compares models by one layer each; measure the layers of its best ones in another run"
            raise Clash(reason, "layers", "compute.budget")
        return self

    @property
    def repeats(self) -> int:
        """Rows of an embedding per image: as set, else 3 by the paper's protocol and 1 by the standard one."""
        return self.subset.repeats or (PAPER_REPEATS if self.protocol == "paper" else 1)

    @property
    def folder(self) -> Path:
        """OUT, absolute: as given, or ``runs/<catalog>``."""
        return absolute_path(self.out or Path("runs") / Path(self.catalog).stem.replace(":", "-"))

    def identity(self) -> dict[str, Any]:
        """Return the settings that change numbers: all rows of one OUT share them."""
        # The level of white and the copies that are kept are part of the hash of the images; a name is only shown.
        elsewhere = {"data_root", "class_order", "white", "keep_copies", "name", "sample"}
        subset = self.subset.model_dump(mode="json", exclude=elsewhere)
        if self.subset.sample:  # rows of earlier versions lack this key and the next one
            subset["sample"] = self.subset.sample
        if self.subset.class_order:
            subset["class_order"] = Path(self.subset.class_order).name
        identity: dict[str, Any] = {
            "catalog": Path(self.catalog).name if is_file(self.catalog) else self.catalog,
            "protocol": self.protocol,
            "precision": self.precision,
            "subset": subset | {"repeats": self.repeats},
            "measures": self.measures.identity(),
        }
        if self.random_weights:  # rows of earlier versions have neither key
            identity["random_weights"] = True
        if self.pool:
            identity["pool"] = self.pool
        return identity


def resolve_config(
    given: Mapping[str, Any], file: Path | None = None, names: Mapping[KeyPath, str] | None = None
) -> RunConfig:
    """Resolve the settings of a run: those ``given`` override the TOML ``file``, which overrides the defaults.

    Parameters
    ----------
    given
        Nested as in the file, without the defaults.
    file
        Settings in TOML.
    names
        Names of the settings in errors; by default their options.

    Raises
    ------
    InputError
        For a file that is not TOML, an unknown name or a wrong value.
    """
    settings: dict[str, Any] = {}
    if file is not None:
        settings = read_toml(file)
        validated(RunConfig, settings, str(file))
    config = as_named(RunConfig, _merged(settings, given), names or flags_of(RunConfig))
    if config.subset.data_root is not None and "catalog" not in config.model_fields_set:
        _refuse_default_catalog(config.subset, is_command=names is None)
    if is_file(config.catalog):  # run.json must find it again from any folder
        config = config.model_copy(update={"catalog": str(Path(config.catalog).absolute())})
    order = config.subset.class_order
    if order not in (None, "text", "number"):  # as for the catalogue
        subset = config.subset.model_copy(update={"class_order": str(absolute_path(Path(order)))})
        config = config.model_copy(update={"subset": subset})
    if config.subset.data_root is not None:
        config = config.model_copy(
            update={"subset": _with_its_images(config.subset, config.subset.data_root)}
        )
    return config


def _refuse_default_catalog(subset: SubsetSettings, *, is_command: bool) -> None:
    """Refuse images of a folder without a catalogue: the default holds toy networks, trained on digits."""
    if subset.dataset in NEEDS_NO_ROOT and "dataset" in subset.model_fields_set:
        return  # refused later, because the folder does not apply
    folder, out = str(subset.data_root), f"runs/{subset.title}"
    if is_command:
        option, catalog = "--data-root", "--catalog"
        words = ["--data-root", folder, "--out", out, "--budget", "1h", "--max-download", "20GB"]
        search = shlex.join(["dsmi-zoo", "run", "--catalog", "imagenet-2025", *words])
    else:
        option, catalog = "data_root", "catalog"
        search = (
            f'dsmi_zoo.run("imagenet-2025", data_root={folder!r}, out={out!r}, '
            'budget="1h", max_download="20GB")'
        )
    raise InputError(
        f"{option} {folder} needs {catalog}, the models to compare: the default, digits, holds toy networks; "
        f"to search timm's pretrained models: {search}"
    )


def _with_its_images(subset: SubsetSettings, data_root: Path) -> SubsetSettings:
    """Make the folder of images absolute, and detect its data set unless one is named."""
    root = absolute_path(data_root)
    dataset = subset.dataset
    if "dataset" not in subset.model_fields_set:
        # Imported here because it loads the readers of images.
        from dsmi_zoo.data_catalog.datasets.registry import dataset_in

        dataset = dataset_in(root)
        log.info(f"reading {root} as the data set {dataset} (detected); --dataset names another")
    elif dataset.partition(":")[0] in NEEDS_NO_ROOT:
        raise InputError(
            f"--data-root does not apply to the data set {dataset}, which is installed; leave one of them out"
        )
    return subset.model_copy(update={"data_root": root, "dataset": dataset})


def validated(kind: type[SettingsType], settings: Mapping[str, Any], where: str) -> SettingsType:
    """Validate ``settings``, or raise an InputError of one line that starts with ``where``."""
    try:
        return kind.model_validate(settings)
    except ValidationError as error:
        known = [setting.path for setting in settings_of(kind)]
        raise InputError(f"{where}: {validation_line(error, known=known)}") from None


def as_named(
    kind: type[SettingsType], settings: Mapping[str, Any], names: Mapping[KeyPath, str]
) -> SettingsType:
    """Validate ``settings``, or raise an InputError with the ``names`` under which they were given."""
    try:
        return kind.model_validate(settings)
    except ValidationError as error:
        raise InputError(validation_line(error, names)) from None


def from_command_line(kind: type[SettingsType], settings: Mapping[str, Any]) -> SettingsType:
    """Validate ``settings``, or raise an InputError that names the option."""
    return as_named(kind, settings, flags_of(kind))


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for name, value in over.items():
        merged[name] = _merged(merged.get(name, {}), value) if isinstance(value, Mapping) else value
    return merged


def differences(
    stored: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = ""
) -> Iterator[str]:
    """Yield each setting that differs, as ``name = stored value, not wanted value``."""
    for name in sorted({*stored, *wanted}):
        old, new = stored.get(name), wanted.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from differences(old, new, f"{prefix}{name}.")
        elif old != new:
            none = "sqrt(d)" if name == "sigma" else "null"
            was, is_now = (none if value is None else json.dumps(value) for value in (old, new))
            yield f"{prefix}{name} = {was}, not {is_now}"


SETTINGS = {setting.keyword: setting for setting in options_of(RunConfig)}


def nested(values: dict[str, Any]) -> dict[str, Any]:
    """Nest values given by keyword in the groups of the settings: ``{"subset": {"seed": 1}}``."""
    groups: dict[str, Any] = {}
    for keyword, value in values.items():
        setting = SETTINGS[keyword]
        group = groups
        for name in setting.path[:-1]:
            group = group.setdefault(name, {})
        group[setting.path[-1]] = setting.stored(value)
    return groups


def settings_from_keywords(
    catalog: str | Path | None = None, out: str | Path | None = None, **keywords: Any
) -> RunConfig:
    """Resolve the settings of a run.

    Parameters
    ----------
    catalog
        The name of a built-in catalogue, or a file; None means ``digits``, unless ``data_root`` is given.
    out
        The run's directory; None means ``runs/<catalog>``.
    keywords
        The other options of ``dsmi-zoo run``, without dashes: ``subset_seed=1``. None means the default. Where several
        values are allowed, a string is one value.

    Raises
    ------
    InputError
        For an unknown name, a wrong value, or values that clash.
    """
    given: dict[str, Any] = {"catalog": None if catalog is None else str(catalog), "out": out}
    for keyword, value in keywords.items():
        if keyword not in SETTINGS:
            near = get_close_matches(keyword, SETTINGS)
            hint = f"did you mean {' or '.join(near)}?" if near else f"choose {', '.join(SETTINGS)}"
            raise InputError(f"{keyword} is not a setting of a run; {hint}")
        if SETTINGS[keyword].repeated and isinstance(value, list | tuple) and not value:
            raise InputError(f"{keyword} is empty; name one, or leave it out")
        given[keyword] = value
    chosen = {keyword: value for keyword, value in given.items() if value is not None}
    names = {setting.path: keyword for keyword, setting in SETTINGS.items()}
    return resolve_config(nested(chosen), names=names)


def settings_table() -> str:
    """Return all settings as a Markdown table: option, key in a TOML file, default, meaning."""
    lines = ["| option | in a file | default | meaning |", "| --- | --- | --- | --- |"]
    for setting in settings_of(RunConfig):
        option = "" if setting.option.absent else f"`{setting.flag}`"
        key = f"`{setting.key} = false`" if setting.option.turns_off else f"`{setting.key}`"
        default = setting.default_shown.replace("<", "&lt;")
        meaning = setting.help
        if any(choice not in meaning for choice in setting.choices):
            meaning = f"{meaning.rstrip('.')}: {', '.join(setting.choices)}."
        lines.append(f"| {option} | {key} | {default} | {meaning} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(settings_table())
