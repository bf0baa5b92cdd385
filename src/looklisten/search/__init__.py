"""An index of moments: stores of vectors, filters, and what is found in them."""
