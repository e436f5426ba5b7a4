"""What was recorded: one file of a clip, and its windows as embeddings."""

import dataclasses

from painformer_jax.assessment.embedding.modality_folder import Tokens

# Share of a window's embeddings that must be there, for each modality.
PRESENT = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recording:
  """One file of what was recorded; several start at the same moment.

  Attributes:
    path: a video, whose frames count by their time stamps, or signals in .csv, .tsv,
      .txt, .npy, .npz or .parquet.
    columns: of signals: names or numbers of the columns; none where there is one.
    rate: of signals, samples a second, Hz; 0 to find it by the file's times.
    time: of signals, name or number of the column of times; '' to find it, 'none' to go by
      `rate` alone.
  """

  path: str
  columns: tuple[str, ...] = ()
  rate: float = 0.0
  time: str = ''


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class WindowEmbeddings:
  """The windows of one modality of a recording.

  Attributes:
    tokens: embeddings, [windows, tokens, width].
    reasons: why a window cannot be judged; '' where it can.
  """

  tokens: Tokens
  reasons: tuple[str, ...]
