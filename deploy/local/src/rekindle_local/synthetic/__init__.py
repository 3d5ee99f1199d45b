"""Synthetic abdomens: a labelled CT and MR seed set and a clinical set, with no patient behind them."""

from rekindle_local.synthetic.dataset import (
    CLINICAL_CT,
    PUBLIC_CT,
    PUBLIC_MR,
    Domain,
    make_dataset,
    make_pair,
)

__all__ = ["CLINICAL_CT", "PUBLIC_CT", "PUBLIC_MR", "Domain", "make_dataset", "make_pair"]
