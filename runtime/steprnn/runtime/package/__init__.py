"""Ways into applications, a module each, with `write(bundle, out, ...)` and `default_out(bundle)`."""
