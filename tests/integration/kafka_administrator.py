"""An administrator of a Kafka, who carries out the commands that the programs print."""

from __future__ import annotations

import argparse
import shlex

from kafka.admin import (
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ConfigResource,
    KafkaAdminClient,
    ResourcePattern,
    ResourcePatternFilter,
    ResourceType,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

RESOURCES = {"topic": ResourceType.TOPIC, "group": ResourceType.GROUP, "cluster": ResourceType.CLUSTER}
OPERATIONS = {
    "Read": ACLOperation.READ,
    "Write": ACLOperation.WRITE,
    "Create": ACLOperation.CREATE,
    "Describe": ACLOperation.DESCRIBE,
    "DescribeConfigs": ACLOperation.DESCRIBE_CONFIGS,
}


class Administrator:
    """Whoever may do everything: grants rights, and carries out the commands that the programs print."""

    def __init__(self, address: str) -> None:
        self._admin = KafkaAdminClient(bootstrap_servers=address)

    def close(self) -> None:
        self._admin.close()

    def run(self, command: str) -> None:
        """Carry out ``kafka-acls``, ``kafka-configs`` or ``kafka-topics``, whose options are checked."""
        program, *arguments = shlex.split(command)
        {"kafka-acls": self._acls, "kafka-configs": self._configs, "kafka-topics": self._topics}[program](arguments)

    def deny(self, principal: str, operation: str, resource: str, name: str) -> None:
        self._create(principal, operation, resource, name, ACLPermissionType.DENY)

    def change_password(self, user: str, password: str) -> None:
        change = UserScramCredentialUpsertion(user, ScramMechanism.SCRAM_SHA_512, password)
        assert self._admin.alter_user_scram_credentials([change]) == {user: None}

    def forget_rights(self) -> None:
        """Take every right from everybody."""
        everything = ResourcePatternFilter(ResourceType.ANY, None, ACLResourcePatternType.ANY)
        self._admin.delete_acls([ACLFilter(None, None, ACLOperation.ANY, ACLPermissionType.ANY, everything)])

    def create(self, topic: str, partitions: int = 1, **configs: str) -> None:
        named = {name.replace("_", "."): value for name, value in configs.items()}
        self._admin.create_topics({topic: {"num_partitions": partitions, "configs": named}}, wait_for_metadata=True)

    def delete(self, topic: str) -> None:
        self._admin.delete_topics([topic])

    def partitions(self, topic: str) -> int:
        (found,) = self._admin.describe_topics([topic])
        return len(found["partitions"])

    def _acls(self, arguments: list[str]) -> None:
        parser = argparse.ArgumentParser(exit_on_error=False)
        parser.add_argument("--bootstrap-server", required=True)
        parser.add_argument("--add", action="store_true", required=True)
        parser.add_argument("--allow-principal", required=True)
        parser.add_argument("--operation", action="append", required=True)
        resource = parser.add_mutually_exclusive_group(required=True)
        for name in ("--topic", "--group"):
            resource.add_argument(name)
        resource.add_argument("--cluster", action="store_true")
        wanted = parser.parse_args(arguments)
        kind = "topic" if wanted.topic else "group" if wanted.group else "cluster"
        for operation in wanted.operation:
            self._create(wanted.allow_principal, operation, kind, wanted.topic or wanted.group or "kafka-cluster")

    def _create(
        self,
        principal: str,
        operation: str,
        resource: str,
        name: str,
        permission: ACLPermissionType = ACLPermissionType.ALLOW,
    ) -> None:
        pattern = ResourcePattern(RESOURCES[resource], name)
        done = self._admin.create_acls([ACL(principal, "*", OPERATIONS[operation], permission, pattern)])
        assert not done["failed"], done

    def _configs(self, arguments: list[str]) -> None:
        parser = argparse.ArgumentParser(exit_on_error=False)
        parser.add_argument("--bootstrap-server", required=True)
        parser.add_argument("--alter", action="store_true", required=True)
        parser.add_argument("--entity-type", choices=["topics"], required=True)
        parser.add_argument("--entity-name", required=True)
        parser.add_argument("--add-config", required=True)
        wanted = parser.parse_args(arguments)
        name, _, value = wanted.add_config.partition("=")
        done = self._admin.alter_configs([ConfigResource("TOPIC", wanted.entity_name, {name: value})])
        assert done == {"topic": {wanted.entity_name: "OK"}}

    def _topics(self, arguments: list[str]) -> None:
        parser = argparse.ArgumentParser(exit_on_error=False)
        parser.add_argument("--bootstrap-server", required=True)
        what = parser.add_mutually_exclusive_group(required=True)
        what.add_argument("--create", action="store_true")
        what.add_argument("--alter", action="store_true")
        parser.add_argument("--topic", required=True)
        parser.add_argument("--partitions", type=int, required=True)
        parser.add_argument("--config", action="append", default=[])
        wanted = parser.parse_args(arguments)
        if wanted.alter:
            self._admin.create_partitions({wanted.topic: wanted.partitions})
        else:
            configs = dict(config.split("=") for config in wanted.config)
            new = {wanted.topic: {"num_partitions": wanted.partitions, "configs": configs}}
            self._admin.create_topics(new, wait_for_metadata=True)
