"""The model card of a run for the Hugging Face Hub: Markdown after YAML that the hub reads.

After Mitchell et al., "Model Cards for Model Reporting", FAT* 2019. The fields of the YAML are those of
https://huggingface.co/docs/hub/model-cards.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from agegender.version import __version__

_UTKFACE = "https://susanqq.github.io/UTKFace/"
# Type of a metric on the hub, by the end of its name.
_TYPES = {"_mae": "mae", "_mse": "mse", "_acc": "accuracy", "_auroc": "roc_auc"}
_BINARY = (
    "The binary label *{label}* ({classes}) is that of the training data, which other people assigned by appearance. "
    "The prediction is the probability of this label; it is no statement about a person's gender identity."
)
_CLASSES = (
    "The label *{label}* ({classes}) is that of the training data, which other people assigned by appearance. The "
    "prediction is the probability of each label; it is no statement about a person's identity or ancestry."
)
_NUMBER = "The predicted {label} is an estimate from the look of a face."
_DRAWN = "No license of images applies: trained on drawn faces. The predictions say nothing about real people."
_RESEARCH = (
    "Not for decisions about a person: access, age verification, prices, hiring, insurance, policing, advertising to "
    "individuals or surveillance."
)


def write_card(name: str, described: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    """Return the model card of a run.

    Args:
        name: Title.
        described: Entry `agegender` of the checkpoint.
        record: See `run_record.read_run`.
    """
    dataset, front, license_text = _source(described.get("split") or {}, record)
    metrics = {key: value for key, value in record.items() if _is_metric(key, value)}
    front |= {
        "library_name": "agegender",
        "pipeline_tag": "image-classification",
        "tags": ["age-estimation", "gender-classification", "face", "safetensors", "pytorch_model_hub_mixin"],
        "model-index": [{"name": name, "results": [_result(dataset, metrics, record)]}],
    }
    parts = (
        f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n\n# {name}",
        _introduction(described, record),
        "## Limits",
        *(_meaning(task) for task in described.get("tasks") or ()),
        _RESEARCH,
        f"**License.** {license_text}",
        "## Training and test",
        _training_table(dataset, described, record),
        f"```bash\n{_one_line(record['command'])}\n```",
        "## Metrics on the test images",
        "The best epoch, the calibration and the thresholds were chosen on validation images.",
        _table(("metric", "value"), [(key.removeprefix("test/"), f"{value:.4g}") for key, value in metrics.items()]),
        *_band_table(record.get("bands") or ()),
    )
    return "\n\n".join(parts) + "\n"


def _source(split: Mapping[str, Any], record: Mapping[str, Any]) -> tuple[str, dict[str, Any], str]:
    """Return the data set's name, the license as the hub's fields, and as a sentence."""
    if split.get("pictures") == "drawn":
        return "drawn faces", {}, _DRAWN
    if split.get("table"):
        text = "That of the images, which come from a table of labels: state it here before you publish the model."
        return "images of a label table", {"license": "unknown"}, text
    origin = f" Initial weights: {_one_line(record['origin'])}." if record.get("origin") else ""
    name = {"license": "other", "license_name": "non-commercial-research", "license_link": _UTKFACE}
    return "UTKFace", name, f"The weights were {record['license']}.{origin}"


def _introduction(described: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    network = described["network"]
    colors = "gray" if network["in_channels"] == 1 else "color"
    size = f"{network['image_size']}x{network['image_size']}"
    tasks = ", ".join(task["name"] for task in described.get("tasks") or ())
    parameters = f"{record['parameters']:,} parameters; " if "parameters" in record else ""
    return (
        f"Predicts {tasks} from a face crop of {size} pixels in {colors}. {parameters}"
        f"made with agegender {described.get('version', __version__)}. With `owner/name` of this repository:\n\n"
        '```bash\npip install "agegender[hub]"\nagegender predict weights=hf://owner/name img=photo.jpg\n```'
    )


def _meaning(task: Mapping[str, Any]) -> str:
    text = {"number": _NUMBER, "binary": _BINARY}.get(task["kind"], _CLASSES)
    return text.format(label=task["label"], classes=", ".join(task["classes"]))


def _training_table(dataset: str, described: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    split = described.get("split") or {}
    images = ", ".join(f"{record[f'images/{part}']:,} {part}" for part in ("train", "val", "test"))
    rows = {
        "data": dataset,
        "images": images,
        "protocol": record.get("protocol") or split.get("split"),
        "split": split.get("fingerprint"),
        "duplicates": split.get("duplicates"),
        "initial weights": record.get("origin"),
        "epochs": f"{record['epochs']}, the best {record['best_epoch']}" if record.get("best_epoch") else None,
        "hardware, precision": f"{record.get('hardware')}, {record.get('precision')}",
    }
    return _table(("", ""), [(key, _one_line(value)) for key, value in rows.items() if value])


def _result(dataset: str, metrics: Mapping[str, float], record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metrics as an entry of the hub's `model-index`."""
    found = [
        {"type": kind, "name": key.removeprefix("test/"), "value": round(float(value), 6)}
        for key, value in metrics.items()
        for end, kind in _TYPES.items()
        if key.endswith(end)
    ]
    return {
        "task": {"type": "image-classification"},
        "dataset": {
            "name": f"{dataset}, split {record.get('split_fingerprint')}",
            "type": dataset.lower().replace(" ", "-"),
            "split": "test",
        },
        "metrics": found,
    }


def _band_table(bands: Any) -> tuple[str, ...]:
    if not bands:
        return ()
    rows = [["" if value is None else str(value) for value in band.values()] for band in bands]
    return ("By age:", _table([*bands[0]], rows))


def _table(header: Any, rows: Any) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines)


def _is_metric(name: str, value: Any) -> bool:
    return name.startswith("test/") and not name.endswith("loss") and isinstance(value, int | float)


def _one_line(value: Any) -> str:
    return " ".join(str(value).split())
