"""The names of the data sets; imports nothing, as the command line's help shows them."""

TRAINABLE = ("digits", "fashion", "photos", "cifar10", "mnist", "stl10")
NEEDS_NO_ROOT = ("digits", "photos")
"""Data sets that come with scikit-learn."""
OWN_IMAGES = ("imagefolder", "csv")
"""The user's own data sets; their labels do not determine a classifier's outputs."""

DATASETS = {
    "digits": "scikit-learn's handwritten digits; no --data-root",
    "fashion": "Fashion-MNIST; no --data-root with Debian's package dataset-fashion-mnist, else torchvision's folder",
    "photos": "patches of scikit-learn's two sample photographs, by place; no --data-root",
    "cifar10": "CIFAR-10 as torchvision keeps it; its test images",
    "mnist": "MNIST as torchvision keeps it; its test images",
    "stl10": "STL-10 as torchvision keeps it; its test images",
    "imagenet": "ImageNet validation images: a torchvision root, a folder of synset folders, or Kaggle's flat val/",
    "imagefolder": "a folder with one folder of images per class",
    "csv": "a folder of images with a labels.csv of the columns image,label",
}
