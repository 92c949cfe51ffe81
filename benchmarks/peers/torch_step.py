"""The same two networks and the same step in plain PyTorch: channels_last, no gradients for the teacher, fused AdamW.

The form says how: plain standardises the teacher's weights in every step, as a frozen module of the usual
implementations does; folded does it once, as this library does; compiled is plain under `torch.compile`.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional


class _Conv(nn.Conv2d):
    folded = False  # whether the weight is standardised already

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, kernel // 2, bias=False)

    def forward(self, x: Any) -> Any:
        weight = self.weight if self.folded else _standardized(self.weight)
        return functional.conv2d(x, weight, None, self.stride, self.padding)


def _standardized(weight: Any) -> Any:
    """Mean 0 and variance 1 for each output channel, by the fused kernel of BatchNorm."""
    flat = weight.reshape(1, len(weight), -1)
    return functional.batch_norm(flat, None, None, training=True, eps=1e-10).reshape_as(weight)


class _Unit(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int, groups: int) -> None:
        super().__init__()
        self.gn1, self.gn2, self.gn3 = (nn.GroupNorm(groups, count) for count in (inputs, width, width))
        self.conv1, self.conv2 = _Conv(inputs, width), _Conv(width, width, 3, stride)
        self.conv3 = _Conv(width, 4 * width)
        self.conv_proj = _Conv(inputs, 4 * width, 1, stride) if inputs != 4 * width or stride > 1 else None

    def forward(self, x: Any) -> Any:
        first = functional.relu(self.gn1(x))
        shortcut = x if self.conv_proj is None else self.conv_proj(first)
        inner = functional.relu(self.gn2(self.conv1(first)))
        return shortcut + self.conv3(functional.relu(self.gn3(self.conv2(inner))))


def _net(about: dict[str, Any], classes: int, channels: int) -> nn.Sequential:
    kernel, stride, pools = about["stem"]
    inputs, groups, net = about["width"], about["groups"], nn.Sequential()
    net.add_module("root_block", nn.Sequential(OrderedDict(conv_root=_Conv(channels, inputs, kernel, stride))))
    if pools:
        net.add_module("pool", nn.Sequential(nn.ZeroPad2d(1), nn.MaxPool2d(3, 2)))
    for number, units in enumerate(about["stages"]):
        width, block = about["width"] * 2**number, nn.Sequential()
        for unit in range(units):
            block.add_module(f"unit{unit + 1:02d}", _Unit(inputs, width, 2 if number and not unit else 1, groups))
            inputs = 4 * width
        net.add_module(f"block{number + 1}", block)
    net.add_module("norm_pre_head", nn.GroupNorm(groups, inputs))
    net.add_module("mean", nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    net.add_module("head", nn.Linear(inputs, classes))
    return net


def prepare(case: dict[str, Any]) -> tuple[Callable[[], None], dict[str, Any]]:
    """The function of a step, and facts: version, device, and logits of the check images."""
    torch.set_num_threads(case["threads"])
    torch.backends.cudnn.benchmark = True
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    nets = {role: _load(case, role).to(device, memory_format=torch.channels_last) for role in case["roles"]}
    check = torch.from_numpy(np.load(case["check"])).permute(0, 3, 1, 2).to(device)
    with torch.no_grad(), _precision(case, device):
        logits = {role: net(check).float().tolist() for role, net in nets.items()}
    kind = "gpu" if device.type == "cuda" else "cpu"
    facts = {"version": f"torch {torch.__version__}", "device": kind, "logits": logits}
    for module in nets["teacher"].modules() if "folded" in case["form"] and "teacher" in nets else ():
        if isinstance(module, _Conv):
            module.weight.data = _standardized(module.weight.data).contiguous(memory_format=torch.channels_last)
            module.folded = True
    apply = {role: torch.compile(net) if "compiled" in case["form"] else net for role, net in nets.items()}
    return _step(case, device, nets["student"], apply), facts


def _step(
    case: dict[str, Any], device: Any, student: nn.Module, apply: dict[str, Callable[..., Any]]
) -> Callable[[], None]:
    optimiser, schedule = _optimiser(case, student)
    images = torch.from_numpy(np.load(case["images"])).permute(0, 3, 1, 2)
    batch, count, temperature = case["batch_size"], len(images), case["temperature"]
    labels = torch.arange(count, device=device) % case["classes"]
    held = images.to(device) if case["renders"] else _normalize(images[:batch])

    def step() -> None:
        chosen = torch.randperm(count, device=device)[:batch] if case["renders"] else torch.arange(batch, device=device)
        seen = _view(case, held[chosen]) if case["renders"] else held.to(device)
        if case["policy"] == "mix":
            weight = torch.rand((), device=device)
            seen = weight * seen + (1 - weight) * seen.roll(-1, 0)
        with _precision(case, device):
            logits = apply["student"](seen).float()
            if "teacher" in apply:
                with torch.no_grad():
                    answer = apply["teacher"](seen).float()
                logs = (functional.log_softmax(each / temperature, dim=1) for each in (logits, answer))
                loss = temperature**2 * functional.kl_div(*logs, reduction="batchmean", log_target=True)
            else:
                targets = functional.one_hot(labels[chosen], case["classes"]).float()
                loss = functional.cross_entropy(logits, targets)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return step


def _optimiser(case: dict[str, Any], student: nn.Module) -> tuple[Any, Any]:
    """Adam whose weight decay is not multiplied by the learning rate; warm-up, then half a cosine."""
    decay, warmup = case["weight_decay"] / case["learning_rate"], case["warmup_steps"]
    kernels, others = ([each for each in student.parameters() if (each.ndim > 1) is wide] for wide in (True, False))
    groups = [{"params": kernels, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]

    def factor(step: int) -> float:
        progress = max(0.0, (step - warmup) / (case["steps"] - warmup))
        return float(min(1.0, step / max(1, warmup)) * 0.5 * (1 + math.cos(math.pi * progress)))

    optimiser = torch.optim.AdamW(groups, lr=case["learning_rate"], fused=True)
    return optimiser, torch.optim.lr_scheduler.LambdaLR(optimiser, factor)


def _view(case: dict[str, Any], images: Any) -> Any:
    """Inception crops of a batch, half of them mirrored, resized bilinearly: one `grid_sample`."""
    count, (low, high) = len(images), case["crop_area"]
    draw = torch.rand(5, count, device=images.device)
    aspect = 3 / 4 + (4 / 3 - 3 / 4) * draw[0]
    smallest = torch.sqrt(low / aspect)
    largest = torch.minimum(torch.sqrt(high / aspect), torch.clamp(1 / aspect, max=1.0))
    height = smallest + (largest - smallest).clamp(min=0.0) * draw[1]
    width = (height * aspect).clamp(max=1.0)
    top, left = draw[2] * (1 - height), draw[3] * (1 - width)
    zero = torch.zeros_like(top)
    across = torch.where(draw[4] < 0.5, -width, width)
    rows = [torch.stack([across, zero, 2 * left + width - 1], 1), torch.stack([zero, height, 2 * top + height - 1], 1)]
    size = [count, images.shape[1], case["resolution"], case["resolution"]]
    grid = functional.affine_grid(torch.stack(rows, 1), size, align_corners=False)
    return functional.grid_sample(_normalize(images), grid, padding_mode="border", align_corners=False)


def _normalize(images: Any) -> Any:
    return (images.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def _precision(case: dict[str, Any], device: Any) -> Any:
    return torch.autocast(device.type, torch.bfloat16, enabled=case["dtype"] == "bfloat16")


def _load(case: dict[str, Any], role: str) -> nn.Sequential:
    """A network with weights from a file, whose arrays are (height, width, in, out) and named as the checkpoints'."""
    about = case["roles"][role]
    net, state = _net(about, case["classes"], case["channels"]), {}
    with np.load(about["weights"]) as file:
        for name in (each for each in file.files if "/" in each):
            value = torch.from_numpy(file[name])
            *groups, leaf = name.replace("-", "_").split("/")
            kernel = value.permute(3, 2, 0, 1) if value.ndim == 4 else value.T
            own = ".".join([*groups, "bias" if leaf == "bias" else "weight"])
            state[own] = kernel if leaf == "kernel" else value.reshape(-1)
    net.load_state_dict(state)
    return net
