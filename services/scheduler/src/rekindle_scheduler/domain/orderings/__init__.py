"""The orderings, each in a file of its own. A new one is one class and one line here."""

from __future__ import annotations

from typing import Final

from rekindle_scheduler.domain.orderings.easy_first import EasyFirst
from rekindle_scheduler.domain.orderings.first_come import FirstCome
from rekindle_scheduler.domain.orderings.hard_first import HardFirst
from rekindle_scheduler.domain.orderings.random import Random
from rekindle_scheduler.domain.orderings.uncertainty import Uncertainty
from rekindle_scheduler.domain.words import OrderingName

ORDERINGS: Final = {
    OrderingName.EASY_FIRST: EasyFirst,
    OrderingName.HARD_FIRST: HardFirst,
    OrderingName.RANDOM: Random,
    OrderingName.UNCERTAINTY: Uncertainty,
    OrderingName.FIRST_COME: FirstCome,
}
