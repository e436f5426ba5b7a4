"""The network: arrays in, arrays out. Knows no files, meshes or datasets."""
