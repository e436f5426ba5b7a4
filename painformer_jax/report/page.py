"""The page of results as one HTML file that needs nothing else."""

import base64
from html import escape

from painformer_jax.report import wording
from painformer_jax.report.results import Results, TaskResult
from painformer_jax.report.terminal import percent

_STYLE = """
:root { --probe: #5b9bd8; --head: #a9c8e8; --pixels: #dd7d4f; --untrained: #b5b5b5; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 60rem; padding: 1rem; color: #1c1c1c; background: #fff;
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: .5rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; border-bottom: 1px solid #ddd; }
h3 { font-size: 1rem; margin: 0; overflow-wrap: anywhere; }
p, ul, dl { margin: .5rem 0; }
.warning { background: #fff3d6; border-left: .3rem solid #d08a00; padding: .5rem .8rem; }
.note { color: #555; font-size: .875rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .3rem .6rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid #e4e4e4; }
th:first-child, td:first-child, th:last-child, td:last-child { text-align: left; }
.at td:last-child, .below td:last-child { font-weight: 600; color: #a03c00; }
.tasks { display: grid; gap: 1.2rem; grid-template-columns: repeat(auto-fit, minmax(17rem, 1fr)); }
.tasks section { break-inside: avoid; }
.tasks svg { width: 100%; height: auto; display: block; }
dt { font-weight: 600; overflow-wrap: anywhere; break-after: avoid; }
dd { margin: 0 0 .5rem; overflow-wrap: anywhere; }
@media (min-width: 40rem) {
  dl.terms { display: grid; grid-template-columns: 6rem 1fr; }
}
figure { margin: 1rem 0; }
figure .wide img { min-width: 42rem; width: 100%; height: auto; display: block; }
figcaption { color: #555; font-size: .875rem; }
@media print {
  html { font-size: 11px; }
  body { max-width: none; padding: 0; font-size: 1rem; }
  dl.terms { display: grid; grid-template-columns: 6rem 1fr; }
  h2 { break-after: avoid; }
  * { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
  .wide { overflow: visible; }
  .tasks { grid-template-columns: repeat(3, 1fr); }
  figure .wide img { min-width: 0; max-height: 22cm; width: auto; max-width: 100%; }
  figure, tr { break-inside: avoid; }
}
"""

_CURVES = (
  'Loss and accuracy in the course of training. Training figures are means '
  'over the steps since the point before, with augmentation and label '
  'smoothing; held-out figures have neither, so the two are not the same '
  'quantity. Dotted: guessing.'
)
_SCATTER = (
  'Embeddings of held-out images, coloured by class, seen along the two '
  'directions in which the training embeddings vary most. Two of many '
  'dimensions: classes that overlap here may be apart in the others, which '
  'the probe sees.'
)


def html_page(results: Results, *, curves: bytes, scatter: bytes) -> str:
  """The whole page, figures inlined.

  Args:
    results: from `measure`.
    curves, scatter: PNG files.
  """
  facts = [wording.model(results), wording.effort(results), wording.own_effort(results)]
  return '\n'.join(
    [
      '<!DOCTYPE html>',
      '<html lang="en">',
      '<head>',
      '<meta charset="utf-8">',
      '<meta name="viewport" content="width=device-width, initial-scale=1">',
      f'<title>{escape(results.title)}: report</title>',
      f'<style>{_STYLE}</style>',
      '</head>',
      '<body>',
      f'<h1>{escape(wording.headline(results))}</h1>',
      *_paragraphs([wording.unfinished(results)], kind='warning'),
      *_paragraphs([results.data]),
      *_paragraphs(facts, kind='note'),
      '<h2>Accuracy on held-out images</h2>',
      '<ul>',
      *(f'<li>{escape(line)}</li>' for line in wording.findings(results)),
      '</ul>',
      _table(results),
      '<div class="tasks">',
      *(_chart(task) for task in results.tasks),
      '</div>',
      '<p class="note">Bars: accuracy from 0 to 100 %; the line on the probe\'s bar is '
      'its 95 % interval, the dotted line is chance.</p>',
      '<dl class="terms">',
      *(
        f'<dt>{escape(term)}</dt><dd>{escape(text)}</dd>'
        for term, text in wording.methods(results).items()
      ),
      '</dl>',
      '<h2>Training</h2>',
      _figure(curves, _CURVES),
      '<h2>Embeddings</h2>',
      _figure(scatter, _SCATTER),
      '<h2>Data</h2>',
      '<dl>',
      *(_data(task) for task in results.tasks),
      '</dl>',
      '</body>',
      '</html>',
      '',
    ]
  )


def _paragraphs(texts: list[str], *, kind: str = '') -> list[str]:
  attribute = f' class="{kind}"' if kind else ''
  return [f'<p{attribute}>{escape(text)}</p>' for text in texts if text]


def _table(results: Results) -> str:
  unbalanced = any(task.unbalanced for task in results.tasks)
  head = [
    'task',
    'probe',
    '95 %',
    *(['F1'] if unbalanced else []),
    'head',
    'pixels',
    'untrained',
    'chance',
    'images',
    'worth',
    'the probe is',
  ]
  rows = ['<tr>' + ''.join(f'<th scope="col">{cell}</th>' for cell in head) + '</tr>']
  for task in results.tasks:
    interval = task.probe.interval
    f1 = [percent(task.probe.macro_f1) if task.unbalanced else '-'] if unbalanced else []
    cells = [
      escape(task.name),
      percent(task.probe.accuracy),
      f'{percent(interval.low)}&ndash;{percent(interval.high)}',
      *f1,
      percent(task.head_accuracy),
      percent(task.pixels.accuracy),
      percent(task.untrained.accuracy),
      percent(task.chance),
      f'{task.n_test:,}',
      f'{task.probe.interval.count:,.0f}',
      task.verdict,
    ]
    rows.append(
      f'<tr class="{task.verdict.split()[0]}">'
      + ''.join(f'<td>{cell}</td>' for cell in cells)
      + '</tr>'
    )
  return (
    '<div class="wide"><table>' + '\n'.join(rows) + '</table></div>\n'
    '<p class="note">Accuracies in %.</p>'
  )


def _chart(task: TaskResult) -> str:
  """Bars of one task as an inline drawing, 300 units wide."""
  left, scale, height = 70, 2.0, 20  # A percent is two units.
  bars = []
  for number, (name, share) in enumerate(
    (
      ('probe', task.probe.accuracy),
      ('head', task.head_accuracy),
      ('pixels', task.pixels.accuracy),
      ('untrained', task.untrained.accuracy),
    )
  ):
    y = number * height
    bars.append(
      f'<text x="0" y="{y + 14}" font-size="12">{name}</text>'
      f'<rect x="{left}" y="{y + 3}" width="{share * 100 * scale:.1f}" height="14" '
      f'fill="var(--{name})"/>'
      f'<text x="{left + 100 * scale + 4}" y="{y + 14}" font-size="12">'
      f'{share * 100:.0f}</text>'
    )
  low, high, level = (
    left + x * 100 * scale for x in (task.probe.interval.low, task.probe.interval.high, task.chance)
  )
  bottom = 4 * height
  bars.append(
    f'<path d="M{low:.1f} 6v8m0-4H{high:.1f}m0-4v8" stroke="#000" fill="none"/>'
    f'<path d="M{level:.1f} 0V{bottom}" stroke="#000" stroke-dasharray="2 3"/>'
    f'<path d="M{left} {bottom}h{100 * scale:.0f}" stroke="#bbb"/>'
  )
  label = (
    f'{task.name}: probe {percent(task.probe.accuracy)} %, head '
    f'{percent(task.head_accuracy)} %, pixels {percent(task.pixels.accuracy)} %, '
    f'untrained {percent(task.untrained.accuracy)} %, chance '
    f'{percent(task.chance)} %'
  )
  return (
    f'<section><h3>{escape(task.name)}</h3>'
    f'<div class="note">{escape(task.modality)}, {task.classes} classes, '
    f'{task.verdict}</div>'
    f'<svg viewBox="0 0 300 {bottom + 4}" role="img" aria-label="{escape(label)}">'
    f'{"".join(bars)}</svg></section>'
  )


def _figure(png: bytes, caption: str) -> str:
  data = base64.b64encode(png).decode()
  return (
    f'<figure><div class="wide"><img alt="{escape(caption)}" '
    f'src="data:image/png;base64,{data}"></div>'
    f'<figcaption>{escape(caption)}</figcaption></figure>'
  )


def _data(task: TaskResult) -> str:
  return (
    f'<dt>{escape(task.name)}</dt><dd>{escape(task.description)}<br>'
    f'<span class="note">{task.n_train:,} training and {task.n_test:,} test images. '
    f'Licence of the recordings: {escape(task.licence)}.</span></dd>'
  )
