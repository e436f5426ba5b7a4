"""Weights in and out: .pth, .safetensors, folders, runs."""
