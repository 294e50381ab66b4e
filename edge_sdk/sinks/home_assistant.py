"""Entities of a stethoscope for Home Assistant's MQTT discovery.

https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

from edge_sdk._version import __version__
from edge_sdk.events import QualityState, VerdictName
from edge_sdk.notices import RESEARCH_USE

_PACKAGE = "stethoscope-edge-sdk"


@dataclass(frozen=True, slots=True)
class Device:
    """A stethoscope as Home Assistant shows it."""

    node: str  # letters, digits, _ and -: part of topics and ids
    name: str
    model: str  # bundle and its version
    state_topic: str
    availability_topic: str


def discovery_messages(prefix: str, device: Device) -> Iterator[tuple[str, dict[str, Any]]]:
    """Topic and content of the configuration of every entity; each to be published retained."""
    for component, key, entity in _entities():
        config = {
            **entity,
            "unique_id": f"{device.node}_{key}",
            "object_id": f"{device.node}_{key}",
            "state_topic": device.state_topic,
            "json_attributes_topic": device.state_topic,
            "availability_topic": device.availability_topic,
            "device": {
                "identifiers": [device.node],
                "name": device.name,
                "manufacturer": _PACKAGE,
                "model": device.model,
                "sw_version": __version__,
            },
            "origin": {"name": _PACKAGE, "sw_version": __version__},
        }
        if component == "binary_sensor":  # its attributes would repeat those of the others
            del config["json_attributes_topic"]
        yield f"{prefix}/{component}/{device.node}/{key}/config", config


def _entities() -> Iterator[tuple[str, str, dict[str, Any]]]:
    # A template that gives None is shown as "unknown": a rate that is not to be relied on is none.
    yield (
        "sensor",
        "respiratory_rate",
        {
            "name": "Respiratory rate",
            "icon": "mdi:lungs",
            "unit_of_measurement": "/min",
            "state_class": "measurement",
            "suggested_display_precision": 1,
            "value_template": (
                "{{ value_json.respiratory_rate_bpm if value_json.respiratory_rate_confident else None }}"
            ),
        },
    )
    yield (
        "sensor",
        "verdict",
        {
            "name": f"Verdict ({RESEARCH_USE.partition(';')[0].lower()})",
            "icon": "mdi:stethoscope",
            "device_class": "enum",
            "options": list(get_args(VerdictName)),
            "value_template": "{{ value_json.verdict }}",
        },
    )
    yield (
        "sensor",
        "quality",
        {
            "name": "Audio quality",
            "icon": "mdi:waveform",
            "device_class": "enum",
            "options": list(get_args(QualityState)),
            "value_template": "{{ value_json.quality }}",
        },
    )
    yield (
        "binary_sensor",
        "connection",
        {
            "name": "Stethoscope",
            "device_class": "connectivity",
            "entity_category": "diagnostic",
            "value_template": "{{ 'ON' if value_json.connection == 'healthy' else 'OFF' }}",
        },
    )
    yield (
        "sensor",
        "lost_samples",
        {
            "name": "Lost samples",
            "icon": "mdi:waveform",
            "state_class": "total_increasing",
            "entity_category": "diagnostic",
            "value_template": "{{ value_json.lost_samples }}",
        },
    )
