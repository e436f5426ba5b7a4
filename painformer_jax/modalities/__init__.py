"""From clips and signals to images, the paper's way."""
