"""The column layouts of public click logs, by which both the readers and the generator of synthetic logs go."""

from __future__ import annotations

from rankitect.data.ranking.schema import Categorical, Label, Numeric, TableSchema, Timestamp

__all__ = ["AVAZU", "CRITEO", "CRITEO_COLUMNS"]

_I = tuple(f"I{i}" for i in range(1, 14))
_C = tuple(f"C{i}" for i in range(1, 27))
CRITEO = TableSchema(
    label=Label(name="label"),
    numeric=tuple(Numeric(name=name, transform="log") for name in _I),
    categorical=tuple(Categorical(name=name) for name in _C),
    missing=("",),
)
"""Criteo display advertising (2014 challenge and the terabyte logs): no header, tab-separated, hashed values."""

CRITEO_COLUMNS = ("label", *_I, *_C)
"""Criteo's columns in the order of its files, which have no header."""

_AVAZU = (
    *("C1", "banner_pos", "site_id", "site_domain", "site_category", "app_id", "app_domain", "app_category"),
    *("device_id", "device_ip", "device_model", "device_type", "device_conn_type"),
    *(f"C{i}" for i in range(14, 22)),
)
AVAZU = TableSchema(
    label=Label(name="click"),
    categorical=tuple(Categorical(name=name) for name in _AVAZU),
    timestamp=Timestamp(name="hour", format="%y%m%d%H"),
    calendar=("hour", "weekday"),
    missing=("",),
)
"""Avazu click-through-rate challenge (2014): the row's own id is left out, the hour is made hour of day and weekday."""
