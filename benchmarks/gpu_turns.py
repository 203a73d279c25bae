"""What is timed on a GPU, in turns, between events on its stream."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.models import size, wide
from rwalk import RWalk, RWalkConfig

__all__ = ["added", "copy_bandwidth", "language_model", "peak_copies", "squares"]

Times = dict[str, tuple[float, float, float]]
Step = Callable[[], object]


def copy_bandwidth(elements: int = 1 << 29) -> float:
    """Bytes read and written a second by a device-to-device copy of 2 GiB."""
    source, target = torch.rand(elements, device="cuda"), torch.empty(elements, device="cuda")
    seconds = [_timed(lambda: target.copy_(source), 5) for _ in range(7)]
    return 8.0 * elements / statistics.median(seconds)


def squares(parameters: int, width: int) -> nn.Module:
    """Square layers with gradients that stay as they are."""
    with torch.device("cuda"):
        torch.manual_seed(0)
        model = wide(parameters, width=width)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter).mul_(1e-3)
    return model


def added(
    parameters: int, width: int, variants: Mapping[str, Any], *, steps: int, rounds: int
) -> tuple[Times, Times, dict[str, dict[str, float]], int]:
    """Seconds of an optimizer step on square layers, for each variant; each has model and optimizer of its own.

    Args:
        parameters: About how many.
        width: Of the layers.
        variants: None for the bare step, ``"avalanche"``, or a config and how many tasks have ended.
        steps: Timed in a turn.
        rounds: Turns of each variant.

    Returns:
        Median and quartiles by variant; the same of the step in a CUDA graph, where it can be captured, which is the
        device's time without the host's; launches, copies and waits a step that it adds; the parameters' number.
    """
    large = parameters > 500_000_000
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    replayed: dict[str, list[float]] = {}
    counts: dict[str, dict[str, float]] = {}
    elements = 0
    made: dict[str, Step] = {}
    for name, variant in variants.items():
        model = squares(parameters, width)
        elements = size(model)
        made[name] = _stepping(model, variant)
        for _ in range(12):
            made[name]()
        counts[name] = _counted(made[name])
        if large:
            seconds[name] = [_timed(made[name], steps) for _ in range(rounds)]
        if variant is None or (isinstance(variant, tuple) and variant[0].backend == "fused"):
            graph = _captured(made[name])
            replayed[name] = [_timed(graph.replay, steps) for _ in range(rounds)]
            del graph
        if large:
            made.clear()
            del model
            gc.collect()
            torch.cuda.empty_cache()
    for _ in range(0 if large else rounds):
        for name, step in made.items():
            seconds[name].append(_timed(step, steps))
    more = {name: {key: value - counts["bare"][key] for key, value in found.items()} for name, found in counts.items()}
    summaries = [{name: _summary(found) for name, found in times.items()} for times in (seconds, replayed)]
    return summaries[0], summaries[1], more, elements


def language_model(precision: str, *, rounds: int, batch: int = 32, length: int = 256) -> dict[str, Any]:
    """Seconds of a training step of a transformer of about 100 million parameters, AdamW (fused), for each variant."""
    times: dict[str, list[float]] = {}
    made: dict[str, Step] = {}
    parameters = 0
    for name, backend in (("bare", None), ("triton", "fused"), ("eager", "eager")):
        with torch.device("cuda"):
            torch.manual_seed(0)
            model = Decoder()
            tokens = torch.randint(0, Decoder.VOCABULARY, (batch, length + 1))
        parameters = size(model)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
        made[name] = _training(model, optimizer, tokens, precision)
        if backend is not None:
            rwalk = RWalk(model, optimizer, RWalkConfig(backend=backend, ewc_lambda=1e-3))
            _run(made[name], 4)
            rwalk.consolidate()
        _run(made[name], 4)
        times[name] = []
    for _ in range(rounds):
        for name, step in made.items():
            times[name].append(_timed(step, 10))
    counts = {name: _counted(step) for name, step in made.items()}
    return {
        "ratios": {
            n: statistics.median(t / b for t, b in zip(found, times["bare"], strict=True)) for n, found in times.items()
        },
        "times": {name: _summary(found) for name, found in times.items()},
        "counts": {n: {key: value - counts["bare"][key] for key, value in c.items()} for n, c in counts.items()},
        "parameters": parameters,
    }


def peak_copies(parameters: int, width: int) -> dict[str, float]:
    """Parameter-sized copies that RWalk keeps: in the first task, in later ones, and at the worst moment."""
    model = squares(parameters, width)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    _run(optimizer.step, 3)
    start, unit = torch.cuda.memory_allocated(), 4.0 * size(model)
    rwalk = RWalk(model, optimizer, RWalkConfig())
    _run(optimizer.step, 12)
    first = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    rwalk.consolidate()
    _run(optimizer.step, 12)
    later, peak = torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated()
    return {key: (value - start) / unit for key, value in {"first": first, "later": later, "peak": peak}.items()}


class Decoder(nn.Module):
    """A causal language model of GPT-2's shape, 12 layers of width 768, with 16,384 tokens."""

    VOCABULARY = 16_384

    def __init__(self, width: int = 768, depth: int = 12) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(self.VOCABULARY, width), nn.Embedding(512, width)
        layer = nn.TransformerEncoderLayer(
            width, width // 64, 4 * width, dropout=0.0, batch_first=True, norm_first=True, activation="gelu"
        )
        self.layers = nn.TransformerEncoder(layer, depth, nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, self.VOCABULARY, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (B, T) to logits (B, T, V)."""
        length = tokens.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length, device=tokens.device)
        hidden = self.tokens(tokens) + self.places.weight[:length]
        return self.head(self.layers(hidden, mask=mask, is_causal=True))  # type: ignore[no-any-return]


class AvalancheOperations:
    """What Avalanche's plugin computes in a step beside its second forward and backward pass, as it does it.

    Parameter by parameter, without fused or foreach operations: the loss change from the weights before and after, the
    moving average of g², the score every ``delta_t`` steps, and the penalty's gradient by autograd.
    """

    def __init__(self, model: nn.Module, delta_t: int = 10, alpha: float = 0.9) -> None:
        self.parameters, self.delta_t, self.alpha, self.count = list(model.parameters()), delta_t, alpha, 0
        zeros = [torch.zeros_like(p) for p in self.parameters]
        self.fisher, self.change, self.score = zeros, [z.clone() for z in zeros], [z.clone() for z in zeros]
        self.importance = [z.clone() for z in zeros]
        self.anchor = [p.detach().clone() for p in self.parameters]
        self.checkpoint = [p.detach().clone() for p in self.parameters]

    def before(self) -> None:
        """Gradients of the plain loss are there."""
        self.gradient = [p.grad.clone() for p in self.parameters if p.grad is not None]
        self.old = [p.detach().clone() for p in self.parameters]
        pairs = zip(self.importance, self.parameters, self.anchor, strict=True)
        loss: Tensor = sum((w * (p - a).pow(2)).sum() for w, p, a in pairs)  # type: ignore[assignment]
        for p, more in zip(self.parameters, torch.autograd.grad(0.1 * loss, self.parameters), strict=True):
            assert p.grad is not None
            p.grad.add_(more, alpha=0.0)  # so that gradients stay as they are

    @torch.no_grad()
    def after(self) -> None:
        """The optimizer has stepped."""
        for i, p in enumerate(self.parameters):
            self.change[i] -= self.gradient[i] * (p - self.old[i])
            self.fisher[i] = self.alpha * self.gradient[i].pow(2) + (1.0 - self.alpha) * self.fisher[i]
        self.count += 1
        if self.count % self.delta_t == 0:
            for i, p in enumerate(self.parameters):
                moved = (p - self.checkpoint[i]).pow(2)
                self.score[i] += self.change[i] / (0.5 * self.fisher[i] * moved + 1.19e-7)
                self.change[i] = torch.zeros_like(p)
                self.checkpoint[i] = p.detach().clone()


def _stepping(model: nn.Module, variant: Any) -> Step:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    if variant is None:
        return optimizer.step
    if variant == "avalanche":
        plugin = AvalancheOperations(model)

        def step() -> None:
            plugin.before()
            optimizer.step()
            plugin.after()

        return step
    config, tasks = variant
    rwalk = RWalk(model, optimizer, config)
    for _ in range(tasks):
        _run(optimizer.step, 2)
        rwalk.consolidate()
    return optimizer.step


def _training(model: nn.Module, optimizer: torch.optim.Optimizer, tokens: Tensor, precision: str) -> Step:
    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=precision.startswith("bf16")):
            logits = model(tokens[:, :-1])
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        optimizer.step()

    return step


def _run(step: Step, times: int) -> None:
    for _ in range(times):
        step()


def _timed(step: Step, times: int) -> float:
    """Seconds a step, from the stream's point of view; two steps come before that are not timed."""
    _run(step, 2)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    begin.record()
    _run(step, times)
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3 / times


def _captured(step: Step) -> torch.cuda.CUDAGraph:
    graph = torch.cuda.CUDAGraph()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        _run(step, 4)
    torch.cuda.synchronize()
    with torch.cuda.graph(graph, stream=stream):
        step()
    return graph


def _counted(step: Step, times: int = 10) -> dict[str, float]:
    """Kernels, copies and host waits a step, by the profiler."""
    torch.cuda.synchronize()
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        _run(step, times)
    events = list(profile.events())
    device = [event for event in events if event.device_type == torch.autograd.DeviceType.CUDA]
    copies = [event for event in device if "memcpy" in event.name.lower() or "memset" in event.name.lower()]
    waits = [event for event in events if "Synchronize" in event.name and event.name != "cudaDeviceSynchronize"]
    found = {"launches": len(device) - len(copies), "copies": len(copies), "waits": len(waits)}
    return {key: value / times for key, value in found.items()}


def _summary(seconds: list[float]) -> tuple[float, float, float]:
    low, middle, high = statistics.quantiles(seconds, n=4, method="inclusive")
    return middle, low, high
