"""Tensor parallelism of any traced model, from the groups that its graph already has.

An axis inside a block (the hidden width of an MLP, heads, the channels between two convolutions)
is shared out with the library's own cut: rank r's model is the model cut to the units that r
holds. `plan` decides which axes can be shared and where sums must stand, `local` makes a rank's
model, `whole` goes back, `cutting` cuts without any rank ever holding the whole.
"""
