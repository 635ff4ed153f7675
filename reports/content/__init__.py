"""What a page says, in no format yet: cells as values, tables, sections, and the sentences around them."""
