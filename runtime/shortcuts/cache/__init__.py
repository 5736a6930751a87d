"""An edge cache on the device: the answer to a picture much like this one stands, if such answers have proved right."""
