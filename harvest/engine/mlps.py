"""Find every MLP of a loaded vLLM model by its structure: an activation of a known kind, and what follows it.

A row-parallel linear beside the activation gives this rank's neurons; a layer whose MLP is not understood is refused.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from harvest.errors import ModelError
from harvest.models.families import is_known, kind_of, unknown

RoutedExperts = Literal["refuse", "skip"]

_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)(?=\.|$)")


@dataclass(frozen=True, slots=True)
class Mlp:
    """One MLP of this rank, and the place where its activation stands."""

    name: str
    layer: int
    owner: nn.Module
    attribute: str
    # owner.attribute is the activation
    width: int
    # this rank's neurons
    offset: int
    # this rank's first neuron


def find_mlps(model: nn.Module, routed_experts: RoutedExperts) -> list[Mlp]:
    """This rank's MLPs in the order of their layers; with "skip", layers that hold only routed experts are absent.

    Raises ModelError for routed experts ("refuse"), for a layer with none or several MLPs, and for one that cannot be
    read: an unknown activation, no row-parallel linear after it, neurons that are the same on every rank.
    """
    model_name = type(model).__name__
    routed = _routed_layers(model)
    if routed and routed_experts == "refuse":
        layer, name = min(routed.items())
        raise ModelError(
            f"{model_name}, layer {layer} ({name}): routed experts compute their activations inside fused kernels, "
            "where no probe is; set model.routed_experts: skip to probe only the dense layers and shared experts"
        )
    mlps = sorted(_mlps(model), key=lambda mlp: mlp.layer)
    _check_one_a_layer(model_name, mlps)
    for layer, name, module in _layers(model):
        if any(mlp.layer == layer for mlp in mlps):
            continue
        stranger = _stranger(name, module)
        if stranger is not None:
            raise stranger
        if layer not in routed:
            raise ModelError(
                f"{name}: no MLP was found in this {type(module).__name__}, a module that holds an activation and the "
                "row-parallel linear after it; this model has no probe"
            )
    if not mlps:
        raise ModelError(
            f"{model_name}: no MLP outside of routed experts was found, so there is nothing to probe; "
            "use a model with dense layers or shared experts"
        )
    _check_sharding(model, mlps)
    return mlps


def _named_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    # a fused runner keeps an alias of the shared experts: each name is looked at, each module taken once
    return model.named_modules(remove_duplicate=False)


def _is_routed(name: str) -> bool:
    """Below a module of experts, but for the shared ones, which the Transformers backend keeps there alone."""
    _, experts, below = f".{name}.".partition(".experts.")
    return bool(experts) and "shared_expert" not in below


def _number(name: str) -> int | None:
    found = _LAYER.search(name)
    return None if found is None else int(found.group(1))


def _routed_layers(model: nn.Module) -> dict[int, str]:
    """The first module of routed experts in each layer that has them."""
    found: dict[int, str] = {}
    for name, _ in _named_modules(model):
        if _is_routed(name):
            number = _number(name)
            if number is None:
                raise ModelError(f"{name}: routed experts outside the model's numbered layers; this model has no probe")
            found.setdefault(number, name)
    return found


def _layers(model: nn.Module) -> Iterator[tuple[int, str, nn.Module]]:
    """The numbered layers that this rank holds; elsewhere's are placeholders."""
    for name, module in _named_modules(model):
        found = _LAYER.search(name)
        if found is not None and found.end() == len(name) and type(module).__name__ != "PPMissingLayer":
            yield int(found.group(1)), name, module


def _is_row_parallel(module: object) -> bool:
    return hasattr(module, "input_size_per_partition") and hasattr(module, "input_is_parallel")


def _mlps(model: nn.Module) -> Iterator[Mlp]:
    seen: set[int] = set()
    for name, module in _named_modules(model):
        children = dict(module.named_children())
        activations = [attribute for attribute, child in children.items() if is_known(child)]
        downs = [child for child in children.values() if _is_row_parallel(child)]
        if _is_routed(name) or id(module) in seen or not activations or not downs:
            continue
        seen.add(id(module))
        if len(activations) > 1 or len(downs) > 1:
            raise ModelError(f"{name}: several activations or row-parallel linears in one module; it cannot be probed")
        yield _read(name, module, activations[0], downs[0])


def _read(name: str, owner: nn.Module, attribute: str, down: Any) -> Mlp:
    where = f"{name}.{attribute}"
    number = _number(name)
    if number is None:
        raise ModelError(f"{where}: an MLP outside the model's numbered layers; this model has no probe")
    width = int(down.input_size_per_partition)
    takes = width * (2 if kind_of(getattr(owner, attribute), where).gated else 1)
    gives = [getattr(child, "output_size_per_partition", 0) for child in owner.children() if child is not down]
    if takes not in gives or not down.input_is_parallel:
        raise ModelError(
            f"{where}: no linear beside it gives the {takes} numbers it should take on this rank; it cannot be probed"
        )
    return Mlp(name, number, owner, attribute, width, int(down.tp_rank) * width)


def _check_one_a_layer(model_name: str, mlps: list[Mlp]) -> None:
    for layer, number in Counter(mlp.layer for mlp in mlps).items():
        if number > 1:
            names = ", ".join(mlp.name for mlp in mlps if mlp.layer == layer)
            raise ModelError(
                f"{model_name}, layer {layer}: it holds several MLPs ({names}), and a neuron is named by one layer "
                "and one number; this model has no probe"
            )


def _check_sharding(model: nn.Module, mlps: list[Mlp]) -> None:
    """Ranks that hold the same neurons would count them twice."""
    ranks = max(_tensor_parallel(model.modules()))
    for mlp in mlps:
        if ranks not in _tensor_parallel(mlp.owner.children()):
            raise ModelError(
                f"{mlp.name}: every tensor-parallel rank holds all of its neurons; set model.tensor_parallel: 1"
            )


def _tensor_parallel(modules: Iterable[Any]) -> set[int]:
    """Over how many ranks the row-parallel linears among these modules are cut."""
    return {int(module.tp_size) for module in modules if _is_row_parallel(module)}


def _stranger(name: str, layer: nn.Module) -> ModelError | None:
    """What an unknown activation in a layer is refused with, unless it is a routed expert's; None if there is none."""
    for inner, owner in layer.named_modules():
        if _is_routed(f"{name}.{inner}") or not any(_is_row_parallel(child) for child in owner.children()):
            continue
        for attribute, child in owner.named_children():
            is_bare = not [*child.children(), *child.parameters(), *child.buffers()]
            is_other = isinstance(child, nn.Dropout | nn.Identity) or hasattr(child, "output_size_per_partition")
            if is_bare and not is_other and not hasattr(child, "kv_cache"):
                return unknown(child, ".".join(part for part in (name, inner, attribute) if part))
    return None
