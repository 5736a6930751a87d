"""Publish every outcome of a device to an MQTT broker, on the topic mecpilot/STATUS.
Run: mecpilot device --workload campus --outcomes - --quiet | python examples/mqtt_bridge.py BROKER (needs paho-mqtt)"""

import json
import sys
from collections.abc import Iterable
from typing import Any


def bridge(lines: Iterable[str], client: Any, topic: str = "mecpilot") -> int:
    """Publish JSON lines through a paho client; returns their number."""
    published = 0
    for line in lines:
        client.publish(f"{topic}/{json.loads(line)['status']}", line.strip())
        published += 1
    return published


if __name__ == "__main__":
    try:
        from paho.mqtt import client as mqtt
    except ModuleNotFoundError:
        sys.exit("paho-mqtt is not installed: pip install paho-mqtt")
    if len(sys.argv) != 2:
        sys.exit(f"got {len(sys.argv) - 1} arguments; expected one, the name of the broker")

    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    client.connect(sys.argv[1])
    client.loop_start()
    print(f"{bridge(sys.stdin, client)} outcomes published", file=sys.stderr)
    client.loop_stop()
