"""The documentation is true of the files, commands and settings that there are."""

import configparser
import dataclasses
import pathlib
import re
import shlex
import typing
from collections.abc import Mapping

import pytest

from painformer_jax.assessment.config import AssessConfig
from painformer_jax.assessment.config import defaults as assess_defaults
from painformer_jax.cli import commands as cli
from painformer_jax.cli.config_file import load_config
from painformer_jax.training.config import TrainConfig
from painformer_jax.training.config import defaults as train_defaults

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [
  *sorted(ROOT.glob('*.md')),
  *sorted((ROOT / 'docs').glob('*.md')),
  ROOT / 'launch/README.md',
  *sorted((ROOT / 'painformer_jax/data/pages').glob('*.md')),
]
# Old names stand in the changelog on purpose.
CURRENT = [page for page in PAGES if page.name != 'CHANGELOG.md']

_LINK = re.compile(r'!?\[[^]]*\]\(([^)\s]+)\)')
_BLOCK = re.compile(r'^ *```(?:bash|sh)?\n(.*?)^ *```', re.MULTILINE | re.DOTALL)
_OTHER_BLOCK = re.compile(r'^ *```(?!bash|sh)\w+\n.*?^ *```$', re.MULTILINE | re.DOTALL)
_CODE = re.compile(r'`([^`\n]+)`')
# A file of the user's, or a placeholder: anything that is not in the clone.
_CONFIG = re.compile(r'configs/(\w+)\.py(?::([\w,.-]+))?')
_OVERRIDE = re.compile(r'--config\.([\w.]+)')


def name_of(page: pathlib.Path) -> str:
  return str(page.relative_to(ROOT))


def anchors(page: pathlib.Path) -> set[str]:
  """The names that GitHub gives to a page's headings."""
  text = re.sub(r'```.*?```', '', page.read_text(), flags=re.DOTALL)
  headings = re.findall(r'^#+ (.*)$', text, re.MULTILINE)
  return {re.sub(r'[^\w\- ]', '', h.lower().strip()).replace(' ', '-') for h in headings}


def commands(page: pathlib.Path) -> list[str]:
  """Lines of code blocks, and inline code, that call `painformer`."""
  text = _OTHER_BLOCK.sub('', page.read_text())
  lines = []
  for block in _BLOCK.findall(text):
    for line in re.sub(r'\\\n\s*', ' ', block).splitlines():
      lines.append(line.strip())
  outside = _BLOCK.sub('', text)
  lines += [code for code in _CODE.findall(outside) if ' --' in code]
  return [line for line in lines if re.match(r'painformer \w', line)]


COMMANDS = [(name_of(page), line) for page in CURRENT for line in commands(page)]


def overrides_of(line: str) -> list[str]:
  return _OVERRIDE.findall(line)


def field_exists(kind: object, path: str) -> bool:
  """Whether a setting exists, such as 'optimizer.learning_rate'; keys of tables may be any."""
  for part in path.split('.'):
    if typing.get_origin(kind) is Mapping:
      kind = typing.get_args(kind)[1]
      continue
    if kind is typing.Any:
      return True
    if not dataclasses.is_dataclass(kind):
      return False
    hints = typing.get_type_hints(kind)
    if part not in hints:
      return False
    kind = hints[part]
  return True


def test_the_readme_is_read_in_two_minutes():
  assert len((ROOT / 'README.md').read_text().splitlines()) <= 200


@pytest.mark.parametrize('page', PAGES, ids=name_of)
def test_links_lead_somewhere(page):
  for target in _LINK.findall(page.read_text()):
    if re.match(r'https?:', target):
      continue
    path, _, anchor = target.partition('#')
    file = (page.parent / path).resolve() if path else page
    assert file.exists(), f'{name_of(page)}: there is no {target}'
    if anchor:
      assert anchor in anchors(file), f'{name_of(page)}: {path} has no heading for #{anchor}'


def test_every_page_of_docs_is_in_the_index():
  index = (ROOT / 'docs/README.md').read_text()
  pages = {page.name for page in (ROOT / 'docs').glob('*.md')} - {'README.md'}
  assert {name for name in pages if f']({name})' not in index} == set()


def test_commands_are_found():
  used = {line.split()[1] for _, line in COMMANDS}
  assert set(cli.COMMANDS) <= used


@pytest.mark.parametrize(('page', 'line'), COMMANDS, ids=lambda value: value[:60])
def test_commands_parse(page, line, capsys):
  """Each goes through the parser, without being run."""
  words = shlex.split(line.removesuffix('&').split(' # ')[0], comments=True)
  words = [word.replace('$i', '0') for word in words[1:]]
  if words[-1] == '--help':
    words.pop()
    assert words == [] or words[0] in cli.COMMANDS
    return
  try:
    args, overrides = cli._parser(words[0]).parse_known_args(words)
  except SystemExit:
    # Inline code often shows one option and leaves the others out.
    error = capsys.readouterr().err
    assert 'arguments are required' in error, f'{page}: {line}\n{error}'
    return
  assert args.takes_overrides or not overrides, f'{page}: {line}: {overrides}'
  for override in overrides:
    assert override.startswith('--config.'), f'{page}: {line}: {override}'


@pytest.mark.parametrize('page', CURRENT, ids=name_of)
def test_settings_exist(page):
  """Overrides on command lines, and inline code that begins with 'config.'."""
  text = page.read_text()
  named = set(_OVERRIDE.findall(text))
  named |= {m[1] for code in _CODE.findall(text) if (m := re.match(r'config\.([\w.]+)', code))}
  for path in named - {'KEY', 'json'}:
    path = path.rstrip('.')
    assert field_exists(TrainConfig, path) or field_exists(AssessConfig, path), (
      f'{name_of(page)}: config.{path}'
    )


def test_the_table_of_settings_names_real_ones():
  """The first words of the table in docs/training.md, which have no 'config.' before them."""
  section = (ROOT / 'docs/training.md').read_text().split('## How a run is spread')[1]
  rows = re.findall(r'^\| `([\w.]+)=(\w+)`', section, re.MULTILINE)
  assert len(rows) == 5
  for path, _ in rows:
    assert field_exists(TrainConfig, path), path


def test_new_names_in_the_changelog_are_fields():
  """And old ones are not: they would be no old ones."""
  text = (ROOT / 'CHANGELOG.md').read_text()
  rows = re.findall(
    r'^ *\| (training|assessment) \| `([\w.]+)` \| `([\w.]+)` \|', text, re.MULTILINE
  )
  assert len(rows) >= 8
  for part, old, new in rows:
    if part == 'training':
      kind: object = TrainConfig
    elif new.startswith('fit.'):  # A table of fields of FitConfig.
      fit = assess_defaults().fit
      assert new.partition('.')[2] in fit and old.partition('.')[2] not in fit
      continue
    else:
      kind = AssessConfig
    assert field_exists(kind, new) and not field_exists(kind, old), (old, new)


@pytest.mark.parametrize('page', CURRENT, ids=name_of)
def test_configs_exist_and_take_what_is_behind_the_colon(page):
  for name, argument in set(_CONFIG.findall(page.read_text())):
    if name == 'my_config':  # The reader's own.
      continue
    file = ROOT / 'configs' / f'{name}.py'
    assert file.is_file(), f'{name_of(page)}: {file.name}'
    if argument:
      load_config(f'{file}:{argument.rstrip(".,")}')


def test_defaults_that_the_docs_rely_on():
  assert train_defaults('painformer').remat == 'none'
  assert assess_defaults().findings == 'stop'


@pytest.mark.parametrize('page', CURRENT, ids=name_of)
def test_files_of_this_repository_exist(page):
  """Inline code such as `core/tables.py` or `modalities/`, from the clone or the package on."""
  for code in _CODE.findall(_BLOCK.sub('', page.read_text())):
    if not re.fullmatch(r'\w+(/\w+)*(/|/\w+\.py)', code) or code.startswith(
      ('runs/', 'configs/my_')
    ):
      continue
    top = code.split('/')[0]
    if (ROOT / top).exists() or (ROOT / 'painformer_jax' / top).exists():
      there = (ROOT / code, ROOT / 'painformer_jax' / code)
      assert any(path.exists() for path in there), f'{name_of(page)}: there is no {code}'


def test_tables_that_contributing_names_are_in_the_files_it_names():
  text = (ROOT / 'CONTRIBUTING.md').read_text()
  section = text.split('## Where things are added')[1].split('## Running')[0]
  named = re.findall(r'((?:`[A-Z_]+`(?: (?:and|or) )?)+) in `([\w/]+\.py)`', section)
  assert len(named) >= 6
  for names, file in named:
    source = (ROOT / 'painformer_jax' / file).read_text()
    for name in re.findall(r'`(\w+)`', names):
      assert re.search(rf'^{name}\b.* = ', source, re.MULTILINE), f'{name} is not in {file}'


def test_contributing_draws_the_layers_that_are_checked():
  config = configparser.ConfigParser()
  config.read(ROOT / '.importlinter')
  layers = config['importlinter:contract:rooms']['layers'].split()
  drawing = (ROOT / 'CONTRIBUTING.md').read_text().split('```')[1]
  assert re.findall(r'^(\w+) ', drawing, re.MULTILINE) == layers


def test_the_faq_lists_every_extra():
  config = configparser.ConfigParser()
  config.read(ROOT / 'setup.cfg')
  section = (ROOT / 'docs/faq.md').read_text().split('### Which extra')[1].split('###')[0]
  listed = {
    name
    for row in re.findall(r'^\| (`[^|]*) \|', section, re.MULTILINE)
    for name in re.findall(r'`([\w-]+)`', row)
  }
  assert listed == set(config['options.extras_require'])
