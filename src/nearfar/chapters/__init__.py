"""What the book consists of: the registry of papers, what their notebooks hold, the code that a record depends on."""
