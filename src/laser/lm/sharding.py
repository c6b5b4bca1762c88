"""A model whose layers are held by several processes between them and gathered one at a time.

Every process keeps an equal share of the bytes of each layer. Before a layer computes, forward or backward, its
weights are gathered, and the next layer's are already on their way; then they are freed. The base weights are frozen,
so nothing has to be reduced: gradients, optimizer and adapters know nothing of this. Embeddings, head and the last
norm stay whole on every process: each decoding step needs them, and `laser.lm.logps` reads the head's weight.

FSDP2 (`torch.distributed.fsdp.fully_shard`) gathers layers alike, but its processes must make the same passes in the
same order, which processes with different prompts do not; see `laser.parallel.meeting`.
"""

from __future__ import annotations

import copy
import pickle  # nosec B403
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from transformers import PreTrainedModel

from laser.core.errors import ModelError
from laser.parallel.meeting import Gathering, Meeting
from laser.parallel.ranks import Ranks

_ALIGNMENT = 256  # bytes; every weight begins where kernels like it

Places = dict[nn.Parameter, list[tuple[nn.Module, str]]]  # where each weight is in the model; tied ones are in several


def load_spread(load: Callable[[], PreTrainedModel], device: torch.device, ranks: Ranks) -> PreTrainedModel:
    """Load a model in the main process and spread its layers over all.

    The main process has the whole model in CPU memory at first; the others begin with a model without weights. On a
    device there is never more than this process's shares, one layer whole, and what stays whole.

    Args:
        load: Loads the model into CPU memory, frozen.
        device: Where the shares go.
        ranks: The processes, more than one.

    Raises:
        LaserError: `load` raised it in the main process; all raise it.
        ModelError: The architecture names no layers, or cannot be handed to other processes.
    """
    loaded: list[PreTrainedModel] = []

    empty: list[PreTrainedModel] = []

    def load_on_main(part: slice) -> list[None]:
        if part.start == 0:
            loaded.append(load())
            empty.append(_without_weights(loaded[0]))
        return [None]

    ranks.together(load_on_main, ranks.size)
    handed = ranks.broadcast_pickled(empty[0] if empty else None)
    model = loaded[0] if loaded else handed
    assert model is not None
    assert ranks.meeting is not None
    spread(model, device, ranks.meeting)
    return model


def spread(model: PreTrainedModel, device: torch.device, meeting: Meeting) -> SpreadLayers:
    """Take the first process's weights, each process its share of every layer.

    Args:
        model: Its weights count in the group's first process only; elsewhere they may be on the meta device.
        device: Where the shares go.
        meeting: The processes.

    Raises:
        ModelError: The architecture names no layers.
    """
    layers = layers_of(model)
    places = _places(model)
    units = []
    for layer in layers:
        inside = set(layer.modules())
        own = {weight: found for weight, found in places.items() if all(module in inside for module, _ in found)}
        units.append(_Unit(own, device, meeting))
        places = {weight: found for weight, found in places.items() if weight not in own}
    for weight, found in places.items():
        whole = torch.empty(weight.shape, dtype=weight.dtype, device=device)
        if meeting.rank == 0:
            whole.copy_(weight.detach())
        meeting.send(whole.flatten().view(torch.uint8))
        _replace(found, whole)
    for module in model.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = buffer.to(device)
    return SpreadLayers(layers, units)


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
            f"{type(model).__name__} does not say what its layers are, so they cannot be spread over processes; "
            "set policy.shard = false"
        )
    return layers


class SpreadLayers:
    """Gathers the weights of layers before they compute, in whatever order they do.

    At most two layers are whole at a time: the one that computes, and the one that follows it in this direction.

    Args:
        layers: The layers.
        units: Their weights.
    """

    def __init__(self, layers: Sequence[nn.Module], units: Sequence[_Unit]) -> None:
        self._units = units
        self._near: list[_Unit] = []  # gathered or on the way
        for index, layer in enumerate(layers):
            layer.register_forward_pre_hook(partial(self._before, index))
            layer.register_forward_hook(partial(self._after, index))

    @property
    def num_bytes(self) -> int:
        """Bytes of the layers' weights that this process keeps."""
        return sum(len(unit.share) for unit in self._units)

    def _before(self, index: int, *_: Any) -> None:
        self._need(index, index + 1)

    def _after(self, index: int, _module: nn.Module, _inputs: Any, output: Any) -> None:
        """Have the weights gathered again before the gradient of the output goes back through the layer."""
        for tensor in tree_leaves(output):
            if isinstance(tensor, Tensor) and tensor.requires_grad:
                tensor.register_hook(lambda _: self._need(index, index - 1))

    def _need(self, index: int, following: int) -> None:
        unit = self._units[index]
        if unit.is_whole:
            return
        for other in self._near:
            if other is not unit:
                other.rest()
        self._near = [unit]
        unit.gather()
        unit.wait()
        if 0 <= following < len(self._units):
            self._near.append(self._units[following])
            self._units[following].gather()


class _Unit:
    """The weights of one layer: a share of their bytes, and all of them from `gather` to `rest`."""

    def __init__(self, places: Places, device: torch.device, meeting: Meeting) -> None:
        begins, length = [], 0
        for weight in places:
            begins.append(length)
            length += -(-weight.nbytes // _ALIGNMENT) * _ALIGNMENT
        each = -(-length // (meeting.size * _ALIGNMENT)) * _ALIGNMENT
        self._length = each * meeting.size
        self._whole = torch.zeros(self._length, dtype=torch.uint8, device=device)
        if meeting.rank == 0:
            for weight, begin in zip(places, begins, strict=True):
                raw = weight.detach().contiguous().flatten().view(torch.uint8)
                self._whole[begin : begin + weight.nbytes].copy_(raw)
        meeting.send(self._whole)
        self.share = self._whole[meeting.rank * each : (meeting.rank + 1) * each].clone()
        for (weight, found), begin in zip(places.items(), begins, strict=True):
            # .data: views with a separate version counter. Autograd keeps views of weights for the backward pass
            # and must not take it for a change when the same bytes are gathered again.
            view = self._whole.data[begin : begin + weight.nbytes].view(weight.dtype).view(weight.shape)
            _replace(found, view)
        self._gathering: Gathering | None = None
        self.is_whole = False
        self._meeting = meeting
        self._number = meeting.join(self)
        self.rest()

    def gather(self) -> None:
        """Begin to fill in the weights, unless that has begun."""
        if self._gathering is None and not self.is_whole:
            self._whole.untyped_storage().resize_(self._length)
            self._gathering = self._meeting.ask(self._number, self._whole)

    def wait(self) -> None:
        """The weights are there afterwards."""
        if self._gathering is not None:
            gathering, self._gathering = self._gathering, None
            gathering.wait()
            self.is_whole = True

    def rest(self) -> None:
        """Free everything but the share."""
        self.wait()
        self.is_whole = False
        self._whole.untyped_storage().resize_(0)


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


def _without_weights(model: PreTrainedModel) -> PreTrainedModel:
    """The model as another process begins with it: everything but the weights.

    Raises:
        ModelError: It cannot be sent.
    """
    layers_of(model)
    memo: dict[int, Any] = {
        id(weight): nn.Parameter(torch.empty_like(weight, device="meta"), requires_grad=False)
        for weight in model.parameters()
    }
    try:
        empty = copy.deepcopy(model, memo)
        pickle.dumps(empty)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ModelError(
            f"{type(model).__name__} cannot be handed to other processes ({error}); set policy.shard = false"
        ) from error
    return empty
