"""What the examples share: data files, options, the four networks, tables and pictures. One idea a file."""
