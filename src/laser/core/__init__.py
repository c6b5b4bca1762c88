"""What every package may use: records, errors, random streams, state and files. Imports nothing else of laser."""
