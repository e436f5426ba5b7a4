"""What an assessment will take on this machine, estimated before it begins."""
