"""Schedules: every row once an epoch, nothing over capacity, and the original's rule."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scripts.artifact.stage import StageError
from scripts.pack.best_fit import best_fit
from scripts.pack.consecutive import permutation, stretched, walked
from scripts.pack.schedule import Schedule, Shape, _rule_steps, train_schedule, validation_schedule
from scripts.recipe.pack import PackSettings, PackSpec

CAPACITY = 64
LENGTHS = st.lists(st.integers(1, CAPACITY), min_size=1, max_size=120).map(
    lambda found: np.array(found, dtype=np.int64)
)


def spec(processes: int = 2, seed: int = 42, **changes: object) -> PackSpec:
    values = {"sequence_len": CAPACITY, "micro_batch_size": 3, "num_epochs": 2, "gradient_accumulation_steps": 2}
    wanted = PackSettings.model_validate(values | changes)
    return PackSpec(model="m", mixture="x", base="b", settings=wanted, processes=processes, seed=seed)


def batches(schedule: Schedule) -> list[list[int]]:
    return [part.tolist() for part in np.split(schedule.rows, schedule.offsets[1:-1])]


def slow_best_fit(lengths: list[int], capacity: int) -> list[list[int]]:
    """Search all bins for the tightest one: what the fast packer must equal in fill."""
    bins: list[list[int]] = []
    free: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda r: -lengths[r]):
        fits = [b for b in range(len(bins)) if free[b] >= lengths[row]]
        if not fits:
            bins.append([])
            free.append(capacity)
            fits = [len(bins) - 1]
        chosen = min(fits, key=lambda b: free[b])
        bins[chosen].append(row)
        free[chosen] -= lengths[row]
    return bins


@settings(max_examples=200, deadline=None)
@given(lengths=LENGTHS)
def test_best_fit_equals_the_slow_search(lengths: np.ndarray) -> None:  # type: ignore[type-arg]
    offsets, rows = best_fit(lengths, CAPACITY)
    bins = [rows[offsets[b] : offsets[b + 1]] for b in range(len(offsets) - 1)]
    assert sorted(rows.tolist()) == list(range(len(lengths)))
    assert all(len(b) and lengths[b].sum() <= CAPACITY for b in bins)
    assert all((np.diff(lengths[b]) <= 0).all() for b in bins)
    slow = slow_best_fit(lengths.tolist(), CAPACITY)
    # Among bins with equal space either may be chosen, which changes what they hold but never how full they get.
    assert sorted(int(lengths[b].sum()) for b in bins) == sorted(int(lengths[b].sum()) for b in slow)


@pytest.mark.parametrize("bad", [[0], [CAPACITY + 1], [3, -1]])
def test_best_fit_refuses_lengths_it_can_not_place(bad: list[int]) -> None:
    with pytest.raises(ValueError, match="lengths must be from 1 to 64"):
        best_fit(np.array(bad, dtype=np.int64), CAPACITY)


@settings(max_examples=150, deadline=None)
@given(
    lengths=LENGTHS,
    packing=st.sampled_from(["best_fit", "consecutive"]),
    processes=st.integers(1, 5),
    accumulation=st.integers(1, 3),
    size=st.integers(1, 4),
)
def test_every_row_once_an_epoch(
    lengths: np.ndarray,  # type: ignore[type-arg]
    packing: str,
    processes: int,
    accumulation: int,
    size: int,
) -> None:
    wanted = spec(processes, packing=packing, gradient_accumulation_steps=accumulation, micro_batch_size=size)
    shape = Shape.of(wanted)
    schedule = train_schedule(lengths, shape, wanted)
    again = train_schedule(lengths, shape, wanted)
    assert np.array_equal(schedule.rows, again.rows) and np.array_equal(schedule.offsets, again.offsets)
    assert schedule.offsets.dtype == np.int64 and schedule.rows.dtype == np.int32
    found = batches(schedule)
    per_epoch = schedule.steps_per_epoch * processes * accumulation
    assert len(found) == len(schedule.offsets) - 1 == 2 * per_epoch
    assert all(lengths[batch].sum() <= CAPACITY * size for batch in found)
    for epoch in (found[:per_epoch], found[per_epoch:]):
        assert sorted(row for batch in epoch for row in batch) == list(range(len(lengths)))
    step = processes * accumulation
    assert all(any(found[i : i + step]) for i in range(0, len(found), step)), "a step without any row has no loss"

    checked = validation_schedule(lengths, shape, wanted)
    assert (len(checked.offsets) - 1) % processes == 0
    assert sorted(checked.rows.tolist()) == list(range(len(lengths)))
    assert all(lengths[batch].sum() <= CAPACITY * size for batch in batches(checked))


def test_epochs_and_seeds_differ() -> None:
    lengths = np.arange(1, 61, dtype=np.int64)
    for packing in ("best_fit", "consecutive"):
        wanted = spec(packing=packing)
        found = train_schedule(lengths, Shape.of(wanted), wanted)
        half = len(found.rows) // 2
        assert not np.array_equal(found.rows[:half], found.rows[half:])
        other = spec(packing=packing, seed=43)
        assert not np.array_equal(found.rows, train_schedule(lengths, Shape.of(other), other).rows)


def test_bins_of_the_last_step_are_spread_over_ranks() -> None:
    wanted = spec(processes=4, gradient_accumulation_steps=1, micro_batch_size=8, num_epochs=1)
    schedule = train_schedule(np.full(32 + 6, CAPACITY, dtype=np.int64), Shape.of(wanted), wanted)
    assert np.diff(schedule.offsets).tolist() == [8, 8, 8, 8, 2, 2, 1, 1]


def test_no_validation_rows_is_an_empty_pass() -> None:
    found = validation_schedule(np.zeros(0, dtype=np.int64), Shape.of(spec()), spec())
    assert found.offsets.tolist() == [0] and not len(found.rows)


@pytest.mark.parametrize("seed", [43, 2**31 + 5, 2**40 + 7])
def test_permutation_is_torchs(seed: int) -> None:
    torch = pytest.importorskip("torch")
    for count in (0, 1, 2, 7, 1000):
        generator = torch.Generator()
        generator.manual_seed(seed)
        assert permutation(count, seed).tolist() == torch.randperm(count, generator=generator).tolist()


def test_walk_closes_a_batch_when_the_next_row_would_overflow() -> None:
    lengths = np.array([5, 9, 4, 1, 10, 2, 9], dtype=np.int64)
    assert walked([0, 2, 3, 1, 4, 5, 6], lengths, 10) == [[0, 2, 3], [1], [4], [5], [6]]
    assert walked([3, 2, 0], lengths, 10) == [[0, 2, 3]]
    assert stretched([[0, 2, 3], [1]], 3) == [[0], [2, 3], [1]]
    assert stretched([[0]], 3) == [[0], [], []]
    assert stretched([[0], [1], [2]], 2) == [[0], [1]]


def test_the_originals_rule() -> None:
    """S from the formula worked by hand; each epoch drops at least 1 %, and equals the walk of torch's permutation."""
    rows, processes = 4000, 8
    lengths = np.array([1 + (7 * i) % 50 for i in range(rows)], dtype=np.int64)
    wanted = spec(processes, packing="consecutive", epoch_len="rule_0.99", gradient_accumulation_steps=1)
    schedule = train_schedule(lengths, Shape.of(wanted), wanted)
    tokens = int(lengths.sum())
    assert tokens == 102_000 and 0.91 < schedule.packing_efficiency <= 0.92
    expected = 70  # 0.99 * 12,750 / 0.92 = 13,720.1; over 64: 214; over 3: 71; minus 1
    assert schedule.steps_per_epoch == expected
    found = batches(schedule)
    for rank in (0, 5):
        walk = walked(permutation(rows, 43)[rank::processes].tolist(), lengths, 3 * CAPACITY)
        assert found[rank : expected * processes : processes] == walk[:expected]
    seen = schedule.rows[: schedule.offsets[expected * processes]]
    assert len(np.unique(seen)) == len(seen) and lengths[seen].sum() < 0.99 * tokens


@pytest.mark.parametrize(("fill", "steps"), [(1.0, 1614), (0.97, 1664), (0.963, 1664)])
def test_the_originals_rule_at_the_size_of_the_release(fill: float, steps: int) -> None:
    """99 % of 432 M tokens on 8 processes: four epochs are 6,456 steps at fill 1.00 and 6,656 at 0.97."""
    assert _rule_steps(427_680_000, fill, Shape(4096, 8, 1, 8), available=10_000) == steps


@pytest.mark.parametrize("packing", ["best_fit", "consecutive"])
def test_a_rule_that_leaves_no_step_is_an_error(packing: str) -> None:
    wanted = spec(packing=packing, epoch_len="rule_0.99")
    with pytest.raises(StageError, match=r"rule_0\.99 leaves no step"):
        train_schedule(np.full(10, 40, dtype=np.int64), Shape.of(wanted), wanted)
