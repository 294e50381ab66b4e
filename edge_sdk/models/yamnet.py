"""YAMNet: a MobileNet-v1 that its authors trained on AudioSet, cut after one of its layers and given a head of ours.

https://github.com/tensorflow/models/tree/master/research/audioset/yamnet (Apache-2.0). The trunk takes 64 mel bins as
the original does, of any front end. Without ``model.pretrained`` (the file ``yamnet.tflite``) it starts from nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_sdk.errors import CheckpointError, RecipeError
from edge_sdk.models.compact import Compact
from edge_sdk.models.network import GridMix, Network, Outputs
from edge_sdk.signal.spec import FrontEndSpec

MEL_BINS = 64
SIZES = {"tiny": 4, "small": 6, "base": 12, "medium": 14}
"""Layers of the original in each size; the original has 14."""

_STEM = 32
_LAYERS = (  # channels and stride of layers 2 to 14, a depthwise and a pointwise convolution each
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *((512, 1),) * 5,
    (1024, 2),
    (1024, 1),
)
_PUBLIC_CONVOLUTIONS = 1 + 2 * len(_LAYERS)
_LEVEL = -2.0
_MOMENTUM = 0.05  # of the running statistics: batches of breaths are small and alike
_PUBLIC_NAME = re.compile(r"convolution(\d+)\.(weight|bias)")


class ConvolutionNorm(nn.Module):
    """Convolution with TensorFlow's ``SAME`` padding, batch norm, ReLU: ``[B, C, M, T]`` → ``[B, C', M', T']``."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, groups=groups, bias=False)
        nn.init.kaiming_normal_(self.conv.weight, nonlinearity="relu")  # torch's default fades away in 27 layers
        self.norm = nn.BatchNorm2d(outputs, momentum=_MOMENTUM)

    def convolve(self, x: Tensor) -> Tensor:
        """The convolution alone; an odd number of padded samples has the larger half at the end."""
        kernel, stride = self.conv.kernel_size[0], self.conv.stride[0]
        if kernel > 1:
            pads: list[int] = []
            for length in (x.shape[3], x.shape[2]):  # F.pad begins with the last axis
                total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
                pads += [total // 2, total - total // 2]
            x = F.pad(x, pads)
        return self.conv(x)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, M, T]`` → ``[B, C', M', T']``."""
        return torch.relu(self.norm(self.convolve(x)))

    @torch.no_grad()
    def settle(self, x: Tensor) -> Tensor:
        """Give the norm the statistics of ``x`` and compensate for them; returns the output, which does not change."""
        y = self.convolve(x)  # [B, C, M, T]
        norm = self.norm
        assert norm.running_mean is not None and norm.running_var is not None
        gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        offset = norm.bias - norm.running_mean * gain
        mean, variance = y.mean(dim=(0, 2, 3)), y.var(dim=(0, 2, 3), unbiased=False)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        norm.weight.copy_(gain * torch.sqrt(variance + norm.eps))
        norm.bias.copy_(offset + gain * mean)
        return torch.relu(gain[:, None, None] * y + offset[:, None, None])


class Yamnet(Network):
    """Log-mel picture of one cycle → logits over the classes.

    Parameters
    ----------
    classes : int
        Number of logits.
    size : str
        ``tiny`` (to layer 4, for tests), ``small`` (to layer 6), ``base`` (to layer 12) or ``medium`` (all 14 layers).
    front_end : FrontEndSpec, optional
        Must have 64 mel bins. Features should change like a log *magnitude*: half as fast as a log power.
    dropout : float
        Before the last layer; training only.
    level : float
        Added to the features. The trunk was trained on log-mel whose mean is about -2, and pads its edges with 0.

    Raises
    ------
    RecipeError
        A front end with another number of mel bins.
    """

    fresh = ("head.*", "*.num_batches_tracked")  # tensors that the public file does not have

    def __init__(
        self,
        classes: int = 4,
        size: str = "base",
        front_end: FrontEndSpec | None = None,
        dropout: float = 0.2,
        level: float = _LEVEL,
    ) -> None:
        super().__init__()
        if front_end is not None and front_end.mel_bins != MEL_BINS:
            raise RecipeError(
                f"model 'yamnet' needs {MEL_BINS} mel bins, not {front_end.mel_bins}; set front_end.mel_bins={MEL_BINS}"
            )
        self.level = level
        layers = [ConvolutionNorm(1, _STEM, 3, stride=2)]
        channels = _STEM
        for outputs, stride in _LAYERS[: SIZES[size] - 1]:
            layers.append(ConvolutionNorm(channels, channels, 3, stride=stride, groups=channels))
            layers.append(ConvolutionNorm(channels, outputs, 1))
            channels = outputs
        self.layers = nn.ModuleList(layers)
        self.dropout = nn.Dropout(dropout)
        self.embedding_dim = 2 * channels
        self.head = nn.Linear(2 * channels, classes)

    def maps(self, features: Tensor, *, mix: GridMix | None = None) -> Tensor:
        """``[B, 1, 64, T]`` → the trunk's maps ``[B, C, M', T']``; ``mix`` acts after the first layer."""
        maps = features + self.level
        for index, layer in enumerate(self.layers):
            maps = layer(maps)
            if index == 0 and mix is not None:
                maps = mix(maps)
        return maps

    def embed(self, features: Tensor, metadata: Any = None, *, mix: GridMix | None = None) -> Tensor:
        """``[B, 1, 64, T]`` → ``[B, 2C]``: mean and maximum over time; metadata is accepted and not used."""
        per_frame = self.maps(features, mix=mix).mean(dim=2)  # [B, C, T']
        return torch.cat([per_frame.mean(dim=2), per_frame.amax(dim=2)], dim=1)  # [B, 2C]

    def classify(self, embedding: Tensor) -> Tensor:
        """``[B, 2C]`` → ``[B, classes]``."""
        return self.head(self.dropout(embedding))

    def settle(self, features: Tensor) -> None:
        """Make the batch norms change nothing on ``features`` ``[B, 1, 64, T]``, also in training.

        The public file has no batch norms, only what is left of them in its weights. The logits stay what they are.
        """
        maps = features + self.level
        for layer in self.layers:
            assert isinstance(layer, ConvolutionNorm)
            maps = layer.settle(maps)

    def public_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of ``yamnet.tflite`` under this network's names; layers behind the trunk and AudioSet's are left out.

        A checkpoint of this network is taken without its head.

        Parameters
        ----------
        state : mapping
            As :func:`edge_sdk.models.pretrained.read_tensors` names them: ``convolution<k>.weight`` [O, I, T, M],
            ``convolution<k>.bias`` [O], and ``dense<k>.*``: the front end and the AudioSet classes, not used here.

        Raises
        ------
        CheckpointError
            Other tensors, or another number of convolutions.
        """
        if "layers.0.conv.weight" in state:
            return {name: tensor for name, tensor in state.items() if not name.startswith("head.")}
        found: dict[str, Tensor] = {}
        indices = set()
        for name, tensor in state.items():
            match = _PUBLIC_NAME.fullmatch(name)
            if match is None and not name.startswith("dense"):
                raise CheckpointError(f"{name} is no tensor of YAMNet; give the original yamnet.tflite")
            if match is not None:
                indices.add(int(match[1]))
                found |= self._own(int(match[1]), match[2], tensor)
        if indices != set(range(_PUBLIC_CONVOLUTIONS)):
            raise CheckpointError(
                f"{len(indices)} convolutions instead of the {_PUBLIC_CONVOLUTIONS} of YAMNet; "
                "give the original yamnet.tflite"
            )
        return found

    def _own(self, index: int, kind: str, tensor: Tensor) -> dict[str, Tensor]:
        """One public tensor as own ones; a bias becomes that of a batch norm which changes nothing else."""
        if index >= len(self.layers):
            return {}
        prefix = f"layers.{index}."
        if kind == "weight":
            return {f"{prefix}conv.weight": tensor.transpose(2, 3).contiguous()}  # pictures here are [M, T]
        layer = self.layers[index]
        assert isinstance(layer, ConvolutionNorm)
        ones = torch.ones_like(tensor)
        return {
            f"{prefix}norm.weight": ones * (1.0 + layer.norm.eps) ** 0.5,
            f"{prefix}norm.bias": tensor,
            f"{prefix}norm.running_mean": torch.zeros_like(tensor),
            f"{prefix}norm.running_var": ones,
        }


class YamnetCompact(Network):
    """YAMNet's trunk and the compact CNN side by side on the same picture; the logits are the mean of both.

    The two err on different recordings: the trunk brings what AudioSet taught it, the compact network its robustness
    against other devices.

    Parameters
    ----------
    classes : int
        Number of logits.
    size : str
        ``tiny`` (tests), ``small`` or ``base``, of both networks.
    front_end : FrontEndSpec, optional
        Must have 64 mel bins.
    dropout : float
        Before the last layers; training only.
    level : float
        Added to the trunk's features, as in :class:`Yamnet`.

    Raises
    ------
    RecipeError
        A front end with another number of mel bins.
    """

    fresh = ("trunk.head.*", "*.num_batches_tracked", "compact.*")  # tensors that the public file does not have
    rate_scale = {"trunk.": 1 / 3}  # noqa: RUF012  the trunk is fine-tuned, the compact network starts from nothing

    def __init__(
        self,
        classes: int = 4,
        size: str = "base",
        front_end: FrontEndSpec | None = None,
        dropout: float = 0.2,
        level: float = _LEVEL,
    ) -> None:
        super().__init__()
        self.trunk = Yamnet(classes, size, front_end, dropout, level)
        self.compact = Compact(classes, size, front_end, dropout)
        self.embedding_dim = self.trunk.embedding_dim + self.compact.embedding_dim

    def embed(self, features: Tensor, metadata: Any = None, *, mix: GridMix | None = None) -> Tensor:
        """``[B, 1, 64, T]`` → ``[B, D]``: both embeddings in a row; ``mix`` acts in both networks."""
        parts = [network.embed(features, metadata, mix=mix) for network in (self.trunk, self.compact)]
        return torch.cat(parts, dim=1)

    def classify(self, embedding: Tensor) -> Tensor:
        """``[B, D]`` → ``[B, classes]``."""
        width = self.trunk.embedding_dim
        return 0.5 * (self.trunk.classify(embedding[:, :width]) + self.compact.classify(embedding[:, width:]))

    def outputs(self, features: Tensor, metadata: Any = None, *, mix: GridMix | None = None) -> Outputs:
        """One training pass: each network learns by itself too, so that neither leaves the work to the other."""
        embedding = self.embed(features, metadata, mix=mix)
        width = self.trunk.embedding_dim
        alone = {
            "trunk": self.trunk.classify(embedding[:, :width]),
            "compact": self.compact.classify(embedding[:, width:]),
        }
        return Outputs(0.5 * (alone["trunk"] + alone["compact"]), embedding, alone)

    def settle(self, features: Tensor) -> None:
        """As :meth:`Yamnet.settle`; the compact network has no public weights."""
        self.trunk.settle(features)

    def public_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """As :meth:`Yamnet.public_state`, for the trunk."""
        return {f"trunk.{name}": tensor for name, tensor in self.trunk.public_state(state).items()}
