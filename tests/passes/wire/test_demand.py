"""Which axes of an input are its neurons: the ones that the network first contracts."""

# ruff: noqa: E501  (program text)
from __future__ import annotations

import pytest

from ngc.errors import OptionError
from ngc.passes.wire import identity_axes
from tests.passes.program.golden import program_of

CONVOLUTION = "weight=@k strides=[1,1] pads=[0,0,0,0] dilations=[1,1] groups=1"


def axes(body: str, **given: tuple[int, ...]) -> tuple[int, ...]:
    """Axes of %x."""
    return identity_axes(program_of(body), given)["x"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(
            """
            @w = param float32 [2,3]
            %x = input float32 [1,3]
            %y = linear float32 [1,2] x=%x weight=@w spec="bi,oi->bo"
            return y=%y
            """,
            (1,),
            id="features of a row",
        ),
        pytest.param(
            """
            @w = param float32 [2,3]
            %x = input float32 [1,5,3]
            %y = linear float32 [1,5,2] x=%x weight=@w spec="bti,oi->bto"
            return y=%y
            """,
            (2,),
            id="features of tokens",
        ),
        pytest.param(
            f"""
            @k = param float32 [2,3,1,1]
            %x = input float32 [1,3,4,4]
            %y = convolution float32 [1,2,4,4] x=%x {CONVOLUTION}
            return y=%y
            """,
            (1,),
            id="channels first",
        ),
        pytest.param(
            f"""
            @k = param float32 [2,3,1,1]
            %x = input float32 [1,4,4,3]
            %t = transpose float32 [1,3,4,4] x=%x perm=[0,3,1,2]
            %y = convolution float32 [1,2,4,4] x=%t {CONVOLUTION}
            return y=%y
            """,
            (3,),
            id="channels last",
        ),
        pytest.param(
            """
            @w = param float32 [2,12]
            %x = input float32 [1,3,2,2]
            %f = reshape float32 [1,12] x=%x
            %y = linear float32 [1,2] x=%f weight=@w spec="bi,oi->bo"
            return y=%y
            """,
            (1, 2, 3),
            id="a flattened image: every pixel of every channel",
        ),
        pytest.param(
            f"""
            @k = param float32 [2,1,1,1]
            %x = input float32 [1,1,4,4]
            %y = convolution float32 [1,2,4,4] x=%x {CONVOLUTION}
            return y=%y
            """,
            (),
            id="one channel",
        ),
        pytest.param(
            f"""
            @k = param float32 [2,3,1,1]
            %x = input float32 [1,3,2,2]
            %p = pad float32 [1,3,4,4] x=%x pads=[0,0,1,1,0,0,1,1]
            %y = convolution float32 [1,2,4,4] x=%p {CONVOLUTION}
            return y=%y
            """,
            (1,),
            id="padded before",
        ),
        pytest.param(
            """
            @m = param float32 [3]
            @w = param float32 [2,3]
            %x = input float32 [1,5,3]
            %s = shift float32 [1,5,3] x=%x term=@m fn="sub"
            %n = normalise float32 [1,5,3] x=%s fn="standard" axes=[2]
            %a = activation float32 [1,5,3] x=%n fn="tanh"
            %y = linear float32 [1,5,2] x=%a weight=@w spec="bti,oi->bto"
            return y=%y
            """,
            (2,),
            id="behind entry-by-entry operations",
        ),
        pytest.param(
            """
            @w = param float32 [2,3]
            %x = input float32 [1,5,3]
            %m = reduce float32 [1,3] x=%x fn="mean" axes=[1] keepdims=false
            %y = linear float32 [1,2] x=%m weight=@w spec="bi,oi->bo"
            return y=%y
            """,
            (2,),
            id="behind a mean over tokens",
        ),
        pytest.param(
            """
            @w = param float32 [5,7]
            %z = input float32 [1,4,5]
            %x = input float32 [1,4,2]
            %c = concat float32 [1,4,7] xs=[%z,%x] axis=2
            %y = linear float32 [1,4,5] x=%c weight=@w spec="bti,oi->bto"
            return y=%y
            """,
            (2,),
            id="joined with another input",
        ),
        pytest.param(
            """
            @w = param float32 [5,2]
            %z = input float32 [1,4,2]
            %x = input float32 [1,4,2]
            %s = combine float32 [1,4,2] xs=[%z,%x] fn="add"
            %y = linear float32 [1,4,5] x=%s weight=@w spec="bti,oi->bto"
            return y=%y
            """,
            (2,),
            id="added to another input",
        ),
        pytest.param(
            """
            %x = input float32 [1,3,4,4]
            %y = pool float32 [1,3,2,2] x=%x fn="max" kernel=[2,2] strides=[2,2] pads=[0,0,0,0] dilations=[1,1]
            return y=%y
            """,
            (1,),
            id="pooled",
        ),
        pytest.param(
            """
            @w = param float32 [5,2]
            %x = input int64 [1,4]
            %y = embedding float32 [1,4,2] ids=%x weight=@w
            return y=%y
            """,
            (),
            id="ids of tokens are one neuron",
        ),
        pytest.param(
            """
            @w = param float32 [5,12]
            %x = input float32 [1,3,4,4]
            %r = reshape float32 [1,3,2,2,2,2] x=%x
            %t = transpose float32 [1,2,2,3,2,2] x=%r perm=[0,2,4,1,3,5]
            %p = reshape float32 [1,4,12] x=%t
            %y = linear float32 [1,4,5] x=%p weight=@w spec="bti,oi->bto"
            return y=%y
            """,
            (1,),
            id="cut into patches: pixels of a patch are entries of kernels",
        ),
        pytest.param(
            """
            @w = param float32 [5,4]
            %x = input float32 [1,12]
            %r = reshape float32 [1,3,4] x=%x
            %y = linear float32 [1,3,5] x=%r weight=@w spec="bti,oi->bto"
            return y=%y
            """,
            (1,),
            id="features cut into pieces stay neurons",
        ),
        pytest.param("%x = input float32 [1,3,4]\nreturn y=%x", (1,), id="nothing contracts it"),
        pytest.param("%x = input float32 [3]\nreturn y=%x", (0,), id="a vector"),
        pytest.param("%x = input float32 []\nreturn y=%x", (), id="a scalar"),
    ],
)
def test_axes_of_neurons(body: str, expected: tuple[int, ...]) -> None:
    assert axes(body) == expected


# Features of tokens, %h [1,5,3]: axis 1 is one of positions.
TOKENS = """
    @w = param float32 [3,2]
    %z = input float32 [1,5,2]
    %h = linear float32 [1,5,3] x=%z weight=@w spec="bti,oi->bto"
"""


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(
            """
            %x = input bool [1,5]
            %k = transpose float32 [1,3,5] x=%h perm=[0,2,1]
            %s = contract float32 [1,5,5] a=%h b=%k spec="bqd,bdk->bqk"
            %r = reshape bool [1,1,5] x=%x
            %zero = constant float32 [1] data=float32[1]{-9.0}
            %m = combine float32 [1,5,5] xs=[%r,%s,%zero] fn="where"
            %y = softmax float32 [1,5,5] x=%m fn="softmax" axis=2
            return y=%y
            """,
            (),
            id="a mask of keys acts along positions",
        ),
        pytest.param(
            """
            %x = input float32 [1,5]
            %r = reshape float32 [1,5,1] x=%x
            %y = combine float32 [1,5,3] xs=[%h,%r] fn="mul"
            return y=%y
            """,
            (),
            id="a weight of each token",
        ),
        pytest.param(
            """
            %x = input float32 [1,3]
            %r = reshape float32 [1,1,3] x=%x
            %y = combine float32 [1,5,3] xs=[%h,%r] fn="mul"
            return y=%y
            """,
            (1,),
            id="a gate of each feature",
        ),
        pytest.param(
            """
            %x = input float32 [1,5,3]
            %y = combine float32 [1,5,3] xs=[%h,%x] fn="add"
            return y=%y
            """,
            (2,),
            id="features that are added to others",
        ),
        pytest.param(
            """
            %x = input float32 [1,4,3]
            %y = concat float32 [1,9,3] xs=[%x,%h] axis=1
            return y=%y
            """,
            (2,),
            id="keys of earlier tokens",
        ),
        pytest.param(
            """
            %x = input float32 [5,5]
            %y = contract float32 [1,5,3] a=%x b=%h spec="nm,bmf->bnf"
            return y=%y
            """,
            (),
            id="which nodes of a network are joined",
        ),
        pytest.param(
            """
            %x = input float32 [1,4,3]
            %y = contract float32 [1,5,4] a=%h b=%x spec="bqd,bkd->bqk"
            return y=%y
            """,
            (2,),
            id="keys that queries are held against",
        ),
        pytest.param(
            """
            %x = input float32 [1,5]
            %b = input float32 [1,5]
            %s = combine float32 [1,5] xs=[%x,%b] fn="mul"
            %r = reshape float32 [1,5,1] x=%s
            %y = combine float32 [1,5,3] xs=[%h,%r] fn="mul"
            return y=%y
            """,
            (),
            id="another input says nothing until it is known itself",
        ),
    ],
)
def test_an_input_that_nothing_contracts_has_the_axes_of_what_it_meets(
    body: str, expected: tuple[int, ...]
) -> None:
    assert axes(TOKENS + body) == expected


SKIP = """
    @v = param float32 [3,2]
    @w = param float32 [5,2]
    %x = input float32 [1,2,3]
    %a = linear float32 [1,2,2] x=%x weight=@v spec="bti,io->bto"
    %t = transpose float32 [1,3,2] x=%x perm=[0,2,1]
    %b = linear float32 [1,3,5] x=%t weight=@w spec="bti,oi->bto"
    return a=%a b=%b
"""


def test_the_first_operation_decides() -> None:
    assert axes(SKIP) == (2,)


def test_given_axes_are_taken() -> None:
    assert axes(SKIP, x=(1,)) == (1,)


def test_parameters_are_sources_too() -> None:
    found = identity_axes(
        program_of("""
        @t = param float32 [1,4,3]
        @w = param float32 [2,3]
        %t = parameter float32 [1,4,3] data=@t
        %y = linear float32 [1,4,2] x=%t weight=@w spec="bti,oi->bto"
        return y=%y
        """),
        {},
    )
    assert found == {"t": (2,)}


def test_unknown_inputs_and_axes_are_refused() -> None:
    with pytest.raises(OptionError, match="no input is called 'z'"):
        axes(SKIP, z=(1,))
    with pytest.raises(OptionError, match="input 'x' has no axis 3"):
        axes(SKIP, x=(3,))
