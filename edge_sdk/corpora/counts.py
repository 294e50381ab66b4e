"""Counts of a loaded corpus, the published counts, and their differences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from edge_sdk.corpora.registry import Publication
from edge_sdk.corpora.splits import patients_by_split
from edge_sdk.corpora.table import LABELS, Corpus


def count(corpus: Corpus) -> dict[str, Any]:
    """Counts of a corpus: totals, tallies of rates and labels, and its splits."""
    counts: dict[str, Any] = {
        "recordings": len(corpus.recordings),
        "patients": len(corpus.patients),
        "events": len(corpus.cycles),
        "hours": round(sum(r.duration_s or 0.0 for r in corpus.recordings) / 3600, 3),
        "rates_hz": _tally(str(r.sample_rate) for r in corpus.recordings if r.sample_rate),
        "recording_labels": _tally(r.raw_label for r in corpus.recordings if r.raw_label),
        "event_types": _tally(c.raw_label for c in corpus.cycles),
        "classes": _tally(c.label for c in corpus.cycles),
        "splits_published": split_counts(corpus),
    }
    if corpus.phases or corpus.sounds:
        counts["phases"] = _tally(p.phase for p in corpus.phases)
        counts["sounds"] = _tally(s.sound for s in corpus.sounds)
    if corpus.known_overlap:
        counts["patients_in_train_and_test"] = list(_on_both_sides(corpus))
    if corpus.cycles:
        counts["split_classes"] = {split: dict(tally) for split, tally in _classes(corpus).items() if split}
    return counts


def split_counts(corpus: Corpus) -> dict[str, dict[str, int]]:
    """Recordings, patients and events of each split."""
    events = Counter(cycle.split for cycle in corpus.cycles)
    recordings = Counter(recording.split for recording in corpus.recordings)
    return {
        split: {"recordings": recordings[split], "patients": len(names), "events": events[split]}
        for split, names in patients_by_split(corpus).items()
    }


def _classes(corpus: Corpus) -> dict[str | None, Counter[str]]:
    found: dict[str | None, Counter[str]] = {}
    for cycle in corpus.cycles:
        found.setdefault(cycle.split, Counter())[cycle.label] += 1
    return found


def _tally(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())


def published(publication: Publication | None) -> dict[str, Any]:
    """The published counts with the keys of :func:`count`; empty where none are stated."""
    if publication is None:
        return {}
    totals = {
        "recordings": publication.recordings,
        "patients": publication.patients,
        "events": publication.events,
        "rate_hz": publication.rate_hz,
        "categories": publication.categories,
    }
    stated: dict[str, Any] = {name: value for name, value in totals.items() if value}
    if publication.splits:
        patients = dict(publication.split_patients)
        stated["splits"] = {
            split: {"recordings": recordings, "events": events}
            | ({"patients": patients[split]} if split in patients else {})
            for split, recordings, events in publication.splits
        }
    if publication.classes:
        stated["classes"] = {
            label: sum(numbers[k] for _, numbers in publication.classes) for k, label in enumerate(LABELS)
        }
        stated["split_classes"] = {
            split: dict(zip(LABELS, numbers, strict=True)) for split, numbers in publication.classes
        }
    if publication.shared is not None:
        stated["patients_in_train_and_test"] = list(publication.shared)
    for name, rows in (
        ("phases", publication.phases),
        ("sounds", publication.sounds),
        ("recording_labels", publication.kinds),
    ):
        if rows:
            stated[name] = dict(rows)
    return stated


def discrepancies(publication: Publication | None, corpus: Corpus) -> Iterator[str]:
    """``<found> of <stated> <what>`` for every count that differs."""
    if publication is None:
        return
    rows = [
        ("recordings", len(corpus.recordings), publication.recordings),
        ("patients", len(corpus.patients), publication.patients),
        ("events", len(corpus.cycles), publication.events),
    ]
    present = split_counts(corpus)
    nothing = {"recordings": 0, "events": 0, "patients": 0}
    for split, recordings, events in publication.splits:
        found = present.get(split, nothing)
        rows.append((f"recordings in {split}", found["recordings"], recordings))
        rows.append((f"events in {split}", found["events"], events))
    rows += [
        (f"patients in {split}", present.get(split, nothing)["patients"], n) for split, n in publication.split_patients
    ]
    classes = _classes(corpus)
    for split, numbers in publication.classes:
        rows += [
            (f"{label} in {split}", classes.get(split, Counter())[label], n)
            for label, n in zip(LABELS, numbers, strict=True)
        ]
    phases, sounds = Counter(p.phase for p in corpus.phases), Counter(s.sound for s in corpus.sounds)
    rows += [(f"{name} phases", phases[name], n) for name, n in publication.phases]
    rows += [(f"{name} events", sounds[name], n) for name, n in publication.sounds]
    kinds = Counter(r.raw_label for r in corpus.recordings)
    rows += [(f"recordings of {name}", kinds[name], n) for name, n in publication.kinds]
    rows.append(
        ("recording labels", len({r.raw_label for r in corpus.recordings if r.raw_label}), publication.categories)
    )
    for what, found_count, stated in rows:
        if stated and found_count != stated:
            yield f"{found_count} of {stated} {what}"
    yield from _overlap(publication, corpus)


def split_discrepancies(publication: Publication | None, corpus: Corpus) -> Iterator[str]:
    """Differences inside the splits that have exactly the published number of recordings; other splits are ignored."""
    if publication is None or not publication.classes:
        return
    present = split_counts(corpus)
    classes = _classes(corpus)
    whole = [
        split for split, recordings, _ in publication.splits if present.get(split, {}).get("recordings") == recordings
    ]
    for split, numbers in publication.classes:
        for label, stated in zip(LABELS, numbers, strict=True):
            found = classes.get(split, Counter())[label]
            if split in whole and found != stated:
                yield f"{found} of {stated} {label} in {split}"
    for split, stated in publication.split_patients:
        if split in whole and present[split]["patients"] != stated:
            yield f"{present[split]['patients']} of {stated} patients in {split}"
    if len(whole) == len(publication.splits):
        yield from _overlap(publication, corpus)


def _overlap(publication: Publication, corpus: Corpus) -> Iterator[str]:
    if publication.shared is None:
        return
    found = _on_both_sides(corpus)
    if found != publication.shared:
        names = ", ".join(found[:5]) + (", ..." if len(found) > 5 else "")
        yield f"patients {names or 'none'} instead of {', '.join(publication.shared)} in both train and test"


def _on_both_sides(corpus: Corpus) -> tuple[str, ...]:
    patients = patients_by_split(corpus)
    return tuple(sorted(set(patients.get("train", ())) & set(patients.get("test", ()))))
