"""Good input, a little broken: what random bytes alone would never get deep enough to try."""

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn


@st.composite
def mutated(draw: DrawFn, good: bytes) -> bytes:
    """*good* with up to six cuts, insertions, repeats and overwritten stretches; most of them small."""
    data = bytearray(good)
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(data)))
        length = draw(st.sampled_from([1, 1, 1, 2, 4, 8, 32, 200]))
        match draw(st.sampled_from(["overwrite", "number", "cut", "insert", "repeat"])):
            case "overwrite":
                data[at : at + length] = draw(st.binary(min_size=length, max_size=length))
            case "number":
                data[at : at + 4] = draw(
                    st.sampled_from([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\1"])
                )
            case "cut":
                del data[at : at + length]
            case "insert":
                data[at:at] = draw(st.binary(min_size=1, max_size=length))
            case "repeat":
                data[at:at] = data[at : at + length]
    return bytes(data)


@st.composite
def mutated_text(draw: DrawFn, good: str, alphabet: str) -> str:
    """*good* with up to six stretches replaced by texts, mostly of *alphabet*."""
    text = good
    letters = st.one_of(st.sampled_from(alphabet), st.characters())
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(text)))
        length = draw(st.sampled_from([0, 0, 1, 1, 4, 16]))
        text = text[:at] + draw(st.text(letters, max_size=8)) + text[at + length :]
    return text
