"""How numbers are rounded without hiding that they aren't zero: for pages and terminal alike, in plain ASCII."""


def fixed(value: float, digits: int, *, sign: bool = False, thousands: bool = False) -> str:
    """Return a number of fixed digits; one that rounds to zero has no sign."""
    text = f"{value:{'+' if sign else ''}{',' if thousands else ''}.{digits}f}"
    return text.lstrip("+-") if not text.strip("+-0.,") else text


def percent(value: float) -> str:
    """Return a share in percent with one digit; what is neither nothing nor all doesn't read like it."""
    if 0 < value < 0.05:
        return "<0.1"
    return ">99.9" if 99.95 <= value < 100 else fixed(value, 1)


def p_value(value: float) -> str:
    """Return a p-value of four digits: no test is ever certain, so none reads as zero."""
    return "<0.0001" if value < 0.00005 else fixed(value, 4)


def by_luck(tests: int, level: float) -> str:
    """Return how many of so many tests fall below the level if nothing differs: 0.3, 4.5, 28."""
    expected = tests * level
    return fixed(expected, 1 if expected < 10 else 0)
