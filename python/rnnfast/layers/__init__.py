"""The layers: recurrent cells, and what a feed-forward network is made of."""
