"""Run containers, keep every byte they print, ship it anywhere, and measure them."""
