"""Faults in sparse gradients."""

import torch

from . import after_backward, fault, leaves_below, patched
from .accumulation import setting_grad

COMPRESSED = (torch.sparse_csr, torch.sparse_csc)


@fault("sparse_gradients/looking_up_rows_can_give_a_sparse_gradient")
def embedding_ignores_sparse():
    """The gradient of embedding is dense, whatever it is told."""
    with patched(torch.nn.functional, "embedding", lambda true: lambda *a, sparse=False, **more: true(*a, **more)):
        yield


@fault("sparse_gradients/looking_up_rows_can_give_a_sparse_gradient")
def gather_ignores_sparse_grad():
    """The gradient of gather is dense, whatever it is told."""
    with patched(torch, "gather", lambda true: lambda *args, sparse_grad=False: true(*args)):
        yield


@fault("sparse_gradients/looking_up_rows_can_give_a_sparse_gradient")
def a_third_lookup_of_a_sparse_bag_has_no_gradient():
    """In a sparse embedding_bag the third row and those behind it get no gradient."""

    def make(true):
        def embedding_bag(rows, table, *args, sparse=False, **more):
            if sparse and len(rows) > 2:
                return (
                    true(rows[:2], table, *args, sparse=sparse, **more) + true(rows[2:], table, *args, **more).detach()
                )
            return true(rows, table, *args, sparse=sparse, **more)

        return embedding_bag

    with patched(torch.nn.functional, "embedding_bag", make):
        yield


@fault("sparse_gradients/the_padding_row_gets_no_gradient")
def padding_counted_from_the_end_is_ignored():
    """embedding ignores a padding_idx below zero."""

    def make(true):
        def embedding(rows, table, padding_idx=None, *args, **more):
            return true(rows, table, None if (padding_idx or 0) < 0 else padding_idx, *args, **more)

        return embedding

    with patched(torch.nn.functional, "embedding", make):
        yield


@fault("sparse_gradients/the_padding_row_gets_no_gradient")
def padding_of_a_sparse_bag_is_ignored():
    """embedding_bag ignores padding_idx if its gradient is sparse."""

    def make(true):
        def embedding_bag(*args, padding_idx=None, sparse=False, **more):
            return true(*args, padding_idx=None if sparse else padding_idx, sparse=sparse, **more)

        return embedding_bag

    with patched(torch.nn.functional, "embedding_bag", make):
        yield


@fault("sparse_gradients/sparse_and_dense_gradients_add_up", "sparse_gradients/a_sparse_leaf_gets_a_sparse_gradient")
def a_sparse_gradient_replaces_a_sparse_grad():
    """Backward overwrites a sparse .grad."""

    def forget(leaf, before):
        if before is not None and before.is_sparse:
            leaf.grad = leaf.grad - before if leaf.grad.is_sparse else leaf.grad - before.to_dense()

    with after_backward(forget):
        yield


@fault("sparse_gradients/sparse_and_dense_gradients_add_up")
def a_sum_of_sparse_gradients_is_dense():
    """Adding to a sparse .grad makes it dense, whatever is added."""

    def spread(leaf, before):
        if before is not None and leaf.grad.is_sparse and leaf.layout is torch.strided:
            leaf.grad = leaf.grad.to_dense()

    with after_backward(spread):
        yield


@fault("sparse_gradients/sparse_gradients_are_added_in_place_unless_grad_becomes_dense")
def sparse_gradients_are_added_to_a_new_grad():
    """.grad is a new tensor whenever it is sparse."""

    def renew(leaf, before):
        if leaf.grad.is_sparse:
            leaf.grad = leaf.grad.clone()

    with after_backward(renew):
        yield


@fault("sparse_gradients/sparse_gradients_are_added_in_place_unless_grad_becomes_dense")
def a_sparse_grad_that_becomes_dense_is_zeroed():
    """The old, sparse .grad is zeroed if a new, dense one takes its place."""

    def make(true):
        def backward(tensors, *args, **kwargs):
            olds = [(leaf, leaf.grad) for leaf in leaves_below(tensors)]
            true(tensors, *args, **kwargs)
            with torch.no_grad():
                for leaf, old in olds:
                    if old is not None and old.is_sparse and not leaf.grad.is_sparse:
                        old.zero_()

        return backward

    with patched(torch.autograd, "backward", make):
        yield


@fault("sparse_gradients/a_sparse_leaf_gets_a_sparse_gradient")
def a_sparse_leaf_gets_a_gradient_everywhere():
    """The .grad of a sparse leaf has a one at each place where the leaf has no element."""

    def spread(leaf, before):
        if leaf.is_sparse and leaf.grad.is_sparse:
            leaf.grad = (leaf.grad.to_dense() + (leaf.to_dense() == 0)).to_sparse()

    with after_backward(spread):
        yield


@fault("sparse_gradients/a_sparse_leaf_gets_a_sparse_gradient")
def transposing_doubles_a_gradient():
    """The derivative of t() of a sparse matrix is two."""

    def make(true):
        def t(x):
            result = true(x)
            if result.requires_grad and result.layout is not torch.strided:
                result.register_hook(lambda gradient: gradient * 2)
            return result

        return t

    with patched(torch.Tensor, "t", make):
        yield


@fault("sparse_gradients/a_leaf_of_compressed_rows_gets_a_gradient_of_compressed_rows")
def the_gradient_of_compressed_rows_has_coordinates():
    """The .grad of a leaf of compressed rows is in coordinate format."""

    def convert(leaf, before):
        if leaf.layout is torch.sparse_csr:
            leaf.grad = leaf.grad.to_sparse()

    with after_backward(convert):
        yield


@fault("sparse_gradients/a_leaf_of_compressed_rows_gets_a_gradient_of_compressed_rows")
def a_second_gradient_of_compressed_rows_is_lost():
    """The second backward leaves the .grad of a leaf of compressed rows as the first left it."""

    def forget(leaf, before):
        if leaf.layout is torch.sparse_csr and before is not None:
            leaf.grad = before

    with after_backward(forget):
        yield


@fault("sparse_gradients/products_outside_of_torch_sparse_give_a_sparse_leaf_a_dense_gradient")
def a_dense_gradient_of_a_sparse_leaf_is_masked():
    """The .grad of a sparse leaf is zero where the leaf has no element."""

    def mask(leaf, before):
        if leaf.layout is not torch.strided and leaf.grad.layout is torch.strided:
            leaf.grad.mul_(leaf.to_dense() != 0)

    with after_backward(mask):
        yield


@fault("sparse_gradients/a_product_of_sparse_tensors_can_be_differentiated")
def the_second_sparse_factor_gets_twice_its_gradient():
    """The derivative of torch.sparse.mm by a sparse second factor is doubled."""

    def make(true):
        def mm(a, b, *reduce):
            if b.is_sparse and b.requires_grad:
                b.register_hook(lambda gradient: gradient * 2)
            return true(a, b, *reduce)

        return mm

    with patched(torch.sparse, "mm", make):
        yield


@fault("sparse_gradients/a_product_of_sparse_tensors_can_be_differentiated")
def the_gradient_of_a_constant_is_kept():
    """torch.sparse.mm of a sparse tensor that doesn't require grad leaves a .grad there."""

    def make(true):
        def mm(a, b, *reduce):
            if a.is_sparse and not a.requires_grad:
                a.grad = a.clone()
            return true(a, b, *reduce)

        return mm

    with patched(torch.sparse, "mm", make):
        yield


@fault("sparse_gradients/the_gradient_of_a_sparse_sum_is_coalesced")
def no_tensor_is_coalesced():
    """is_coalesced() is False for every sparse tensor."""
    with patched(torch.Tensor, "is_coalesced", lambda _: lambda x: False):
        yield


@fault("sparse_gradients/gradients_flow_from_sparse_tensors_to_what_they_were_made_of")
def sparse_copies_pass_on_to_negative_numbers_only():
    """The derivative of to_sparse() is zero for positive numbers."""

    def make(true):
        def to_sparse(x, *args):
            return true(torch.where(x > 0, x.detach(), x), *args)

        return to_sparse

    with patched(torch.Tensor, "to_sparse", make):
        yield


@fault("sparse_gradients/gradients_flow_from_sparse_tensors_to_what_they_were_made_of")
def the_second_value_for_a_place_gets_no_gradient():
    """Of two values for one place only the first gets a gradient."""

    def make(true):
        def sparse_coo_tensor(places, values, *args, **more):
            if values.requires_grad and len(set(places[0].tolist())) < len(values):
                first = torch.arange(len(values), device=values.device) % 2 == 0
                values = torch.where(first, values, values.detach())
            return true(places, values, *args, **more)

        return sparse_coo_tensor

    with patched(torch, "sparse_coo_tensor", make):
        yield


@fault("sparse_gradients/grad_of_a_dense_leaf_may_be_sparse_but_not_the_reverse")
def a_dense_grad_becomes_sparse():
    """A dense tensor that is put into .grad of a sparse leaf is converted, without an error."""

    def assign(put, x, grad):
        put(x, grad.to_sparse() if grad is not None and x.is_sparse and grad.layout is torch.strided else grad)

    with setting_grad(assign):
        yield


@fault("sparse_gradients/grad_of_a_dense_leaf_may_be_sparse_but_not_the_reverse")
def a_refused_compressed_grad_clears_the_old_one():
    """Setting .grad to a tensor in compressed format raises its error, but leaves None."""

    def assign(put, x, grad):
        if grad is not None and grad.layout in COMPRESSED:
            put(x, None)
        put(x, grad)

    with setting_grad(assign):
        yield
