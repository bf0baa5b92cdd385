"""Public data sets: the annotations of their owners -> a table that `prepare` reads."""
