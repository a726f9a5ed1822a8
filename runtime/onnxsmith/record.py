"""Record: what typing.NamedTuple is to a type checker, at a tenth of the time that each class takes to make.

A process that opens a compiled model makes some twenty of these classes before its first run.
"""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any

__all__ = ["Record"]

if TYPE_CHECKING:
    from typing import NamedTuple as Record
else:

    class _RecordType(type):
        """Makes the annotated names of a class body the fields of its tuples."""

        def __new__(kind, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> type:
            fields = tuple(body.get("__annotations__", ()))
            defaults = {field: body.pop(field) for field in fields if field in body}
            getters = {field: property(itemgetter(index)) for index, field in enumerate(fields)}
            made = {"__slots__": (), "_fields": fields, "_field_defaults": defaults, "__match_args__": fields}
            return super().__new__(kind, name, bases, {**body, **getters, **made})

    class Record(tuple, metaclass=_RecordType):
        """An immutable tuple whose elements have names: the annotations of the class body, with their defaults."""

        def __new__(cls, *values, **named):
            if named or len(values) != len(cls._fields):
                values = _filled(cls, values, named)
            return tuple.__new__(cls, values)

        _make = classmethod(tuple.__new__)

        def _asdict(self):
            return dict(zip(self._fields, self, strict=True))

        def _replace(self, **changes):
            return type(self)(**(self._asdict() | changes))

        def __repr__(self):
            return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self._asdict().items())})"

        def __getnewargs__(self):
            return tuple(self)

    def _filled(cls, values, named):
        """All fields' values, in order; TypeError as a function with these parameters raises it."""
        given = dict(zip(cls._fields, values, strict=False))
        repeated = given.keys() & named.keys()
        complete = cls._field_defaults | given | named
        if len(values) > len(cls._fields) or repeated or complete.keys() != set(cls._fields):
            raise TypeError(
                f"{cls.__name__} takes the fields {', '.join(cls._fields)}, and was given {len(values)} by place"
                f" and {', '.join(named) or 'none'} by name"
            )
        return [complete[field] for field in cls._fields]
