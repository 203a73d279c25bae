"""Which column is which."""

import pytest
from datasets import Array2D, ClassLabel, Features, Image, Value

from rwalk.streams.tables import find_columns
from streams.features import List

LABEL = ClassLabel(num_classes=3)
NUMBERS = List(Value("float32"), length=4)


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ({"image": Image(), "label": LABEL}, ("image", "label")),
        ({"img": Image(), "kind": LABEL, "id": Value("int64"), "caption": Value("string")}, ("img", "kind")),
        ({"text": Value("string"), "label": Value("int8")}, ("text", "label")),
        ({"x": NUMBERS, "note": Value("string"), "y": Value("uint8")}, ("x", "y")),
        ({"x": Array2D((2, 2), "float32"), "y": LABEL}, ("x", "y")),
        ({"x": List(NUMBERS), "y": LABEL, "z": List(Value("string"))}, ("x", "y")),
        ({"text": Value("large_string"), "label": LABEL, "score": Value("float32")}, ("text", "label")),
    ],
)
def test_columns_are_told_by_their_type(features, expected):
    assert find_columns("cats", Features(features)) == expected


def test_a_column_that_is_named_settles_it():
    features = Features({"a": Image(), "b": Image(), "coarse": LABEL, "fine": LABEL, "name": Value("string")})
    assert find_columns("cats", features, "b", "fine") == ("b", "fine")
    assert find_columns("cats", features, "a", "name") == ("a", "name")
    two_texts = Features({"title": Value("string"), "genre": Value("string")})
    assert find_columns("books", two_texts, label_column="genre") == ("title", "genre")
    assert find_columns("books", Features({"n": Value("int64"), "m": Value("int64")}), "n", "m") == ("n", "m")


@pytest.mark.parametrize(
    ("features", "options", "message"),
    [
        (
            {"image": Image(), "coarse": LABEL, "fine": LABEL},
            {},
            "cats has several columns of classes, 'coarse', 'fine': choose one with label_column",
        ),
        (
            {"a": Image(), "b": Image(), "label": LABEL},
            {},
            "cats has several columns of images, 'a', 'b': choose one with input_column",
        ),
        (
            {"image": Image(), "id": Value("int64"), "kind": Value("int64")},
            {},
            "cats has several columns of whole numbers, 'id', 'kind': choose one with label_column",
        ),
        (
            {"image": Image(), "caption": Value("string")},
            {},
            "cats has no column of class labels among 'image' (images), 'caption' (text): name one with label_column",
        ),
        (
            {"width": Value("float32"), "label": LABEL},
            {},
            "cats has no column of images, arrays or text among 'width' (float32): name one with input_column",
        ),
        ({"image": Image(), "label": LABEL}, {"label_column": "kind"}, "label_column='kind': cats has the columns 'im"),
        ({"image": Image(), "label": LABEL}, {"input_column": "img"}, "input_column='img': cats has the columns 'im"),
        (
            {"text": Value("string")},
            {"input_column": "text", "label_column": "text"},
            "cats: column 'text' cannot hold both inputs and labels",
        ),
    ],
)
def test_what_cannot_be_told_is_refused_with_the_columns_and_the_option_to_give(features, options, message):
    with pytest.raises(ValueError) as error:
        find_columns("cats", Features(features), **options)
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1
