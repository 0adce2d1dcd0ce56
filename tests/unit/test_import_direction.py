"""Holds ``schemas <- monitor.core <- {monitor, trainer}``, by reading the imports."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = ("schemas", "monitor", "trainer", "deploy")
# What the core computes with, and the standard library but for what reaches outside the process.
CORE_LIBRARIES = {"torch", "numpy", "cv2", "scipy"}
OUTSIDE = {
    *("asyncio", "ftplib", "glob", "http", "io", "logging", "multiprocessing", "os", "pathlib", "pickle", "select"),
    *("shutil", "socket", "sqlite3", "ssl", "subprocess", "sys", "tempfile", "threading", "time", "urllib"),
}
# The commands: they choose the adapters and hand them to the rest, which knows the ports only.
WIRING = {
    "monitor.__main__",
    "monitor.bank_commands",
    "monitor.bank_status",
    "monitor.camera",
    "monitor.compare_commands",
    "monitor.database_access",
    "monitor.dead_letter_replay",
    "monitor.dead_letter_words",
    "monitor.dlq_commands",
    "monitor.inheritance",
    "monitor.model_commands",
    "monitor.models_in_force",
    "monitor.review_commands",
    "monitor.review_pictures",
    "monitor.shadow_commands",
    "monitor.wiring",
}


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(source: str, module: str) -> set[str]:
    """Return every module that may be meant, ``from a import b`` as both ``a`` and ``a.b``; in functions too."""
    found = set[str]()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*package, *([node.module] if node.module else [])])
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return found


def within(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def modules(package: str) -> Iterator[tuple[str, set[str]]]:
    """Yield each module below a package and what it imports."""
    for path in sorted((ROOT / package.replace(".", "/")).rglob("*.py")):
        yield module_of(path), imports_of(path.read_text(encoding="utf-8"), module_of(path))


def offences(
    package: str, *forbidden: str, allowed: tuple[str, ...] = (), without: set[str] | None = None
) -> list[str]:
    """Return ``importer -> imported`` for what ``package`` imports of ``forbidden`` and is not ``allowed``."""
    return [
        f"{module} -> {name}"
        for module, names in modules(package)
        if module not in (without or set())
        for name in sorted(names)
        if within(name, *forbidden) and not within(name, *allowed)
    ]


def test_every_package_is_looked_at() -> None:
    for package in (*OURS, "monitor.core", "monitor.adapters"):
        assert len(list(modules(package))) > 4, package


def test_schemas_know_nobody() -> None:
    assert offences("schemas", "monitor", "trainer", "deploy", "tests") == []


def test_the_core_knows_the_schemas_alone() -> None:
    assert offences("monitor.core", *OURS, "tests", allowed=("schemas", "monitor.core")) == []


def test_the_core_does_no_input_or_output() -> None:
    allowed = CORE_LIBRARIES | (set(sys.stdlib_module_names) - OUTSIDE) | {"schemas", "monitor"}
    foreign = [
        f"{module} -> {name}"
        for module, names in modules("monitor.core")
        for name in sorted(names)
        if name.split(".")[0] not in allowed
    ]
    assert foreign == []
    calls = [
        f"{path.name}:{node.lineno}"
        for path in (ROOT / "monitor" / "core").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"open", "print", "input"}
    ]
    assert calls == []


def test_the_monitor_knows_neither_trainer_nor_deployment() -> None:
    # The migrations lie in deploy as data; one adapter locates them.
    excepted = {"monitor.adapters.migrations"}
    assert offences("monitor", "trainer", "deploy", "tests", without=excepted) == []
    (migrations,) = (names for module, names in modules("monitor.adapters") if module in excepted)
    assert {name for name in migrations if within(name, "deploy")} <= {"deploy", "deploy.migrations"}
    assert not any(within(name, "trainer") for name in migrations)


def test_the_trainer_knows_the_core_and_the_schemas_alone() -> None:
    assert offences("trainer", "monitor", "deploy", "tests", allowed=("monitor.core",)) == []


def test_adapters_are_known_to_the_commands_only() -> None:
    knowing = {offence.split(" -> ")[0] for offence in offences("monitor", "monitor.adapters")}
    assert {module for module in knowing if not within(module, "monitor.adapters")} <= WIRING


@pytest.mark.parametrize(
    ("source", "imported"),
    [
        ("import monitor.adapters.kafka as k", "monitor.adapters.kafka"),
        ("from monitor import adapters", "monitor.adapters"),
        ("from monitor.adapters.kafka import source", "monitor.adapters.kafka.source"),
        ("def f():\n    from trainer.build import build", "trainer.build"),
        ("from ..adapters import kafka", "monitor.adapters.kafka"),
        ("from . import scoring", "monitor.core.scoring"),
        ("if True:\n    import redis", "redis"),
    ],
)
def test_no_form_of_import_is_overlooked(source: str, imported: str) -> None:
    assert imported in imports_of(source, "monitor.core.inspector")
