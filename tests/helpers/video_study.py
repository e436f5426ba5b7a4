"""A small study of real videos in BioVid's layout: one face, reddened where it hurts."""

import pathlib

import cv2
import numpy as np
from assessment_layouts import write_list
from skimage import data

PEOPLE = ('071309_w_21', '071313_m_41', '071614_m_20', '071709_w_23')
CLIPS, FRAMES = 2, 4
FACELESS = f'{PEOPLE[0]}-BL1-001'


def write_study(root: pathlib.Path) -> list[str]:
  """Clips of 4 frames, 2 a level and person, of which one shows no face; their names.

  Beside them, in thermal/, a folder of grey frames for each, brighter where it hurts.
  """
  face, rng, rows = data.astronaut()[:240, 100:340], np.random.default_rng(0), []
  for number, person in enumerate(PEOPLE, 1):
    for level, name in ((0, 'BL1'), (4, 'PA4')):
      for clip in range(1, CLIPS + 1):
        sample = f'{person}-{name}-{clip:03d}'
        rows.append([str(number), person, str(level), name, str(len(rows) + 1), sample])
        frames = [
          np.roll(face, rng.integers(-6, 7, 2), (0, 1)).astype(np.float64) for _ in range(FRAMES)
        ]
        if level:
          for frame in frames:
            frame[..., 0] *= 1.6
        if sample == FACELESS:
          frames = [np.full(face.shape, 100.0) for _ in frames]
        _write(root / 'video' / person / f'{sample}.mp4', frames)
        _write_maps(root / 'thermal' / person / sample, level, rng)
  write_list(root, rows)
  return [row[-1] for row in rows]


def _write(path: pathlib.Path, frames, *, rate: float = 25.0) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), rate, frames[0].shape[1::-1])
  for frame in frames:
    writer.write(np.clip(frame[..., ::-1], 0, 255).astype(np.uint8))
  writer.release()


def _write_maps(folder: pathlib.Path, level: int, rng: np.random.Generator) -> None:
  """16-bit maps with a warm spot that is larger where it hurts."""
  folder.mkdir(parents=True)
  y, x = np.mgrid[:48, :64]
  for number in (1, 2, 10):
    warm = np.exp(-((x - 32) ** 2 + (y - 24) ** 2) / (2 * (6 + 3 * level) ** 2))
    values = 20000 + 8000 * warm + 200 * rng.normal(size=warm.shape)
    cv2.imwrite(str(folder / f'frame{number}.png'), values.astype(np.uint16))
