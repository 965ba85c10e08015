"""Notifying: a program of the user's is told over HTTP when a run has failed, crashed or timed out."""

from __future__ import annotations

import asyncio
from datetime import timedelta

BLOCK = "galstore-failures"
AUTOMATION = "galstore: tell of failures"
PAYLOAD = """{
  "flow": {{ flow.name | tojson }},
  "run": {{ flow_run.name | tojson }},
  "state": {{ flow_run.state.name | tojson }},
  "message": {{ (flow_run.state.message or "") | tojson }},
  "url": {{ flow_run | ui_url | tojson }},
  "text": {{ (flow.name ~ " ended as " ~ flow_run.state.name ~ ": " ~ (flow_run.state.message or "")) | tojson }}
}"""
"""JSON; Slack, Mattermost and others show what stands in `text`."""


def notify_by_webhook(address: str) -> None:
    """Have failures posted to an address from now on, instead of the one before."""
    asyncio.run(_notify(address))


async def _notify(address: str) -> None:
    from prefect.automations import Automation, EventTrigger, Posture, ResourceSpecification
    from prefect.blocks.webhook import Webhook
    from prefect.events.actions import CallWebhook
    from pydantic import SecretStr

    block_id = await Webhook(url=SecretStr(address)).save(BLOCK, overwrite=True)
    wanted = Automation(
        name=AUTOMATION,
        description="Posts to the webhook block galstore-failures; `galstore notify URL` sets the address.",
        trigger=EventTrigger(
            expect={"prefect.flow-run.Failed", "prefect.flow-run.TimedOut", "prefect.flow-run.Crashed"},
            match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
            for_each={"prefect.resource.id"},
            posture=Posture.Reactive,
            threshold=1,
            within=timedelta(0),
        ),
        actions=[CallWebhook(block_document_id=block_id, payload=PAYLOAD)],
    )
    try:
        known = await Automation.aread(name=AUTOMATION)
    except ValueError:
        await wanted.acreate()
        return
    wanted.id = known.id
    await wanted.aupdate()
