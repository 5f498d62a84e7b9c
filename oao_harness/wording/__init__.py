"""How values read to a person, the same on every face: safe text, numbers with units, previews of calls. Pure."""
