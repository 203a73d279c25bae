"""The penalty on a product of two thin matrices: gradients are autograd's, and factors keep sums."""

import pytest
import torch

from rwalk.core.low_rank import factor, penalty, penalty_gradients

SHAPES = [((), 5, 7, 2), ((3,), 6, 4, 3), ((2, 2), 3, 3, 1), ((), 4, 9, 0)]


def problem(batch, rows, columns, rank, dtype=torch.float64):
    random = torch.Generator().manual_seed(rows * columns + rank)
    left = torch.randn(*batch, rows, rank, generator=random, dtype=dtype)
    right = torch.randn(*batch, rank, columns, generator=random, dtype=dtype)
    return left, right, torch.rand(*batch, rows, columns, generator=random, dtype=dtype)


def naive(left, right, importance):
    """Element by element."""
    return (importance * torch.einsum("...ik,...kj->...ij", left, right) ** 2).sum()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("form", ["whole", "factored"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_gradients_are_those_of_autograd(shape, form, dtype, tolerance):
    left, right, importance = problem(*shape, dtype)
    given = factor(importance) if form == "factored" else importance
    whole = given[0].unsqueeze(-1) * given[1].unsqueeze(-2) if form == "factored" else importance
    exact = [tensor.double().requires_grad_() for tensor in (left, right)]
    expected = naive(*exact, whole.double())
    torch.testing.assert_close(penalty(left, right, given).sum().double(), expected.detach(), rtol=tolerance, atol=0.0)
    for found, right_one in zip(
        penalty_gradients(left, right, given), torch.autograd.grad(expected, exact), strict=True
    ):
        torch.testing.assert_close(found.double(), right_one, rtol=tolerance, atol=tolerance)


def test_factoring_keeps_the_sums_of_rows_and_columns():
    importance = problem((2,), 5, 7, 1)[2]
    row, column = factor(importance)
    product = row.unsqueeze(-1) * column.unsqueeze(-2)
    for dim in (-1, -2):
        torch.testing.assert_close(product.sum(dim), importance.sum(dim))


def test_what_is_a_product_is_factored_exactly_and_zero_stays_zero():
    product = torch.rand(4, 1, dtype=torch.float64) * torch.rand(1, 6, dtype=torch.float64)
    row, column = factor(product)
    torch.testing.assert_close(row.unsqueeze(1) * column, product)
    assert [part.tolist() for part in factor(torch.zeros(2, 3))] == [[0.0] * 2, [0.0] * 3]
