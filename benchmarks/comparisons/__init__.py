"""What is measured: one file for each thing Arke is put beside, or measured at alone."""
