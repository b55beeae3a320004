"""Training on several processes: what they exchange, and how they share batches and noise.

torchrun (https://docs.pytorch.org/docs/stable/elastic/run.html) starts the processes, and tells each its number by
environment variables. Each process holds the whole model. All begin with the same state, use the same averaged
gradients, and draw the same random numbers, of which each takes the rows of its own images. So weights, moments and
random state stay the same on all processes, and the checkpoint of the first process is the checkpoint of all.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from importlib import import_module
from typing import Any, Final

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous
from torch.overrides import TorchFunctionMode

from rae_serve.errors import InvalidInput, RunError
from training.machine import torch_device

# A process that dies closes its connections, which the others notice at once. This is for a machine that vanishes,
# and longer than the others wait while the first process fits a prior or downloads a data set.
_PATIENCE: Final = timedelta(hours=2)
_REPORTED: Final = "reported"  # the key of the common store that the process sets which reports an error


class LostProcessError(RunError):
    """Another process of the training has ended."""


@dataclass(frozen=True)
class World:
    """The processes that train one model together; by default, one alone, which exchanges nothing.

    Every method but `part` and `shared_noise` waits for all processes, which must call it in the same order.

    Attributes:
        rank: Number of this process, from 0.
        size: Number of processes.
        local_rank: Number of this process on its machine, from 0.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def first(self) -> bool:
        """Whether this process writes the run's files, and does what is not divided."""
        return self.rank == 0

    def part(self, rows: int) -> slice:
        """Return the rows of a batch that this process takes, of a number that the size divides."""
        count = rows // self.size
        return slice(self.rank * count, (self.rank + 1) * count)

    def require_divisible(self, key: str, rows: int) -> None:
        """Raise InvalidInput, which names the key, if a batch of so many rows cannot be divided evenly."""
        if rows % self.size:
            raise InvalidInput(
                key, f"must be a multiple of the {self.size} processes, which share a batch, not {rows}"
            )

    def shared_noise(self) -> AbstractContextManager[object]:
        """Make torch draw random numbers, in this block, for the whole batch, and return this process's rows."""
        return nullcontext() if self.size == 1 else _SharedNoise(self)

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their means over the processes, in one exchange. All have the same type and device."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        self._exchange(dist.all_reduce, flat)
        flat /= self.size
        for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(mean.view(tensor.shape))

    def greatest(self, *values: float) -> tuple[float, ...]:
        """Return the greatest of each value over the processes."""
        if self.size == 1:
            return values
        found = torch.tensor(values, dtype=torch.float64)
        self._exchange(dist.all_reduce, found, dist.ReduceOp.MAX)
        return tuple(found.tolist())

    def broadcast(self, data: bytes) -> bytes:
        """Return the bytes that the first process gives."""
        if self.size == 1:
            return data
        length = torch.tensor(len(data))
        self._exchange(dist.broadcast, length, 0)
        content = torch.empty(int(length), dtype=torch.uint8)
        if self.first:
            content = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        self._exchange(dist.broadcast, content, 0)
        return content.numpy().tobytes()

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Let one process of each machine through this block before the others, so that they find what it caches."""
        if self.local_rank:
            self.greatest(0.0)
        yield
        if not self.local_rank:
            self.greatest(0.0)

    def _exchange(self, operation: Callable[..., object], *arguments: object) -> None:
        try:
            operation(*arguments)
        except RuntimeError as error:
            raise LostProcessError(
                f"the training has lost one of its {self.size} processes; its checkpoints are untouched, and the "
                "same command with --resume goes on from the last one"
            ) from error


ALONE: Final = World()


@contextmanager
def joined(device: str) -> Iterator[tuple[World, torch.device]]:
    """Take part, in this block, in the training of the processes that torchrun has started, if it has.

    Of an error that ends all processes, one process alone tells: the others exit with status 2.

    Args:
        device: "auto", "cpu" or "cuda". With CUDA, each process of a machine has a device of its own.

    Yields:
        The processes, and the device of this one.
    """
    chosen = torch_device(device)
    size = _number("WORLD_SIZE", 1)
    if size == 1:
        yield ALONE, chosen
        return
    world = World(_number("RANK"), size, _number("LOCAL_RANK"))
    if chosen.type == "cuda":
        chosen = _own_device(world)
    try:
        store, _, _ = next(rendezvous("env://", timeout=_PATIENCE))
    except ValueError as error:
        raise InvalidInput("WORLD_SIZE", f"is {size}, but {error}; start the training by torchrun") from None
    # The first optimiser would import these functions, whose defaults keep the process group that there is by then. A
    # group that lives until the process exits may abort it.
    import_module("torch.distributed.nn.functional")
    backend = "gloo" if chosen.type == "cpu" else "cpu:gloo,cuda:nccl"
    group = PrefixStore("group", store)
    dist.init_process_group(backend, store=group, rank=world.rank, world_size=size, timeout=_PATIENCE)
    try:
        yield world, chosen
    except Exception:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun sends it when a process has died; this one ends too
        if not _reports(store):
            raise SystemExit(2) from None
        raise
    finally:
        dist.destroy_process_group()


def require_one_process(command: str) -> None:
    """Raise InvalidInput, which names the command, if torchrun has started several processes; one of them tells."""
    with joined("cpu") as (world, _):
        if world.size > 1:
            problem = f"runs in one process, but torchrun has started {world.size}; give the command without torchrun"
            raise InvalidInput(command, problem)


def _number(name: str, default: int | None = None) -> int:
    """Return the number in an environment variable that torchrun sets."""
    text = os.environ.get(name, default)
    try:
        return int(text)  # type: ignore[arg-type]  # None is a TypeError
    except (TypeError, ValueError):
        raise InvalidInput(name, f"must be a number, not {text!r}; start the training by torchrun") from None


def _own_device(world: World) -> torch.device:
    """Return the CUDA device of this process."""
    count = torch.cuda.device_count()
    if world.local_rank >= count:
        problem = f"this machine has {count} CUDA devices, too few for one per process; give --nproc-per-node={count}"
        raise InvalidInput("device", problem)
    device = torch.device("cuda", world.local_rank)
    torch.cuda.set_device(device)
    return device


def _reports(store: Store) -> bool:
    """Return whether this process is the first one with an error, which then tells of it."""
    try:
        return store.add(_REPORTED, 1) == 1
    except RuntimeError:  # the store was on the process that has died
        return True


class _SharedNoise(TorchFunctionMode):
    """Draws random numbers for a whole batch, and returns the rows of one process. A single number is for all.

    Args:
        world: The processes that share the batch.
    """

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        size, kwargs = self._world.size, kwargs or {}
        if function in (torch.rand_like, torch.randn_like) and args[0].dim():
            like, *others = args
            args = (like.new_empty((size * len(like), *like.shape[1:])), *others)
        elif function in (torch.rand, torch.randn) and args[0] != ():
            rows, *columns = args if isinstance(args[0], int) else args[0]
            args = (size * rows, *columns)
        else:
            return function(*args, **kwargs)
        drawn = function(*args, **kwargs)
        return drawn[self._world.part(len(drawn))]
