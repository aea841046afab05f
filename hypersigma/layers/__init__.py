"""Parts of a vision transformer, one small file each; may import torch and timm only."""
