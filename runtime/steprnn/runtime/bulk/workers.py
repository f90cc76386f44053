"""Who does the parts: this process, one for each core, or actors of Ray."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ..errors import SteprnnError, UsageError
from .columns import Columnar, Embed, Generate, Score
from .outputs import encoded
from .sources import Part

if TYPE_CHECKING:
    import pyarrow

    from .records import Record

TASKS: dict[str, Callable[..., Columnar]] = {"embed": Embed, "score": Score, "generate": Generate}
AHEAD = 2  # parts that are read and wait, for each worker
CORES = 0.5  # that an actor of Ray asks for: with whole ones nothing is left for reading

T = TypeVar("T")


@dataclass(frozen=True)
class Work:
    """What a worker needs to know to begin."""

    task: str
    bundle: str
    options: dict[str, Any]
    kind: str  # of the output
    seed: int | None  # of the first row of all, where rows are drawn


@dataclass(frozen=True)
class Done:
    """A part as a file, and the rows of it that could not be done: the place among all, and why."""

    data: bytes
    rows: int
    bad: int
    first_bad: tuple[int, str] | None


class Worker:
    """Loads the bundle once, and does part after part."""

    def __init__(self, work: Work, columns: Columnar | None = None) -> None:
        self._work = work
        self._columns = columns or TASKS[work.task](work.bundle, **work.options)

    def do(self, part: Part) -> Done:
        """The part with its results."""
        column, seed = self._columns.column, self._work.seed
        seeds = None if seed is None else [seed + part.first + i for i in range(len(part))]
        results = self._columns.results(_texts(part.rows, column), seeds)
        bad = [i for i, error in enumerate(results["error"]) if error is not None]
        first = (part.first + bad[0], str(results["error"][bad[0]])) if bad else None
        return Done(encoded(self._work.kind, part.rows, results), len(part), len(bad), first)


def _texts(rows: list[Record] | pyarrow.Table, column: str) -> Iterable[str | SteprnnError]:
    if isinstance(rows, list):
        return [UsageError(row.error) if row.error else row.fields[column] for row in rows]
    texts: list[str] = rows.column(column).to_pylist()
    return texts


class Pool(Protocol):
    """Does parts; `submit` and `result` may be called while others are under way."""

    workers: int

    def submit(self, part: Part) -> Any:
        """Begin with a part."""

    def result(self, ticket: Any) -> Done:
        """Wait for what `submit` began."""


def in_order(pool: Pool, parts: Iterable[Part]) -> Iterator[Done]:
    """What becomes of the parts, in their order; some are under way meanwhile."""
    waiting: deque[Any] = deque()
    for part in parts:
        waiting.append(pool.submit(part))
        if len(waiting) > AHEAD * pool.workers:
            yield pool.result(waiting.popleft())
    while waiting:
        yield pool.result(waiting.popleft())


class Here:
    """In this process."""

    workers = 1

    def __init__(self, work: Work, columns: Columnar) -> None:
        self._worker = Worker(work, columns)

    def submit(self, part: Part) -> Part:
        """Nothing yet."""
        return part

    def result(self, ticket: Part) -> Done:
        """Do it."""
        return self._worker.do(ticket)


class Processes:
    """One process each, which ends with this one, however that ends."""

    def __init__(self, executor: ProcessPoolExecutor, workers: int) -> None:
        self.workers = workers
        self._executor = executor

    def submit(self, part: Part) -> Any:
        """Begin with a part."""
        return self._executor.submit(_do, part)

    def result(self, ticket: Any) -> Done:
        """Wait for it."""
        try:
            done: Done = ticket.result()
            return done
        except BrokenProcessPool:
            words = "a worker process was ended, perhaps for want of memory; run again to go on"
            raise SteprnnError(words) from None


@contextmanager
def processes(work: Work, workers: int | None) -> Iterator[Pool]:
    """Workers in processes of their own, without a number one for each core that this process may use."""
    workers = workers or cores()
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(workers, context, _begin, (work,))
    try:
        yield Processes(executor, workers)
    finally:
        running = list((executor._processes or {}).values())
        manager: Any = executor._executor_manager_thread
        executor.shutdown(wait=False, cancel_futures=True)
        for process in running:
            process.terminate()
        if manager is not None:  # else Python, where it ends now, writes to a pipe that this thread closes
            manager.join(timeout=5)


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_worker: Worker | None = None


def _begin(work: Work) -> None:
    """In a new process."""
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process ends this one
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # of Linux: with the process that made this one
    _worker = Worker(work)


def _do(part: Part) -> Done:
    assert _worker is not None
    return _worker.do(part)


class Actors:
    """Actors of Ray; one that dies is made again, and its parts are done again."""

    def __init__(self, ray: Any, actors: list[Any]) -> None:
        self.workers = len(actors)
        self._ray, self._actors, self._next = ray, actors, 0

    def submit(self, part: Part) -> Any:
        """Begin with a part."""
        actor = self._actors[self._next % len(self._actors)]
        self._next += 1
        return actor.do.remote(part)

    def result(self, ticket: Any) -> Done:
        """Wait for it; a refusal comes back as it was."""
        try:
            done: Done = self._ray.get(ticket)
            return done
        except self._ray.exceptions.RayTaskError as error:
            cause = error.cause
            raise cause if isinstance(cause, SteprnnError) else error from None


@contextmanager
def actors(work: Work, workers: int | None, address: str) -> Iterator[Pool]:
    """Workers that are actors of Ray: of the cluster at `address`, of RAY_ADDRESS, or of this machine."""
    import ray

    ours = not ray.is_initialized()
    if ours:
        quiet = {"log_to_driver": False, "logging_level": "ERROR"}
        ray.init(address=address, **quiet) if address else ray.init(include_dashboard=False, **quiet)
    try:
        count = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
        kind = ray.remote(num_cpus=CORES, max_restarts=-1, max_task_retries=-1)(Worker)
        yield Actors(ray, [kind.remote(work) for _ in range(count)])
    finally:
        if ours:
            ray.shutdown()
