"""A model whose layers are sharded over several processes by FSDP2 (`torch.distributed.fsdp.fully_shard`).

Each process holds a part of every layer. Before a layer computes, forward or backward, its weights are gathered, the
next layer's are on their way, and they are freed afterwards. The base weights are frozen, so no gradient is reduced;
adapters stay whole on every process and are none of FSDP's business. Embeddings, head and the last norm stay whole
too: each decoding step needs them, and `laser.lm.logps` reads the head's weight.

Processes make their passes together; see `laser.parallel.passes`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, OffloadPolicy, fully_shard
from torch.utils._pytree import tree_leaves
from transformers import GenerationConfig, PreTrainedModel

from laser.core.errors import ModelError
from laser.parallel.passes import Pass, Passes, collective
from laser.parallel.ranks import Ranks

Places = dict[nn.Parameter, list[tuple[nn.Module, str]]]  # where each weight is in the model; tied ones are in several


@dataclass(frozen=True, slots=True)
class Sharding:
    """How processes hold the layers of a model between them.

    Attributes:
        ranks: The processes.
        group: How many hold one copy between them; None: all. They must divide the processes.
        offload: Keep the parts in CPU memory.
    """

    ranks: Ranks
    group: int | None = None
    offload: bool = False


def load_sharded(load: Callable[[], PreTrainedModel], device: torch.device, sharding: Sharding) -> PreTrainedModel:
    """Load a model in the main process and shard its layers over all.

    The main process has the whole model in CPU memory at first; the others begin with a model without weights. On a
    device there is never more than this process's part, two layers whole, and what stays whole.

    Args:
        load: Loads the model into CPU memory, frozen.
        device: Where the parts go.
        sharding: The processes, more than one.

    Raises:
        LaserError: `load` raised it in the main process; all raise it.
        ModelError: The architecture names no layers, or its class is not one of transformers; or the groups do not
            divide the processes.
    """
    loaded: list[PreTrainedModel] = []

    def load_on_main(part: slice) -> list[dict[str, Any] | None]:
        if part.start > 0:
            return [None]
        loaded.append(load())
        return [_description(loaded[0])]

    description = sharding.ranks.together(load_on_main, sharding.ranks.size)[0]
    assert description is not None
    return shard(loaded[0] if loaded else _without_weights(description), device, sharding)


def shard(model: PreTrainedModel, device: torch.device, sharding: Sharding) -> PreTrainedModel:
    """Take the first process's weights, each process its part of every layer.

    Args:
        model: Its weights count in the first process only; elsewhere they may be on the meta device.
        device: Where the parts go.
        sharding: The processes, more than one.

    Raises:
        ModelError: The architecture names no layers.
    """
    layers = layers_of(model)
    places = _places(model)
    mesh = _mesh(device, sharding)
    offload = CPUOffloadPolicy(pin_memory=device.type == "cuda") if sharding.offload else OffloadPolicy()
    for layer in layers:
        inside = set(layer.modules())
        own = {weight: found for weight, found in places.items() if all(module in inside for module, _ in found)}
        places = {weight: found for weight, found in places.items() if weight not in own}
        for weight, found in own.items():
            _replace(found, _from_main(weight, device))
        fully_shard(layer, mesh=mesh, reshard_after_forward=True, offload_policy=offload, ignored_params=set(places))
    for weight, found in places.items():
        _replace(found, _from_main(weight, device))
    for module in model.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = _from_main(buffer, device)
    fully_shard(model.base_model, mesh=mesh, ignored_params=set(model.parameters()))
    with torch.no_grad():  # FSDP sets itself up in the first pass
        model.base_model(input_ids=torch.zeros((1, 2), dtype=torch.long, device=device))
    model.enable_input_require_grads()  # so that the first layer, too, is freed between two backward passes
    assert sharding.ranks.passes is not None
    ShardedLayers(model.base_model, layers, sharding.ranks.passes)
    return model


def layers_of(model: PreTrainedModel) -> list[nn.Module]:
    """The layers that compute in one piece, in order, as the architecture names them.

    Raises:
        ModelError: It names none.
    """
    names = set(model._no_split_modules or ())
    found = [(path, module) for path, module in model.named_modules() if type(module).__name__ in names]
    paths = [path for path, _ in found]
    layers = [module for path, module in found if not any(path.startswith(f"{outer}.") for outer in paths)]
    if not layers:
        raise ModelError(
            f"{type(model).__name__} does not say what its layers are, so they cannot be sharded over processes; "
            "set policy.shard = false"
        )
    return layers


class ShardedLayers:
    """The passes of one model: which one it is in, and how many of the pass's layers have been gathered.

    FSDP gathers a layer and begins with the next one before the layer computes. It does so in a fixed order, so that
    a process that computes nothing can gather the same (`take_part`), and one that failed can gather the rest.
    """

    def __init__(self, backbone: nn.Module, layers: Sequence[nn.Module], passes: Passes) -> None:
        assert isinstance(backbone, FSDPModule)
        self._root = backbone
        self._layers = [layer for layer in layers if isinstance(layer, FSDPModule)]
        self._passes = passes
        self._number = passes.join(self)
        self._graphs = 0  # FORWARD passes of all processes since the last BACKWARD
        self._kind: Pass | None = None
        self._gathered = 0  # layers, in the pass or, backward, in the current graph
        self._graphs_done = 0
        backbone.register_forward_pre_hook(self._begin_forward)
        backbone.register_forward_hook(self._end_forward)
        last = len(self._layers) - 1
        for index, layer in enumerate(self._layers):
            following = self._layers[min(index + 1, last)]
            layer.set_modules_to_forward_prefetch([following] if index < last else [])
            layer.set_modules_to_backward_prefetch([self._layers[max(index - 1, 0)]])  # the first: nothing further
            layer_module: nn.Module = layers[index]
            layer_module.register_forward_pre_hook(partial(self._before, index))
            layer_module.register_forward_hook(partial(self._after, index))

    def take_part(self, kind: Pass) -> None:
        """Gather every layer for a pass of others; see `Sharded`."""
        self._start(kind)
        if kind is not Pass.BACKWARD:
            self._gather_rest()
        self.finish()

    def finish(self) -> None:
        """Gather what remains of the pass; see `Sharded`."""
        if self._kind is None:
            return
        self._root.reset_iter_state()  # it may have failed in the middle
        self._gather_rest()
        while self._kind is Pass.BACKWARD and self._graphs_done < self._graphs:
            self._next_graph()
            self._gather_rest()
        if self._kind is Pass.BACKWARD:
            self._graphs = 0
        self._kind = None

    def release(self) -> None:
        """Forget graphs that no backward pass went through, and what FSDP remembers of the passes."""
        self._graphs = 0
        self._root.reset_iter_state()

    def _start(self, kind: Pass) -> None:
        self._kind = kind
        self._graphs_done = 0
        self._gathered = 0 if kind is not Pass.BACKWARD else len(self._layers)
        self._graphs += kind is Pass.FORWARD

    def _next_graph(self) -> None:
        self._graphs_done += 1
        self._gathered = 0

    def _gather_rest(self) -> None:
        order = self._layers[::-1] if self._kind is Pass.BACKWARD else self._layers
        for layer in order[self._gathered :]:
            collective(layer.unshard)
            layer.reshard()
        self._gathered = len(self._layers)

    def _begin_forward(self, *_: Any) -> None:
        kind = Pass.FORWARD if torch.is_grad_enabled() else Pass.INFERENCE
        self._passes.begin(self._number, kind)
        self._start(kind)

    def _end_forward(self, _module: nn.Module, _inputs: Any, output: Any) -> None:
        """Have the backward pass agreed on before the gradient of the output goes back."""
        for tensor in tree_leaves(output):
            if isinstance(tensor, Tensor) and tensor.requires_grad:
                tensor.register_hook(self._begin_backward)

    def _begin_backward(self, _: Tensor) -> None:
        if self._kind is not Pass.BACKWARD:
            self._passes.begin(self._number, Pass.BACKWARD)
            self._start(Pass.BACKWARD)
        self._next_graph()

    def _before(self, index: int, *_: Any) -> None:
        if self._kind is not Pass.BACKWARD:  # there it computes once more what it did not keep
            self._gathered = min(index + 2, len(self._layers))

    def _after(self, index: int, _module: nn.Module, _inputs: Any, output: Any) -> None:
        for tensor in tree_leaves(output):
            if isinstance(tensor, Tensor) and tensor.requires_grad:
                tensor.register_hook(lambda _: self._gathered_backward(index))

    def _gathered_backward(self, index: int) -> None:
        self._gathered = len(self._layers) - max(index - 1, 0)


def _mesh(device: torch.device, sharding: Sharding) -> DeviceMesh:
    """The processes that hold a copy with this one. Weights are frozen, so the copies have nothing to exchange."""
    size = sharding.ranks.size
    group = sharding.group or size
    if size % group:
        raise ModelError(f"{size} processes cannot form groups of {group}; set policy.shard_group to a divisor")
    return init_device_mesh(device.type, (size // group, group), mesh_dim_names=("copies", "fsdp"))["fsdp"]  # peft's


def _places(model: nn.Module) -> Places:
    """Every weight and where it is."""
    places: Places = {}
    for module in model.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                places.setdefault(weight, []).append((module, name))
    return places


def _replace(places: Sequence[tuple[nn.Module, str]], value: Tensor) -> None:
    weight = nn.Parameter(value, requires_grad=False)
    for module, name in places:
        module._parameters[name] = weight


def _from_main(tensor: Tensor, device: torch.device) -> Tensor:
    """The first process's tensor, on the device of each."""
    if torch.distributed.get_rank() == 0:
        whole = tensor.detach().to(device).contiguous()
    else:
        whole = torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
    collective(lambda: torch.distributed.broadcast(whole, src=0))
    return whole


def _description(model: PreTrainedModel) -> dict[str, Any]:
    """What another process needs to make the same model without weights, as JSON holds it.

    Raises:
        ModelError: It is not one of transformers' classes.
    """
    layers_of(model)
    name = type(model).__name__
    if getattr(transformers, name, None) is not type(model):
        raise ModelError(f"{name} is not a class of transformers, so it cannot be sharded; set policy.shard = false")
    generation = model.generation_config
    return {
        "class": name,
        "config": model.config.to_json_string(use_diff=False),
        "dtype": str(model.dtype).removeprefix("torch."),
        "attention": model.config._attn_implementation,
        "generation": None if generation is None else generation.to_json_string(use_diff=False),
    }


def _without_weights(description: Mapping[str, Any]) -> PreTrainedModel:
    """The model as another process begins with it."""
    kind = getattr(transformers, description["class"])
    config = kind.config_class.from_dict(json.loads(description["config"]))
    config._attn_implementation = description["attention"]
    with torch.device("meta"):
        model: PreTrainedModel = kind._from_config(config, dtype=getattr(torch, description["dtype"]))
    if description["generation"] is not None:
        model.generation_config = GenerationConfig.from_dict(json.loads(description["generation"]))
    return model.requires_grad_(False).eval()
