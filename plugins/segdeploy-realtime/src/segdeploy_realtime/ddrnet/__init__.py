"""Deep dual-resolution networks (Hong et al. 2021, https://arxiv.org/abs/2101.06085)."""
