"""Many rows: classes that take columns and give columns, and `steprnn map`, which does files with them.

>>> from steprnn.runtime.bulk import Embed
>>> embed = Embed("lyrics.bundle", column="text")
>>> embed({"text": np.array(["分开", "云不走"])})["embedding"].shape
(2, 256)
"""

from .columns import Embed, Generate, Score

__all__ = ["Embed", "Generate", "Score"]
