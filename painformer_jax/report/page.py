"""The page of results as one HTML file that needs nothing else; see templates/page.html."""

import base64

from painformer_jax.core.errors import import_extra
from painformer_jax.report import wording
from painformer_jax.report.results import Results
from painformer_jax.report.terminal import percent


def html_page(results: Results, *, curves: bytes, scatter: bytes) -> str:
  """The whole page, figures inlined.

  Args:
    results: from `measure`.
    curves, scatter: PNG files.

  Raises:
    InputError: Jinja2 is not installed.
  """
  jinja2 = import_extra('jinja2', extra='demo')
  templates = jinja2.Environment(
    loader=jinja2.PackageLoader('painformer_jax.report'),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
  )
  templates.filters['percent'] = percent
  return templates.get_template('page.html').render(
    results=results,
    wording=wording,
    curves=base64.b64encode(curves).decode(),
    scatter=base64.b64encode(scatter).decode(),
  )
