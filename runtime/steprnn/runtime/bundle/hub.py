"""Bundles on the Hugging Face Hub: `hf://OWNER/NAME`, and `@REVISION` behind it for one that stays."""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import BundleError, MissingExtra, brief

# A Path of it has one slash.
ADDRESS = re.compile(r"hf:/{1,2}(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")


def fetched(bundle: str | Path) -> Path:
    """The folder of a bundle in the Hub's cache, filled where it is not there yet.

    Raises `BundleError` where it cannot be had, and `MissingExtra` without huggingface_hub.
    """
    match = ADDRESS.fullmatch(str(bundle))
    if match is None:
        raise BundleError(f"{bundle} is no address of the Hub; expected hf://OWNER/NAME or with @REVISION")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise MissingExtra("huggingface_hub, which fetches hf:// addresses,", "hub") from None
    repository, revision = match["repository"], match["revision"]
    try:
        folder = snapshot_download(repository, revision=revision, ignore_patterns=["saved_model/*"])
    except Exception as error:  # of the Hub, of the network, of the disk: it has a dozen kinds
        raise BundleError(
            f"{bundle} could not be fetched ({brief(error, 200)}); check the name and the network"
        ) from error
    return Path(folder)
