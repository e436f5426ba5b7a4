"""What every other room uses: errors, files, configs, progress, tables."""
