"""Configurations of assessments: every file in configs/, and typos."""

import copy
import dataclasses
import json
import shlex

import pytest
from repository import ROOT

from painformer_jax.assessment.config import (
  AssessConfig,
  changed_fields,
  defaults,
  from_config_dict,
)
from painformer_jax.cli.config_file import load_config
from painformer_jax.core.errors import InputError
from painformer_jax.models import embedding_mixer_config

FILES = sorted((ROOT / 'configs').glob('assess_*.py'))
FNIRS = ('--config.fnirs.path=f.csv', "--config.fnirs.columns=('a',)", '--config.fnirs.rate=10')
GIVEN = ('--config.weights=w', '--config.data_dir=d')


def plain(**changes) -> dict:
  """A sound config as a plain table."""
  config = defaults().to_dict()
  config |= dict(
    dataset='biovid',
    data_dir='d',
    weights='w',
    tasks=('BL1-PA4',),
    protocol='loso',
    modalities=dict(gsr=dict(source='gsr'), ecg=dict(source='ecg')),
    rows=dict(one=dict(fusion=dict(kind='add', modalities=('gsr',)))),
  )
  return copy.deepcopy(config) | changes


@pytest.mark.parametrize('file', FILES, ids=lambda f: f.stem)
def test_every_config_file_is_sound(file):
  config = from_config_dict(load_config(str(file), overrides=GIVEN))
  assert config.rows and config.tasks


def test_config_files_are_the_promised_ones():
  assert {f.stem for f in FILES} >= {
    'assess_biovid',
    'assess_ai4pain',
    'assess_demo',
    'assess_planted',
  }


@pytest.mark.parametrize(
  'changes, words',
  [
    (dict(datset='biovid'), "config has no field 'datset'; did you mean dataset?"),
    (dict(dataset='biovit'), 'did you mean biovid?'),
    (dict(data_dir=''), 'config.data_dir is empty'),
    (dict(tasks=('BL1-PA5',)), 'did you mean BL1-PA'),
    (dict(tasks=()), 'config.tasks is empty'),
    (dict(protocol='losso'), 'did you mean loso?'),
    (dict(protocol='blocks'), "'blocks' is for dataset 'demo'"),
    (dict(rows=dict(one=dict(fusion=dict(kind='ad', modalities=('gsr',))))), 'did you mean add?'),
    (dict(rows=dict(one=dict(fusion=dict(kind='add', modalities=('grs',))))), 'did you mean gsr?'),
    (
      dict(rows=dict(one=dict(fusion=dict(kind='fusion-n', modalities=('gsr', 'ecg'))))),
      'coded must name',
    ),
    (
      dict(rows=dict(one=dict(fusion=dict(modalities=('gsr',)), tasks=('5-class',)))),
      'none of config.tasks',
    ),
    (dict(modalities=dict(gsr=dict(sorce='gsr'))), 'did you mean source?'),
    (dict(modalities=dict(gsr=dict(source='gsr', signal=dict(windw=3.0)))), 'did you mean window?'),
    (dict(modalities=dict(gsr=dict())), 'config.modalities.gsr.source is missing'),
    (dict(fit=dict(learning_rat=1e-3)), 'learning_rat'),
    (dict(fit=dict(batch=0)), 'batch 0 is below 1'),
    (dict(mixer=dict(name='mixer_laptopp')), 'did you mean mixer_laptop?'),
    (dict(mixer=dict(name='mixer_laptop', widht=3)), 'did you mean width?'),
    (dict(mixer=dict(name='mixer_laptop', width=0)), 'width 0 is below 1'),
    (dict(grid=dict(learning_rte=(1e-3,))), 'did you mean learning_rate?'),
    (dict(grid=dict(width=3)), 'list the values'),
    (dict(grid=dict(width=(8, 0))), 'width 0 is below 1'),
    (dict(findings='missing,lenght'), 'did you mean length?'),
    (dict(inner_folds=1), 'config.inner_folds is 1'),
    (dict(seeds=(0, 0)), 'each once'),
    (dict(normalise='subjects'), 'did you mean subject?'),
    (dict(reference='two'), "there is no row 'two'"),
    (
      dict(modalities=dict(gsr=dict(source='video', image_type='thermal'))),
      'config.modalities.gsr: the videos are RGB: name an .onnx file',
    ),
    (
      dict(modalities=dict(gsr=dict(source='video', image_type='depth'))),
      '--config.modalities.gsr.stand_in=True',
    ),
  ],
)
def test_a_mistake_is_one_line_that_says_where(changes, words):
  with pytest.raises(InputError) as error:
    from_config_dict(plain(**changes))
  assert words in str(error.value) and '\n' not in str(error.value)


def test_points_are_all_combinations():
  config = from_config_dict(plain(grid=dict(learning_rate=(1e-3, 1e-4), width=(8, 16, 32))))
  assert len(config.points) == 6
  assert {config.mixer_config(p).width for p in config.points} == {8, 16, 32}
  rates = {config.fit_config(config.mixer_config(p), p).learning_rate for p in config.points}
  assert rates == {1e-3, 1e-4}
  assert from_config_dict(plain()).points == [{}]


def test_changed_fields_know_what_may_change():
  config = from_config_dict(plain())
  stored = json.loads(config.to_json())
  assert not changed_fields(config, stored)
  assert not changed_fields(from_config_dict(plain(data_dir='e', batch_size=3)), stored)
  changed = changed_fields(from_config_dict(plain(seeds=(1,))), stored)
  assert changed == ['seeds: [0] -> [1]']


def test_what_only_decides_whether_to_stop_may_change():
  stored = json.loads(from_config_dict(plain()).to_json())
  assert not changed_fields(
    from_config_dict(plain(embeddings='e', findings='continue', max_left_out=0.5)), stored
  )


def test_old_names_of_fields_and_values_are_still_read():
  now = from_config_dict(
    plain(
      fit=dict(end_learning_rate_ratio=0.5),
      grid=dict(end_learning_rate_ratio=(0.1, 0.2)),
      findings='continue',
      image_sources={'heat': 'heat/{sample}.mp4'},
    )
  )
  old = plain(
    fit=dict(final_ratio=0.5),
    grid=dict(final_ratio=(0.1, 0.2)),
    findings='go on',
    pictures={'heat': 'heat/{sample}.mp4'},
  )
  del old['image_sources']
  assert from_config_dict(old) == now
  stored = json.loads(now.to_json())
  stored['pictures'] = stored.pop('image_sources')
  stored['fit']['final_ratio'] = stored['fit'].pop('end_learning_rate_ratio')
  for settings in stored['modalities'].values():
    settings['picture'] = settings.pop('image_type')
  assert not changed_fields(now, stored)


def test_an_old_file_that_starts_from_the_defaults_is_read(tmp_path):
  """It adds the old name; the new one is there too, at its default."""
  file = tmp_path / 'old.py'
  file.write_text(
    'from painformer_jax.assessment.config import defaults\n'
    'def get_config():\n'
    '  config = defaults()\n'
    "  config.pictures = {'heat': 'heat/{sample}.mp4'}\n"
    '  return config\n'
  )
  config = load_config(str(file), kind=AssessConfig)
  assert config.image_sources.to_dict() == {'heat': 'heat/{sample}.mp4'}
  assert 'pictures' not in config


def test_old_names_serve_as_overrides():
  config = load_config(
    f'{ROOT}/configs/assess_demo.py',
    overrides=['--config.weights=w', '--config.fit.final_ratio=0.5', '--config.findings=go on'],
    kind=AssessConfig,
  )
  made = from_config_dict(config)
  assert made.fit['end_learning_rate_ratio'] == 0.5 and made.findings == 'continue'


def load_biovid(options, *overrides):
  return from_config_dict(
    load_config(
      f'{ROOT / "configs" / "assess_biovid.py"}:{options}', overrides=[*GIVEN, *overrides]
    )
  )


def test_the_paper_s_four_modalities_are_a_table_by_options():
  config = load_biovid(
    'mixer_published,thermal,depth',
    '--config.modalities.thermal.network=t.onnx',
    '--config.modalities.depth.stand_in=True',
  )
  assert config.mixer['name'] == 'mixer_published'
  assert [config.rows[row].fusion.kind for row in ('all-1', 'all-2', 'all-n')] == [
    'fusion-1',
    'fusion-2',
    'fusion-n',
  ]
  assert config.rows['all-n'].fusion.coded == ('rgb', 'thermal', 'depth')
  assert {'thermal', 'depth', 'rgb', 'gsr'} <= set(config.used)
  assert config.modalities['thermal'].frames.crop and config.modalities['depth'].stand_in
  one = load_biovid('depth', '--config.modalities.depth.network=d.onnx')
  assert 'depth' in one.rows and 'all-1' not in one.rows and 'thermal' not in one.modalities
  with pytest.raises(InputError, match='config.modalities.thermal: the videos are RGB'):
    load_biovid('thermal')
  with pytest.raises(InputError, match='takes one of mixer_laptop, mixer_published'):
    load_biovid('therml')


def test_signals_alone_need_no_video():
  config = load_biovid('signals')
  assert 'video' not in config.sources and not {'rgb', 'fusion-n'} & set(config.rows)
  assert {'ecg', 'emg', 'gsr', 'fusion-1', 'fusion-2'} <= set(config.rows)
  with pytest.raises(InputError, match='depth is made from the videos'):
    load_biovid('signals,depth')


@pytest.mark.parametrize(
  'options, key, advice',
  [
    ('', 'modalities.thermal.network', 'assess_biovid.py:thermal has it'),
    ('mixer_published', 'modalities.depth.stand_in', ':mixer_published,depth has it'),
    ('signals', 'modalities.rgb.source', 'assess_biovid.py has it'),
    ('', 'modalities.gsr.sorce', 'did you mean source?'),
  ],
)
def test_a_key_that_another_option_has_names_the_option(options, key, advice):
  with pytest.raises(InputError) as error:
    load_biovid(options, f'--config.{key}=x')
  assert advice in str(error.value) and '\n' not in str(error.value)


def test_findings_may_be_named():
  config = from_config_dict(plain(findings='missing,length'))
  assert config.accepts('missing') and not config.accepts('duplicate')
  assert from_config_dict(plain(findings='continue')).accepts('duplicate')
  assert not from_config_dict(plain(findings='continue')).names('duplicate')


def test_the_published_size_is_an_argument_of_every_dataset_s_file():
  for file in (
    'assess_biovid.py:',
    'assess_ai4pain.py:2025,',
    'assess_ai4pain.py:2024-fnirs,',
    'assess_biovid_finetune.py:',
  ):
    config = load_config(
      f'{ROOT / "configs" / file}mixer_published',
      overrides=[*GIVEN, *(FNIRS if 'fnirs' in file else [])],
    )
    shape = from_config_dict(config).mixer_config({}, positions=1)
    assert shape == embedding_mixer_config.make_config('mixer_published', positions=1)
    assert config.encoder.name == 'video_encoder_published'
  for file in ('assess_ai4pain.py:2025,', 'assess_biovid_finetune.py:'):
    with pytest.raises(InputError, match='one of mixer_laptop, mixer_published, not video_encoder'):
      load_config(f'{ROOT / "configs" / file}video_encoder_published')


@pytest.mark.parametrize(
  'part, preset', [('mixer', 'mixer_published'), ('encoder', 'video_encoder_published')]
)
def test_a_preset_s_name_cannot_stand_over_the_fields_of_another(part, preset):
  file = ROOT / 'configs' / 'assess_ai4pain.py'
  with pytest.raises(InputError, match='the preset cannot be overridden'):
    load_config(f'{file}:2025', overrides=[*GIVEN, f'--config.{part}.name={preset}'])
  config = load_config(f'{file}:2025', overrides=GIVEN)
  other = config[part].name
  config[part].name = preset
  with pytest.raises(
    InputError, match=f'config.{part}.name is .{preset}., but the other fields are those of {other}'
  ):
    from_config_dict(config)
  config[part].width += 8  # What was changed on purpose is no preset's.
  from_config_dict(config)


@pytest.mark.parametrize(
  'part, changes',
  [
    # All that mixer_laptop and video_encoder_laptop differ in.
    ('mixer', {'depth': 1, 'self_attentions': 0}),
    ('mixer', {'name': 'mixer_laptop', 'tokens': 'scalar'}),
    ('mixer', {'name': 'mixer_published', 'depth': 1}),
    ('encoder', {'name': 'video_encoder_laptop', 'latents': 256}),
  ],
)
def test_fields_may_be_replaced_by_values_that_another_preset_has(part, changes):
  config = load_config(f'{ROOT / "configs" / "assess_ai4pain.py"}:2025', overrides=GIVEN)
  if 'name' in changes:
    config[part] = changes
  else:
    config[part].update(changes)
  kept = getattr(from_config_dict(config), part)
  assert {name: kept[name] for name in changes} == changes


def test_frames_that_one_has_take_the_place_of_the_network_as_the_file_says():
  said = (ROOT / 'configs' / 'assess_biovid.py').read_text()
  recipe = said[said.index('To use thermal or depth frames') :]
  given = shlex.split(recipe[recipe.index('    --') : recipe.index('Which')].replace('\\\\', ''))
  assert len(given) == 3
  thermal = load_biovid('thermal', *given).modalities['thermal']
  assert thermal.source == 'thermal' and not thermal.crops


def test_a_saturation_that_stays_is_no_missing_signal():
  config = from_config_dict(
    load_config(f'{ROOT / "configs" / "assess_ai4pain.py"}:2025', overrides=GIVEN)
  )
  kept = {name: each.signal.quality.flat_between for name, each in config.modalities.items()}
  assert kept == {'bvp': (), 'eda': (), 'resp': (), 'spo2': (50.0, 100.0)}


def test_every_field_is_explained():
  for field in dataclasses.fields(AssessConfig):
    assert field.name in AssessConfig.__doc__, field.name
