"""In-memory twins of the ports, for tests and trials: the same contracts, no servers, gone when the program ends."""

from monitor.adapters.memory.bank import MemoryBankStore
from monitor.adapters.memory.database import MemoryInspectionStore
from monitor.adapters.memory.images import MemoryImageStore
from monitor.adapters.memory.kafka import MemoryFrameSource, MemoryPublisher

__all__ = [
    "MemoryBankStore",
    "MemoryFrameSource",
    "MemoryImageStore",
    "MemoryInspectionStore",
    "MemoryPublisher",
]
