"""What is measured: model catalogues, data sets and the shared subset of images."""
