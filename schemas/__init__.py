"""What crosses a boundary, and nothing else: messages, tables, artefacts and the error tree."""
