"""A few hundred of the cases that ``make fuzz`` runs by the thousand."""

import pytest

from fuzz import TARGETS, FindingError, driver


@pytest.mark.parametrize("name", [name for name, where in TARGETS.items() if where.startswith("fuzz.states")])
def test_mutated_states_are_refused_or_load_as_what_was_saved(name, tmp_path):
    report = driver.hunt(name, range(50), 1, tmp_path)
    assert report.findings == []
    assert sum(report.endings.values()) == 50
    assert report.endings["refused"] > 20


def case_of(folder):
    """A target with one case of each kind."""

    def case(random):
        way = random.randrange(4)
        if way == 0:
            raise FindingError("wrong")
        if way == 1:
            raise KeyError("undocumented")
        return "refused"

    return case


def test_what_must_not_happen_is_reported(monkeypatch, tmp_path):
    monkeypatch.setattr(driver, "prepared", lambda name, folder: case_of(folder))
    report = driver.hunt("any", range(40), 0, tmp_path)
    told = {ending for _, ending in report.findings}
    assert told == {"FindingError: wrong", "KeyError: 'undocumented'"}
    assert len(report.findings) + report.endings["refused"] == 40
