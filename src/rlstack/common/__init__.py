"""What all packages share: types, names, errors, and small tools of files and values."""
