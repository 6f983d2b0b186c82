"""The embedded nano backbone is a small VAE and a small MM-DiT, trained on photographs."""
