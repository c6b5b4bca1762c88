"""Random streams: one address, one stream."""

from itertools import product

import pytest

from laser.core.seeding import STREAMS, stream, stream_seed


def test_every_seed_name_and_coordinates_have_a_separate_stream():
    """Also where one list of coordinates is another with zeros behind it."""
    coordinates = [numbers for length in range(4) for numbers in product((0, 1, 2**32 - 1), repeat=length)]
    addresses = list(product((0, 1, 2**32, 2**63 - 1), STREAMS, coordinates))
    drawn = {stream_seed(seed, name, *numbers) for seed, name, numbers in addresses}
    assert len(drawn) == len(addresses) == 4 * len(STREAMS) * 40


def test_a_stream_does_not_depend_on_what_was_drawn_before():
    first = stream(3, "pairs", 1, 2).random(4)
    stream(3, "pairs", 1, 1).random(9)
    assert stream(3, "pairs", 1, 2).random(4).tolist() == first.tolist()


@pytest.mark.parametrize(("name", "coordinates"), [("luck", ()), ("data", (-1,)), ("data", (0, 2**32))])
def test_an_address_that_does_not_exist_is_refused(name, coordinates):
    with pytest.raises(ValueError, match="random stream"):
        stream(0, name, *coordinates)
