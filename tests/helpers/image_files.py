"""Image files as embedding reads them."""

from painformer_jax.core.pictures import resize_to_square, to_rgb
from painformer_jax.modalities import images, maps


def read_image(path, *, image_size):
  """uint8 [image_size, image_size, 3] RGB."""
  return images.read(path, lambda image: resize_to_square(to_rgb(image), image_size))


def read_map(path, *, modality):
  """A thermal or depth image of one page, coloured: uint8 [height, width, 3] RGB."""
  frame = images.read(path, maps.values)
  return maps.draw(frame, maps.kind_of([frame]), modality=modality)
