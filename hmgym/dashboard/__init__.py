"""A page to play with: sliders, a run, its panels as a picture and its summary as a table (docs/dashboard.md).

`Dashboard` needs Panel, of the extra `dashboard`; the systems on it do not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hmgym.lazy import lazy_names

if TYPE_CHECKING:
    from hmgym.dashboard.page import Dashboard
    from hmgym.dashboard.system import Choice, Number, Shown, Slider, System
    from hmgym.dashboard.systems import SYSTEMS

__all__ = ["SYSTEMS", "Choice", "Dashboard", "Number", "Shown", "Slider", "System"]

__getattr__ = lazy_names(
    __name__,
    {
        "hmgym.dashboard.page": ("Dashboard",),
        "hmgym.dashboard.system": ("Choice", "Number", "Shown", "Slider", "System"),
        "hmgym.dashboard.systems": ("SYSTEMS",),
    },
)
