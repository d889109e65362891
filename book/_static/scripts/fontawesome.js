// The theme's icons come from its web font. This file stands in for the theme's second copy of them, half a megabyte.
