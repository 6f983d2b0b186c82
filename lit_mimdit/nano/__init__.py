"""How the embedded nano backbone was made:

a small VAE and a small MM-DiT, trained on photographs.
"""
