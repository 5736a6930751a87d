"""The compiled loss of the scorer is the one that tensors give, with the same gradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from agents.learn import actor_loss
from agents.learn.actor_loss import ActorLoss, SampleArrays
from agents.learn.policy import CandidateScorer
from controller.features.schema import FEATURE_SCHEMA

ENTROPY, CANDIDATES = 0.02, 7


def some_samples(count: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    context = torch.randn(count, len(FEATURE_SCHEMA.context))
    return context, torch.randn(count, CANDIDATES, len(FEATURE_SCHEMA.candidate)), torch.rand(count, CANDIDATES)


def some_scorer(context: Tensor, candidates: Tensor, hidden: int, deeper: int) -> CandidateScorer:
    scorer = CandidateScorer(hidden, deeper, greedy_weight=1.0)
    scorer.standardise(context, candidates)
    with torch.no_grad():
        scorer.out.normal_(std=0.1)
    return scorer


def loss_of(scorer: CandidateScorer, context: Tensor, candidates: Tensor, values: Tensor) -> Tensor:
    log_share = torch.log_softmax(scorer(context, candidates), dim=1)
    regret = values.amax(dim=1, keepdim=True) - values
    loss: Tensor = (log_share.exp() * (regret + ENTROPY * log_share)).sum(dim=1).mean()
    return loss


def gradients(scorer: CandidateScorer, loss: Tensor) -> list[np.ndarray]:
    return [gradient.numpy() for gradient in torch.autograd.grad(loss, list(scorer.parameters()))]


def compiled_loss(samples: tuple[Tensor, Tensor, Tensor], scorer: CandidateScorer, rows: Tensor) -> Tensor:
    return ActorLoss(SampleArrays(*(column.numpy() for column in samples)), ENTROPY).of(scorer, rows.numpy())


@pytest.mark.parametrize(("hidden", "deeper"), [(24, 16), (5, 3)])
def test_loss_and_gradient_are_those_of_tensors(hidden: int, deeper: int) -> None:
    samples, rows = some_samples(500), torch.randperm(500)[:301]
    scorer = some_scorer(*samples[:2], hidden, deeper)
    expected = loss_of(scorer, *(column[rows] for column in samples))
    got = compiled_loss(samples, scorer, rows)
    assert got.item() == pytest.approx(expected.item(), rel=1e-5)
    for one, other in zip(gradients(scorer, got), gradients(scorer, expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-6)


def test_threads_and_the_plain_source_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    samples, rows = some_samples(300), torch.arange(261)
    scorer = some_scorer(*samples[:2], 5, 3)

    def found(threads: int, some: Tensor) -> list[np.ndarray]:
        monkeypatch.setenv("OMP_NUM_THREADS", str(threads))
        return gradients(scorer, compiled_loss(samples, scorer, some))

    for one, other in zip(found(1, rows), found(3, rows), strict=True):
        np.testing.assert_array_equal(one, other)
    few = rows[:40]
    quick = found(1, few)
    monkeypatch.setattr(actor_loss, "add_gradients", actor_loss.add_gradients.plain)
    for one, other in zip(quick, found(1, few), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-6)
