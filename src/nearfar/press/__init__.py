"""Makes the book: from records and executed notebooks to pages, figures, course and site."""
