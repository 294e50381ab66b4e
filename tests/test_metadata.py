"""Metadata becomes the same numbers in training and on a device."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from edge_sdk.metadata import MetadataSchema, checked_metadata, known_metadata
from edge_sdk.vocabulary import SEXES, SITES

TRAIN: list[dict[str, Any]] = [
    {"device": "Meditron", "site": "trachea", "sex": "female", "age_years": 10.0, "bmi": 20.0, "duration_s": 2.0},
    {"device": "Littmann 3200", "site": "left anterior", "sex": None, "age_years": "30", "bmi": math.nan},
    {"device": "meditron ", "site": "", "sex": "unknown", "age_years": None, "bmi": 24.0, "duration_s": 4.0},
]
FIELDS = ("device", "site", "age_years", "bmi", "duration_s")


def test_fit_takes_vocabulary_and_statistics_from_the_rows_it_is_given() -> None:
    schema = MetadataSchema.fit(TRAIN, FIELDS)
    assert schema.categorical == {"device": ("Littmann 3200", "Meditron"), "site": ("left anterior", "trachea")}
    assert schema.continuous == ("age_years", "bmi", "duration_s")
    assert schema.mean == (20.0, 22.0, 3.0)
    assert schema.std == (10.0, 2.0, 1.0)
    assert schema.inputs == ("device", "site", "cont", "cont_valid")


def test_names_absent_from_the_training_rows_are_unknown() -> None:
    schema = MetadataSchema.fit(TRAIN[:1], FIELDS)
    arrays = schema.encode([{"device": "Littmann 3200"}, {"device": " MEDITRON"}, {"device": None}, {}, {"device": 7}])
    np.testing.assert_array_equal(arrays["device"], [0, 1, 0, 0, 0])
    assert arrays["device"].dtype == np.int32
    np.testing.assert_array_equal(arrays["site"], np.zeros(5))


@pytest.mark.parametrize("nothing", [None, math.nan, math.inf, "", "n/a", "old", 1e60, []])
def test_what_is_no_number_is_zero_and_not_valid(nothing: object) -> None:
    arrays = MetadataSchema.fit(TRAIN, FIELDS).encode([{"age_years": nothing, "bmi": 31.5}])
    np.testing.assert_array_equal(arrays["cont"], [[0.0, 31.5, 0.0]])
    np.testing.assert_array_equal(arrays["cont_valid"], [[0.0, 1.0, 0.0]])
    assert arrays["cont"].dtype == arrays["cont_valid"].dtype == np.float32


def test_values_stay_in_raw_units_however_far_out() -> None:
    """Scaling and clipping belong to the graph, so that no client can get them wrong."""
    arrays = MetadataSchema.fit(TRAIN, FIELDS).encode([{"age_years": 1000.0}])
    assert arrays["cont"][0, 0] == 1000.0


def test_schema_survives_json() -> None:
    schema = MetadataSchema.fit(TRAIN, (*FIELDS, "sex"))
    values = json.loads(json.dumps(schema.to_dict()))
    assert values == schema.to_dict()
    again = MetadataSchema.from_dict(values)
    assert again == schema
    for name, array in schema.encode(TRAIN).items():
        np.testing.assert_array_equal(again.encode(TRAIN)[name], array)


def test_fields_without_any_value_train_as_unknown() -> None:
    schema = MetadataSchema.fit([{}], FIELDS)
    assert schema.categorical == {"device": (), "site": ()}
    assert schema.mean == (0.0,) * 3
    assert schema.std == (1.0,) * 3
    assert schema.encode(TRAIN)["device"].tolist() == [0, 0, 0]


def test_a_constant_column_does_not_divide_by_zero() -> None:
    schema = MetadataSchema.fit([{"bmi": 20.0}, {"bmi": 20.0}], ["bmi"])
    assert schema.mean == (20.0,)
    assert schema.std == (1.0,)
    assert schema.inputs == ("cont", "cont_valid")


def test_no_row_makes_empty_arrays_of_the_right_shape() -> None:
    arrays = MetadataSchema.fit(TRAIN, FIELDS).encode([])
    assert arrays["cont"].shape == (0, 3)
    assert arrays["device"].shape == (0,)


def test_bad_schemas_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="blood_type"):
        MetadataSchema.fit(TRAIN, ["blood_type"])
    with pytest.raises(ValueError, match="colour"):
        MetadataSchema.from_dict({"colour": []})
    with pytest.raises(ValueError, match="metadata: mean: Expected `float`, got `str`"):
        MetadataSchema.from_dict({"continuous": ["bmi"], "mean": ["22"], "std": [2.0]})
    with pytest.raises(ValueError, match="twice"):
        MetadataSchema({"device": ("Meditron", "meditron")})
    with pytest.raises(ValueError, match="std"):
        MetadataSchema({}, ("bmi",), (1.0,), (0.0,))
    with pytest.raises(ValueError, match="equal lengths"):
        MetadataSchema({}, ("bmi",))


@pytest.mark.parametrize(("code", "site"), [("p1", "left posterior"), ("Tc", "trachea"), ("lr", "right lateral")])
def test_codes_of_publishers_are_understood(code: str, site: str) -> None:
    assert checked_metadata({"site": code}, None) == {"site": site}


@pytest.mark.parametrize("value", ["nowhere", "left", "p9", 3, "trachea;"])
def test_a_site_outside_the_vocabulary_is_refused_with_it(value: object) -> None:
    with pytest.raises(ValueError, match=", ".join(SITES)):
        checked_metadata({"site": value}, None)


@pytest.mark.parametrize("value", ["x", "0", "woman", True])
def test_a_sex_outside_the_vocabulary_is_refused_with_it(value: object) -> None:
    with pytest.raises(ValueError, match=", ".join(SEXES)):
        checked_metadata({"sex": value}, None)


def test_the_names_of_a_model_are_accepted_too() -> None:
    schema = MetadataSchema({"site": ("Back",)})
    assert checked_metadata({"site": "back"}, schema) == {"site": "Back"}
    assert checked_metadata({"site": "trachea"}, schema) == {"site": "trachea"}  # a site, though the model has none
    with pytest.raises(ValueError, match="Back, trachea"):
        checked_metadata({"site": "front"}, schema)


@pytest.mark.parametrize("nothing", [None, "", "unknown", "N/A"])
def test_what_is_unknown_is_left_out(nothing: object) -> None:
    assert checked_metadata({"site": nothing, "sex": nothing, "age_years": nothing}, None) == {}


def test_of_a_device_only_what_is_known_counts() -> None:
    found, problems = known_metadata({"site": "of code 77", "device": "X", "age_years": 3}, None)
    assert found == {"device": "X", "age_years": 3.0}
    assert len(problems) == 1 and "of code 77" in problems[0]
