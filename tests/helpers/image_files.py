"""Image files as embedding reads them."""

from painformer_jax.modalities import images


def read_image(path, *, image_size):
  """uint8 [image_size, image_size, 3] RGB."""
  return images.read(path, lambda image: images.resize_to_square(images.to_rgb(image), image_size))
