"""Numbers are read to the end of their expression or not at all."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laser.evaluation.numbers import MINUS_SIGNS, UnreadableError, read_number, same_number, whole_number_text

READ = {
    "51": ["51", "51.", "51!", "$51", "$51$", r"\$51", "US$51", "€51", "51 €", "USD 51", "51 dollars", "51元", "5１"],
    "51 ": ["**51**", "_51_", "`51`", '"51"', "(51)", "{51}", r"\(51\)", r"\[51\]", r"$\boxed{51}$", r"\text{51}"],
    "51  ": ["3 + 48 = 51", "x = 51", "51 = 3 + 48", "51, since x = 3", "51 because 3 + 48", "51 (3 + 48)", "about 51"],
    "51   ": [
        "51 km/h",
        "51 cm^2",
        "51 mm",
        "51 milliliters",
        "51 miles",
        "$51 m$",
        "51 m²",
        "51kg",
        r"51\text{ cm}",
        r"51^\circ",
        "51 in total",
        "51 for 2 days",
    ],
    "51    ": ["51 apples, as expected", "51 quarters", "51st", "2 boxes of 3 + 45 = 51", "x ≈ 51", "≈ 51"],
    "-5": [*(f"{minus}{blank}5" for minus in "-" + MINUS_SIGNS for blank in ("", " ")), "-$5", "$-5", "minus 5"],
    "-5 ": ["⁻5", "—5", "the total is - 5", "negative 5", r"-\frac{10}{2}", "$-5$"],
    "3/4": [
        r"\frac{3}{4}",
        r"\dfrac{3}{4}",
        r"\tfrac34",
        "3/4",
        "3 / 4",
        "3⁄4",
        "¾",
        "0.75",
        "75%",
        r"75\%",
        "75 percent",
    ],
    "3/4 ": [r"{3 \over 4}", "3/4 of the cake", r"$\frac{3}{4}$", "0.75 cups", "75 %"],
    "5/2": ["2 1/2", "2½", "2 ½", r"2\frac{1}{2}", "2 and 1/2", "2.5"],
    "1234": [
        "1,234",
        "1 234",
        "1\u202f234",
        "1\u00a0234",
        "1\u2009234",
        r"1\,234",
        "1{,}234",
        r"1,\!234",
        "1'234",
        "1_234",
    ],
    "1234567": ["1,234,567", "1 234 567", "12,34,567"],
    "1000": ["10^3", "10³", "10^{3}", "10**3", r"$10^3$", "1e3", "1 thousand"],
    "1/1000": ["10^{-3}", "10⁻³", "1e-3", "0.001", ".001"],
    "30000": [r"3 \times 10^4", "3 × 10⁴", "3*10^4", "3x10^4", "3·10^4", "3万", "30 thousand"],
    "2500000": ["2.5 million", "2.5 million dollars", "$2.5 million"],
    "60": ["5 dozen", "60", "5 dozen, or 60", "60 (5 dozen)", "5-dozen eggs", "10 × 6 = 60"],
    "6": ["½ dozen", "half a dozen (6)", "Maybe 6", "Janet: 6", "6 to the north", "6 fifth graders"],
    "51/100": [
        "51%, or 0.51",
        "0.51 or 51%",
        "51% = 0.51",
        "0.51 (51%)",
        "51/100, or 0.51",
        "51 ٪",
        r"51\ \%",
        "51&percnt;",
    ],
    "125": ["5<sup>3</sup>", "<b>125</b>", "125<br>", "&#36;125", "125.0 or 125", "250 ÷ 2 = 125"],
    "1/3": ["1/3 ≈ 0.333", "1/3"],
}


@pytest.mark.parametrize(("value", "text"), [(value, text) for value, texts in READ.items() for text in texts])
def test_a_number_is_read_to_its_end(value, text):
    assert read_number(text).value == Fraction(value.strip())


UNREAD = [
    *("12:30", "10:30 pm", "10 AM", "3:2", "3 : 2", "5 or 6", "5-6", "5–6", "5 - 6", "5 to 6", "between 5 and 6"),
    *("5 ± 1", "±5", "192.168.0.1", "1.2.3", "v1.2", "2024-05-01", "5/6/2024", "May 5", "5 May 2024", "5th of May"),
    *("3√2", "2π", r"2\pi", "5x", "3i", r"\sqrt{3}", r"\frac{\pi}{2}", r"\frac12 x", "x^2", "2^x", "2^{0.5}", "GPT-4"),
    *("5 feet 3 inches", "2 hours and 30 minutes", "5'3\"", "5, 6", "(1, 2)", "[3, 5]", "3,5", "1,234,56", "1.234,56"),
    *("3 + 4", "3 × 4", "6 ÷ 2", "> 5", "x > 5", "≤ 5", "0.333...", "0.333…", "x = 5, y = 6", "$5M", "5k", "0,123"),
    *("5 apples and 3 pears", "9 out of 10", "1 in 5", "3 of 7", "5 % of 20", "10-20%", "total - 5", "x - 5"),
    *("3∶2", "12h30", "3 +/- 2", "0.3\u0305", "11₂", "2 pi", "log 5", "sqrt(2)", "the square root of 2", "less than 5"),
    *(
        "$1.5m",
        "€2m",
        "1mln",
        "1 Mio.",
        "1 Mrd",
        "1 tn",
        "5 mil",
        "5 quintillion",
        "5 Tausend",
        "5 millones",
        "5 milhões",
    ),
    *(
        "5 mille",
        "5 milliards",
        "5 Milliarden",
        "5 миллионов",
        "5 тыс.",
        "3만",
        "3천",
        "5 milyon",
        "5 triệu",
        "5 tysięcy",
    ),
    *("2 score", "2 gross", "5 tens", "2-thirds", "3 sevenths", "2 ninths", "twice 5", "half of 10", "a third of 9"),
    *("5 squared", "5 cubed", "5 to the power of 2", "5 factorial", "2 k", "$5 M", "not 5", "5 degrees below zero"),
    *("(5)^2", "(-2)^4", "5 ²", "-(-5)", "--5", "|-5|", "3 - -5 = x", r"\sqrt[3]{8}", "⌊5.5⌋", "floor(5.5)", "max(3)"),
    *("0.(3)", r"0.\overline{3}", "0.3 repeating", "0.3 (recurring)", "5 r2", "5R2", "5—6", "5 -> 6", "5 → 6", "10÷2"),
    *(
        "1 e5",
        "0o17",
        "10/x",
        r"10/\pi",
        "10//3",
        "2 to the 4th",
        "2 to the fourth",
        "4th root of 16",
        "5十",
        "11<sub>2</sub>",
    ),
    *("1 third", "1 tenth", "3 eighth of it", "3 grand", "3 bn", "3 zillion", "3 doz.", "3 100-dollar bills"),
    *(
        "2 less than 5",
        "5 more than 3",
        "over 5",
        "under 5",
        "a dozen and 3",
        "two hundred and 5",
        "step 5",
        "Option 2",
    ),
    *("5, no, 6", "5? Wait, 6.", "5, now 6", "5, or 6", "90 minutes, or 1.5 hours", "50% or 0.51", "half a dozen"),
    *("no solution (1 equation)", "cannot be determined from 3 values", "N/A (see 3)", "unknown, as 3 is", "none of 3"),
    *("1" * 4301, "1" * 4999, "-0." + "3" * 4500, "15^4000", "10^4000" + " trillion" * 30),
    *("fifty", "", "half", "2 and a half", "1/0", "9^9^9", "10^99999999", "1e999999", "1 2", "1,2,3", "5(3)"),
]


@pytest.mark.parametrize("text", UNREAD)
def test_what_is_not_one_number_is_not_read(text):
    with pytest.raises(UnreadableError):
        read_number(text)


@pytest.mark.parametrize("text", ["12:30", "3 of 7", "1.2.3", "May 5", "3,5", "5 or 6"])
def test_the_last_number_is_not_the_end_of_an_expression(text):
    with pytest.raises(UnreadableError):
        read_number(f"It was so. The answer is {text}", last=True)


@given(st.integers(-(10**60), 10**60))
def test_whole_numbers_are_exact_however_long(number):
    read = read_number(f"{number:,}")
    assert read.value == number
    assert not same_number(read, read_number(str(number + 1)))


@given(st.fractions(max_denominator=10**6), st.sampled_from(["{}/{}", r"\frac{{{}}}{{{}}}", r"\dfrac{{{}}}{{{}}}"]))
def test_fractions_are_exact(value, form):
    assert read_number(form.format(value.numerator, value.denominator)).value == value


@given(st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=-(10**9), max_value=10**9))
def test_decimals_are_exact(value):
    assert read_number(f"about {value:f} kg").value == Fraction(value)


@given(st.text(alphabet=r"0123456789 .,-+*/^%$\{}()=:abfrcxπ½√", max_size=60), st.booleans())
def test_no_text_breaks_the_reading(text, last):
    try:
        read = read_number(text, last=last)
    except UnreadableError:
        return
    assert read_number(read.text).value == read.value


def test_a_percent_sign_on_one_side_is_compared_both_ways():
    quarter = read_number("25%")
    assert same_number(quarter, read_number("25"))
    assert same_number(quarter, read_number("0.25"))
    assert not same_number(quarter, read_number("2.5"))
    assert not same_number(quarter, read_number("0.25%"))


@pytest.mark.parametrize("text", ["51 dollars", "about 51", "x = 51", "5 or 6", "12:30", "one"])
def test_a_gold_answer_that_is_more_than_a_number_is_not_one(text):
    assert whole_number_text(text) is None
