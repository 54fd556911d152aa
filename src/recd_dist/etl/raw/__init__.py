"""How raw files are found and read: one type for each column over all files, or an error that names the file."""
