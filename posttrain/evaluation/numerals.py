"""How figures are written: percent, points with a sign and a true minus, p-values with the digits that matter."""


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def points(value: float) -> str:
    """A difference in percentage points, with a sign and a true minus."""
    return "0.0" if abs(value) < 5e-4 else f"{100 * value:+.1f}".replace("-", "−")


def signed(value: float) -> str:
    """A difference with three decimals, as of nats."""
    return f"{value:+.3f}".replace("-", "−")


def p_text(p: float) -> str:
    """A p-value with two digits that matter: 0.23, 3e-4, <1e-6."""
    if p < 1e-6:
        return "<1e-6"
    if p < 0.001:
        digits, power = f"{p:.0e}".split("e")
        return f"{digits}e-{abs(int(power))}"
    return f"{p:.2g}"
