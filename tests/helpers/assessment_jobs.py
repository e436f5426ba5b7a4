"""Jobs of an assessment without the run around them."""

from painformer_jax.assessment.embedding.sample_shape import SampleShape
from painformer_jax.assessment.experiment import job as experiment
from painformer_jax.assessment.mixers.inputs import assemble


def jobs(config, study, tokens):
  """Every row on each of its tasks, with embeddings."""
  return [
    experiment.make_job(
      config, study, row=row, task=task, inputs=assemble(config.rows[row].fusion, tokens)
    )
    for row in config.rows
    for task in config.tasks_of(row)
  ]


def planned(config, study, *, tokens=2):
  """The same before anything is embedded."""
  shapes = {name: SampleShape(seconds=1, tokens=tokens) for name in config.used}
  return experiment.plan_jobs(config, study, shapes=shapes, width=5)
