"""Many rows: columns in, columns out, and files of them."""
