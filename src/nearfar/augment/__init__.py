"""Random views of whole batches, on the device they live on, one random draw per image, seeded by a torch.Generator.

Images are (N, C, H, W) with one or three channels, uint8 or floating point in [0, 1]; out come floats in [0, 1]
(float32 for uint8, else the input's precision; half precision is computed in float32).  Gradients pass to floating
point images.  Every function has a keyword `generator`; draws are made on the
generator's device and moved, so that a CPU generator gives the same views on every device.  `p` is the share of images
a function is applied to.  A range given as (x, x) fixes a parameter.  Bad images raise a ValueError (the range of
floats is looked at on the CPU only).
"""

from nearfar.augment.checks import to_float
from nearfar.augment.colour import colour_jitter, gaussian_blur, greyscale, solarise
from nearfar.augment.geometry import affine, crop_and_resize, cutout, horizontal_flip, random_crop, random_resized_crop
from nearfar.augment.mixing import cutmix, mixup
from nearfar.augment.recipes import multi_crop, recipe, views

__all__ = [
    "affine", "colour_jitter", "crop_and_resize", "cutmix", "cutout", "gaussian_blur", "greyscale", "horizontal_flip",
    "mixup", "multi_crop", "random_crop", "random_resized_crop", "recipe", "solarise", "to_float", "views",
]  # fmt: skip
