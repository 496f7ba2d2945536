"""What one does with a fitted autoencoder."""
