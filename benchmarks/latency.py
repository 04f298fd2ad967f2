"""From the grab of a frame to the arrival of its PASS at an MQTT subscriber: a real daemon, a real Mosquitto.

usage: python benchmarks/latency.py [--visits N] [--json]

    --visits  how many PASS events are awaited (default 60)

The clip is 640x480 at 15 fps, played in real time: the demo's enrolled person for 0.6 s, nobody for 0.6 s, and so on.
One frame decides (`[decision] frames = 1`), and every frame is judged (`[camera] fps = 0`). An event's `timestamp` is
the wall clock at the grab of the frame that decided; the subscriber runs on the same machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import aiomqtt
import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from edge_face.demo import EMPTY_AT_START_S, HEIGHT, NAME, WALK_S, WIDTH, DemoScene, enrolment_photo
from tests.support.broker import Broker
from tests.support.daemon import Daemon, edge_face, write_config

FPS = 15
FRAMES = 9
"""Frames of a visit, and of the pause after it."""
VISITS = 10
"""In one round of the clip."""


@dataclass(frozen=True, slots=True)
class Row:
    events: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    most_ms: float
    decided_p50_ms: float
    """From the grab to the decision, as the event itself says."""
    wrong: int
    """PASS events that name somebody else."""


def write_clip(path: Path) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), FPS, (WIDTH, HEIGHT))
    scene = DemoScene(FPS)
    first = round((EMPTY_AT_START_S + WALK_S) * FPS)  # she stands there
    for visit in range(VISITS):
        for number in range(FRAMES):
            writer.write(scene.frame(number))
        for number in range(FRAMES):
            writer.write(scene.frame(first + visit * FRAMES + number))
    writer.release()
    return path


async def passes(broker: Broker, daemon: Daemon, count: int) -> list[tuple[float, float, str]]:
    """Milliseconds from grab to arrival, those to the decision, and the name, of `count` PASS events."""
    found: list[tuple[float, float, str]] = []
    async with aiomqtt.Client("127.0.0.1", broker.port, protocol=aiomqtt.ProtocolVersion.V5) as client:
        await client.subscribe("#", qos=1)
        with daemon:
            async for message in client.messages:
                arrived = time.time()
                if not str(message.topic).endswith("/event"):
                    continue
                event = json.loads(bytes(message.payload))
                if event["status"] == "PASS":
                    found.append(((arrived - event["timestamp"]) * 1000, event["latency_ms"], event["name"]))
                    if len(found) == count:
                        break
    return found


def run(folder: Path, visits: int) -> Row:
    broker = Broker(folder)
    config = write_config(
        folder,
        {
            "camera": {"source": write_clip(folder / "visits.avi"), "fps": 0, "loop": "true"},
            "decision": {"frames": 1, "cooldown": 0, "presence_timeout": 0.3},
            "mqtt": {"host": "127.0.0.1", "port": broker.port},
        },
    )
    (folder / "photo.jpg").write_bytes(enrolment_photo())
    done = edge_face("enroll", NAME, folder / "photo.jpg", config=config)
    assert done.returncode == 0, done.stderr
    daemon = Daemon(config)
    broker.start()
    try:
        # A visit takes 1.2 s, some may be missed on a busy machine, and the models have to be loaded.
        found = asyncio.run(asyncio.wait_for(passes(broker, daemon, visits), 60 + 3 * visits))
    except TimeoutError:
        raise AssertionError(f"too few events:\n{daemon.log}") from None
    finally:
        broker.stop()
    took = [ms for ms, _, _ in found]
    p50, p95, p99 = (float(value) for value in np.percentile(took, (50, 95, 99)))
    decided = float(np.median([ms for _, ms, _ in found]))
    return Row(len(found), p50, p95, p99, max(took), decided, sum(name != NAME for _, _, name in found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--visits", type=int, default=60)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        row = run(Path(folder), args.visits)
    if args.json:
        print(json.dumps({"name": "latency", "rows": [asdict(row)]}))
        return
    print("grab to arrival in ms, 640x480 at 15 fps, frames = 1\n")
    print(f"{'events':>7}{'p50':>8}{'p95':>8}{'p99':>8}{'most':>8}{'decided p50':>13}{'wrong':>7}")
    print(
        f"{row.events:>7}{row.p50_ms:>8.1f}{row.p95_ms:>8.1f}{row.p99_ms:>8.1f}{row.most_ms:>8.1f}"
        f"{row.decided_p50_ms:>13.1f}{row.wrong:>7}"
    )


if __name__ == "__main__":
    main()
