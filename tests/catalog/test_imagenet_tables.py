"""The two ImageNet tables: their rows and derived columns."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from timm.models import get_pretrained_cfg

from dsmi_zoo._util.errors import InputError
from dsmi_zoo.data_catalog.models.entry import ModelEntry, is_accuracy, target_unit
from dsmi_zoo.data_catalog.models.registry import TABLES, default_models, load_models
from dsmi_zoo.data_catalog.models.taxonomy import KINDS, kind_of, pretraining_images, saw_extra_data
from dsmi_zoo.data_catalog.tables.build import add_effective_robustness, write_tables
from dsmi_zoo.reports.statistics.sample import targets_of
from dsmi_zoo.reports.wording import target_title

ROWS = {"imagenet-2023": 1002, "imagenet-2025": 1556}
SOURCE = os.environ.get("DSMI_ZOO_TABLES_SOURCE")


@pytest.fixture(scope="module", params=ROWS)
def table(request: pytest.FixtureRequest) -> list[ModelEntry]:
    return load_models(request.param)


def entry(catalog: str, name: str) -> ModelEntry:
    (found,) = load_models(catalog, [name])
    return found


def test_the_tables_have_as_many_rows_and_models_as_were_published() -> None:
    assert {name: len(load_models(name)) for name in ROWS} == ROWS
    sizes: dict[str, int] = {}
    for row in load_models("imagenet-2025"):
        sizes[row.model] = sizes.get(row.model, 0) + 1
    assert len(sizes) == 1266
    assert sum(n == 2 for n in sizes.values()) == 290
    assert len({e.model for e in load_models("imagenet-2023")}) == 1002


def test_rows_are_unique_and_sorted(table: list[ModelEntry]) -> None:
    keys = [(e.model, e.img_size or 0) for e in table]
    assert keys == sorted(set(keys))
    assert len({e.slug for e in table}) == len(table)


def test_every_row_is_complete_for_a_run_without_timm(table: list[ModelEntry]) -> None:
    for e in table:
        assert e.architecture
        assert e.family
        assert e.kind in KINDS
        assert e.weights
        assert e.img_size
        assert e.preprocessing
        assert e.pretraining
        assert e.extra_data is not None
        assert e.params_m


def test_accuracies_are_percent_and_top_5_is_never_below_top_1(table: list[ModelEntry]) -> None:
    for e in table:
        accuracies = {name: value for name, value in e.extras.items() if is_accuracy(name)}
        accuracies |= {"top1": e.top1, "top5": e.top5}
        missing = {name for name, value in accuracies.items() if value is None}
        assert missing == (
            {"a_top1", "a_top5"}
            if str(e) == "resnet50.tv_in1k@224" and "a_top1" in e.extras
            else set()
        )
        for name, value in accuracies.items():
            top5 = accuracies.get(name.replace("top1", "top5"), 100)
            if name.endswith("top1") and value is not None:
                assert 0 <= value <= top5 <= 100  # type: ignore[operator]


def test_2025_has_five_more_test_sets() -> None:
    robustness = {
        f"{shift}_{name}" for shift in "ar" for name in ("clean_top1", "effective_robustness")
    }
    accuracies = {f"{kind}_top{k}" for kind in ("real", "v2", "sketch", "a", "r") for k in (1, 5)}
    assert set(entry("imagenet-2025", "resnet50.a1_in1k@224").extras) == {
        *("gmacs", "throughput", "cpu_throughput", "pretraining_images"), *robustness, *accuracies
    }  # fmt: skip
    assert set(entry("imagenet-2023", "resnet50.a1_in1k").extras) == {
        *("gmacs", "throughput", "pretraining_images", "real_top1", "real_top5")
    }  # fmt: skip


@pytest.mark.parametrize(
    ("shift", "intercept", "slope", "n", "r2"),
    [("a", -7.8436, 2.1718, 1265, 0.9097), ("r", -2.9529, 0.9799, 1266, 0.7597)],
)
def test_effective_robustness_is_the_residual_of_the_stated_fit_by_statsmodels(
    shift: str, intercept: float, slope: float, n: int, r2: float
) -> None:
    table = pd.read_csv(TABLES / "imagenet-2025.csv")
    share = table[[f"{shift}_clean_top1", f"{shift}_top1"]] / 100
    logits = np.log(share / (1 - share))
    smallest = table.sort_values(["model", "img_size"]).drop_duplicates("model").index
    design = sm.add_constant(logits[f"{shift}_clean_top1"])
    fit = sm.OLS(logits.loc[smallest, f"{shift}_top1"], design.loc[smallest], missing="drop").fit()
    assert fit.nobs == n
    np.testing.assert_allclose([*fit.params, fit.rsquared], [intercept, slope, r2], atol=5e-5)
    expected = logits[f"{shift}_top1"] - fit.predict(design)
    np.testing.assert_allclose(table[f"{shift}_effective_robustness"], expected, atol=6e-5)
    stated = f"{intercept} + {slope} logit(`{shift}_clean_top1`), n = {n}, R2 = {r2}"
    assert stated in (TABLES / "README.md").read_text()


def test_size_does_not_explain_effective_robustness_as_it_does_accuracies() -> None:
    table = (
        pd.read_csv(TABLES / "imagenet-2025.csv")
        .sort_values(["model", "img_size"])
        .drop_duplicates("model")
    )
    ranks = table.select_dtypes("number").rank()
    with_top1 = ranks[["v2_top1", "real_top1", "a_top1", "sketch_top1", "r_top1"]].corrwith(
        ranks["top1"]
    )
    assert with_top1.between(0.95, 0.996).all()
    assert ranks["r_effective_robustness"].corr(ranks["gmacs"]) == pytest.approx(-0.175, abs=0.005)


def test_accuracies_of_0_or_100_are_left_out_of_the_fit_of_effective_robustness() -> None:
    top1 = {"a": "20", "b": "0", "c": "60", "d": "100", "e": "", "f": "70"}
    table = pd.DataFrame({"model": list(top1), "img_size": "224", "a_top1": list(top1.values())})
    clean = {
        (model, 224): {"top1": cell}
        for model, cell in zip(top1, ["50", "60", "80", "90", "40", "100"], strict=True)
    }
    assert "n = 2" in add_effective_robustness(table, "a_", clean)
    assert list(table["a_effective_robustness"].str.lstrip("-")) == [
        "0.0000",
        "",
        "0.0000",
        "",
        "",
        "",
    ]


def test_effective_robustness_is_a_target_in_logits_and_stands_behind_the_accuracies() -> None:
    columns = {"r_effective_robustness": [0.1], "real_top1": [70.0], "top1": [60.0], "gmacs": [4.0]}
    assert targets_of(pd.DataFrame({"status": ["ok"], **columns})) == [
        "top1",
        "real_top1",
        "r_effective_robustness",
    ]
    assert [target_unit(name) for name in columns] == ["logits", "%", "%", None]
    assert target_title("r_effective_robustness") == "r effective robustness"


def test_rows_hold_the_published_figures() -> None:
    small, large = load_models("imagenet-2025", ["resnet50.a1_in1k"])
    assert (small.img_size, small.top1, small.extras["real_top1"], small.params_m) == (
        224,
        80.382,
        85.712,
        25.56,
    )
    assert (large.img_size, large.top1, large.extras["v2_top1"]) == (288, 81.24, 69.69)
    assert (small.extras["gmacs"], small.extras["throughput"]) == (4.11, 12191.9)
    assert (small.extras["cpu_throughput"], large.extras["cpu_throughput"]) == (30.48, 20.27)
    assert small.preprocessing is not None
    assert (small.preprocessing.crop_pct, small.preprocessing.mean) == (0.95, (0.485, 0.456, 0.406))
    assert (small.weights, small.license, small.family) == (
        "timm/resnet50.a1_in1k",
        "apache-2.0",
        "resnet",
    )
    giant = entry("imagenet-2023", "eva_giant_patch14_336.clip_ft_in1k")
    assert (giant.params_m, giant.top1, giant.extra_data) == (1013.01, 89.466, True)


def test_weights_that_are_not_on_the_hub_have_a_url(table: list[ModelEntry]) -> None:
    urls = [e for e in table if e.weights and e.weights.startswith("https://")]
    assert len(urls) == 15
    assert {e.family for e in urls} == {"gcvit", "senet", "xception"}


def test_renamed_models_have_their_current_and_their_published_name() -> None:
    renamed = {e.model: e.published_name for e in load_models("imagenet-2023") if e.published_name}
    assert renamed == {
        "selecsls42b.in1k": "SelecSls42b.in1k",
        "selecsls60.in1k": "SelecSls60.in1k",
        "selecsls60b.in1k": "SelecSls60b.in1k",
        "tnt_s_legacy_patch16_224.in1k": "tnt_s_patch16_224",
    }
    assert entry("imagenet-2023", "tnt_s_legacy_patch16_224.in1k").params_m == 23.76
    assert not any(e.published_name for e in load_models("imagenet-2025"))


def test_about_a_quarter_saw_more_than_imagenet_1k(table: list[ModelEntry]) -> None:
    assert 0.2 < sum(bool(e.extra_data) for e in table) / len(table) < 0.27


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        ("vit_base_patch16_224.augreg_in21k_ft_in1k", True),
        ("convnextv2_base.fcmae_ft_in22k_in1k", True),
        ("tf_efficientnet_b7.ns_jft_in1k", True),
        ("resnext101_32x8d.fb_wsl_ig1b_ft_in1k", True),
        ("regnety_1280.swag_ft_in1k", True),
        ("hrnet_w18_ssld.paddle_in1k", True),
        ("nextvit_small.bd_ssld_6m_in1k", True),
        ("tiny_vit_5m_224.dist_in22k_ft_in1k", True),
        ("vit_small_patch14_dinov2.lvd142m", True),
        ("hiera_base_224.mae_in1k_ft_in1k", False),
        ("convnextv2_base.fcmae_ft_in1k", False),
        ("beitv2_base_patch16_224.in1k_ft_in1k", False),
        ("deit_base_distilled_patch16_224.fb_in1k", False),
        ("resnetv2_50x1_bit.goog_distilled_in1k", False),
        ("mystery.fb", None),
        ("untagged", None),
    ],
)
def test_the_tag_says_whether_there_was_extra_data(
    architecture: str, expected: bool | None
) -> None:
    assert saw_extra_data(architecture) is expected


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        ("resnet50.a1_in1k", 1_281_167),
        ("vit_base_patch16_224.augreg_in21k_ft_in1k", 14_197_122),
        ("convnext_base.fb_in22k_ft_in1k", 14_197_122),
        ("mixer_b16_224.miil_in21k_ft_in1k", 11_797_632),
        ("vit_base_patch16_clip_224.openai_ft_in12k_in1k", 400_000_000),
        ("vit_base_patch16_clip_224.laion2b_ft_in12k_in1k", 2_320_000_000),
        ("tf_efficientnet_b7.ns_jft_in1k", 300_000_000),
        ("convnext_nano.in12k_ft_in1k", None),  # no source gives the number
        ("hrnet_w18_ssld.paddle_in1k", None),  # only the network's name shows extra data
        ("nextvit_small.bd_ssld_6m_in1k", None),
        ("vit_small_patch14_dinov2.lvd142m", None),
        ("mystery.fb", None),
        ("untagged", None),
    ],
)
def test_the_tag_says_how_many_images_the_largest_set_has(
    architecture: str, expected: int | None
) -> None:
    assert pretraining_images(architecture) == expected


def test_a_known_number_of_images_agrees_with_the_flag_of_extra_data(
    table: list[ModelEntry],
) -> None:
    known = [e for e in table if e.extras["pretraining_images"]]
    assert len(known) > 0.9 * len(table)
    for e in known:
        assert (e.extras["pretraining_images"] > 1_281_167) == e.extra_data  # type: ignore[operator]


@pytest.mark.parametrize(
    ("family", "architecture", "kind"),
    [
        ("resnet", "resnet50.a1_in1k", "convolutional"),
        ("vision_transformer", "vit_base_patch16_224.augreg_in1k", "transformer"),
        ("maxxvit", "coatnet_0_rw_224.sw_in1k", "hybrid"),
        ("mlp_mixer", "gmlp_s16_224.ra3_in1k", "MLP"),
        ("metaformer", "caformer_s18.sail_in1k", "hybrid"),
        ("metaformer", "poolformer_s12.sail_in1k", "convolutional"),
        ("fastvit", "fastvit_t8.apple_in1k", "convolutional"),
        ("fastvit", "fastvit_sa12.apple_in1k", "hybrid"),
        ("mobilenetv3", "mobilenetv4_hybrid_medium.e500_r224_in1k", "hybrid"),
        ("mobilenetv3", "mobilenetv4_conv_small.e500_r224_in1k", "convolutional"),
        ("module_of_tomorrow", "x", None),
    ],
)
def test_the_kind_follows_the_module_with_exceptions(
    family: str, architecture: str, kind: str | None
) -> None:
    assert kind_of(family, architecture) == kind


def test_loading_both_tables_imports_neither_torch_nor_timm_and_is_fast() -> None:
    code = (
        "import sys, time; started = time.process_time()\n"
        "from dsmi_zoo.data_catalog.models.registry import load_models\n"
        "load_models('imagenet-2023'); load_models('imagenet-2025')\n"
        "print(time.process_time() - started, sorted({'torch', 'timm', 'torchvision'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, imported = done.stdout.split(maxsplit=1)
    assert imported.strip() == "[]"
    # Processor time: at most 1.5 s per table, including the import of pandas.
    assert float(seconds) < 3


def test_a_plan_of_a_table_never_asks_timm(tmp_path: Path) -> None:
    (tmp_path / "timm.py").write_text("raise ImportError('timm was asked')\n")
    code = (
        "import json; from pathlib import Path; from dsmi_zoo.pipeline.config.run import resolve_config\n"
        "from dsmi_zoo.pipeline.plan.plan import make_plan\n"
        "if __name__ == '__main__':\n"
        "    given = {'catalog': 'imagenet-2025', 'compute': {'cache': Path('cache')}}\n"
        "    jobs = make_plan(resolve_config(given, None)).jobs\n"
        "    print(len(jobs), len({job.embedding_id for job in jobs}), len({job.view for job in jobs}))\n"
    )
    (tmp_path / "script.py").write_text(code)
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    jobs, embeddings, views = map(int, done.stdout.split())
    assert jobs == embeddings == 1556
    assert views < 200


def test_the_tables_are_plain_small_files_without_paths_of_a_machine() -> None:
    for path in filter(Path.is_file, TABLES.iterdir()):
        content = path.read_bytes()
        assert len(content) < 2**20
        assert b"\r" not in content
        assert b"/home/" not in content


@pytest.mark.skipif(
    SOURCE is None, reason="DSMI_ZOO_TABLES_SOURCE names no folder of the published files"
)
def test_rebuilding_from_the_published_files_gives_identical_bytes(tmp_path: Path) -> None:
    from dsmi_zoo.data_catalog.tables.build import write_tables

    assert SOURCE is not None
    write_tables(Path(SOURCE), tmp_path)
    for name in ROWS:
        assert (tmp_path / f"{name}.csv").read_bytes() == (TABLES / f"{name}.csv").read_bytes()


def test_a_missing_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"timm-2023-05-24-imagenet\.csv is missing"):
        write_tables(tmp_path)


def test_a_networks_name_means_timms_default_model() -> None:
    for network, model in default_models().items():
        assert model == f"{network}.{get_pretrained_cfg(network).tag}"
    assert [str(e) for e in load_models("imagenet-2025", "resnet18")] == [
        "resnet18.a1_in1k@224",
        "resnet18.a1_in1k@288",
    ]
    assert [str(e) for e in load_models("imagenet-2025", "resnet18@288")] == [
        "resnet18.a1_in1k@288"
    ]
    with pytest.raises(InputError, match="no model of imagenet-2025 matches 'resnet5000'"):
        load_models("imagenet-2025", "resnet5000")
