"""Files of Keras 2 as Keras 2 meant them."""
