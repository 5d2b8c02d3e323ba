"""Conversion of a network to an ONNX graph that includes normalization, decoding and calibration."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from agegender.data.index.utkface import LICENSE
from agegender.errors import AgeGenderError, require
from agegender.models.network import MultiTaskNet
from agegender.prediction.backends.onnx_backend import FORMAT, INPUT, with_checksum
from agegender.prediction.backends.torch_backend import TorchBackend
from agegender.version import __version__

Precision = Literal["float32", "float16", "int8"]
OPSET = 18  # what PyTorch's exporter writes without a conversion afterwards
_LARGEST = 2**31 - 1  # bytes: limit of a protobuf file


class _Answering(nn.Module):
    """The computation of `TorchBackend` as one module."""

    def __init__(self, network: MultiTaskNet, columns: Sequence[str]):
        super().__init__()
        self.network, self.columns = network, columns

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Map uint8 `[batch, channels, size, size]` to the columns, each float32 `[batch]`."""
        predicted = self.network.predict(self.network(pixels))
        return tuple(predicted[name] for name in self.columns)


def build_graph(source: TorchBackend) -> onnx.ModelProto:
    """Convert a network to a float32 graph with metadata.

    The input is `pixels`, uint8 `[batch, channels, size, size]` in RGB or gray. The outputs are the
    `columns` of the tasks, each float32 `[batch]`, and NaN where the network doesn't predict them.

    Raises:
        AgeGenderError: The network has an operation that can't be exported, or is too large for one file.
    """
    network = source.network
    size = sum(value.nbytes for value in (*network.parameters(), *network.buffers()))
    require(size < _LARGEST, f"{source.weights} has {size / 1e9:.1f} GB; the limit of an ONNX file is 2.1 GB")
    columns = [name for info in source.tasks for name in info.columns]
    # two images: torch.export specializes on a batch size of 1
    example = torch.zeros(2, network.in_channels, network.image_size, network.image_size, dtype=torch.uint8)
    try:
        with torch.no_grad():
            program: Any = torch.onnx.export(
                _Answering(network, columns).eval(),
                (example,),
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=[f"column.{number}" for number in range(len(columns))],
                dynamic_shapes={INPUT: {0: torch.export.Dim("batch")}},
            )
    except torch.onnx.OnnxExporterError as error:
        reason = " ".join(str(error.__cause__ or error).split())[:200]
        raise AgeGenderError(
            f"PyTorch can't export {source.weights} ({reason}); try a later release of torch or onnxscript"
        ) from None
    model: onnx.ModelProto = program.model_proto
    graph = model.graph
    for part in (graph, *graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output):
        del part.metadata_props[:]  # source paths of this machine
        part.ClearField("doc_string")
    # PyTorch names values after operations, such as `linear`, and a column may have the same name
    renamed = {name: f"{name}.inner" for name in columns}
    _rename(graph, renamed | {f"column.{number}": name for number, name in enumerate(columns)})
    helper.set_model_props(model, metadata(source))
    return model


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Rename values of a graph; those that `names` lacks keep their name."""
    for node in graph.node:
        for fields in (node.input, node.output):
            fields[:] = [names.get(name, name) for name in fields]
    for value in (*graph.initializer, *graph.value_info, *graph.output):
        value.name = names.get(value.name, value.name)


def save_graph(model: onnx.ModelProto, path: Path) -> None:
    """Write a graph with a checksum, which `OnnxBackend` verifies."""
    path.write_bytes(with_checksum(model.SerializeToString()))


def metadata(source: TorchBackend) -> dict[str, str]:
    """Return the metadata of an exported file; values other than strings are JSON.

    `mean` and `std` are informative: the graph applies them itself, to pixels in [0, 1].
    """
    network = source.network
    properties = {
        "agegender_format": FORMAT,
        "agegender_version": __version__,
        "image_size": network.image_size,
        "channels": network.in_channels,
        "mean": _decimals(network.mean),
        "std": _decimals(network.std),
        "tasks": [info.to_dict() for info in source.tasks],
        "split_fingerprint": source.split.get("fingerprint", "unknown"),
        "trained_on_synthetic": source.trained_on_synthetic,
        **({} if source.trained_on_synthetic else {"license": LICENSE}),
        **({} if source.origin is None else {"starts_from": source.origin}),
    }
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in properties.items()}


def _decimals(values: Tensor) -> list[float]:
    return [float(f"{value:.7g}") for value in values.flatten().tolist()]


def quantize_weights(model: onnx.ModelProto, precision: Precision) -> onnx.ModelProto:
    """Return a copy with weights stored in two bytes (`float16`) or one byte (`int8`) instead of four.

    This applies to convolutions and dense layers except the first, which is small and whose rounding errors propagate
    through all others. ONNX Runtime converts the weights to float32 once, when it loads the file; the arithmetic is in
    float32. int8 has one scale per index of the first dimension (per output channel).
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    layers = [node for node in graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    taken = {name for node in layers[1:] for name in node.input}
    widening: list[onnx.NodeProto] = []
    for stored in list(graph.initializer):
        name, values = stored.name, numpy_helper.to_array(stored)
        if name not in taken or values.dtype != np.float32 or values.ndim < 2:
            continue
        if precision == "float16":
            stored.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.narrow"))
            widening.append(helper.make_node("Cast", [f"{name}.narrow"], [name], to=onnx.TensorProto.FLOAT))
        else:
            largest = np.abs(values).max(tuple(range(1, values.ndim)), keepdims=True)
            scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
            stored.CopyFrom(numpy_helper.from_array(np.rint(values / scale).astype(np.int8), f"{name}.narrow"))
            graph.initializer.append(numpy_helper.from_array(scale, f"{name}.scale"))
            # not DequantizeLinear, which ONNX Runtime would repeat for every batch
            widening.append(helper.make_node("Cast", [f"{name}.narrow"], [f"{name}.whole"], to=onnx.TensorProto.FLOAT))
            widening.append(helper.make_node("Mul", [f"{name}.whole", f"{name}.scale"], [name]))
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*widening, *rest])
    return copy
