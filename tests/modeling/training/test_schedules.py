import pytest
import torch

from modeling.models.networks import build_network
from modeling.training.schedules import freeze_body, plan_optimisation
from schemas.recipes import NetworkSection, TrainSection

PAPER = TrainSection(method="wu_boada_2019", learning_rate=0.1, epochs=10, device="cpu")


@pytest.fixture
def network():
    return build_network(NetworkSection(arch="resnet10w32", level=16))


def rates_of(network, train, steps_per_epoch):
    optimizer, schedule = plan_optimisation(network, train, steps_per_epoch=steps_per_epoch, pretrained=False)
    rates = []
    for _ in range(train.epochs * steps_per_epoch):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    return torch.tensor(rates)


def test_the_paper_s_schedule_restarts_after_one_one_two_and_four_epochs(network):
    rates = rates_of(network, PAPER, 10)
    assert torch.allclose(rates[:20, 2], torch.tensor(0.1))
    # at the start of each cycle the rates of the three groups are those of the paper
    starts = [20, 30, 40, 60]
    assert torch.allclose(rates[starts], torch.tensor([[0.001, 0.01, 0.1]]).expand(4, 3))
    restarts = (torch.diff(rates[:, 2]) > 0).nonzero()[:, 0] + 1
    assert restarts.tolist() == [30, 40, 60]
    # half-way through the last cycle of four epochs, a cosine is at one half
    assert rates[80, 2].item() == pytest.approx(0.05)


def test_the_body_is_frozen_for_two_epochs(network):
    for epoch, is_free in ((1, False), (2, False), (3, True)):
        freeze_body(network, PAPER, epoch=epoch)
        assert all(weight.requires_grad is is_free for weight in network.body.parameters())
        assert all(weight.requires_grad for weight in network.head.parameters())
    freeze_body(network, TrainSection(), epoch=1)
    assert all(weight.requires_grad for weight in network.body.parameters())


def test_the_groups_are_two_halves_of_the_body_and_the_head(network):
    optimizer, _ = plan_optimisation(network, PAPER, steps_per_epoch=3, pretrained=True)
    groups = [{id(weight) for weight in group["params"]} for group in optimizer.param_groups]
    names = [{name for name, weight in network.named_parameters() if id(weight) in group} for group in groups]
    assert {name.split(".")[1] for name in names[0]} == {"conv1", "bn1", "layer1", "layer2"}
    assert {name.split(".")[1] for name in names[1]} == {"layer3", "layer4"}
    assert {name.split(".")[0] for name in names[2]} == {"head"}
    assert sum(map(len, groups)) == sum(1 for _ in network.parameters())


def test_one_cycle_rises_and_falls_and_a_pretrained_body_has_a_smaller_rate(network):
    train = TrainSection(learning_rate=0.01, epochs=10)
    optimizer, schedule = plan_optimisation(network, train, steps_per_epoch=10, pretrained=True)
    rates = []
    for _ in range(99):
        optimizer.step()
        schedule.step()
        rates.append(schedule.get_last_lr())
    body, head = torch.tensor(rates).T
    assert head.max().item() == pytest.approx(0.01)
    assert body.max().item() == pytest.approx(0.001)
    assert head.argmax().item() == pytest.approx(29, abs=2)
