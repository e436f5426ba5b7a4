"""Everything that can end a training run, done to real runs, as a table.

    python tests/faults.py [--only NAME ...]

Each row is a fault: what the processes said and exited with, how long the others took
to notice, how many steps were lost, and whether the run, started once more, ended with
the bits of one that was left alone: every array of the last checkpoint and every row of
metrics.jsonl. The model is two stages of painformer_nano on made-up data, 24 steps with
a checkpoint after every fifth.
"""

import argparse
import dataclasses
import pathlib
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import types

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

sys.path[:0] = [
  str(pathlib.Path(__file__).parent / 'helpers'),
  *map(str, pathlib.Path(__file__).parents[:2]),
]

from process_runs import ProcessRun, Topology
from training_runs import QUICK_COMPILE, SMALL_OVERRIDES, CommandLine, rows, shared_folder

from painformer_jax.checkpoints import read as checkpoints

STEPS, EVERY, KILLS, PEER_TIMEOUT = 24, 5, 20, 20.0

OVERRIDES = {
  'steps': STEPS,
  'log_every': 1,
  'checkpoint_every': EVERY,
  'eval_every': 9,
  'eval_batch_size': 1,
  'model.drop_path_rate': 0.2,
  'optimizer.learning_rate': 3e-3,
  **SMALL_OVERRIDES,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
  """One fault, measured; `fine` says whether all is as it should be."""

  fault: str
  topology: Topology
  moment: str
  statuses: list[int]
  says: str = ''
  noticed: float | None = None
  lost: int | None = None
  same: str = ''
  fine: bool = True

  def cells(self) -> list[str]:
    def blank(value, form='{}'):
      return '' if value is None else form.format(value)

    return [
      self.fault,
      str(self.topology),
      self.moment,
      ' '.join(map(str, self.statuses)),
      blank(self.noticed, '{:.1f}'),
      blank(self.lost),
      self.same,
      self.says,
      '' if self.fine else 'NO',
    ]


HEADINGS = [
  'fault',
  'on',
  'when',
  'exit',
  'noticed after, s',
  'steps lost',
  'same bits at the end',
  'what it says',
  'as it should be',
]


def checkpoint(workdir: pathlib.Path) -> tuple[int, dict[str, np.ndarray]]:
  """The step and every array of the newest checkpoint."""
  step = checkpoints.latest_step(workdir / 'checkpoints')
  path = epath.Path(workdir / 'checkpoints' / str(step) / 'state')
  reader = ocp.PyTreeCheckpointHandler()
  tree = jax.tree.map(
    lambda _: ocp.RestoreArgs(restore_type=np.ndarray), reader.metadata(path).tree
  )
  tree = reader.restore(path, args=ocp.args.PyTreeRestore(restore_args=tree))
  reader.close()
  return step, ocp.tree.to_flat_dict(tree, sep='/')


def compare(workdir: pathlib.Path, reference: pathlib.Path) -> str:
  """'yes', or what differs most."""
  (step, found), (expected_step, expected) = checkpoint(workdir), checkpoint(reference)
  if step != expected_step or found.keys() != expected.keys():
    return f'no: step {step}'
  different = [
    path
    for path in found
    if np.asarray(found[path]).tobytes() != np.asarray(expected[path]).tobytes()
  ]
  if not different and rows(workdir) == rows(reference):
    return 'yes'
  pairs = zip(rows(workdir), rows(reference), strict=True)
  loss = max(abs(a['loss'] - b['loss']) for a, b in pairs if 'loss' in a)
  return f'loss within {loss:.0e}'


def newest_row(workdir: pathlib.Path) -> int:
  try:
    return rows(workdir)[-1]['step']
  except (OSError, ValueError, IndexError):  # Not there yet, or being written.
    return 0


def last_step(run: ProcessRun) -> int:
  """The last step of which this start has said something."""
  return max(map(int, re.findall(r'^step (\d+)/', run.messages()[0], re.M)), default=0)


class Lab:
  """A folder with data, and runs that nothing disturbed.

  Args:
    folder: for everything.
    **overrides: of the configuration.
  """

  def __init__(self, folder: pathlib.Path, **overrides):
    self.folder, self._count, self._overrides = folder, 0, OVERRIDES | overrides
    self._shared = shared_folder(types.SimpleNamespace(getbasetemp=lambda: folder))
    self._references = {}

  def workdir(self) -> pathlib.Path:
    self._count += 1
    return self.folder / f'run{self._count}'

  def start(
    self, workdir: pathlib.Path, topology: Topology, *, limits: dict[int, int] | None = None
  ) -> ProcessRun:
    command = CommandLine(folder=self._shared, overrides=self._overrides, flags=QUICK_COMPILE)
    return ProcessRun(command, workdir, topology, peer_timeout=PEER_TIMEOUT, limits=limits)

  def complete(self, workdir: pathlib.Path, topology: Topology) -> str:
    """Runs to the end; returns what it said."""
    with self.start(workdir, topology) as run:
      statuses = run.finish()
      assert not any(statuses), run.messages()
      return run.messages()[0]

  def reference(self, topology: Topology) -> pathlib.Path:
    if topology not in self._references:
      self._references[topology] = self.workdir()
      self.complete(self._references[topology], topology)
    return self._references[topology]

  def resumed(self, workdir: pathlib.Path, topology: Topology) -> tuple[int, str]:
    """Runs to the end: the step it went on from, and whether the end is the same."""
    step = checkpoints.latest_step(workdir / 'checkpoints') or 0
    said = self.complete(workdir, topology)
    assert not step or f'resumes from step {step} of' in said, said
    return step, compare(workdir, self.reference(topology))


def killed(lab: Lab, topology: Topology, kills: int = KILLS) -> list[Row]:
  """SIGKILL to all processes at random moments, some in the middle of a save."""
  reference, rng = lab.reference(topology), random.Random(0)
  found, workdir, finished = [], lab.workdir(), []
  while len(found) < kills:
    before = checkpoints.latest_step(workdir / 'checkpoints') or 0
    kind = rng.choice(('save', 'save', 'step', 'step', 'start'))
    step = rng.randint(min(before + 1, STEPS), min(before + 2 * EVERY, STEPS))
    pause = rng.uniform(0, 0.2)
    with lab.start(workdir, topology) as run:
      if kind == 'save':
        step = -(-step // EVERY) * EVERY
        moment = f'while it saves step {step}'
        hit = run.wait_for(
          lambda s=step, r=run, w=workdir: (
            last_step(r) >= s and any((w / 'checkpoints').glob(f'{s}.*tmp*'))
          )
        )
      elif kind == 'step':
        moment = f'{pause:.2f} s after step {step}'
        hit = run.wait_for(lambda s=step, r=run: last_step(r) >= s)
        time.sleep(pause)
      else:
        moment = f'{pause * 20:.1f} s after its start'
        end = time.perf_counter() + pause * 20
        hit = run.wait_for(lambda e=end: time.perf_counter() > e)
      whole = checkpoints.latest_step(workdir / 'checkpoints') or 0
      for process in run.processes:
        process.kill()
      statuses = run.finish()
      done, said = max(before, last_step(run)), run.messages()[0]
    if hit and {*statuses} == {-signal.SIGKILL}:
      saved = checkpoints.latest_step(workdir / 'checkpoints') or 0
      went_on = re.search('^resumes from step ([0-9]+) of', said, re.M)
      found.append(
        Row(
          fault=f'SIGKILL {len(found) + 1}',
          topology=topology,
          moment=moment,
          statuses=statuses,
          lost=max(done - saved, 0),
          says=f'{done} steps done, {whole} saved before it, {saved} after it',
          # What was whole stays, and is what the next start takes. The save under way
          # may have come to its end, and another may have waited for it.
          fine=before <= whole <= saved <= whole + EVERY
          and done - saved <= 2 * EVERY
          and (went_on is None or int(went_on[1]) == before),
        )
      )
    if (workdir / 'report.json').exists():  # It came to its end.
      finished.append(workdir)
      workdir = lab.workdir()
  lab.complete(workdir, topology)
  same = {compare(run, reference) for run in (*finished, workdir)}
  return [
    *found,
    Row(
      fault=f'{kills} SIGKILLs of {len(finished) + 1} run(s)',
      topology=topology,
      moment='at the end',
      statuses=[0],
      same=' '.join(same),
      fine=same == {'yes'},
    ),
  ]


def stopped(lab: Lab, topology: Topology, *, index: int, evaluating: bool) -> list[Row]:
  """SIGTERM to one process: all save the same step and end."""
  workdir = lab.workdir()
  with lab.start(workdir, topology) as run:
    # Step 9 is evaluated after its row is written.
    assert run.wait_for(lambda: newest_row(workdir) >= (9 if evaluating else 6)), run.messages()
    done, began = newest_row(workdir), time.perf_counter()
    run.processes[index].send_signal(signal.SIGTERM)
    statuses = run.finish()
    seconds = time.perf_counter() - began
    said = run.messages()[0].splitlines()
  unevaluated = done == 9 and not any(
    'eval/alpha/loss' in row for row in rows(workdir) if row['step'] == 9
  )
  last = max(row['step'] for row in rows(workdir))
  step, same = lab.resumed(workdir, topology)
  return [
    Row(
      fault='SIGTERM' if topology.processes == 1 else f'SIGTERM to process {index}',
      topology=topology,
      statuses=statuses,
      noticed=seconds,
      lost=last - step,
      same=same,
      moment=f'evaluates step {done}' + ('' if unevaluated else ', finished it')
      if evaluating
      else f'after step {done}',
      says=said[-2],
      fine=same == 'yes'
      and step == last
      and {*statuses} == {130}
      and (not evaluating or unevaluated)
      and said[-2] == f'saved step {step}; run the same command again to resume',
    )
  ]


def one_dies(
  lab: Lab, topology: Topology, *, index: int, number: signal.Signals = signal.SIGKILL
) -> list[Row]:
  """One process is killed, or (SIGSTOP) silent for ever: the others end by themselves."""
  workdir = lab.workdir()
  with lab.start(workdir, topology) as run:
    assert run.wait_for(lambda: newest_row(workdir) >= 7), run.messages()
    began = time.perf_counter()
    run.processes[index].send_signal(number)
    statuses = [process.wait(timeout=300) for process in run.others(index)]
    seconds, done = time.perf_counter() - began, newest_row(workdir)
    says = [line for i, line in enumerate(run.last_lines()) if i != index]
  step, same = lab.resumed(workdir, topology)
  # Of one that is killed a sum over devices tells; of one that is silent JAX's heartbeats.
  killed_one = number == signal.SIGKILL
  return [
    Row(
      fault=f'{number.name} of process {index}',
      topology=topology,
      moment=f'step {done}',
      statuses=statuses,
      noticed=seconds,
      lost=done - step,
      same=same,
      says=says[0] if killed_one else 'what JAX says',
      fine=same == 'yes'
      and {*statuses} == {1 if killed_one else -signal.SIGABRT}
      and seconds < (10 if killed_one else PEER_TIMEOUT + 5)
      and (not killed_one or all(line.startswith('painformer: process ') for line in says)),
    )
  ]


def full_disk(lab: Lab, topology: Topology, *, index: int = 0) -> list[Row]:
  """No file may grow any more when step 10 is saved."""
  workdir = lab.workdir()
  with lab.start(workdir, topology) as run:
    run.wait_for(lambda: (workdir / 'checkpoints/5').exists())
    for process in run.processes:
      process.kill()
    run.finish()
  before = checkpoints.latest_step(workdir / 'checkpoints')
  with lab.start(workdir, topology, limits={index: 20_000}) as run:
    statuses, line = run.finish(), run.last_lines()[index]
  done, after = newest_row(workdir), checkpoints.latest_step(workdir / 'checkpoints')
  step, same = lab.resumed(workdir, topology)
  return [
    Row(
      fault='full disk' + (f' of process {index}' if topology.processes > 1 else ''),
      topology=topology,
      moment=f'saves after step {before}',
      statuses=statuses,
      lost=done - step,
      same=same,
      says=line,
      fine=before == after == step
      and same == 'yes'
      and statuses[index] == 2
      and 'the ones before it are whole' in line,
    )
  ]


def damage(path: pathlib.Path, how: str) -> None:
  """Changes every file of array contents, of which some are not read."""
  for file in path.rglob('d/*'):
    content = bytearray(file.read_bytes())
    if how == 'turned bits':
      for position in range(0, len(content), 500):
        content[position] ^= 1
    else:
      del content[len(content) // 2 :]
    file.write_bytes(content)


def damaged(lab: Lab, topology: Topology, *, how: str) -> list[Row]:
  """The newest checkpoint is put aside, and the one before is taken."""
  workdir, reference = lab.workdir(), lab.reference(topology)
  shutil.copytree(reference, workdir)
  folder = workdir / 'checkpoints'
  (workdir / 'report.json').unlink()
  newest = checkpoints.latest_step(folder)
  damage(folder / str(newest), how)
  said = lab.complete(workdir, topology)
  warnings = [line for line in said.splitlines() if line.startswith('warning: ')]
  went_on = f'resumes from step {STEPS // EVERY * EVERY} of' in said
  same = compare(workdir, reference)
  return [
    Row(
      fault=f'newest checkpoint: {how}',
      topology=topology,
      moment='at the start',
      statuses=[0],
      lost=newest - STEPS // EVERY * EVERY,
      same=same,
      says=warnings[0] if warnings else '',
      fine=len(warnings) == 1
      and went_on
      and same == 'yes'
      and (folder / f'damaged-{newest}').is_dir(),
    )
  ]


def all_damaged(lab: Lab) -> list[Row]:
  workdir, topology = lab.workdir(), Topology()
  shutil.copytree(lab.reference(topology), workdir)
  for path in (workdir / 'checkpoints').iterdir():
    damage(path, 'cut off')
  before = sorted(p.name for p in (workdir / 'checkpoints').iterdir())
  with lab.start(workdir, topology) as run:
    statuses, line = run.finish(), run.last_lines()[0]
  after = sorted(p.name for p in (workdir / 'checkpoints').iterdir())
  return [
    Row(
      fault='all checkpoints cut off',
      topology=topology,
      moment='at the start',
      statuses=statuses,
      says=line,
      fine=statuses == [2] and before == after and 'none of the 2 checkpoint(s) in' in line,
    )
  ]


def moved(lab: Lab, state: str = 'replicated') -> list[Row]:
  """Stopped and resumed on other numbers of processes and devices: 4, 2, 8.

  With small steps, so that sums which are rounded otherwise do not grow apart.
  """
  folder = lab.folder / f'moved {state}'
  folder.mkdir()
  lab = Lab(folder, **{'optimizer.learning_rate': 1e-4, 'sharding.state': state})
  workdir, stops = lab.workdir(), {Topology(4): 7, Topology(2, 2): 14}
  saved = []
  for topology, step in stops.items():
    with lab.start(workdir, topology) as run:
      run.wait_for(lambda s=step: newest_row(workdir) >= s)
      run.processes[-1].send_signal(signal.SIGTERM)
      assert {*run.finish()} == {130}, run.messages()
    saved.append(checkpoints.latest_step(workdir / 'checkpoints'))
  last = Topology(2, 4)
  step, same = lab.resumed(workdir, last)
  rounding = compare(lab.reference(Topology()), lab.reference(last))
  return [
    Row(
      fault=f'moved to others twice, {state} state',
      topology=last,
      statuses=[0, 0],
      lost=0,
      same=same,
      moment=f'4 processes to step {saved[0]}, 2 to {saved[1]}, 8 devices',
      says=f'1 device, undisturbed: {rounding}',
      fine=step == saved[1] > saved[0] and float(same.removeprefix('loss within ')) < 1e-3,
    )
  ]


TWO, FOUR = Topology(2), Topology(4)

FAULTS = {
  'killed': lambda lab: killed(lab, Topology()),
  'stopped': lambda lab: stopped(lab, Topology(), index=0, evaluating=False),
  'stopped-evaluating': lambda lab: stopped(lab, Topology(), index=0, evaluating=True),
  'stopped-two': lambda lab: stopped(lab, TWO, index=1, evaluating=False),
  'stopped-two-evaluating': lambda lab: stopped(lab, TWO, index=1, evaluating=True),
  'dies-two': lambda lab: one_dies(lab, TWO, index=1),
  'dies-two-first': lambda lab: one_dies(lab, TWO, index=0),
  'dies-four': lambda lab: one_dies(lab, FOUR, index=2),
  'dies-four-first': lambda lab: one_dies(lab, FOUR, index=0),
  'silent-two': lambda lab: one_dies(lab, TWO, index=1, number=signal.SIGSTOP),
  'silent-two-first': lambda lab: one_dies(lab, TWO, index=0, number=signal.SIGSTOP),
  'full': lambda lab: full_disk(lab, Topology()),
  'full-two': lambda lab: full_disk(lab, TWO),
  'turned': lambda lab: damaged(lab, Topology(), how='turned bits'),
  'cut-two': lambda lab: damaged(lab, TWO, how='cut off'),
  'all-damaged': all_damaged,
  'moved': moved,
  'moved-fsdp': lambda lab: moved(lab, 'fsdp'),
}


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--only', nargs='+', choices=FAULTS, default=list(FAULTS))
  names, fine = parser.parse_args().only, True
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # Not without its processes.
  print('| ' + ' | '.join(HEADINGS) + ' |\n' + '|---' * len(HEADINGS) + '|', flush=True)
  with tempfile.TemporaryDirectory(prefix='faults-') as folder:
    lab = Lab(pathlib.Path(folder))
    for name in names:
      for row in FAULTS[name](lab):
        cells = [cell.replace(f'{folder}/', '').replace('|', ' ') for cell in row.cells()]
        print('| ' + ' | '.join(cells) + ' |', flush=True)
        fine = fine and row.fine
  return 0 if fine else 1


if __name__ == '__main__':
  sys.exit(main())
