"""Which failure is tried again, and where."""

from __future__ import annotations

import pytest

from cluster.policy import Policy, is_spent, is_suspect, may_run_on


@pytest.mark.parametrize(
    ("attempts", "tried", "num_actors", "spent"),
    [
        (2, {0, 1}, 2, False),
        (3, {0, 1}, 2, True),
        (3, {0}, 2, False),  # another actor exists and has not been asked
        (3, {0}, 1, True),  # there is no other
        (4, {0, 1}, 2, True),
    ],
)
def test_a_task_is_given_up_after_its_attempts_on_enough_actors(
    attempts: int, tried: set[int], num_actors: int, spent: bool
) -> None:
    assert is_spent(Policy(max_attempts=3, min_actors=2), attempts, tried, num_actors) is spent


def test_one_attempt_cannot_demand_two_actors() -> None:
    assert is_spent(Policy(max_attempts=1, min_actors=2), 1, {0}, 2)


def test_a_second_attempt_goes_to_another_actor_and_a_third_anywhere() -> None:
    policy = Policy()
    assert not may_run_on(policy, 0, {0}, 2)
    assert may_run_on(policy, 1, {0}, 2)
    assert may_run_on(policy, 0, {0, 1}, 2)
    assert may_run_on(policy, 0, {0}, 1)


def test_one_bad_task_leaves_its_actor_in_peace_and_two_do_not() -> None:
    assert not is_suspect(set())
    assert not is_suspect({"a"})
    assert is_suspect({"a", "b"})


@pytest.mark.parametrize("field", [{"max_attempts": 0}, {"min_actors": 0}, {"max_in_flight": 0}])
def test_a_policy_that_could_run_nothing_is_refused(field: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be ≥ 1"):
        Policy(**field)
