"""A plant's secured Kafka: TLS, users and rights, each right and wrong, as the programs meet them."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import structlog
import yaml

from deploy.local.apache_kafka import ApacheKafka
from deploy.local.servers import TansuBroker, free_port
from monitor.adapters.kafka import (
    DeadLetterTopic,
    FrameSender,
    KafkaPublisher,
    KafkaSource,
    KeptLetter,
    connection,
    ensure_topics,
    prepare_topics,
)
from monitor.adapters.kafka.connection import ask_whether_refused, reaching_broker, require_reachable
from monitor.adapters.kafka.library_security import Broker
from monitor.adapters.kafka.rights import grant_command, needed_rights
from monitor.camera import run_camera
from monitor.ports import DeadLetter, LogPosition, OutboxMessage, RawRecord
from monitor.settings import KafkaSettings, LimitSettings
from schemas.errors import OperatorError, Reason, ServiceRefusedError
from schemas.messages import FrameEvent, new_frame_id, utc_now
from tests.faults.operated import Commanded
from tests.faults.prefork import Prefork
from tests.integration.secured_kafka import (
    PASSWORDS,
    SECRET,
    Certificates,
    Secured,
    tls_listener,
    token_endpoint,
)

LIMITS = LimitSettings(max_frame_bytes=500_000)

Topics = Callable[[str], str]


def settings_of(options: Mapping[str, Any], topics: Topics) -> KafkaSettings:
    own = {f"{name}_topic": topics(name) for name in ("frames", "dead", "inspections")}
    return KafkaSettings(**{"group": topics("group"), **own, **options})


def make_topics(secured: Secured, topics: Topics) -> KafkaSettings:
    """Make the topics as the administrator; return what they are called."""
    settings = settings_of({"bootstrap_servers": secured.kafka.admin_address}, topics)
    ensure_topics(settings, LIMITS)
    return settings


def grant(secured: Secured, settings: KafkaSettings, principal: str, *programs: str) -> None:
    for right in itertools.chain.from_iterable(needed_rights(settings)[program] for program in programs):
        secured.administrator.run(grant_command(settings, principal, [right]))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(3):
        cv2.imwrite(str(folder / f"{number}.png"), np.full((20, 30), number, np.uint8))
    return folder


def frame() -> FrameEvent:
    return FrameEvent(frame_id=new_frame_id(), camera="cam", captured_at=utc_now())


def wait_until(condition: Callable[[], object], timeout: float = 30) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "nothing happened in time"
        time.sleep(0.05)


def send_frames(settings: KafkaSettings, count: int = 3) -> None:
    with closing(FrameSender(settings, 10**7)) as sender:
        for _ in range(count):
            assert sender.offer(frame(), b"image")
        wait_until(lambda: sender.collect() or not sender.waiting)
        assert sender.acknowledged == count


def read_frames(settings: KafkaSettings, count: int = 3) -> list[RawRecord]:
    with closing(KafkaSource(settings)) as source:
        records: list[RawRecord] = []
        wait_until(lambda: records.extend(source.poll(0.2, 10)) or len(records) >= count)
        source.commit([record.position for record in records])
    return records


def bury_and_dig_up(settings: KafkaSettings, record: RawRecord, *, replay: bool = True) -> None:
    with closing(KafkaPublisher(settings)) as publisher:
        (place,) = publisher.dead_letters([DeadLetter(record, Reason.NOT_AN_IMAGE, "no image")])
        publisher.events([OutboxMessage(1, settings.inspections_topic, "cam", (), b"{}")])
    assert place is not None
    with closing(DeadLetterTopic(settings)) as topic:
        origin = record.position
        name = f"{origin.topic_id}/{origin.partition}/{origin.offset}"
        letter = topic.fetch({name: place})[name]
        assert letter.value == record.value
        if replay:
            assert topic.replay([letter]) == [True]


def test_all_that_programs_do_works_over_tls_for_a_user_with_a_password(secured: Secured, topics: Topics) -> None:
    make_topics(secured, topics)
    settings = settings_of(secured.sasl("everyone"), topics)
    grant(secured, settings, "User:everyone", *needed_rights(settings))
    send_frames(settings)
    records = read_frames(settings)
    assert [record.value for record in records] == [b"image"] * 3
    bury_and_dig_up(settings, records[0])
    assert ask_whether_refused(settings) is None


def test_all_that_programs_do_works_with_a_client_certificate(
    mutual: ApacheKafka, certificates: Certificates, topics: Topics
) -> None:
    locked = {"ssl_key_file": certificates.locked_key(SECRET), "ssl_key_password": SECRET}
    tls = {"security_protocol": "SSL", "ssl_ca_file": certificates.ca, **certificates.client, **locked}
    settings = settings_of({"bootstrap_servers": mutual.address, **tls}, topics)
    ensure_topics(settings, LIMITS)
    send_frames(settings)
    bury_and_dig_up(settings, read_frames(settings)[0])


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256"])
def test_frames_are_sent_with_each_kind_of_password(mechanism: str, secured: Secured, topics: Topics) -> None:
    make_topics(secured, topics)
    settings = settings_of(secured.sasl("camera", mechanism), topics)
    grant(secured, settings, "User:camera", "camera")
    send_frames(settings)


def test_frames_are_sent_with_a_token_of_a_file_that_is_read_anew(
    secured: Secured, topics: Topics, tmp_path: Path
) -> None:
    make_topics(secured, topics)
    file = tmp_path / "token"
    file.write_text(secured.tokens.token("robot", life_s=-60))
    settings = settings_of(secured.oauth(oauth_token_file=file), topics)
    grant(secured, settings, "User:robot", "camera")
    with pytest.raises(ServiceRefusedError, match="refuses the token"):
        send_frames(settings)
    file.write_text(secured.tokens.token("robot") + "\n")
    send_frames(settings)


def test_frames_are_sent_for_longer_than_a_token_of_a_service_lives(secured: Secured, topics: Topics) -> None:
    make_topics(secured, topics)
    life_s = 3
    with token_endpoint(secured.certificates.server) as service:
        service.answer = lambda: (200, {"access_token": secured.tokens.token("robot", life_s), "expires_in": life_s})
        credentials = {"oauth_client_id": "line 1", "oauth_client_secret": SECRET, "oauth_scope": "kafka"}
        where = {"oauth_token_url": service.url, "oauth_ca_file": secured.certificates.ca}
        settings = settings_of(secured.oauth(**credentials, **where), topics)
        grant(secured, settings, "User:robot", "camera")
        with closing(FrameSender(settings, 10**7)) as sender:
            until = time.monotonic() + 2 * life_s
            while time.monotonic() < until:
                assert sender.offer(frame(), b"image")
                time.sleep(0.2)
            wait_until(lambda: sender.collect() or not sender.waiting)
            assert sender.acknowledged == sender.taken
    assert len(service.asked) >= 3
    headers, fields = service.asked[0]
    assert headers["Authorization"] == "Basic bGluZSUyMDE6aHVudGVyMg=="
    assert fields == {"grant_type": ["client_credentials"], "scope": ["kafka"]}


@dataclass(frozen=True)
class Wrong:
    """What is wrong with a user's settings, and what the one line says. ``where``: secured, plain, mutual, a server."""

    says: tuple[str, ...]
    changes: dict[str, Any]
    where: str = "secured"


NO_SASL = {"sasl_mechanism": None, "sasl_username": None, "sasl_password": None}
NO_TLS = {"ssl_ca_file": None}
WRONG = {
    "another password": Wrong(
        ("refuses user 'camera': wrong password", "kafka.sasl_password"), {"sasl_password": "wrong"}
    ),
    "another password, PLAIN": Wrong(
        ("refuses user 'camera': wrong password",), {"sasl_password": "wrong", "sasl_mechanism": "PLAIN"}
    ),
    "nobody's name": Wrong(("refuses user 'nobody'", "no such user"), {"sasl_username": "nobody"}),
    "an unknown CA": Wrong(("CA that this client does not know", "kafka.ssl_ca_file"), {"ssl_ca_file": "strange_ca"}),
    "the system's CAs": Wrong(("CA that this client does not know", "kafka.ssl_ca_file"), {"ssl_ca_file": None}),
    "no TLS": Wrong(
        ("speaks TLS", "Set kafka.security_protocol to SASL_SSL"), {"security_protocol": "SASL_PLAINTEXT", **NO_TLS}
    ),
    "no TLS and no user": Wrong(("speaks TLS",), {"security_protocol": "PLAINTEXT", **NO_SASL, **NO_TLS}),
    "no user": Wrong(("hangs up", "SASL_SSL", "kafka.sasl_mechanism"), {"security_protocol": "SSL", **NO_SASL}),
    "TLS at a plain port": Wrong(("does not speak TLS", "SASL_PLAINTEXT"), {}, "plain"),
    "a user at a plain port": Wrong(
        ("asks for no user at this port", "PLAINTEXT"), {"security_protocol": "SASL_PLAINTEXT", **NO_TLS}, "plain"
    ),
    "a certificate of another host": Wrong(
        ("certificate of another host", "kafka.ssl_check_hostname"), {}, "of_another_host"
    ),
    "a certificate out of date": Wrong(("certificate out of date", "expired"), {}, "out_of_date"),
    "no client certificate": Wrong(
        ("wants a client certificate", "kafka.ssl_certificate_file"), {"security_protocol": "SSL", **NO_SASL}, "mutual"
    ),
    "a stranger's client certificate": Wrong(
        ("refuses the certificate", "strange-client.crt"),
        {"security_protocol": "SSL", **NO_SASL, "client": "strange_client"}, "mutual",
    ),
    "an old client certificate": Wrong(
        ("refuses the certificate", "old-client.crt"),
        {"security_protocol": "SSL", **NO_SASL, "client": "old_client"}, "mutual",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_setting_is_told_at_start_in_one_line(
    name: str, secured: Secured, mutual: ApacheKafka, topics: Topics
) -> None:
    wrong, certificates = WRONG[name], secured.certificates
    options = secured.sasl("camera", connect_timeout_s=1) | wrong.changes
    options |= getattr(certificates, options.pop("client", ""), {})
    if options["ssl_ca_file"] == "strange_ca":
        options["ssl_ca_file"] = certificates.strange_ca
    with ExitStack() as stack:
        if wrong.where in {"of_another_host", "out_of_date"}:
            server = stack.enter_context(tls_listener(getattr(certificates, wrong.where)))
        else:
            places = {"plain": secured.kafka.admin_address, "mutual": mutual.address, "secured": secured.kafka.address}
            server = places[wrong.where]
        settings = settings_of(options | {"bootstrap_servers": server}, topics)
        started, threads = time.monotonic(), threading.active_count()
        with pytest.raises(ServiceRefusedError) as caught:
            ensure_topics(settings, LIMITS)
        assert time.monotonic() - started < 5
    line = str(caught.value)
    assert line.startswith(f"Kafka at kafka.bootstrap_servers = '{server}' ")
    assert all(text in line for text in wrong.says), line
    assert "\n" not in line
    assert SECRET not in line
    wait_until(lambda: threading.active_count() <= threads)


def test_a_certificate_of_another_host_is_taken_when_the_host_is_not_checked(
    secured: Secured, topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(secured.sasl("everyone", ssl_check_hostname=False), topics)
    named = settings.model_copy(
        update={"bootstrap_servers": settings.bootstrap_servers.replace("127.0.0.1", "localhost")}
    )
    monkeypatch.setattr(connection, "require_reachable", lambda *_: None)
    with reaching_broker(named):
        pass
    with (
        pytest.raises(ServiceRefusedError, match="another host"),
        reaching_broker(named.model_copy(update={"ssl_check_hostname": True})),
    ):
        pass


def use_camera(settings: KafkaSettings, folder: Path) -> None:
    summary = run_camera(str(folder), "cam", settings, LIMITS)
    if summary.problem:
        raise OperatorError(summary.problem)
    assert summary.acknowledged == 3


def use_worker(settings: KafkaSettings, _: Path) -> None:
    ensure_topics(settings, LIMITS)
    record = RawRecord(LogPosition("frames", "id", 0, 3), b"cam", (), b"x")
    with closing(KafkaPublisher(settings)) as publisher:
        publisher.dead_letters([DeadLetter(record, Reason.NOT_AN_IMAGE, "no image")])
        publisher.events([OutboxMessage(1, settings.inspections_topic, "cam", (), b"{}")])
    with closing(KafkaSource(settings)) as source:
        wait_until(lambda: source.poll(0.2, 10) or source.partitions)


def use_show(settings: KafkaSettings, _: Path) -> None:
    with closing(DeadLetterTopic(settings)) as topic:
        assert topic.locate({"no such letter"}, 20, lambda *_: None) == ({}, True)


def use_replay(settings: KafkaSettings, _: Path) -> None:
    with closing(DeadLetterTopic(settings)) as topic:
        ensure_topics(settings, LIMITS, {settings.frames_topic: "Write"})
        assert topic.replay([KeptLetter(b"cam", b"x", (), None, value_omitted=False)]) == [True]


PROGRAMS = {"camera": use_camera, "run": use_worker, "dlq show": use_show, "dlq replay": use_replay}


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_user_with_just_the_rights_of_a_program_may_run_it_and_is_told_of_each_that_is_missing(
    program: str, secured: Secured, topics: Topics, folder: Path
) -> None:
    """The rights are those of the documentation, and the commands that grant them those that the programs print."""
    make_topics(secured, topics)
    user = {"camera": "camera", "run": "worker"}.get(program, "people")
    settings = settings_of(secured.sasl(user), topics)
    secured.administrator.forget_rights()
    needed = needed_rights(settings)[program]
    told = set()
    while len(told) < len(needed):
        with pytest.raises(ServiceRefusedError) as caught:
            PROGRAMS[program](settings, folder)
        line = str(caught.value)
        (right,) = (each for each in needed if f"refuses user '{user}' the right {each}. Grant it: kafka-acls " in line)
        told.add(right)
        secured.administrator.run(line.partition("Grant it: ")[2])
    PROGRAMS[program](settings, folder)
    assert told == set(needed)


@pytest.fixture
def programs(forks: None) -> Prefork:
    del forks
    return Commanded.forks


@pytest.mark.parametrize(
    ("command", "level"),
    [("run", "info"), ("camera {folder} --camera cam", "debug"), ("dlq show 1", "info")],
    ids=["run", "camera", "dlq"],
)
def test_programs_end_with_one_line_and_no_secret_when_the_broker_refuses_them(
    command: str, level: str, secured: Secured, topics: Topics, folder: Path, tmp_path: Path, programs: Prefork,
    redis_url: str, bundle: Path,
) -> None:  # fmt: skip
    secret = tmp_path / "password"
    secret.write_text(f"not-{SECRET}\n")
    options = secured.sasl("camera", ssl_ca_file=str(secured.certificates.ca))
    del options["sasl_password"]
    sections = {
        "kafka": {**options, "frames_topic": topics("frames")},
        "redis": {"url": redis_url},
        "database": {"url": f"sqlite:///{tmp_path / 'monitor.db'}"},
        "images": {"url": str(tmp_path / "kept")},
        "model": {"bundle": str(bundle)},
        "log": {"format": "json", "level": level},
    }
    config = tmp_path / "monitor.yaml"
    config.write_text(yaml.safe_dump(sections))
    if "dlq" in command:
        bury_in_database(tmp_path)
    arguments = ["--config", str(config), *command.format(folder=folder).split()]
    done = programs.run("monitor", *arguments, environment={"PAEDID_KAFKA__SASL_PASSWORD_FILE": str(secret)})
    assert done.returncode == 2, done.stderr
    assert "refuses user 'camera': wrong password" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert SECRET not in done.stdout + done.stderr


def bury_in_database(folder: Path) -> None:
    from monitor.adapters.database import connect  # noqa: PLC0415
    from monitor.adapters.inspections import SqlInspectionStore  # noqa: PLC0415
    from monitor.adapters.migrations import upgrade  # noqa: PLC0415
    from monitor.ports import BatchOutcome  # noqa: PLC0415
    from monitor.settings import DatabaseSettings  # noqa: PLC0415
    from tests.integration.records import dead_letter  # noqa: PLC0415

    url = f"sqlite:///{folder / 'monitor.db'}"
    upgrade(url)
    engine = connect(DatabaseSettings.model_validate({"url": url}))
    SqlInspectionStore(engine, "inspections").record(BatchOutcome((), (dead_letter(3),)))
    engine.dispose()


@pytest.mark.parametrize("loss", ["right", "password"])
def test_what_is_taken_away_from_a_worker_ends_it_in_words(loss: str, secured: Secured, topics: Topics) -> None:
    make_topics(secured, topics)
    user = {"right": "worker", "password": "dismissed"}[loss]
    settings = settings_of(secured.sasl(user), topics)
    secured.administrator.forget_rights()
    grant(secured, settings, f"User:{user}", "run")
    with closing(KafkaSource(settings)) as source:
        wait_until(lambda: source.poll(0.2, 10) or source.partitions)
        if loss == "right":
            secured.administrator.deny(f"User:{user}", "Read", "topic", settings.frames_topic)
            says = f"the right Read on the topic '{settings.frames_topic}'"
        else:
            secured.administrator.change_password(user, "another")
            says = f"refuses user '{user}': wrong password"
        with pytest.raises(ServiceRefusedError, match=says):
            wait_until(lambda: source.poll(0.2, 10), 60)


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512", "OAUTHBEARER"])
def test_no_log_holds_a_secret_however_much_is_logged(
    mechanism: str, secured: Secured, topics: Topics, folder: Path, tmp_path: Path, programs: Prefork
) -> None:
    make_topics(secured, topics)
    token = secured.tokens.token("robot")
    file = tmp_path / "token"
    file.write_text(token)
    options = (
        secured.oauth(oauth_token_file=str(file)) if mechanism == "OAUTHBEARER" else secured.sasl("camera", mechanism)
    )
    settings = settings_of(options, topics)
    grant(secured, settings, f"User:{'robot' if mechanism == 'OAUTHBEARER' else 'camera'}", "camera")
    options["ssl_ca_file"] = str(options["ssl_ca_file"])
    config = tmp_path / "monitor.yaml"
    config.write_text(
        yaml.safe_dump(
            {"kafka": {**options, "frames_topic": topics("frames")}, "log": {"level": "debug", "format": "json"}}
        )
    )
    done = programs.run("monitor", "--config", str(config), "camera", str(folder), "--camera", "cam")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("3 frames taken: 3 acknowledged, 0 not acknowledged, 0 dropped")
    assert '"level": "debug"' in done.stderr
    said = done.stdout + done.stderr
    assert PASSWORDS["camera"] not in said
    assert token not in said


def test_a_right_that_is_taken_away_ends_the_camera_agent_with_an_account_that_adds_up(
    secured: Secured, topics: Topics, folder: Path
) -> None:
    make_topics(secured, topics)
    settings = settings_of(secured.sasl("camera"), topics)
    grant(secured, settings, "User:camera", "camera")
    deny = threading.Timer(1.0, secured.administrator.deny, ("User:camera", "Write", "topic", settings.frames_topic))
    deny.start()
    summary = run_camera(str(folder), "cam", settings, LIMITS, rate=50, loop=True)
    deny.join()
    assert summary.taken == summary.acknowledged + summary.unacknowledged + summary.dropped
    assert summary.acknowledged > 0
    assert summary.unacknowledged > 0
    assert summary.problem is not None
    assert f"refuses user 'camera' the right Write on the topic '{settings.frames_topic}'" in summary.problem
    assert f"{summary.unacknowledged} frames were not sent: Kafka refuses them" in summary.problem


def test_a_right_that_is_taken_away_is_told_by_the_publisher_and_nothing_else_is_when_it_is_back(
    secured: Secured, topics: Topics
) -> None:
    make_topics(secured, topics)
    settings = settings_of(secured.sasl("worker"), topics)
    secured.administrator.forget_rights()
    grant(secured, settings, "User:worker", "run")
    message = OutboxMessage(1, settings.inspections_topic, "cam", (), b"{}")
    with closing(KafkaPublisher(settings)) as publisher:
        publisher.events([message])
        secured.administrator.deny("User:worker", "Write", "topic", settings.inspections_topic)
        with pytest.raises(ServiceRefusedError, match=f"Write on the topic '{settings.inspections_topic}'"):
            wait_until(lambda: publisher.events([message]))
        secured.administrator.forget_rights()
        grant(secured, settings, "User:worker", "run")
        wait_until(lambda: allowed(lambda: publisher.events([message])))


def allowed(action: Callable[[], object]) -> bool:
    try:
        action()
    except ServiceRefusedError:
        return False
    return True


def test_a_password_that_is_no_longer_taken_ends_the_camera_agent(
    secured: Secured, topics: Topics, folder: Path
) -> None:
    make_topics(secured, topics)
    settings = settings_of(secured.sasl("leaving"), topics)
    grant(secured, settings, "User:leaving", "camera")
    change = threading.Timer(1.0, secured.administrator.change_password, ("leaving", "another"))
    change.start()
    summary = run_camera(str(folder), "cam", settings, LIMITS, rate=50, loop=True)
    change.join()
    assert summary.taken == summary.acknowledged + summary.unacknowledged + summary.dropped
    assert summary.refusal is not None
    assert "refuses user 'leaving': wrong password" in summary.refusal
    refused = ask_whether_refused(settings)
    assert refused is not None
    assert "wrong password" in str(refused)


class Misadvertised(TansuBroker):
    """A broker that tells clients to come to a name which only it knows."""

    def _arguments(self) -> list[str]:
        arguments = super()._arguments()
        arguments[arguments.index("--advertised-listener-url") + 1] = "tcp://kafka.plant.invalid:9092"
        return arguments


def test_a_broker_that_advertises_a_name_which_is_not_known_here_is_told_of(tmp_path: Path) -> None:
    with Misadvertised(tmp_path) as broker:
        settings = KafkaSettings(bootstrap_servers=broker.address)
        started = time.monotonic()
        with pytest.raises(ServiceRefusedError) as caught:
            ensure_topics(settings, LIMITS)
    assert time.monotonic() - started < 10
    line = str(caught.value)
    assert "broker 111 at kafka.plant.invalid:9092 (its advertised.listeners)" in line
    assert "cannot resolve the name 'kafka.plant.invalid'" in line
    assert "Set advertised.listeners" in line


def test_one_broker_of_several_that_cannot_be_reached_is_a_warning(secured: Secured) -> None:
    host, _, port = secured.kafka.address.rpartition(":")
    away = free_port()
    brokers = [Broker(0, host, int(port)), Broker(1, host, away), Broker(2, "kafka-2.plant.invalid", 9092)]
    settings = KafkaSettings(bootstrap_servers=secured.kafka.address)
    with structlog.testing.capture_logs() as logs:
        for _ in range(2):
            require_reachable(settings, brokers)
    said = [entry["event"] for entry in logs]
    assert len(said) == 2
    assert any(f"broker 1 at {host}:{away} (its advertised.listeners): Connection refused" in line for line in said)
    assert any("broker 2 at kafka-2.plant.invalid:9092" in line and "cannot resolve" in line for line in said)
    with pytest.raises(ServiceRefusedError, match=r"none of its brokers .*broker 1 .*broker 2 "):
        require_reachable(settings, brokers[1:])


def test_a_topic_that_is_absent_is_told_with_the_command_that_makes_it(secured: Secured, topics: Topics) -> None:
    settings = settings_of(secured.sasl("camera"), topics)
    grant(secured, settings, "User:camera", "camera")
    uses = {settings.frames_topic: "Write"}
    with pytest.raises(ServiceRefusedError) as caught:
        prepare_topics(settings, LIMITS, uses)
    line = str(caught.value)
    assert f"has no topic '{settings.frames_topic}', and does not let it be made: this user may not create it" in line
    secured.administrator.run(line.partition("Have it made: ")[2])
    with structlog.testing.capture_logs() as logs:
        assert prepare_topics(settings, LIMITS, uses).created == []
    # It fits, and its limits are not this user's to see.
    assert [entry["log_level"] for entry in logs] == ["info"]
    assert "DescribeConfigs" in logs[0]["event"]
    assert secured.administrator.partitions(settings.frames_topic) == settings.partitions


def test_a_user_who_may_create_topics_makes_them(secured: Secured, topics: Topics) -> None:
    settings = settings_of(secured.sasl("people"), topics)
    for operation in ("Create", "Write"):
        secured.administrator.run(
            f"kafka-acls --bootstrap-server x --add --allow-principal User:people --operation {operation} "
            f"--topic {settings.frames_topic}"
        )
    assert ensure_topics(settings, LIMITS, {settings.frames_topic: "Write"}) == [settings.frames_topic]
