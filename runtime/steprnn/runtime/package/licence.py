"""A licence as somebody gives it: a file, or an SPDX expression."""

from __future__ import annotations

from pathlib import Path

from ..errors import MissingExtra, UsageError


def read_licence(license: str | None) -> tuple[str | None, str | None]:
    """The text of the file, or the SPDX expression in its normal form; neither where nothing is given.

    Raises `UsageError` where it is neither, and `MissingExtra` where what reads expressions is missing.
    """
    if license is None:
        return None, None
    if Path(license).is_file():
        return Path(license).read_text(encoding="utf-8"), None
    try:
        from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
    except ImportError:
        raise MissingExtra("packaging, which reads licences,", "package") from None
    try:
        return None, str(canonicalize_license_expression(license))
    except InvalidLicenseExpression:
        raise UsageError(
            f"--license {license!r} is neither a file nor an SPDX expression, such as CC-BY-4.0 or "
            "LicenseRef-Proprietary"
        ) from None
