"""`painformer export`: weights to the released PyTorch names and layouts."""

import pathlib

EXAMPLE = 'painformer export weights back.pth'


def add_arguments(parser):
  parser.add_argument(
    'weights', metavar='WEIGHTS', help='weights folder, run folder, .pth or .safetensors file'
  )
  parser.add_argument(
    'out',
    metavar='OUT',
    help='file to write; its ending, .pth, .pt or .safetensors, chooses the format',
  )


def run(args):
  from painformer_jax.core.errors import InputError
  from painformer_jax.weights import safetensors_file
  from painformer_jax.weights.convert import export
  from painformer_jax.weights.load import read_weights
  from painformer_jax.weights.torch import write as torch_file

  pth = (torch_file.check_target, torch_file.write_pth)
  writers = {
    '.pth': pth,
    '.pt': pth,
    '.safetensors': (safetensors_file.check_target, safetensors_file.write_safetensors),
  }
  suffix = pathlib.Path(args.out).suffix.lower()
  if suffix not in writers:
    raise InputError(f'{args.out} must end in {", ".join(writers)}; the ending chooses the format')
  check, write = writers[suffix]
  check(args.out, inputs=(args.weights,))
  stored = read_weights(args.weights)
  tensors = export(stored.variables)
  write(args.out, tensors, tuned_on=stored.source.trained_on)
  classes = stored.config.num_classes
  head = f'a head of {classes:,} classes' if classes else 'no head'
  print(f'{args.out}: {len(tensors)} tensors in the released names, {head}')
  if differing := _differing(stored.config):
    print('the released code cannot load it, since its model has another ' + ', '.join(differing))


def _differing(config) -> list[str]:
  """Fields by which a model's arrays differ from the released model's."""
  from painformer_jax.models.config import PRESETS

  fields = (
    'image_size',
    'stem_width',
    'widths',
    'mixers',
    'heads',
    'mlp_ratios',
    'post_heads',
    'post_mlp_ratio',
    'post_blocks',
  )
  return [
    field
    for field in fields
    if getattr(config, field) != getattr(PRESETS['painformer'].config, field)
  ]
