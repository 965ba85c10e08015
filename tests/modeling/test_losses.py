import torch

from modeling.losses import rmse_loss


def test_the_loss_is_the_root_of_the_mean_square():
    loss = rmse_loss(torch.tensor([[0.0], [0.0]]), torch.tensor([[1.0], [7.0]]))
    torch.testing.assert_close(loss, torch.tensor(5.0))


def test_the_gradient_is_finite_where_the_error_is_zero():
    predicted = torch.zeros(4, 1, requires_grad=True)
    torch.autograd.backward(rmse_loss(predicted, torch.zeros(4, 1)))
    assert torch.equal(predicted.grad, torch.zeros(4, 1))
