import numpy as np
import torch
from scipy import stats

from modeling.models.networks import LOG_VARIANCE_RANGE
from modeling.training.losses import gaussian_loss, rmse_loss

UNKNOWN = torch.nan


def test_the_loss_is_the_root_of_the_mean_square():
    loss = rmse_loss(torch.tensor([[0.0], [0.0]]), torch.tensor([[1.0], [7.0]]))
    torch.testing.assert_close(loss, torch.tensor(5.0))


def test_the_gradient_is_finite_where_the_error_is_zero():
    predicted = torch.zeros(4, 1, requires_grad=True)
    torch.autograd.backward(rmse_loss(predicted, torch.zeros(4, 1)))
    assert torch.equal(predicted.grad, torch.zeros(4, 1))


def test_a_missing_label_is_ignored():
    predicted = torch.tensor([[0.0, 3.0], [5.0, 0.0]], requires_grad=True)
    loss = rmse_loss(predicted, torch.tensor([[3.0, UNKNOWN], [UNKNOWN, 4.0]]))
    torch.testing.assert_close(loss, torch.tensor(12.5).sqrt())
    torch.autograd.backward(loss)
    assert torch.equal(predicted.grad == 0, torch.tensor([[False, True], [True, False]]))


def test_a_batch_without_labels_has_zero_gradient():
    for loss, width in ((rmse_loss, 1), (gaussian_loss, 2)):
        predicted = torch.ones(3, width, requires_grad=True)
        torch.autograd.backward(loss(predicted, torch.full((3, 1), UNKNOWN)))
        assert torch.equal(predicted.grad, torch.zeros(3, width))


def test_the_gaussian_loss_is_scipy_s_log_likelihood():
    rng = np.random.default_rng(0)
    mean, log_variance, true = rng.normal(size=(3, 20, 2))
    loss = gaussian_loss(torch.from_numpy(np.hstack([mean, log_variance])), torch.from_numpy(true))
    expected = -stats.norm(mean, np.exp(log_variance / 2)).logpdf(true).mean()
    np.testing.assert_allclose(loss.item(), expected, rtol=1e-12)


def test_a_variance_out_of_range_is_clamped():
    low = torch.tensor([[0.0, -50.0]])
    at_end = torch.tensor([[0.0, LOG_VARIANCE_RANGE[0]]])
    assert gaussian_loss(low, torch.zeros(1, 1)) == gaussian_loss(at_end, torch.zeros(1, 1))
