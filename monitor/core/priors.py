"""Which prior a name means: three that are built in, and those of installed packages (entry points ``paedid.priors``).

A name is looked up among what is installed and nowhere else: it is never taken for the name of a module, a file or an
attribute. So a bundle, which comes from elsewhere, can choose between the plugs that someone has installed on this
machine, and can bring none: nothing in it is ever imported.

A package offers a plug by one line of its ``pyproject.toml``::

    [project.entry-points."paedid.priors"]
    median = "my_package:MedianPrior"

What it points to is called with the ``Architecture`` and returns a ``Prior``, untrained; the class itself will do.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Final

from monitor.core.denoiser import DenoisingPrior
from monitor.core.prior import BankPrior, MeanPrior, Prior
from schemas.artifacts import Architecture
from schemas.errors import PriorError

GROUP: Final = "paedid.priors"
BUILT_IN: Final[dict[str, Callable[[Architecture], Prior]]] = {
    "bank": lambda _: BankPrior(),
    "denoiser": DenoisingPrior,
    "both": lambda architecture: MeanPrior([BankPrior(), DenoisingPrior(architecture)]),
}


def installed_priors() -> tuple[str, ...]:
    """Return the names of all priors that there are here, the built-in ones first."""
    return (*BUILT_IN, *sorted({point.name for point in entry_points(group=GROUP)} - BUILT_IN.keys()))


def check_prior(name: str) -> None:
    """Raise PriorError unless exactly one prior has this name; imports nothing."""
    if name not in BUILT_IN:
        _find(name)


def make_prior(name: str, architecture: Architecture) -> Prior:
    """Return the prior of this name, untrained.

    Raises:
        PriorError: there is none, or the package that brings it does not work here.
    """
    if name in BUILT_IN:
        return BUILT_IN[name](architecture)
    point = _find(name)
    try:
        prior = point.load()(architecture)
    except Exception as error:
        # Whatever a third party's code may raise; it is told as the one line that names whose it is.
        msg = f"the prior {name!r} ({point.value}) cannot be used here: {type(error).__name__}: {error}"
        raise PriorError(msg) from error
    if not isinstance(prior, Prior):
        msg = f"the prior {name!r} ({point.value}) gives a {type(prior).__name__}, not a monitor.core.prior.Prior"
        raise PriorError(msg)
    return prior


def _find(name: str) -> EntryPoint:
    """Return the entry point of this name."""
    found = {point.value: point for point in entry_points(group=GROUP) if point.name == name}
    if not found:
        msg = (
            f"no prior is named {name!r}; installed are {', '.join(installed_priors())}. "
            f"Install the package that brings it (entry points {GROUP!r}), or choose another."
        )
        raise PriorError(msg)
    if len(found) > 1:
        msg = f"several packages bring a prior named {name!r}: {', '.join(sorted(found))}. Uninstall all but one."
        raise PriorError(msg)
    return found.popitem()[1]
