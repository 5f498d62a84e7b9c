"""What other recorders wrote, as recordings of oao."""
