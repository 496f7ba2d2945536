"""What one does with autoencoders: find anomalies, and where they are.

Names load when they are first touched, as those of the package do.
"""
