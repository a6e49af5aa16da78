"""Click logs and other tables for ranking models: read once, encoded, and kept memory-mapped.

Here belong the formats that can be read (`readers.py`, with the layouts of public logs in `formats.py`), the roles of
columns (`schema.py`), how values become rows of a table (`encoding.py`), and the split by time. The way in is
`open_ranking`.
"""

from rankitect.data.ranking.batch import RankingBatch
from rankitect.data.ranking.dataset import RankingData, RankingSplit
from rankitect.data.ranking.features import CategoricalFeature, Features
from rankitect.data.ranking.prepare import open_ranking
from rankitect.data.ranking.schema import DataSettings, TableSchema

__all__ = [
    "CategoricalFeature",
    "DataSettings",
    "Features",
    "RankingBatch",
    "RankingData",
    "RankingSplit",
    "TableSchema",
    "open_ranking",
]
