"""Random weights of face-recognition networks, stored as their publishers do: in ONNX files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import helper, numpy_helper
from torch import nn

from agegender.models.trunks.face import FaceTrunk
from agegender.models.trunks.face_weights import Backbone


def make_face_weights(path: Path, backbone: Backbone = "mobilefacenet", seed: int = 0, norms: bool = True) -> FaceTrunk:
    """Writes a network of random weights; with `norms`, each convolution has a separate batch norm.

    Returns:
        The network that the file holds.
    """
    torch.manual_seed(seed)
    trunk = FaceTrunk(3, 128, backbone)
    for layer in trunk.modules():  # under PyTorch's own initialization the biases dominate the output
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, a=0.25)
            nn.init.normal_(layer.bias, std=0.01)  # type: ignore[arg-type]
    graph = onnx.GraphProto(name="made")
    nodes: list[onnx.NodeProto] = []
    values: dict[str, torch.Tensor] = {}
    output = "pixels"

    def add(kind: str, tensors: dict[str, torch.Tensor], **attributes: Any) -> None:
        nonlocal output
        names = [f"{len(nodes)}.{name}" for name in tensors]
        values.update(zip(names, tensors.values(), strict=True))
        nodes.append(helper.make_node(kind, [output, *names], [f"{len(nodes)}"], **attributes))
        output = nodes[-1].output[0]

    with torch.no_grad():
        for layer in trunk.modules():
            if isinstance(layer, nn.Conv2d) and norms:
                norm = nn.BatchNorm2d(layer.out_channels, eps=1e-3)
                for weight in (norm.weight, norm.running_var):
                    assert weight is not None
                    nn.init.uniform_(weight, 0.5, 1.5)
                for offset in (norm.bias, norm.running_mean):
                    assert offset is not None
                    nn.init.normal_(offset, std=0.1)
                add("Conv", {"weight": layer.weight.clone()})
                columns = {name: value for name, value in norm.state_dict().items() if value.ndim}
                add("BatchNormalization", columns, epsilon=1e-3)
                assert layer.bias is not None
                layer.bias.zero_()
                fused = nn.utils.fusion.fuse_conv_bn_eval(layer.eval(), norm.eval())
                layer.weight.copy_(fused.weight)
                layer.bias.copy_(fused.bias)  # type: ignore[arg-type]
            elif isinstance(layer, nn.Conv2d | nn.Linear):
                assert layer.bias is not None
                add("Conv" if layer.weight.ndim == 4 else "Gemm", {"weight": layer.weight, "bias": layer.bias})
            elif isinstance(layer, nn.PReLU):
                nn.init.uniform_(layer.weight, 0.1, 0.4)
                add("PRelu", {"slope": layer.weight.view(-1, 1, 1)})
    graph.node.extend(nodes)
    graph.initializer.extend(numpy_helper.from_array(value.detach().numpy(), name) for name, value in values.items())
    onnx.save(helper.make_model(graph), str(path))
    return trunk
