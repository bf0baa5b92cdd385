"""What is measured on held-out videos while a network trains."""

EVALUATED_PAIRS = 2000
