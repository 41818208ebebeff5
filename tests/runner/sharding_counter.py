"""Count every tensor of one training step under FSDP2, as Axolotl sets it up, on one of two GPUs that do not exist.

    .axosweep/trainer/bin/python tests/runner/sharding_counter.py '[{"layers": 4, "hidden": 128, ...}]'

prints the most bytes that existed at once. The collectives of torch's fake process group move nothing, but all buffers
for them are allocated. Runs in the trainer's environment; the tests call it.
"""

from __future__ import annotations

import json
import sys
import warnings
import weakref
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from accelerate.utils import FullyShardedDataParallelPlugin
from axolotl.monkeypatch.accelerate.fsdp2 import fsdp2_prepare_model
from memory_counter import build  # type: ignore[import-not-found]  # the script next to this one
from torch.distributed.device_mesh import init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

GPUS = 2


class Live(TorchDispatchMode):  # type: ignore[misc]
    """Bytes of all storages that are still referenced, by their present sizes: FSDP empties storages to free them."""

    def __init__(self) -> None:
        super().__init__()
        self.most = 0
        self.held: dict[int, weakref.ref[Any]] = {}

    def add(self, tensor: torch.Tensor) -> None:
        storage = getattr(tensor, "_local_tensor", tensor).untyped_storage()
        self.held[storage._cdata] = weakref.ref(storage)

    def look(self) -> None:
        alive = [storage for held in self.held.values() if (storage := held()) is not None]
        self.held = {storage._cdata: weakref.ref(storage) for storage in alive}
        self.most = max(self.most, sum(storage.nbytes() for storage in alive))

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        made = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, torch.Tensor):
                self.add(leaf)
        self.look()
        return made


def shard(model: torch.nn.Module, case: Mapping[str, Any]) -> torch.nn.Module:
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        transformer_cls_names_to_wrap=["LlamaDecoderLayer"],
        reshard_after_forward=case.get("reshards", True),
        cpu_ram_efficient_loading=False,
    )
    plugin.set_mixed_precision("bf16")
    state = SimpleNamespace(
        fsdp_plugin=plugin,
        device_mesh=init_device_mesh("cpu", (GPUS,), mesh_dim_names=("dp_shard",)),
        parallelism_config=SimpleNamespace(fsdp_dim_names=["dp_shard"]),
    )
    return fsdp2_prepare_model(SimpleNamespace(state=state, is_main_process=True), model)


def most_bytes(case: Mapping[str, Any]) -> int:
    model = build(case).to_empty(device="cpu")
    model.tie_weights()
    model = shard(model, case)
    optimizer = torch.optim.AdamW((one for one in model.parameters() if one.requires_grad), fused=True)
    step(model, optimizer, case)  # creates the optimizer's state
    live = Live()
    for tensor in (*model.parameters(), *model.buffers()):
        live.add(tensor)
    for states in optimizer.state.values():
        for tensor in states.values():
            live.add(tensor)
    with live:
        step(model, optimizer, case)
    return live.most


def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, case: Mapping[str, Any]) -> None:
    tokens = torch.zeros(case["rows"], case["length"], dtype=torch.long)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(input_ids=tokens, labels=tokens).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dist.init_process_group("fake", rank=0, world_size=GPUS, store=FakeStore())
    print(json.dumps([most_bytes(case) for case in json.loads(sys.argv[1])]))
