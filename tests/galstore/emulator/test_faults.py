import pytest

from galstore.emulator.faults import Fault, FaultPlan
from schemas.errors import ContractError
from schemas.recipes import FaultSection

IDS = range(1237648702973411443, 1237648702973411443 + 4_000)


def test_every_kind_hits_its_share_of_objects() -> None:
    section = FaultSection(
        too_many_requests=0.1, server_error=0.05, outage_page=0.05, truncated=0.1, out_of_footprint=0.2
    )
    plan = FaultPlan(seed=3, section=section)
    first = [plan.object_fault(object_id).at(1) for object_id in IDS]
    for fault in Fault:
        share = getattr(section, fault)
        # four standard errors of a share of 4,000
        assert first.count(fault) / len(IDS) == pytest.approx(share, abs=4 * (share / len(IDS)) ** 0.5)


def test_passing_faults_pass_by_the_third_attempt() -> None:
    plan = FaultPlan(seed=3, section=FaultSection(server_error=1.0))
    second = [plan.object_fault(object_id).at(2) for object_id in IDS]
    assert 0.2 < second.count(Fault.SERVER_ERROR) / len(IDS) < 0.3
    assert all(plan.object_fault(object_id).at(3) is None for object_id in IDS)


def test_a_place_outside_the_footprint_stays_outside() -> None:
    plan = FaultPlan(seed=3, section=FaultSection(out_of_footprint=0.5))
    outside = [object_id for object_id in IDS if plan.object_fault(object_id).at(1)]
    assert 0 < len(outside) < len(IDS)
    assert all(plan.object_fault(object_id).at(9) is Fault.OUT_OF_FOOTPRINT for object_id in outside)


def test_the_plan_depends_on_the_seed_alone() -> None:
    section = FaultSection(truncated=0.5)
    plans = [FaultPlan(seed=seed, section=section) for seed in (1, 1, 2)]
    first, repeated, other = ([plan.object_fault(object_id).at(1) for object_id in IDS] for plan in plans)
    assert first == repeated
    assert first != other


def test_shares_beyond_one_are_refused() -> None:
    with pytest.raises(ContractError, match=r"\b1\.2\b"):
        FaultPlan(seed=0, section=FaultSection(truncated=0.6, server_error=0.6))
