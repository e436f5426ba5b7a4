"""`painformer plan` by its command line: sweeps, failures, mistakes."""

import dataclasses
import json
import sys

import pytest
from test_plan import CLASSES, TINY, planned, small_request

from painformer_jax.cli.main import main
from painformer_jax.core.errors import InputError
from painformer_jax.parallel import topology
from painformer_jax.planning import plan
from painformer_jax.training.config import from_config_dict


def test_a_sweep_from_the_command_line(painformer, tmp_path):
  done = painformer(
    'plan',
    *TINY,
    *CLASSES,
    '--topology=cpu:2',
    '--sweep=per-chip=2,4',
    '--epochs=3',
    f'--json={tmp_path}/plan.json',
    f'--plot={tmp_path}/plan.png',
  )
  assert done.returncode == 0, done.stderr[-2000:]
  header, small, large, note = done.stdout.splitlines()
  assert header.split()[:2] == ['per-chip', 'chips'] and 'estimates' in note
  records = json.loads((tmp_path / 'plan.json').read_text())
  assert [r['settings'] for r in records] == [{'per-chip': '2'}, {'per-chip': '4'}]
  small, large = (r['compiled'] for r in records)
  assert (small['images'], large['images'], small['chips']) == (4, 8, 2)
  assert small['parameter_bytes'] == large['parameter_bytes']
  assert small['temporary_bytes'] < large['temporary_bytes'] < 3 * small['temporary_bytes']
  assert large['batch_bytes'] == 2 * small['batch_bytes']
  assert (tmp_path / 'plan.png').read_bytes().startswith(b'\x89PNG')
  assert 'compiles 2 of 2 for cpu:2: per-chip 4' in done.stderr


@pytest.fixture
def compiled(monkeypatch):
  """Requests that the command makes; those with remat 'dots' fail."""
  requests = []

  def stand_in(request):
    requests.append(request)
    config = from_config_dict(request.config).with_batch_sizes(request.sizes)
    if config.remat == 'dots':
      raise InputError('the compiler said no')
    chips = topology.parse_topology(request.topology).chips
    return dataclasses.replace(
      planned().program,
      topology=request.topology,
      chips=chips,
      mesh={'dcn': 1, 'data': chips, 'model': 1},
      remat=config.remat,
      images=sum(config.batch_sizes.values()),
    )

  monkeypatch.setattr(plan, 'run_apart', stand_in)
  monkeypatch.setattr(topology, 'check_compiler', lambda _: None)
  return requests


def test_every_combination_of_a_sweep_is_compiled(compiled, tmp_path, capsys):
  path = tmp_path / 'plan.json'
  assert (
    main(
      [
        'plan',
        *TINY,
        *CLASSES,
        '--per-chip=2',
        '--sweep=topology=cpu:2,2*v5e:2x2,h100:8',
        '--sweep=remat=none,full',
        '--sweep=config.sharding.state=replicated,fsdp',
        f'--json={path}',
      ]
    )
    == 0
  )
  settings = [(r.topology, r.config['remat'], r.config['sharding']['state']) for r in compiled]
  assert settings == [
    (name, remat, state)
    for name in ('cpu:2', '2*v5e:2x2', 'h100:8')
    for remat in ('none', 'full')
    for state in ('replicated', 'fsdp')
  ]
  records = json.loads(path.read_text())
  assert [tuple(r['settings'].values()) for r in records] == settings
  assert list(records[0]['settings']) == ['topology', 'remat', 'sharding.state']
  # The batch follows the chips of each.
  assert [r['compiled']['images'] for r in records] == 4 * [4] + 4 * [16] + 4 * [16]
  header, *rows = capsys.readouterr().out.splitlines()
  assert header.split()[:3] == ['topology', 'remat', 'sharding.state']
  assert [tuple(row.split()[:3]) for row in rows[:12]] == settings


def test_a_sweep_goes_on_after_a_failure_and_tells_it(compiled, tmp_path, capsys):
  path = tmp_path / 'plan.json'
  arguments = ['plan', *TINY, *CLASSES, '--topology=cpu:2', '--per-chip=2', f'--json={path}']
  assert main([*arguments, '--sweep=remat=none,dots,full']) == 2
  assert [r.config['remat'] for r in compiled] == ['none', 'dots', 'full']
  out, err = capsys.readouterr()
  assert [row.split()[0] for row in out.splitlines()[1:3]] == ['none', 'full']
  assert [r['settings'] for r in json.loads(path.read_text())] == [
    {'remat': 'none'},
    {'remat': 'full'},
  ]
  assert 'remat dots: the compiler said no' in err.splitlines()[2]
  assert err.splitlines()[-1] == (
    'painformer: 1 of 3 did not compile; remat dots: the compiler said no'
  )


def test_where_nothing_compiles_nothing_is_written(compiled, tmp_path, capsys):
  path = tmp_path / 'plan.json'
  arguments = [
    'plan',
    *TINY,
    *CLASSES,
    '--topology=cpu:2',
    '--per-chip=2',
    f'--json={path}',
    '--config.remat=dots',
  ]
  for more in ([], ['--sweep=model.gate=fft,dft']):
    assert main([*arguments, *more]) == 2
    out, err = capsys.readouterr()
    assert not out and not path.exists()
    assert err.splitlines()[-1].startswith('painformer: ') and 'said no' in err.splitlines()[-1]
  assert len(compiled) == 3  # All of a sweep are tried.


@pytest.mark.parametrize(
  ('arguments', 'part'),
  [
    ([], 'name a --topology'),
    (['--topology=v7'], 'no chip'),
    (['--topology=cpu:2', '--per-chip=0'], '--per-chip 0'),
    (['--topology=cpu:2', '--per-chip=1'], 'cannot be divided among 2 tasks'),
    (['--topology=cpu:2', '--sweep=gate'], 'write it as KEY=A,B'),
    (['--topology=cpu:2', '--sweep=model.gate=fft,'], 'write it as KEY=A,B'),
    (['--topology=cpu:2', '--sweep=model.gate=fft,dct'], 'dct'),
    (['--topology=cpu:2', '--sweep=model.gait=fft'], 'did you mean gate?'),
    (['--sweep=topology=cpu:2,cpu:x'], 'cpu:x'),
    (['--topology=v5e:4x4'], 'name --per-chip N'),
    (['--topology=cpu:2', '--epochs=0'], 'above 0'),
    (['--topology=cpu:2', '--json=no/such/folder.json'], 'no folder'),
    (['--topology=cpu:2', '--plot=plan.doc'], '.png'),
    (['--topology=cpu:2', '--classes=gamma=3'], 'write it as TASK=N'),
  ],
)
def test_bad_arguments_are_one_line(arguments, part, capsys):
  assert main(['plan', *TINY, *CLASSES, *arguments]) == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith('painformer: ') and part in line


def test_rows_that_do_not_split_are_refused_by_the_compiling_process():
  with pytest.raises(InputError, match='multiple of 3'):
    plan.run_apart(small_request('cpu:3'))


def test_a_compiler_that_dies_is_reported(monkeypatch):
  monkeypatch.setattr(plan, 'compiler_environment', lambda _: {'JAX_PLATFORMS': 'nonesuch'})
  with pytest.raises(InputError, match='ended with status 1 and no result: .*nonesuch'):
    plan.run_apart(small_request('cpu:2'))


@pytest.mark.parametrize(
  ('name', 'module', 'extra'),
  [('v5e:2x2', 'libtpu', 'tpu'), ('h100:8', 'jax_cuda12_plugin', 'plan-gpu')],
)
def test_a_missing_compiler_names_its_extra(name, module, extra, capsys, monkeypatch):
  monkeypatch.setitem(sys.modules, module, None)
  assert main(['plan', *TINY, *CLASSES, f'--topology={name}']) == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert f"'.[{extra}]'" in line and module in line
