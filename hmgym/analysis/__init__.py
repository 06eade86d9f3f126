"""Stylised facts, performance and plots: arrays in, figures and tables out."""
