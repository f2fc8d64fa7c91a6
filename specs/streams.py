"""Streams: on which of them backward runs, and what may be done before and after without waiting."""

import contextlib

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import claim, same, values


@contextlib.contextmanager
def on(stream):
    """A block in which the stream is the current one of its device."""
    before = torch.accelerator.current_stream(stream.device)
    torch.accelerator.set_stream(stream)
    try:
        yield
    finally:
        torch.accelerator.set_stream(before)


def streams_of(device):
    """The current stream of a device, and two others."""
    return [torch.accelerator.current_stream(device), torch.Stream(device=device), torch.Stream(device=device)]


def occupy(device):
    """Give the current stream something to do for a while, where that can be done without anyone waiting."""
    sleep = getattr(getattr(torch, device.type), "_sleep", None)
    if sleep:
        sleep(1_000_000)  # cycles


class Streams(torch.autograd.Function):
    """The identity; it notes the current streams of its forward and of its backward."""

    @staticmethod
    def forward(ctx, x, seen):
        """A copy of x."""
        ctx.seen = seen
        ctx.place = len(seen)
        seen.append([torch.accelerator.current_stream(x.device)])
        return x.clone()

    @staticmethod
    def backward(ctx, cotangent):
        """The cotangent."""
        ctx.seen[ctx.place].append(torch.accelerator.current_stream(cotangent.device))
        return cotangent, None


STREAM = st.integers(0, 2)


@claim(
    cites=["cuda_semantics/backward-runs-on-the-streams-of-forward"],
    since="2.6",
    needs=["streams"],
)
@given(v=values(), path=st.lists(STREAM, min_size=1, max_size=6), around=STREAM, beside=STREAM, retain=st.booleans())
def spec_backward_runs_on_the_streams_of_forward(world, v, path, around, beside, retain):
    """Backward runs the part of each operation on the stream that was the current one when the operation was done,
    whichever is current where backward is called; that one is current again behind the call."""
    x = world.leaf(v)
    streams, seen = streams_of(x.device), []

    ends = []
    for branch in (path, [beside]):
        y = x
        for number in branch:
            streams[number].wait_stream(torch.accelerator.current_stream(x.device))
            with on(streams[number]):
                y = Streams.apply(y, seen)
            torch.accelerator.current_stream(x.device).wait_stream(streams[number])
        ends.append(y)
    with on(streams[around]):
        streams[around].wait_stream(streams[0])
        loss = (ends[0] + ends[1]).sum()
        for _ in range(1 + retain):
            loss.backward(retain_graph=True)
        same(torch.accelerator.current_stream(x.device) == streams[around], True, why="it is the caller's")

    for number, (forward, *backwards) in zip([*path, beside], seen):
        same(forward == streams[number], True, why=f"it was done on stream {number}")
        same([b == forward for b in backwards], [True] * (1 + retain), why=f"the streams were {path} and {beside}")


@claim(
    cites=["cuda_semantics/backward-is-a-call-like-others-to-streams"],
    since="2.6",
    needs=["streams"],
)
@given(
    v=values(shapes=((), (2,), (2, 3))),
    path=st.lists(st.tuples(STREAM, st.integers(-2, 2)), min_size=1, max_size=4),
    around=STREAM,
    number=st.integers(-3, 3),
    passes=st.integers(1, 3),
)
def spec_gradients_can_be_used_on_the_stream_of_the_call(world, v, path, around, number, passes):
    """On the stream that is current where backward is called, a gradient that was made there may be passed, and what
    backward computes may be used behind it, with nothing in between, whichever streams backward ran on."""
    x = world.leaf(v)
    streams, product = streams_of(x.device), 1

    total = torch.zeros_like(x).detach()
    for count in range(1, passes + 1):
        y, product = x, 1
        for which, factor in path:
            current = torch.accelerator.current_stream(x.device)
            streams[which].wait_stream(current)
            with on(streams[which]):
                occupy(x.device)
                y = y * factor
            current.wait_stream(streams[which])  # of the forward pass the user takes care
            product *= factor
        streams[around].wait_stream(streams[0])
        with on(streams[around]):
            occupy(x.device)
            y.backward(torch.full_like(y, number).detach())
            total = x.grad * 1
        streams[0].wait_stream(streams[around])
        same(total, torch.full_like(x, count * number * product).detach(), why=f"{count} backwards through {path}")
