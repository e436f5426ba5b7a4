"""Times of samples: names, units, faults that are named, rates."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from painformer_jax.core.errors import InputError
from painformer_jax.modalities.sample_times import (
  TimeColumn,
  TimesError,
  is_counter,
  regular_steps,
  rises_evenly,
  sampling_rate,
  unit_of,
)

ROWS = np.arange(2816)
TIMES = ROWS / 512


def column(times=TIMES, name='time', unit=None):
  return TimeColumn(name=name, times=times, unit=unit_of(name) if unit is None else unit)


def rate(*columns, stated=0.0, modality='ecg'):
  where = lambda each, row: f'{each.name} {row}'
  return sampling_rate(columns, stated=stated, modality=modality, where=where)


@pytest.mark.parametrize(
  'name, unit',
  [
    *[(name, 0.0) for name in ('time', 'Time', 'TIMESTAMP', 't', 'Zeit', 'LslTime', 'datetime')],
    *[(name, 1.0) for name in ('t [s]', 'time_s', 'Time (sec)', 'Elapsed Seconds', 's', 'time/s')],
    *[(name, 1e-3) for name in ('time_ms', 'timeMs', 'TIME_MS', 'T(ms)', 'ms', 'Timestamp [ms]')],
    *[(name, 1e-6) for name in ('time_us', 'Time (µs)', 'microseconds')],
    ('time (min)', 60.0),
    *[(name, None) for name in ('ecg', 'EDA [µS]', 'µS', 'S', 'min', 'reaction time', 'x', '')],
  ],
)
def test_times_are_known_by_their_names(name, unit):
  assert unit_of(name) == unit


def six_figures(times):
  return np.array([float(f'{t:.6g}') for t in times])


@settings(max_examples=60, deadline=None)
@given(
  hertz=st.sampled_from([25.0, 100.0, 256.0, 300.0, 512.0, 1000.0, 2000.0, 10.172]),
  rows=st.integers(100, 5000),
  start=st.sampled_from([0.0, 3.7, 1.7e9]),
  digits=st.sampled_from([3, 4, 6, None]),
)
def test_even_times_give_their_rate_however_they_are_rounded(hertz, rows, start, digits):
  times = start + np.arange(rows) / hertz
  times = times if digits is None else np.round(times, digits)
  found = regular_steps(times, where=str)
  tolerance = 1.1 * found.uncertainty + 1e-6
  assert abs(found.step * hertz - 1) <= tolerance < 0.03


def test_a_long_recording_in_six_figures():
  times = six_figures(np.arange(300 * 512) / 512)
  assert rate(column(times)).hertz == 512
  with pytest.raises(TimesError, match='time 130000: time jumps from 253.904 to 253.908'):
    rate(column(six_figures(np.delete(np.arange(300 * 512), 130_000) / 512)))


def changed(kind):
  times = TIMES.copy()
  if kind == 'jumps':
    times[1500:] += 2
  elif kind == 'missing sample':
    times = np.delete(times, 1500)
  elif kind == 'missing sample, rounded':
    times = np.round(np.delete(times, 1500), 3)
  elif kind == 'backwards':
    times[1500:] -= 1
  elif kind == 'no time':
    times[1500] = np.nan
  elif kind == 'uneven':
    times[1500:] = times[1500] + np.arange(1316) / 400
  elif kind == 'random':
    times = np.cumsum(np.random.default_rng(0).exponential(1 / 512, 2816))
  return times


@pytest.mark.parametrize(
  'kind, row, words',
  [
    ('jumps', 1500, 'time jumps from 2.92773438 to 4.9296875'),
    ('missing sample', 1500, 'time jumps'),
    ('missing sample, rounded', 1500, 'time jumps'),
    ('backwards', 1500, 'time runs backwards, from 2.92773 to 1.92969'),
    ('no time', 1500, 'has no time'),
    ('uneven', 1500, 'times are uneven: steps of 0.0025'),
    ('random', 2, 'time jumps'),
  ],
)
@pytest.mark.parametrize('stated', [0.0, 512.0])
def test_faults_name_their_row(kind, row, words, stated):
  with pytest.raises(TimesError, match=words) as caught:
    rate(column(changed(kind)), stated=stated)
  assert abs(int(str(caught.value).split()[1].strip(':')) - row) <= (60 if kind == 'uneven' else 0)


LONG = np.arange(30 * 512) / 512
PACKET = 16 / 512


def shared(kind):
  """Half a minute at 512 Hz whose samples share times."""
  packets = np.repeat(LONG[::16], 16)
  jitter = np.random.default_rng(0).uniform(-0.3, 0.3, len(packets) // 16) * PACKET
  return {
    'whole seconds': np.floor(LONG),
    'whole seconds, later': np.floor(LONG + 1.7e9 + 0.4),
    'tenths': np.round(LONG, 1),
    'packets': packets,
    'packets with jitter': packets + np.repeat(jitter, 16),
    'pairs': np.repeat(LONG[::2], 2),
  }[kind]


@pytest.mark.parametrize(
  'kind',
  ['whole seconds', 'whole seconds, later', 'tenths', 'packets', 'packets with jitter', 'pairs'],
)
def test_samples_that_share_times(kind):
  found = regular_steps(shared(kind), where=str)
  assert found.step * 512 == pytest.approx(1, abs=2 * found.uncertainty + 1e-9)
  assert found.uncertainty < 1e-3
  assert rate(column(shared(kind)), stated=512.0).hertz == 512
  with pytest.raises(TimesError, match='the stated rate is 500 Hz'):
    rate(column(shared(kind)), stated=500.0)
  assert not rises_evenly(shared(kind)) or kind == 'tenths'


@pytest.mark.parametrize(
  'times, row, words',
  [
    (np.floor(LONG) + 2 * (LONG > 15), 7681, 'time jumps from 15 to 17'),
    (np.floor(np.delete(LONG, np.r_[8000:8300])), 8192, 'times are uneven: '),
    (np.floor(np.r_[LONG[:7680], 15 + np.arange(6000) / 400]), 7680, 'times are uneven: '),
    (np.repeat(np.delete(LONG[::16], 500), 16), 8000, 'time jumps from 15.59375 to 15.65625'),
    (np.where(np.arange(len(LONG)) == 900, LONG[899], LONG), 900, 'the same time twice'),
  ],
)
def test_faults_of_times_that_are_shared(times, row, words):
  with pytest.raises(TimesError, match=words) as caught:
    rate(column(times), stated=512.0)
  assert abs(int(str(caught.value).split()[1].strip(':')) - row) <= 1100


def test_times_of_a_few_ticks_tell_nothing():
  found = rate(column(np.floor(TIMES[:1500])), stated=512.0)
  assert found.hertz == 512 and 'rounded too much to tell' in found.remark


def test_noisy_clocks_are_even():
  noise = np.random.default_rng(0).normal(0, 0.05 / 512, len(TIMES))
  assert rate(column(TIMES + noise)).hertz == pytest.approx(512, rel=1e-4)
  assert rate(column(TIMES + noise), stated=512.0).hertz == 512


@pytest.mark.parametrize(
  'name, scale, modality, hertz, unit',
  [
    ('time', 1, 'ecg', 512, 'seconds'),
    ('time', 1e3, 'ecg', 512, 'milliseconds'),
    ('time', 1e6, 'emg', 512, 'microseconds'),
    ('time_ms', 1e3, 'gsr', 512, ''),
    ('t [s]', 1, 'gsr', 512, ''),
    ('t [s]', 51.2, 'fnirs', 10, ''),
    ('time (min)', 1 / 60, 'ecg', 512, ''),
  ],
)
def test_units_by_name_or_by_the_one_that_can_be(name, scale, modality, hertz, unit):
  found = rate(column(TIMES * scale, name), modality=modality)
  assert found.hertz == pytest.approx(hertz, rel=1e-9)
  assert unit in found.remark and bool(unit) == bool(found.remark)


@pytest.mark.parametrize(
  'columns, stated, modality, words',
  [
    # 4 Hz or 4000 Hz.
    ([column(ROWS / 4)], 0, 'gsr', r'4 Hz \(as seconds\) or 4000 Hz \(as milliseconds\)'),
    ([column(ROWS * 1.0)], 0, 'gsr', '1 Hz .* 1000 Hz'),
    # Nobody records an ECG so.
    ([column(TIMES * 1e3, 'time_s')], 0, 'ecg', '0.512 Hz'),
    ([column()], 500, 'ecg', r'512 Hz \(as seconds\), .*; the stated rate is 500 Hz'),
    ([column(ROWS / 1000)], 512, 'ecg', '1000 Hz .* the stated rate is 512 Hz'),
    ([column(ROWS * 1.0)], 512, 'ecg', '1000 Hz .as milliseconds.*512 Hz'),
    ([column(TIMES, 'time_ms')], 512, 'ecg', '512000 Hz .*512 Hz'),
    ([column(), column(ROWS / 500, 't_s')], 0, 'ecg', "time 0: .*that of column 't_s' is 500 Hz"),
    ([column(np.floor(TIMES[:1500]))], 0, 'ecg', 'rounded too much'),
    ([column(None)], 0, 'ecg', "column 'time' are not understood"),
    ([], 0, 'ecg', r'not known; give it \(--rate\)'),
    ([column(TIMES[:1])], 0, 'ecg', 'the only one'),
  ],
)
def test_what_may_be_several_rates_is_refused(columns, stated, modality, words):
  with pytest.raises(InputError, match=words):
    rate(*columns, stated=stated, modality=modality)


@pytest.mark.parametrize('scale', [1, 1e3, 1e6, 1e9])
def test_a_stated_rate_settles_the_unit(scale):
  found = rate(column(ROWS / 4 * scale), stated=4.0, modality='gsr')
  assert (found.hertz, found.remark) == (4.0, '')
  assert rate(column(None), stated=4.0).remark == "the times in column 'time' are not understood"


def test_courses():
  assert is_counter('', ROWS) and is_counter('Unnamed: 0', ROWS) and is_counter('nSeq', ROWS % 16)
  assert not is_counter('', TIMES) and not is_counter('ecg', ROWS)
  assert rises_evenly(TIMES) and rises_evenly(ROWS) and not rises_evenly(TIMES[:20])
  assert not rises_evenly(np.sin(TIMES)) and not rises_evenly(-TIMES)
