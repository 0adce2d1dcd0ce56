"""A member of a consumer group by itself, as a process of its own that may be killed: prints what it reads.

``python -m tests.faults.group_member BOOTSTRAP GROUP TOPIC POLL_MS [INSTANCE_ID]``; each line is a message's value. It
ends at SIGTERM as a worker does.
"""

from __future__ import annotations

import signal
import sys
import threading
from contextlib import closing

from monitor.adapters.kafka import KafkaSource
from monitor.ports import RawRecord
from monitor.settings import KafkaSettings


def main(bootstrap: str, group: str, topic: str, poll_ms: str, instance_id: str | None = None) -> None:
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    settings = KafkaSettings(
        bootstrap_servers=bootstrap, group=group, frames_topic=topic, group_instance_id=instance_id
    )
    with closing(KafkaSource(settings)) as source:
        while not stop.is_set():
            records = [item for item in source.poll(int(poll_ms) / 1000, 100) if isinstance(item, RawRecord)]
            for record in records:
                print((record.value or b"").decode(), flush=True)  # noqa: T201 - what it is for
            source.commit([record.position for record in records])


if __name__ == "__main__":
    main(*sys.argv[1:])
