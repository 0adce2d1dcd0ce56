"""What Kafka's retention deletes before a worker has read it: told, counted, and a row, so that the account closes."""

from __future__ import annotations

import urllib.request

from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from deploy.local.apache_kafka import ApacheKafka
from deploy.local.servers import free_port
from tests.faults.line import Line, MakeLine, Message, good_png, wait_until
from tests.faults.operated import sayings


def delete_before(line: Line, topic: str, partition: int, offset: int) -> None:
    admin = AdminClient({"bootstrap.servers": line.kafka.bootstrap_servers})
    for future in admin.delete_records([TopicPartition(topic, partition, offset)]).values():
        future.result(20)


def test_acknowledged_is_inspected_or_gone_and_told(
    make_line: MakeLine, postgres_url: str, apache_kafka: ApacheKafka
) -> None:
    del apache_kafka  # skipped where there is none; the embedded broker keeps everything
    port = free_port()
    line = make_line(postgres_url, metrics={"port": port})
    frames = [Message.of(good_png(number)) for number in range(30)]
    line.send(frames[:10])
    with line.program("first", "run") as first:
        wait_until(lambda: line.settled() == 10, programs=[first])
    ((partition, committed),) = line.query('SELECT "partition", max("offset") + 1 FROM inspections GROUP BY 1')
    assert committed == 10
    line.send(frames[10:])
    delete_before(line, line.kafka.frames_topic, partition, 22)
    with line.program("second", "run") as second:
        wait_until(lambda: line.settled() == 18, programs=[second])
        wait_until(lambda: line.count("log_gaps") == 1, programs=[second])
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as page:
            lost = [each for each in page.read().decode().splitlines() if each.startswith("paedid_lost_frames_total{")]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5) as page:
            assert page.status == 200
    assert [each.split()[-1] for each in lost] == ["12.0"]
    (told,) = sayings(second, "Messages were deleted by the topic's retention")
    assert (told["partition"], told["first_offset"], told["last_offset"], told["messages"]) == (partition, 10, 21, 12)
    (gap,) = line.query("SELECT * FROM log_gaps")
    assert (gap.topic, gap.partition, gap.first_offset, gap.messages) == (line.kafka.frames_topic, partition, 10, 12)
    stored = {row.frame_id for row in line.query("SELECT frame_id FROM inspections")}
    assert stored == {frame.frame_id for number, frame in enumerate(frames) if not 10 <= number < 22}
    assert line.committed() == 30
