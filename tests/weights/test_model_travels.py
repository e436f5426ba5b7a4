"""Config to run or model, to a file or folder, to a model again: the same in every respect."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from command_line import assert_refused, run_command
from training_runs import SMALL_MODEL

import painformer_jax as pj
from painformer_jax.core.errors import InputError
from painformer_jax.embedding.inference import Embedder
from painformer_jax.models import functional, heads
from painformer_jax.models.config import PRESETS, PainFormerConfig
from painformer_jax.models.registry import make_config
from painformer_jax.weights import folder as weights
from painformer_jax.weights import pretrain_run
from painformer_jax.weights import save as save_module
from painformer_jax.weights.convert import export
from painformer_jax.weights.load import load_arrays, read_weights
from painformer_jax.weights.safetensors_file import write_safetensors
from painformer_jax.weights.torch.read import read
from painformer_jax.weights.torch.write import write_pth
from painformer_jax.weights.trained_on import TrainedOn

FORMS = ('w.pth', 'w.safetensors', 'w')
FILES = FORMS[:2]
# Classes of the run's tasks: few, and so many that the stored head has more columns.
TASKS = {'few': 3, 'many': 1030}


def random_model(config: PainFormerConfig, seed: int = 0) -> pj.PainFormer:
  """Values that spread enough for every array to matter."""
  rng = np.random.default_rng(seed)
  arrays = {
    path: rng.normal(0, 0.3, a.shape).astype(a.dtype)
    if a.dtype == jnp.float32
    else np.asarray(7, a.dtype)
    for path, a in functional.abstract_variables(config).items()
  }
  arrays |= {path: np.abs(a) + 0.5 for path, a in arrays.items() if path.endswith('/var')}
  return functional.from_variables(config, arrays)


def arrays(model) -> dict[str, np.ndarray]:
  return {path: np.asarray(a) for path, a in functional.variables(model).items()}


def assert_same(left, right):
  assert left.config == right.config
  assert_equal_arrays(left, right)


def assert_equal_arrays(left, right):
  left, right = arrays(left), arrays(right)
  assert left.keys() == right.keys()
  for path in left:
    assert left[path].tobytes() == right[path].tobytes(), path


def output(model) -> np.ndarray:
  """Embeddings of two images, by the program of the model's config."""
  rng = np.random.default_rng(0)
  size = model.config.image_size
  return Embedder(model, batch_size=2)(rng.integers(0, 256, (2, size, size, 3), np.uint8))


def small(config: PainFormerConfig, **changes) -> PainFormerConfig:
  """The config with everything that shapes do not say, and few and narrow blocks."""
  return dataclasses.replace(
    config,
    image_size=32,
    stem_width=4,
    widths=tuple(2 * number for number in config.heads),
    mixers=tuple(''.join(dict.fromkeys(pattern)) for pattern in config.mixers),
    mlp_ratios=(2,) * len(config.widths),
    **changes,
  )


def content_of(model, form, folder) -> bytes:
  pj.save(model, folder / f'model_{form}')
  return (folder / f'model_{form}').read_bytes()


def without_config(model, path) -> None:
  """A file as PyTorch saves one, which does not say what the model is."""
  write = write_pth if path.suffix == '.pth' else write_safetensors
  write(path, export(arrays(model)))


# --- every preset, every form ----------------------------------------------------


@pytest.mark.parametrize('name', PRESETS)
def test_every_preset_from_file_to_file(name, tmp_path):
  """By the arrays and the config, which make up a model; other tests look at outputs."""
  model = random_model(small(PRESETS[name].config, num_classes=3))
  pj.save(model, tmp_path / 'w.pth')
  assert_same(pj.load(tmp_path / 'w.pth'), model)
  stored = pj.convert(tmp_path / 'w.pth', tmp_path / 'w.safetensors')
  assert (stored.config, stored.assumed) == (model.config, '')
  assert_same(pj.load(tmp_path / 'w.safetensors'), model)


def test_every_form_to_every_form(tmp_path):
  model = random_model(make_config('painformer_nano', num_classes=3))
  for form in FORMS:
    pj.save(model, tmp_path / form)
    assert_same(pj.load(tmp_path / form), model)
    for target in FILES:  # The same input, the same file.
      pj.convert(tmp_path / form, tmp_path / f'again{target}')
      assert (tmp_path / f'again{target}').read_bytes() == content_of(model, target, tmp_path)
  pj.convert(tmp_path / 'w.safetensors', tmp_path / 'again')
  assert_same(pj.load(tmp_path / 'again'), model)


def test_what_shapes_do_not_say(tmp_path, capsys):
  """One head everywhere, another size, other statistics, other arithmetic: embeddings agree."""
  config = make_config(
    'painformer_nano',
    heads=(1, 1, 1, 1),
    post_heads=1,
    mean=(0.1, 0.2, 0.3),
    std=(0.3, 0.2, 0.1),
    gate='dft',
    num_classes=2,
  )
  model = random_model(config)
  expected = output(model)
  for form in FORMS:
    pj.save(model, tmp_path / form)
    loaded = pj.load(tmp_path / form)
    assert loaded.config == config
    np.testing.assert_array_equal(output(loaded), expected)
  assert capsys.readouterr().err == ''
  # Without the config, the preset's heads are taken, which is told; they are wrong here.
  for form in FILES:
    without_config(model, tmp_path / f'bare_{form}')
    guessed = pj.load(tmp_path / f'bare_{form}')
    line = capsys.readouterr().err
    assert line.count('\n') == 1 and f'bare_{form}' in line
    assert 'heads 1,2,3,4,4 as in painformer_nano' in line
    assert guessed.config.heads == (1, 2, 3, 4)
    named = pj.load(tmp_path / f'bare_{form}', heads=(1, 1, 1, 1), gate='dft', num_classes=0)
    assert capsys.readouterr().err == ''
    assert (named.config.heads, named.config.post_heads) == ((1, 1, 1, 1), 1)
  assert np.abs(output(guessed) - expected).max() > 1e-3
  assert_equal_arrays(named, pj.load(tmp_path / 'w.pth', num_classes=0))


def test_a_run_says_the_heads_of_the_file_that_it_starts_from(tmp_path):
  config = make_config('painformer_nano', heads=(1, 1, 1, 1), post_heads=1)
  model = random_model(config)
  without_config(model, tmp_path / 'bare.pth')
  pj.save(model, tmp_path / 'w.pth')
  for file in 'bare.pth', 'w.pth':
    assert load_arrays(tmp_path / file, config=config).keys() == arrays(model).keys()
  with pytest.raises(InputError, match='another shape .heads: .1, 1, 1, 1. there'):
    load_arrays(tmp_path / 'w.pth', config=make_config('painformer_nano'))


def test_commands_say_what_a_file_does_not(tmp_path):
  without_config(random_model(make_config('painformer_nano')), tmp_path / 'w.pth')
  for command in (('convert', 'w.pth', 'folder'), ('export', 'w.pth', 'w.safetensors')):
    done = run_command(*command, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, '')
    assert done.stdout.count('does not say it: heads 1,2,3,4,4 as in painformer_nano') == 1
    done = run_command(*command, '--heads', '1,2,3,4', cwd=tmp_path)
    assert 'does not say' not in done.stdout
  done = run_command('export', 'w.pth', 'other.pth', '--heads', '1,2,3', cwd=tmp_path)
  assert_refused(done, 'w.pth', 'heads', '4 stages')
  done = run_command('export', 'w.pth', 'other.pth', '--heads', 'many', cwd=tmp_path)
  assert done.returncode == 2 and 'many' in done.stderr
  # A folder says its heads; they are what was taken.
  assert 'does not say' not in run_command('export', 'folder', 'b.pth', cwd=tmp_path).stdout
  assert_refused(
    run_command('export', 'folder', 'c.pth', '--heads', '1,2,3,4', cwd=tmp_path), '--heads'
  )


def test_records_that_are_damaged(tmp_path):
  model = random_model(make_config('painformer_nano'))
  tensors = pj.to_torch_names(model)
  write_pth(tmp_path / 'w.pth', tensors, record={'config': {'heads': [0, 0, 0, 0]}})
  write_safetensors(tmp_path / 'w.safetensors', tensors, record={'config': 5})
  for form in FILES:
    with pytest.raises(InputError, match=f'{form} has a damaged record .*painformer_config'):
      pj.load(tmp_path / form)
  for name in ('a\nb', '\x1b[31mred', 'a' * 5000):
    for key in ('model', 'head'):
      fields = json.loads(json.dumps(dataclasses.asdict(model.config)))
      write_safetensors(tmp_path / 'w.safetensors', tensors, record={'config': fields, key: name})
      with pytest.raises(InputError, match=f'{key} is no name') as caught:
        pj.load(tmp_path / 'w.safetensors')
      assert str(caught.value).isprintable()
  # Of another model than the arrays.
  fields = dataclasses.asdict(model.config) | {'widths': [8, 16, 24, 64]}
  record = {'config': json.loads(json.dumps(fields)), 'model': ''}
  write_pth(tmp_path / 'w.pth', tensors, record=record)
  with pytest.raises(InputError, match='shape'):
    pj.load(tmp_path / 'w.pth')


# --- heads of runs -----------------------------------------------------------


@pytest.fixture
def run(tmp_path, monkeypatch):
  """The folder of a run with two tasks; `test_pretrain_run` has a real one."""
  config = make_config('painformer_nano', **SMALL_MODEL)
  backbone = arrays(random_model(config))
  learned = functional.parameter_paths(config)
  keys = jax.random.key(0)
  stored = {
    'params': {f'backbone/{path}': a for path, a in backbone.items() if path in learned}
    | {
      f'heads/{path}': np.asarray(a)
      for path, a in heads.initial_heads(TASKS, width=config.embedding_width, key=keys).items()
    }
    | {f'log_variance/{task}': np.zeros((), np.float32) for task in TASKS},
    'stats': {path: a for path, a in backbone.items() if path not in learned},
  }
  assert stored['params']['heads/many/bias'].shape == (1152,)
  monkeypatch.setattr(pretrain_run, 'restore_arrays', lambda folder: (5, stored))
  folder = tmp_path / 'run'
  (folder / 'checkpoints').mkdir(parents=True)
  (folder / 'config.json').write_text(
    json.dumps({'model': {'name': 'painformer_nano', **SMALL_MODEL}})
  )
  return folder


@pytest.mark.parametrize('task', TASKS)
def test_every_head_leaves_a_run(run, task, tmp_path):
  classes = TASKS[task]
  model = pj.load(run, head=task)
  assert model.config.num_classes == classes
  assert arrays(model)['head/kernel'].shape == (SMALL_MODEL['widths'][-1], classes)
  _, stored = pretrain_run.restore_arrays(run)
  kernel = stored['params'][f'heads/{task}/kernel']
  np.testing.assert_array_equal(arrays(model)['head/kernel'], kernel[:, :classes])
  assert not kernel[:, classes:].any()
  backbone = pj.load(run)
  assert backbone.config.num_classes == 0
  for form in FILES:
    done = run_command('export', run, tmp_path / form, '--head', task)
    assert done.returncode == 0 and f'a head of {classes:,} classes ({task})' in done.stdout
    assert {'head.weight', 'head.bias'} <= read(tmp_path / form).tensors.keys()
    for loaded in (
      pj.load(tmp_path / form),
      pj.load(tmp_path / form, head=task),
      pj.load(tmp_path / form, num_classes=classes),
    ):
      assert_same(loaded, model)
    with pytest.raises(InputError, match=f"the head '{task}', not 'other'"):
      pj.load(tmp_path / form, head='other')
    assert_same(pj.load(tmp_path / form, num_classes=0), backbone)
  # The head goes on through a folder and a model.
  pj.convert(tmp_path / 'w.pth', tmp_path / 'folder')
  pj.save(pj.load(tmp_path / 'folder', head=task), tmp_path / 'again.pth')
  assert read_weights(tmp_path / 'again.pth').source.head == task


@pytest.mark.parametrize(
  'options, message',
  [
    ({'head': 'fw'}, "no head 'fw'; did you mean few.*known: few, many"),
    ({'head': ''}, "no head ''"),
    ({'num_classes': 3}, 'head= names one'),
    ({'head': 'few', 'num_classes': 4}, 'num_classes 4: .*has a head of 3 classes'),
    ({'new_head': True}, 'new_head needs num_classes'),
    ({'heads': (1, 2)}, '--heads is for files'),
  ],
)
def test_heads_that_a_run_has_not(run, options, message):
  with pytest.raises(InputError, match=message):
    pj.load(run, **options)


def test_a_new_head_is_asked_for(run):
  model = pj.load(run, head='few', num_classes=4, new_head=True)
  assert arrays(model)['head/kernel'].shape[1] == 4
  assert pj.load(run, num_classes=3, new_head=True).config.num_classes == 3


def test_a_head_without_a_name(tmp_path):
  model = random_model(make_config('painformer_nano', num_classes=3))
  pj.save(model, tmp_path / 'w.pth')
  with pytest.raises(InputError, match="a head without a name, not 'pain'"):
    pj.load(tmp_path / 'w.pth', head='pain')
  pj.save(pj.load(tmp_path / 'w.pth', num_classes=0), tmp_path / 'w.pth')
  with pytest.raises(InputError, match="no head, not 'pain'"):
    pj.load(tmp_path / 'w.pth', head='pain')
  assert pj.load(tmp_path / 'w.pth', num_classes=5).config.num_classes == 5


# --- as a library ------------------------------------------------------------


def test_names_of_the_release():
  model = random_model(make_config('painformer_nano', num_classes=2))
  expected = export(arrays(model))
  for given in (model, arrays(model), functional.variables(model)):
    names = pj.to_torch_names(given)
    assert list(names) == list(expected)
    assert all(names[n].tobytes() == expected[n].tobytes() for n in names)
  with pytest.raises(ValueError, match='takes a model or its arrays'):
    pj.to_torch_names('w.pth')
  with pytest.raises(ValueError, match='save takes a model first'):
    pj.save('w.pth', model)


@pytest.mark.parametrize('dtype, error', [('bfloat16', 2**-8), ('float16', 2**-11)])
@pytest.mark.parametrize('form', FILES)
def test_numbers_of_other_types(tmp_path, form, dtype, error):
  model = random_model(make_config('painformer_nano'))
  pj.save(model, tmp_path / 'full.pth')
  done = run_command('export', tmp_path / 'full.pth', tmp_path / form, '--dtype', dtype)
  assert done.returncode == 0 and f' in {dtype}' in done.stdout
  stored = read(tmp_path / form).tensors
  assert {str(a.dtype) for a in stored.values()} == {dtype, 'int64'}
  assert (tmp_path / form).stat().st_size < 0.8 * (tmp_path / 'full.pth').stat().st_size
  loaded = pj.load(tmp_path / form)
  assert loaded.config == model.config
  for path, array in arrays(model).items():
    np.testing.assert_allclose(arrays(loaded)[path], array, rtol=error, atol=1e-7)
    assert arrays(loaded)[path].dtype == array.dtype


def test_numbers_that_a_type_does_not_hold(tmp_path):
  model = random_model(make_config('painformer_nano'))
  values = arrays(model) | {'norm1/scale': np.full(8, 70_000, np.float32)}
  model = functional.from_variables(model.config, values)
  with pytest.raises(InputError, match='norm1.weight holds 70000, too large for float16'):
    pj.save(model, tmp_path / 'w.pth', dtype='float16')
  with pytest.raises(InputError, match='w would be a weights folder'):
    pj.save(model, tmp_path / 'w', dtype='bfloat16')
  with pytest.raises(InputError, match="'float8' is none of float32, bfloat16, float16"):
    pj.save(model, tmp_path / 'w.pth', dtype='float8')
  with pytest.raises(InputError, match='must end in .pth, .pt, .safetensors'):
    pj.save(model, tmp_path / 'w.onnx')
  assert not list(tmp_path.iterdir())


def test_places_that_are_not_written_to(tmp_path):
  model = random_model(make_config('painformer_nano'))
  pj.save(model, tmp_path / 'w.pth')
  (tmp_path / 'notes.pth').write_text('words')
  (tmp_path / 'thesis').mkdir()
  (tmp_path / 'thesis' / 'chapter').write_text('words')
  for target in ('notes.pth', 'thesis', 'w.pth'):
    with pytest.raises(InputError, match=target):
      pj.convert(tmp_path / 'w.pth', tmp_path / target)
  with pytest.raises(InputError, match='no option colour'):
    pj.convert(tmp_path / 'w.pth', tmp_path / 'x.pth', colour=1)
  pj.save(model, tmp_path / 'w.pth')  # What this program wrote is replaced.


def test_whom_weights_were_tuned_on_goes_with_a_loaded_model(tmp_path):
  records = (TrainedOn(study='BioVid', subjects=('a', 'b'), start='x'),)
  model = random_model(make_config('painformer_nano'))
  weights.save_weights(
    tmp_path / 'tuned',
    arrays(model),
    config=model.config,
    source=weights.WeightsSource(name='x', trained_on=records, initialised=('norm1.bias',)),
  )
  with pytest.warns(UserWarning, match=r'initial values instead: norm1\.bias'):
    pj.save(pj.load(tmp_path / 'tuned'), tmp_path / 'w.safetensors')
  for path in ('w.safetensors', 'w.pth', 'folder'):
    stored = pj.convert(tmp_path / 'w.safetensors', tmp_path / f'again_{path}')
    stored = read_weights(tmp_path / f'again_{path}')
    assert stored.source.trained_on == records
    assert stored.source.initialised == ('norm1.bias',)


def test_the_record_is_plain_and_says_the_model(tmp_path):
  model = random_model(make_config('painformer_nano', num_classes=2))
  pj.save(model, tmp_path / 'w.safetensors')
  content = (tmp_path / 'w.safetensors').read_bytes()
  header = json.loads(content[8 : 8 + int.from_bytes(content[:8], 'little')])
  record = json.loads(header['__metadata__']['painformer_config'])
  assert record['model'] == 'painformer_nano'
  assert record['config'] == json.loads(json.dumps(dataclasses.asdict(model.config)))
  assert save_module.differing(model.config) != []
