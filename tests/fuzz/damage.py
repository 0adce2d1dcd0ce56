"""Valid bytes, and what becomes of them on the way: cut, doubled, overwritten, with a number that is far too large."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
WORDS = [number.to_bytes(4, order) for number in NUMBERS for order in ("little", "big")]
MOST_INTERESTING = 64  # most of what a format says of itself is at its beginning


@st.composite
def damaged(draw: st.DrawFn, originals: Sequence[bytes]) -> bytes:
    """Return one of the originals after one to six accidents."""
    data = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 6))):
        last = min(len(data), MOST_INTERESTING) if draw(st.booleans()) else len(data)
        place = draw(st.integers(0, last))
        match draw(st.sampled_from(["overwrite", "number", "insert", "cut out", "cut off"])):
            case "overwrite":
                damage = draw(st.binary(min_size=1, max_size=8))
                data[place : place + len(damage)] = damage
            case "number":
                data[place : place + 4] = draw(st.sampled_from(WORDS))
            case "insert":
                data[place:place] = data[: draw(st.integers(1, 100))]
            case "cut out":
                del data[place : place + draw(st.integers(1, 100))]
            case "cut off":
                del data[place:]
    return bytes(data)
