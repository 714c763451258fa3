import operator
import os

import pytest

from lichen.config.errors import LichenError
from lichen.dataset.workers import map_in_order


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order_and_errors_come_through(workers):
    assert list(map_in_order(pow, ((number, 2) for number in range(20)), workers)) == [
        number**2 for number in range(20)
    ]
    with pytest.raises(ZeroDivisionError):
        list(map_in_order(operator.truediv, [(1, 1), (1, 0)], workers))


def test_a_worker_that_dies_is_an_error_not_a_hang():
    with pytest.raises(LichenError, match="worker process died"):
        list(map_in_order(os._exit, [(3,)], 2))


def test_few_jobs_are_taken_ahead():
    taken: list[int] = []

    def jobs():
        for number in range(100):
            taken.append(number)
            yield (number, 1)

    results = map_in_order(operator.add, jobs(), 2)
    assert next(results) == 1 and len(taken) <= 5
    assert list(results) == list(range(2, 101))
